"""Tables and charts of a report as files to save: links that hold the file, as nothing runs in the page."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Sequence
from html.parser import HTMLParser

from kerasrobust.show.charts import Panel
from kerasrobust.show.export.pictures import Figure, standalone
from kerasrobust.show.export.subject import slug
from kerasrobust.show.figures import attack_name, format_norm


class _Rows(HTMLParser):
    """Reads the rows of a table's body; that of a group, such as a network, is put before those that follow it."""

    def __init__(self, body: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.groups: list[str] = []
        self._group: list[str] | None = None
        self._named = False
        self.feed(body)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self._named = False
            self._group = [] if ("class", "group") in attrs else None
            if self._group is None:
                self.rows.append([])
                self.groups.append(self.groups[-1] if self.groups else "")
        elif tag == "td":
            self.rows[-1].append("")
        elif tag == "span" and self._group:  # What is said of it, behind its name.
            self._named = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "tr" and self._group is not None:
            # The next row takes it over from here.
            self.groups.append(" ".join("".join(self._group).split()))
            self.rows.append([])
            self._group = None

    def handle_data(self, data: str) -> None:
        if self._group is not None:
            self._group += [] if self._named else [data]
        elif self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def csv_link(body: str, columns: Sequence[str], heading: str) -> str:
    """Returns a link that saves a table as CSV, with the figures as they are shown.

    Args:
        body: of the table, as HTML.
        columns: their headings.
        heading: the table's, which the file is named after.
    """
    read = _Rows(body)
    file = io.StringIO()
    writer = csv.writer(file)
    grouped = any(read.groups)
    writer.writerow([*(["Group"] if grouped else []), *columns])
    for group, row in zip(read.groups, read.rows, strict=True):
        if row:
            cells = (" ".join(cell.split()) for cell in row)
            writer.writerow([*([group] if grouped else []), *cells])
    return _link("CSV", f"{slug(heading)}.csv", "text/csv", file.getvalue())


def svg_link(panel: Panel, *, synthetic: bool) -> str:
    """Returns a link that saves a chart as SVG that needs no style sheet."""
    title = ", ".join(filter(None, (attack_name(panel.attack), format_norm(panel.norm))))
    name = slug(f"{panel.attack} {panel.norm} over {panel.over}")
    return _of_figure(Figure.of_panel(panel, name, title, synthetic=synthetic))


def map_link(chart: str, title: str) -> str:
    """Returns a link that saves a heat map, an SVG element, as SVG that needs no style sheet."""
    return _of_figure(Figure(name=slug(title), title=title, chart=chart, legend=()))


def _of_figure(figure: Figure) -> str:
    return _link("SVG", f"{figure.name}.svg", "image/svg+xml", standalone(figure))


def _link(words: str, name: str, kind: str, content: str) -> str:
    data = base64.b64encode(content.encode()).decode()
    return f'<a class=save download="{name}" href="data:{kind};base64,{data}">{words}</a>'

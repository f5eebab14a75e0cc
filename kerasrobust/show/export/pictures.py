"""The figures of a run as files of their own: SVG with its colours inside, and the same as PNG."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path

from kerasrobust.errors import InputError
from kerasrobust.records import Result
from kerasrobust.show.charts import Line, Panel, Point, curve_panels, draw, result_panels, swatch
from kerasrobust.show.confusion import confusion_maps
from kerasrobust.show.corrupted import CorruptionMap
from kerasrobust.show.export.metrics import Measured, events_of, trainings
from kerasrobust.show.export.subject import Part, Subject, free, slug
from kerasrobust.show.figures import attack_name, format_norm
from kerasrobust.show.heat import draw_heat
from kerasrobust.show.tables import SYNTHETIC

_MARGIN, _TITLE, _ROW = 8, 26, 19
_ZOOM = 3
"""Pixels of a PNG file for one of the SVG: as wide as a column of a page at 300 dpi."""

_FONTS = "Helvetica, Arial, Liberation Sans, DejaVu Sans, Noto Sans, Segoe UI, sans-serif"
_DRAWING = ("fill", "fill-opacity", "font-size", "opacity", "stroke", "stroke-linejoin", "stroke-width")
_VARIABLE = re.compile(r"var\((--\w+)\)")
_LACKS = (
    "Expected the package resvg-py, which makes PNG files of figures. Received: none. "
    "pip install 'kerasrobust[png]', or take --format svg."
)
_CURVES = {
    "accuracy": "training", "val_accuracy": "validation", "val_robust_accuracy": "validation, under attack",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure of a run.

    Attributes:
        name: of its file, without the ending.
        title: above it.
        chart: an SVG element with a `viewBox` from 0 0, in classes of `report.css`.
        legend: what stands below it: pieces of SVG, 34 wide and 14 high, each with its words.
        note: a last line.
    """

    name: str
    title: str
    chart: str
    legend: Sequence[tuple[str, str]]
    note: str = ""

    @classmethod
    def of_panel(cls, panel: Panel, name: str, title: str, *, synthetic: bool) -> Figure:
        legend = [(swatch(line), line.label) for line in panel.lines]
        note = SYNTHETIC.partition(".")[0] if synthetic else ""
        return cls(name=name, title=title[:1].upper() + title[1:], chart=draw(panel), legend=legend, note=note)


def figures(subject: Subject) -> list[Figure]:
    """Returns the figures that a run has: those of its report, and the accuracies of its trainings by epoch."""
    card = subject.card
    drawn = [
        (panel, f"{panel.attack} {panel.norm}", f"{attack_name(panel.attack)}, {format_norm(panel.norm)}")
        for panel in (result_panels(card) if isinstance(card, Result) else curve_panels(card.entries))
    ]
    # A run that only trains has the run's name in its place.
    for panel in training_panels(trainings(events_of(subject))):
        drawn.append((panel, panel.attack, f"Accuracy: {subject.name if panel.attack == 'train' else panel.attack}"))
    synthetic = card.data.synthetic
    names: list[str] = []
    for panel, name, _ in drawn:
        names.append(free(slug(f"{name} over {panel.over}"), names))
    found = [
        Figure.of_panel(panel, name, title, synthetic=synthetic)
        for name, (panel, _, title) in zip(names, drawn, strict=True)
    ]
    for number, (model, one) in enumerate(card.models if isinstance(card, Result) else ()):
        for words, chart in confusion_maps(one):
            title = f"{words} by true and predicted class, in %{f': {model}' if model else ''}"
            names.append(free(slug(f"confusion {words if words != 'Unchanged images' else ''} {model}"), names))
            found.append(Figure(name=names[-1], title=title, chart=chart, legend=()))
        corruptions = CorruptionMap.parse(one.corruptions)
        if corruptions is not None:
            title = f"Accuracy by corruption and severity, in %{f': {model}' if model else ''}"
            name = free(slug(f"corruptions {model}"), names) if number else "corruptions"
            names.append(name)
            found.append(Figure(name=name, title=title, chart=draw_heat(corruptions), legend=()))
    return found


def training_panels(measured: Sequence[Measured]) -> list[Panel]:
    """Returns a panel for each training of more than one epoch: accuracy on training and validation images."""
    stages = dict.fromkeys(item.stage for item in measured)
    found = [Panel(attack=stage, norm="", over="epoch", lines=list(_lines(measured, stage))) for stage in stages]
    return [panel for panel in found if panel.lines]


def _lines(measured: Sequence[Measured], stage: str) -> Iterator[Line]:
    own = sorted((item for item in measured if item.stage == stage), key=lambda item: item.epoch)
    for series, (name, label) in enumerate(_CURVES.items()):
        points = [
            Point(at=item.epoch, accuracy=item.values[name], interval=None) for item in own if name in item.values
        ]
        if len(points) > 1:
            yield Line(label=label, series=series, variant=0, points=points)


def svg_parts(subject: Subject) -> list[Part]:
    """Returns an SVG file for each figure."""
    return [Part.of_text(f"{item.name}.svg", item.title, standalone(item)) for item in figures(subject)]


def png_parts(subject: Subject) -> list[Part]:
    """Returns a PNG file for each figure."""

    def part(item: Figure) -> Part:
        drawn = standalone(item)
        return Part(name=f"{item.name}.png", what=item.title, write=lambda path: _write_png(path, drawn), lacks=lacks)

    lacks = "" if importlib.util.find_spec("resvg_py") else _LACKS
    return [part(item) for item in figures(subject)]


def _write_png(path: Path, drawn: str) -> None:
    path.write_bytes(rasterize(drawn))


def rasterize(drawn: str, zoom: float = _ZOOM) -> bytes:
    """Returns an SVG file as a PNG file, on white.

    Args:
        drawn: the SVG, with its size.
        zoom: pixels of the PNG for one of the SVG.

    Raises:
        InputError: where there is no font to write with.
    """
    import resvg_py

    made = resvg_py.svg_to_bytes(svg_string=drawn, zoom=zoom, background="white")
    # Without one of the fonts it leaves the words out, and says nothing.
    if made == resvg_py.svg_to_bytes(svg_string=drawn, zoom=zoom, background="white", skip_system_fonts=True):
        raise InputError(
            f"Expected one of the fonts {_FONTS.removesuffix(', sans-serif')} on this machine. Received: none. "
            "Install one, such as the package fonts-dejavu-core, or take --format svg."
        )
    return bytes(made)


def standalone(figure: Figure) -> str:
    """Returns a figure as an SVG file that needs no style sheet: title, chart and legend, dark on white."""
    found = re.match(r'<svg\b[^>]*\bviewBox="0 0 (\d+) (\d+)"', figure.chart)
    if found is None:
        raise ValueError(f"Expected a chart with a viewBox from 0 0. Received: {figure.chart[:60]!r}.")
    width, height = int(found[1]), int(found[2])
    chart = figure.chart.replace("<svg ", f'<svg y="{_TITLE}" width="{width}" height="{height}" ', 1)
    below = _TITLE + height + _MARGIN
    legend = [
        f'<g transform="translate({_MARGIN} {below + place * _ROW})">{piece}'
        f'<text x="42" y="11.5">{escape(words)}</text></g>'
        for place, (piece, words) in enumerate(figure.legend)
    ]
    end = below + len(legend) * _ROW
    note = (
        f'<text x="{_MARGIN}" y="{end + 12}" style="font-size:11px">{escape(figure.note)}</text>' if figure.note else ""
    )
    whole = end + (_ROW if note else 0) + _MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{whole}" viewBox="0 0 {width} {whole}" '
            f'font-family="{_FONTS}">',
            f"<title>{escape(figure.title)}</title>",
            f"<style>{style(chart + ''.join(legend))}</style>",
            f'<rect width="{width}" height="{whole}" fill="#fff"/>',
            f'<text x="{_MARGIN}" y="18" style="font-weight:bold">{escape(figure.title)}</text>',
            chart,
            *legend,
            *([note] if note else []),
            "</svg>",
            "",
        ]
    )


def style(drawn: str) -> str:
    """Returns the rules of `report.css` for what is drawn, with the colours on white in the place of variables.

    Other programs than browsers know classes, but no variables.
    """
    css = (Path(__file__).parents[1] / "report.css").read_text(encoding="utf-8")
    rules = re.findall(r"([^{}]+)\{([^{}]*)\}", re.sub(r"@media[^{]*\{(?:[^{}]*\{[^{}]*\})*[^{}]*\}", "", css))
    colours = dict(re.findall(r"(--\w+):\s*([^;]+);", next(body for names, body in rules if names.endswith(":root "))))
    series = {f".s{number}" for number in range(7)}
    classes = {word for found in re.findall(r'class="([^"]*)"', drawn) for word in found.split()}
    made = [f"text {{ fill: {colours['--ink']}; font-size: 12.5px }}"]
    for names, whole in rules:
        # Of a page's layout nothing is left. The word transparent is younger than many a reader of SVG.
        parts = whole.replace("transparent", "#fff; fill-opacity: 0").split(";")
        body = "; ".join(part.strip() for part in parts if part.partition(":")[0].strip() in _DRAWING)
        for name in map(str.strip, names.split(",")):
            own = set(re.findall(r"\.([\w-]+)", name))
            if not body or not own or not own <= classes:
                continue
            for colour in sorted(series & {f".{word}" for word in classes}) if "var(--c)" in body else [""]:
                values = colours | ({"--c": colours[f"--{colour[1:]}"]} if colour else {})
                made.append(f"{name}{colour} {{{_VARIABLE.sub(partial(_value, values), body)}}}")
    return "\n".join(made)


def _value(values: Mapping[str, str], found: re.Match[str]) -> str:
    return values[found[1]]

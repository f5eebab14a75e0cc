"""Curves over epsilon, queries or epochs as SVG, in the colours of `report.css`. No TensorFlow and no NumPy here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any

from kerasrobust.entries import AttackEntry, CertificateEntry, Row
from kerasrobust.records import Result
from kerasrobust.show import figures

_Key = tuple[str, int | None, int | None, str]
_DASHES = ("", "6 4", "2 3", "9 3 2 3")
_PALETTE = 7  # The colours s0 to s6 of the style sheet: Okabe and Ito's without the yellow, darkened on white.
_MARKED = 30  # Points of a line that have markers; those of more would touch.
_LABELLED = 10  # Places of points that are all labelled; of more, round places are.
_WIDTH, _HEIGHT = 360, 264
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 10, 42


@dataclass(frozen=True, kw_only=True)
class Point:
    """An accuracy in [0, 1] at an epsilon, or after so many queries or epochs, with its interval where there is one."""

    at: float
    accuracy: float
    interval: Sequence[float] | None


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve: `series` chooses colour and marker (the network), `variant` the dash (steps, EOT and noise)."""

    label: str
    series: int
    variant: int
    points: list[Point]
    noise: str = "on"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """The curves of one attack in one norm, drawn in one chart: over epsilon, queries, or a certified radius.

    Over epochs it is those of a training, which stands for the attack.
    """

    attack: str
    norm: str
    over: str = "epsilon"
    lines: list[Line] = field(default_factory=list)


def panels(rows: Sequence[Row]) -> list[Panel]:
    """Returns one panel per attack and norm, in each one line per network, steps, EOT and noise, from epsilon 0 (clean)
    on.

    Rows without an epsilon (a minimum-norm attack's own accuracy) are no points of a curve. What was measured at one
    epsilon only is a point in its attack's panel, and a panel of nothing but such points isn't made.
    """
    groups = figures.by_network(row for row in rows if row.accuracy is not None)
    drawn: dict[tuple[str, str], dict[_Key, dict[float, Point]]] = {}
    for name, group in groups.items():
        clean = {row.noise: point_at(row, 0.0) for row in reversed(group) if row.attack is None}
        for row in group:
            if row.attack is None or row.epsilon is None:
                continue
            lines = drawn.setdefault((row.attack, row.norm or ""), {})
            points = lines.setdefault((name, row.steps, row.eot, row.noise), {})
            points[row.epsilon] = point_at(row, row.epsilon)
            # One epsilon is a point, not a curve: nothing is known of what lies between it and the clean accuracy.
            if row.noise in clean and len(points) == 2:
                points[0.0] = clean[row.noise]
    return [
        Panel(attack=attack, norm=norm, lines=_lines(lines, list(groups)))
        for (attack, norm), lines in drawn.items()
        if any(len(points) > 1 for points in lines.values())
    ]


def point_at(row: Row, epsilon: float) -> Point:
    """Returns a row's accuracy as a point."""
    return Point(at=epsilon, accuracy=row.accuracy or 0.0, interval=row.interval)


def _lines(lines: Mapping[_Key, Mapping[float, Point]], order: Sequence[str]) -> list[Line]:
    """Returns a panel's lines, labelled by what tells those of one network apart."""
    variants: dict[str, list[tuple[int | None, int | None, str]]] = {}
    for name, steps, eot, noise in lines:
        variants.setdefault(name, []).append((steps, eot, noise))
    made = []
    for (name, steps, eot, noise), points in lines.items():
        own = variants[name]
        words = [name]
        if len({other for other, *_ in own}) > 1:
            words.append(f"{steps} steps")
        if noise != "on":
            words.append(f"noise {noise}")
        elif len({other for _, other, steering in own if steering == "on"}) > 1 or (eot or 1) > 1:
            words.append("no EOT" if (eot or 1) == 1 else f"EOT {eot}")
        variant, curve = own.index((steps, eot, noise)), [points[epsilon] for epsilon in sorted(points)]
        label = ", ".join(words)
        made.append(Line(label=label, series=order.index(name), variant=variant, points=curve, noise=noise))
    return made


def curve_panels(attacks: Sequence[AttackEntry]) -> list[Panel]:
    """Returns the curves of a run's attacks: of those for the nearest example and of those within several radii a panel
    a norm, over epsilon, and of black boxes one a threat, over queries.
    """
    found: dict[tuple[str, str], Panel] = {}
    for over, title, curves in (
        ("epsilon", "smallest distance", [attack.curve for attack in attacks]),
        ("queries", "black boxes", [attack.query_curve for attack in attacks]),
    ):
        for number, (attack, curve) in enumerate(zip(attacks, curves, strict=True)):
            points = [Point(at=at, accuracy=share, interval=(low, high)) for at, share, low, high in curve]
            if not points or points[-1].at == 0:
                continue
            own = "within each radius" if attack.within else title
            panel = found.setdefault((own, attack.norm), Panel(attack=own, norm=attack.norm, over=over))
            images = figures.format_count(attack.examples, "image") if attack.examples else ""
            label = ", ".join(filter(None, (figures.attack_name(attack.name), images)))
            panel.lines.append(Line(label=label, series=number, variant=0, points=points))
    return list(found.values())


def certified_panels(found: CertificateEntry | None) -> list[Panel]:
    """Returns the chart of certified accuracy over the radius; none without a certificate, or where all abstain."""
    if found is None or len(found.curve) < 2:
        return []
    points = [Point(at=at, accuracy=share, interval=(low, high)) for at, share, low, high in found.curve]
    line = Line(label=f"certified, sigma {found.sigma or 0:.4g}", series=0, variant=0, points=points)
    return [Panel(attack=f"{found.noise} noise", norm=found.norm, over="radius", lines=[line])]


def result_panels(result: Result) -> list[Panel]:
    """Returns all charts of a result: of several models that were assessed together, what is alike in one chart."""
    found: dict[tuple[str, str, str], Panel] = {}
    for number, (name, one) in enumerate(result.models):
        for panel in (*curve_panels((*one.entries, *one.curves)), *certified_panels(one.certificate)):
            if name:
                lines = [replace(line, label=f"{name}, {line.label}", series=number) for line in panel.lines]
                panel = replace(panel, lines=lines)
            found.setdefault((panel.over, panel.attack, panel.norm), replace(panel, lines=[])).lines.extend(panel.lines)
    return [*panels(result.rows or ()), *found.values()]


def draw(panel: Panel) -> str:
    """Returns the panel's chart as an SVG element that takes its colours from the page's style sheet."""
    epsilons = sorted({point.at for line in panel.lines for point in line.points} | {0.0})
    largest = epsilons[-1]

    def at(epsilon: float, accuracy: float) -> tuple[float, float]:
        across = _LEFT + (_WIDTH - _LEFT - _RIGHT) * (epsilon / largest)
        return across, _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - accuracy)

    parts = [_axes(panel, epsilons, at)]
    for line in panel.lines:
        bounds = [(point.at, *point.interval) for point in line.points if point.interval]
        if len(bounds) > 1:
            outline = [at(epsilon, high) for epsilon, _, high in bounds]
            outline += [at(epsilon, low) for epsilon, low, _ in reversed(bounds)]
            parts.append(f'<polygon class="band {_colour(line)}" points="{_path(outline)}"/>')
    for line in panel.lines:
        path = _path(at(point.at, point.accuracy) for point in line.points)
        parts.append(f'<polyline class="line {_colour(line)}"{_dash(line)} points="{path}"/>')
        if len(line.points) == 1 and line.points[0].interval:
            alone = line.points[0]
            ends = [at(alone.at, bound) for bound in alone.interval or ()]
            parts.append(f'<polyline class="whisker {_colour(line)}" points="{_path(ends)}"/>')
    for line in panel.lines:
        for point in line.points:
            across, down = at(point.at, point.accuracy)
            interval = figures.format_interval(point.interval)
            where = _where(panel, point.at)
            accuracy = figures.format_accuracy(point.accuracy) + (f" ({interval})" if interval else "")
            marker = _marker(line, across, down) if len(line.points) <= _MARKED else ""
            parts.append(
                f"<g><title>{escape(f'{line.label}, {where}: {accuracy}')}</title>"
                f'<circle class="hit" cx="{across:.1f}" cy="{down:.1f}" r="9"/>{marker}</g>'
            )
    name = f"Accuracy over {panel.over} " + " ".join(
        ("of", panel.attack) if panel.over == "epoch" else ("under", f"{panel.attack}, {panel.norm}")
    )
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(name)}">{"".join(parts)}</svg>'


def legend(panel: Panel) -> str:
    """Returns the panel's legend as an HTML list, each entry with a piece of its line."""
    items = []
    for line in panel.lines:
        items.append(f'<li><svg viewBox="0 0 34 14" aria-hidden="true">{swatch(line)}</svg>{escape(line.label)}</li>')
    return f'<ul class="legend">{"".join(items)}</ul>'


def swatch(line: Line) -> str:
    """Returns a piece of a line as SVG, 34 wide and 14 high."""
    stroke = f'<line class="line {_colour(line)}"{_dash(line)} x1="1" y1="7" x2="33" y2="7"/>'
    return (stroke if len(line.points) > 1 else "") + _marker(line, 17, 7)


def _axes(panel: Panel, epsilons: Sequence[float], at: Any) -> str:
    parts = []
    for percent in range(0, 101, 20):
        _, down = at(0, percent / 100)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{down:.1f}" y2="{down:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{down + 4:.1f}" text-anchor="end">{percent}</text>')
    ticks, unit = _ticks(panel, epsilons)
    floor = _HEIGHT - _BOTTOM
    free = float("inf")
    # From the right, so that the largest epsilon keeps its label where two would touch.
    for epsilon, label in reversed(ticks):
        across, _ = at(epsilon, 0)
        parts.append(f'<line class="tick" x1="{across:.1f}" x2="{across:.1f}" y1="{floor}" y2="{floor + 4}"/>')
        half = 3.5 * len(label)
        across = min(across, _WIDTH - 3.8 * len(label))  # The last one would be cut off; some fonts are wider.
        if across + half <= free:
            parts.append(f'<text x="{across:.1f}" y="{floor + 17}" text-anchor="middle">{label}</text>')
            free = across - half - 5
    norm = figures.format_norm(panel.norm)
    title = ", ".join(filter(None, (panel.over + unit, norm)))
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle:.1f}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(title)}</text>')
    centre = (_TOP + floor) / 2
    parts.append(
        f'<text x="11" y="{centre:.1f}" text-anchor="middle" transform="rotate(-90 11 {centre:.1f})">accuracy, %</text>'
    )
    return "".join(parts)


def _ticks(panel: Panel, places: Sequence[float]) -> tuple[list[tuple[float, str]], str]:
    """Returns the places that have a label, with it, and the words for its unit: those of few points, or round ones."""
    counted = panel.over in ("queries", "epoch")
    grey = panel.over == "epsilon" and panel.norm == "linf"
    if len(places) > _LABELLED:
        size = 1 / 255 if grey else 1.0
        step = _round_step(places[-1] / size / 5)
        rounded = [number * step for number in range(int(places[-1] / size / step * (1 + 1e-9)) + 1)]
        return [(value * size, f"{value:,.6g}") for value in rounded], " in 1/255" if grey else ""
    written = [f"{place:,.0f}" if counted else figures.format_epsilon(place) for place in places]
    if counted or not all(label.endswith("/255") for label in written[1:]):
        return list(zip(places, written, strict=True)), ""
    return [(place, label.removesuffix("/255")) for place, label in zip(places, written, strict=True)], " in 1/255"


def _round_step(least: float) -> float:
    """Returns the smallest of 1, 2 or 5 times a power of ten that isn't below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def _where(panel: Panel, at: float) -> str:
    if panel.over == "epoch":
        return f"epoch {at:,.0f}"
    if not at:
        return "clean"
    return f"after {at:,.0f} queries" if panel.over == "queries" else f"{panel.over} {figures.format_epsilon(at)}"


def _marker(line: Line, across: float, down: float) -> str:
    r = 4.2
    shapes = (
        None,
        [(-r, -r), (r, -r), (r, r), (-r, r)],
        [(0, -r * 1.3), (r * 1.15, r * 0.85), (-r * 1.15, r * 0.85)],
        [(0, -r * 1.4), (r * 1.4, 0), (0, r * 1.4), (-r * 1.4, 0)],
        [(0, r * 1.3), (r * 1.15, -r * 0.85), (-r * 1.15, -r * 0.85)],
    )
    shape = shapes[line.series % len(shapes)]
    style = f"mark {_colour(line)}{' hollow' if line.variant else ''}"
    if shape is None:
        return f'<circle class="{style}" cx="{across:.1f}" cy="{down:.1f}" r="{r}"/>'
    return f'<polygon class="{style}" points="{_path((across + x, down + y) for x, y in shape)}"/>'


def _colour(line: Line) -> str:
    return f"s{line.series % _PALETTE}"


def _dash(line: Line) -> str:
    dash = _DASHES[line.variant % len(_DASHES)]
    return f' stroke-dasharray="{dash}"' if dash else ""


def _path(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)

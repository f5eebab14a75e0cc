"""Curves over epsilon as SVG, and the report's style sheet. No TensorFlow and no NumPy here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from kerasrobust.show.figures import (
    Record,
    attack_name,
    by_network,
    format_accuracy,
    format_epsilon,
    format_interval,
    format_norm,
)

STYLE = """
:root { --ink: #1b1f24; --soft: #59636e; --paper: #fff; --panel: #f6f7f9; --rule: #d5dae0;
  --warn-ink: #6b4300; --warn: #fff3d6; --wrong: #b3261e;
  --s0: #0072b2; --s1: #d55e00; --s2: #007a5a; --s3: #b0578d; --s4: #a87400; --s5: #2b8fc7; --s6: #3c3c3c; }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ed; --soft: #9aa5b1; --paper: #14171b; --panel: #1c2127; --rule: #363d46;
    --warn-ink: #ffdf9e; --warn: #3d2f10; --wrong: #ff8a80;
    --s0: #58aee6; --s1: #ff8a4c; --s2: #35c79b; --s3: #e492c0; --s4: #e6b23c; --s5: #8fd3f7; --s6: #d0d0d0; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif;
  print-color-adjust: exact; -webkit-print-color-adjust: exact; }
main { max-width: 70rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; padding-bottom: .25rem; border-bottom: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
.lead { font-size: 1.06rem; max-width: 50rem; margin: 0; }
.note, figcaption, .pairs th, .group span { color: var(--soft); }
.note { font-size: .875rem; max-width: 50rem; }
.banner { background: var(--warn); color: var(--warn-ink); border-left: 4px solid; border-radius: 4px;
  padding: .6rem 1rem; margin: 1.25rem 0 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.results { width: 100%; font-size: .875rem; white-space: nowrap; }
.results th, .results td { padding: .2rem .6rem; text-align: right; }
.results th:nth-child(-n+2), .results td:nth-child(-n+2), .results .group th { text-align: left; }
.results thead th { border-bottom: 2px solid var(--rule); vertical-align: bottom; }
.results tbody tr + tr td { border-top: 1px solid var(--panel); }
.results .group th { background: var(--panel); padding: .4rem .6rem; border-top: 1px solid var(--rule); }
.group span { font-weight: 400; margin-left: .5rem; }
.clean td { font-weight: 600; }
.figure b { display: inline-block; width: 4.2rem; font-weight: inherit; }
.bar { display: inline-block; vertical-align: middle; width: 6rem; height: .7rem; background: var(--panel); }
.bar i { display: block; height: 100%; background: var(--s0); opacity: .75; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 1.5rem; }
figure { margin: 0; break-inside: avoid; }
.charts svg { width: 100%; height: auto; display: block; }
.charts figcaption { color: var(--ink); font-weight: 600; margin-bottom: .25rem; }
.charts text { fill: var(--soft); font-size: 12.5px; }
.grid, .tick { stroke: var(--rule); }
.line { fill: none; stroke: var(--c); stroke-width: 2; stroke-linejoin: round; }
.band { fill: var(--c); opacity: .13; }
.mark { fill: var(--c); stroke: var(--paper); stroke-width: 1; }
svg .hollow { fill: var(--paper); stroke: var(--c); stroke-width: 2; }
.whisker { stroke: var(--c); stroke-width: 1.5; }
.hit { fill: transparent; }
.s0 { --c: var(--s0); } .s1 { --c: var(--s1); } .s2 { --c: var(--s2); } .s3 { --c: var(--s3); }
.s4 { --c: var(--s4); } .s5 { --c: var(--s5); } .s6 { --c: var(--s6); }
.legend { list-style: none; margin: .5rem 0 0; padding: 0; display: flex; flex-wrap: wrap; gap: .1rem 1.1rem;
  font-size: .84rem; }
.legend svg { width: 34px; height: 14px; display: inline-block; vertical-align: middle; margin-right: .35rem; }
.strips { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); gap: 1rem; }
.strip { border: 1px solid var(--rule); border-radius: 6px; padding: .6rem; font-size: .84rem; }
.images { display: grid; grid-template-columns: repeat(3, 1fr); gap: .5rem; text-align: center; }
.images img { width: 100%; aspect-ratio: 1; object-fit: contain; image-rendering: pixelated; display: block;
  margin-bottom: .2rem; }
.images span { display: block; overflow-wrap: anywhere; line-height: 1.3; }
.strip figcaption { margin-top: .4rem; }
.wrong { color: var(--wrong); }
pre { background: var(--panel); padding: .7rem 1rem; border-radius: 4px; white-space: pre-wrap;
  overflow-wrap: anywhere; }
.tables { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(18rem, 100%), 1fr)); gap: 0 2rem; }
.pairs { font-size: .875rem; }
.pairs th, .pairs td { text-align: left; vertical-align: top; padding: .1rem .9rem .1rem 0; font-weight: 400;
  overflow-wrap: anywhere; }
@media screen and (max-width: 40rem) { .bar { display: none; } .results { font-size: .75rem; }
  .results th, .results td { padding: .2rem .25rem; } .results thead th { white-space: normal; }
  .figure b { width: auto; } .group th { white-space: normal; } }
@media print { main { max-width: none; padding: 0; } body { font-size: 10pt; } .results { font-size: 8pt; }
  .wide { overflow: visible; } tr, .strip, .banner { break-inside: avoid; } h2, h3, .group { break-after: avoid; } }
"""
"""The report's style sheet, which gives the charts their colours: light, dark and on paper."""

_DASHES = ("", "6 4", "2 3", "9 3 2 3")
_PALETTE = 7  # The colours s0 to s6 of the style sheet: Okabe and Ito's without the yellow, darkened on white.
_WIDTH, _HEIGHT = 360, 264
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 10, 42


@dataclass(frozen=True, kw_only=True)
class Point:
    """An accuracy in [0, 1] at an epsilon, with its interval where there is one."""

    epsilon: float
    accuracy: float
    interval: Sequence[float] | None


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve: `series` chooses colour and marker (the network), `variant` the dash (steps and EOT)."""

    label: str
    series: int
    variant: int
    points: list[Point]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """The curves of one attack in one norm, drawn in one chart."""

    attack: str
    norm: str
    lines: list[Line] = field(default_factory=list)


def panels(rows: Sequence[Record]) -> list[Panel]:
    """Returns one panel per attack and norm, in each one line per network, steps and EOT, from epsilon 0 (clean) on.

    Rows without an epsilon (a minimum-norm attack's own accuracy) are no points of a curve. What was measured at one
    epsilon only is a point in its attack's panel, and a panel of nothing but such points isn't made.
    """
    groups = by_network(rows)
    drawn: dict[tuple[str, str], dict[tuple[str, Any, Any], dict[float, Point]]] = {}
    for name, group in groups.items():
        clean = next((row for row in group if row.get("attack") is None), None)
        for row in group:
            if row.get("attack") is None or row.get("epsilon") is None or row.get("accuracy") is None:
                continue
            lines = drawn.setdefault((row["attack"], row.get("norm") or ""), {})
            points = lines.setdefault((name, row.get("steps"), row.get("eot")), {})
            points[row["epsilon"]] = Point(
                epsilon=row["epsilon"], accuracy=row["accuracy"], interval=row.get("interval")
            )
            # One epsilon is a point, not a curve: nothing is known of what lies between it and the clean accuracy.
            if clean is not None and len(points) == 2:
                points[0.0] = Point(epsilon=0.0, accuracy=clean["accuracy"], interval=clean.get("interval"))
    order = list(groups)
    result = []
    for (attack, norm), lines in drawn.items():
        if all(len(points) < 2 for points in lines.values()):
            continue
        panel = Panel(attack=attack, norm=norm)
        variants: dict[str, list[tuple[Any, Any]]] = {}
        for name, steps, eot in lines:
            variants.setdefault(name, []).append((steps, eot))
        for (name, steps, eot), points in lines.items():
            own = variants[name]
            words = [name]
            if len({other for other, _ in own}) > 1:
                words.append(f"{steps} steps")
            if len({other for _, other in own}) > 1 or (eot or 1) > 1:
                words.append("no EOT" if (eot or 1) == 1 else f"EOT {eot}")
            panel.lines.append(
                Line(
                    label=", ".join(words),
                    series=order.index(name),
                    variant=own.index((steps, eot)),
                    points=[points[epsilon] for epsilon in sorted(points)],
                )
            )
        result.append(panel)
    return result


def curve_panel(result: Mapping[str, Any]) -> list[Panel]:
    """Returns one panel with the curves of an attack run's minimum-norm attacks, or nothing where it had none."""
    found: dict[str, Panel] = {}
    for number, attack in enumerate(result.get("attacks") or []):
        points = [
            Point(epsilon=epsilon, accuracy=accuracy, interval=(low, high))
            for epsilon, accuracy, low, high in attack.get("curve") or []
        ]
        if points and points[-1].epsilon > 0:
            panel = found.setdefault(attack["norm"], Panel(attack="smallest distance", norm=attack["norm"]))
            panel.lines.append(Line(label=attack_name(attack["name"]), series=number, variant=0, points=points))
    return list(found.values())


def draw(panel: Panel) -> str:
    """Returns the panel's chart as an SVG element that takes its colours from the page's style sheet."""
    epsilons = sorted({point.epsilon for line in panel.lines for point in line.points} | {0.0})
    largest = epsilons[-1]

    def at(epsilon: float, accuracy: float) -> tuple[float, float]:
        across = _LEFT + (_WIDTH - _LEFT - _RIGHT) * (epsilon / largest)
        return across, _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - accuracy)

    parts = [_axes(panel, epsilons, at)]
    for line in panel.lines:
        bounds = [(point.epsilon, *point.interval) for point in line.points if point.interval]
        if len(bounds) > 1:
            outline = [at(epsilon, high) for epsilon, _, high in bounds]
            outline += [at(epsilon, low) for epsilon, low, _ in reversed(bounds)]
            parts.append(f'<polygon class="band {_colour(line)}" points="{_path(outline)}"/>')
    for line in panel.lines:
        path = _path(at(point.epsilon, point.accuracy) for point in line.points)
        parts.append(f'<polyline class="line {_colour(line)}"{_dash(line)} points="{path}"/>')
        if len(line.points) == 1 and line.points[0].interval:
            alone = line.points[0]
            ends = [at(alone.epsilon, bound) for bound in alone.interval or ()]
            parts.append(f'<polyline class="whisker {_colour(line)}" points="{_path(ends)}"/>')
    for line in panel.lines:
        for point in line.points:
            across, down = at(point.epsilon, point.accuracy)
            interval = format_interval(point.interval)
            told = f"{line.label}, {'clean' if not point.epsilon else 'epsilon ' + format_epsilon(point.epsilon)}: "
            told += format_accuracy(point.accuracy) + (f" ({interval})" if interval else "")
            parts.append(
                f"<g><title>{escape(told)}</title>"
                f'<circle class="hit" cx="{across:.1f}" cy="{down:.1f}" r="9"/>{_marker(line, across, down)}</g>'
            )
    name = f"Accuracy over epsilon under {panel.attack}, {panel.norm}"
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(name)}">{"".join(parts)}</svg>'


def legend(panel: Panel) -> str:
    """Returns the panel's legend as an HTML list, each entry with a piece of its line."""
    items = []
    for line in panel.lines:
        stroke = f'<line class="line {_colour(line)}"{_dash(line)} x1="1" y1="7" x2="33" y2="7"/>'
        swatch = (stroke if len(line.points) > 1 else "") + _marker(line, 17, 7)
        items.append(f'<li><svg viewBox="0 0 34 14" aria-hidden="true">{swatch}</svg>{escape(line.label)}</li>')
    return f'<ul class="legend">{"".join(items)}</ul>'


def _axes(panel: Panel, epsilons: Sequence[float], at: Any) -> str:
    parts = []
    for percent in range(0, 101, 20):
        _, down = at(0, percent / 100)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{down:.1f}" y2="{down:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{down + 4:.1f}" text-anchor="end">{percent}</text>')
    written = [format_epsilon(epsilon) for epsilon in epsilons]
    whole = all(label.endswith("/255") for label in written[1:])
    floor = _HEIGHT - _BOTTOM
    free = float("inf")
    # From the right, so that the largest epsilon keeps its label where two would touch.
    for epsilon, label in zip(reversed(epsilons), reversed(written), strict=True):
        label = label.removesuffix("/255") if whole else label
        across, _ = at(epsilon, 0)
        parts.append(f'<line class="tick" x1="{across:.1f}" x2="{across:.1f}" y1="{floor}" y2="{floor + 4}"/>')
        half = 3.5 * len(label)
        if across + half <= free:
            parts.append(f'<text x="{across:.1f}" y="{floor + 17}" text-anchor="middle">{label}</text>')
            free = across - half - 5
    norm = format_norm(panel.norm)
    title = f"epsilon in 1/255, {norm}" if whole else f"epsilon, {norm}"
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle:.1f}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(title)}</text>')
    centre = (_TOP + floor) / 2
    parts.append(
        f'<text x="11" y="{centre:.1f}" text-anchor="middle" transform="rotate(-90 11 {centre:.1f})">accuracy, %</text>'
    )
    return "".join(parts)


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

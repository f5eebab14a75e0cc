"""How figures are written, told and drawn: numbers, a result's story in a few sentences, curves over epsilon as SVG.

The console and the report share these, so that a figure reads the same in both. No TensorFlow and no NumPy here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

Record = Mapping[str, Any]
"""One row of a study: the fields of `events.Row`, as in `result.json`."""

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

_NORMS = {"linf": "L∞", "l2": "L2", "l1": "L1", "l0": "L0"}
_ATTACKS = {"fgsm": "FGSM", "pgd": "PGD", "bim": "BIM", "mifgsm": "MI-FGSM", "rfgsm": "R-FGSM", "deepfool": "DeepFool"}
_DASHES = ("", "6 4", "2 3", "9 3 2 3")
_PALETTE = 7  # The colours s0 to s6 of the style sheet: Okabe and Ito's without the yellow, darkened on white.
_WIDTH, _HEIGHT = 360, 264
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 10, 42


def format_accuracy(value: float | None) -> str:
    """Returns a share in [0, 1] as a percentage with one decimal; nothing for None.

    Example:
        >>> format_accuracy(0.278)
        '27.8 %'
    """
    return "" if value is None else f"{100 * value:.1f} %"


def format_published(value: float | None) -> str:
    """Returns a share in [0, 1] with the digits that it was printed with, which are four at most.

    Example:
        >>> format_published(0.1157), format_published(0.4)
        ('11.57 %', '40 %')
    """
    return "" if value is None else f"{100 * value:.4g} %"


def format_interval(interval: Sequence[float] | None) -> str:
    """Returns an interval [low, high] of shares in per cent, without the sign.

    Example:
        >>> format_interval([0.2412, 0.3189])
        '24.1-31.9'
    """
    if not interval or len(interval) != 2 or any(bound is None for bound in interval):
        return ""
    low, high = interval
    return f"{100 * low:.1f}-{100 * high:.1f}"


def format_epsilon(value: float | None) -> str:
    """Returns an epsilon as people write it: in 1/255 where it is a multiple of that, else as a decimal.

    Example:
        >>> format_epsilon(8 / 255), format_epsilon(0.5), format_epsilon(None)
        ('8/255', '0.5', '')
    """
    if value is None:
        return ""
    short = f"{value:.2g}"
    steps = round(value * 255, 1)
    # 0.2 is 51/255 as well, but nobody means that; and the value may have passed through float32.
    if not math.isclose(float(short), value, rel_tol=1e-6) and math.isclose(steps, value * 255, rel_tol=1e-6):
        return f"{steps:g}/255"
    return f"{value:.4g}"


def format_distance(value: float | None, norm: str | None = None) -> str:
    """Returns a distance with three digits, and an Linf one of whole grey levels in 1/255.

    Example:
        >>> format_distance(0.21349, "l2"), format_distance(8 / 255, "linf"), format_distance(math.inf)
        ('0.213', '8/255', 'infinite')
    """
    if value is None:
        return ""
    if math.isinf(value):
        return "infinite"
    written = format_epsilon(value)
    return written if norm == "linf" and written.endswith("/255") else f"{value:.3g}"


def format_seconds(seconds: float) -> str:
    """Returns a duration: seconds under two minutes, clock notation above.

    Example:
        >>> format_seconds(0.43), format_seconds(75), format_seconds(3723)
        ('0.4 s', '75 s', '1:02:03')
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def attack_name(attack: str) -> str:
    """Returns an attack's name as the field writes it, and one that isn't known as it is."""
    return _ATTACKS.get(attack, attack)


def format_budget(epsilon: float | None, norm: str | None) -> str:
    """Returns an epsilon with its norm (`8/255 L∞`); nothing for None."""
    written = format_epsilon(epsilon)
    return f"{written} {format_norm(norm)}".strip() if written else ""


def format_norm(norm: str | None) -> str:
    """Returns a norm's name as the field writes it; nothing for None."""
    return _NORMS.get(norm or "", norm or "")


def format_images(result: Mapping[str, Any]) -> str:
    """Returns on what the result was measured, such as `1,000 images of cifar10 test[:1000]`."""
    data = result.get("data") or {}
    count = f"{data['examples']:,} images" if data.get("examples") else "images"
    source = " ".join(str(data[key]) for key in ("name", "split") if data.get(key))
    return f"{count} of {source}" if source else count


def network(row: Record) -> str:
    """Returns the name of the row's network, spelled as the models that come with the project are.

    Example:
        >>> network({"model": "convnet", "training": "pgd", "randomized": True})
        'convnet-random-pgd'
    """
    training = row.get("training")
    parts = [str(row["model"])]
    if row.get("randomized"):
        parts.append("random")
    if training and training != "standard":
        parts.append(str(training))
    return "-".join(parts)


def by_network(rows: Iterable[Record]) -> dict[str, list[Record]]:
    """Returns the rows of each network, in the order of first appearance, the clean row first in each."""
    groups: dict[str, list[Record]] = {}
    for row in rows:
        groups.setdefault(network(row), []).append(row)
    return {name: sorted(group, key=lambda row: row.get("attack") is not None) for name, group in groups.items()}


def summary(result: Mapping[str, Any]) -> str:
    """Returns the run's story in a few sentences, each computed from the result."""
    if result.get("rows"):
        return " ".join(_study_summary(result))
    attacks = result.get("attacks") or []
    model = result.get("model")
    sentences = [f"{model or 'The model'} was measured on {format_images(result)}."]
    if result.get("clean_accuracy") is not None:
        sentences.append(f"It is right on {format_accuracy(result['clean_accuracy'])} of them as they are.")
    if attacks:
        worst = min(attacks, key=lambda attack: attack["robust_accuracy"])
        budget = format_budget(worst.get("epsilon"), worst.get("norm"))
        sentences.append(
            f"Under {attack_name(worst['name'])}{' at ' + budget if budget else ''}"
            f"{', the strongest single attack,' if len(attacks) > 1 else ''} "
            f"{format_accuracy(worst['robust_accuracy'])} are left ({format_interval(worst.get('interval'))} %)."
        )
    if len(attacks) > 1 and result.get("robust_accuracy") is not None:
        sentences.append(f"Against all of them together: {format_accuracy(result['robust_accuracy'])}.")
    return " ".join(sentences)


def _study_summary(result: Mapping[str, Any]) -> Iterable[str]:
    rows: Sequence[Record] = result["rows"]
    groups = by_network(rows)
    attacks = list(dict.fromkeys(attack_name(row["attack"]) for row in rows if row.get("attack")))
    count = f"{len(groups)} networks" if len(groups) > 1 else next(iter(groups))
    yield (
        f"{count[0].upper() + count[1:]} on {format_images(result)}: clean"
        f"{', and under ' + _list(attacks) if attacks else ''}."
    )
    epsilon = reference_epsilon(rows)
    if epsilon is None:
        return
    worst: dict[str, Record] = {}
    for name, group in groups.items():
        attacked = [row for row in group if row.get("norm") == "linf" and row.get("epsilon") == epsilon]
        if attacked:
            worst[name] = min(attacked, key=lambda row: row["accuracy"])
    clean = {name: group[0]["accuracy"] for name, group in groups.items() if group[0].get("attack") is None}

    def told(name: str) -> str:
        before = f"from {format_accuracy(clean[name])} " if name in clean else ""
        return f"{name} {before}to {format_accuracy(worst[name]['accuracy'])} ({attack_name(worst[name]['attack'])})"

    undefended = [name for name in worst if not _defended(groups[name][0])]
    budget = format_budget(epsilon, "linf")
    if undefended:
        yield f"At {budget} the strongest attack takes undefended {_list([told(name) for name in undefended])}."
    elif len(worst) == 1:
        yield f"At {budget} the strongest attack takes {told(next(iter(worst)))}."
    if len(worst) > 1:
        best = max(worst, key=lambda name: worst[name]["accuracy"])
        row = worst[best]
        before = f", at {format_accuracy(clean[best])} clean" if best in clean else ""
        yield (
            f"{best} keeps the most at {budget}: {format_accuracy(row['accuracy'])} "
            f"({format_interval(row.get('interval'))} %){before}."
        )
    for name, group in groups.items():
        by_eot = {
            row.get("eot") or 1: row["accuracy"]
            for row in group
            if row.get("attack") == "pgd" and row.get("norm") == "linf" and row.get("epsilon") == epsilon
        }
        if group[0].get("randomized") and len(by_eot) > 1:
            yield (
                f"Averaging gradients over {max(by_eot)} noise draws (EOT) takes PGD on {name} "
                f"from {format_accuracy(by_eot[min(by_eot)])} to {format_accuracy(by_eot[max(by_eot)])}."
            )


def _defended(row: Record) -> bool:
    return bool(row.get("randomized")) or row.get("training") not in (None, "standard")


def reference_epsilon(rows: Iterable[Record]) -> float | None:
    """Returns 8/255, the field's usual Linf budget, where it was measured, else the largest that was."""
    measured = {row["epsilon"] for row in rows if row.get("norm") == "linf" and row.get("epsilon") is not None}
    usual = [epsilon for epsilon in measured if format_epsilon(epsilon) == "8/255"]
    return usual[0] if usual else max(measured, default=None)


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


def _list(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


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

"""The curves of several runs, metric by metric, so that they can be drawn into one chart each. No Textual here."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kerasrobust.show.figures import attack_name, format_budget
from tui.read.series import Series
from tui.read.state import RunState

AXES = ("step", "epoch", "second")
"""What a training's curves can be drawn over."""

_METRICS = {
    ("validation", "robust_accuracy"): "robust accuracy, validation",
    ("validation", "accuracy"): "clean accuracy, validation",
    ("train", "robust_accuracy"): "robust accuracy, training",
    ("train", "accuracy"): "clean accuracy, training",
    ("train", "loss"): "loss, training",
    ("validation", "loss"): "loss, validation",
    ("train", "learning_rate"): "learning rate",
}
"""Metrics in the order of their charts, with their titles."""

_GIB = 2.0**30


@dataclass(frozen=True)
class Traced:
    """What was measured of a run: `ys` at `xs`; `points` where it was measured now and then only."""

    run: Path
    xs: Sequence[float]
    ys: Sequence[float]
    points: bool = False


@dataclass(frozen=True)
class Together:
    """A chart of one metric of several runs.

    Attributes:
        x_name: what `xs` are.
        percent: whether values are shares in [0, 1].
    """

    title: str
    x_name: str
    percent: bool
    traced: list[Traced]


def together(states: Sequence[tuple[Path, RunState]], axis: str) -> list[Together]:
    """Returns a chart for each metric that some run has, over `axis`, one of `AXES`, as far as it is a training's.

    Of a run with several trainings the last one counts. Survivors of attacks and what a run took of its machine are
    always over seconds.

    Example:
        >>> [chart.title for chart in together([(Path("runs/hard"), state)], "step")]  # doctest: +SKIP
        ['robust accuracy, validation', 'clean accuracy, validation', 'loss, training', 'learning rate', 'processor']
    """
    found: dict[str, Together] = {}

    def add(title: str, x_name: str, percent: bool, run: Path, xs: Sequence[float], ys: Sequence[float]) -> None:
        if xs:
            chart = found.setdefault(title, Together(title, x_name, percent, []))
            chart.traced.append(Traced(run, xs, ys, points=title.endswith(", validation")))

    for (split, name), title in _METRICS.items():
        for run, state in states:
            if (stage := next(reversed(state.trainings), None)) is None:
                continue
            if (series := state.series.get((stage, split, name))) is not None:
                add(title, axis, name.endswith("accuracy"), run, _along(state, stage, series.xs, axis), series.ys)
    for run, state in states:
        for line in state.attacks:
            title = f"survivors of {attack_name(line.attack)} {format_budget(line.epsilon, line.norm)}".strip()
            if not any(trace.run == run for trace in found[title].traced) if title in found else True:
                add(title, "second", True, run, line.curve.xs, line.curve.ys)
    for run, state in states:
        for name, load in state.load.items():
            held = name == "memory"
            ys = [y / _GIB for y in load.ys] if held else load.ys
            add("memory of the process in GiB" if held else name, "second", not held, run, load.xs, ys)
    return list(found.values())


def _along(state: RunState, stage: str, steps: Sequence[float], axis: str) -> Sequence[float]:
    """Returns where steps of a training are on an axis; nothing where that isn't known yet."""
    if axis == "step":
        return steps
    if axis == "epoch":
        length = state.epoch_steps.get(stage)
        return [step / length for step in steps] if length else []
    clock = state.clocks.get(stage)
    return [] if clock is None else [_at(clock, step) for step in steps]


def _at(series: Series, x: float) -> float:
    """Returns a curve's value at `x`, between two of its points the one on the line through them."""
    xs, ys = series.xs, series.ys
    place = bisect.bisect_left(xs, x)
    if place == len(xs):
        return ys[-1]
    if place == 0 or xs[place] == x:
        return ys[place]
    share = (x - xs[place - 1]) / (xs[place] - xs[place - 1])
    return ys[place - 1] + share * (ys[place] - ys[place - 1])

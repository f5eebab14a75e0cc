"""What is known of a run: a pure function from a state and events to the next state. No Textual here.

All that grows with a run is bounded: curves are averaged to at most `POINTS` points, lines of the log are the last
`LINES`, so that a week of training takes the memory and the time of an hour's.
"""

from __future__ import annotations

import copy
import operator
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from kerasrobust import events
from kerasrobust.entries import add_row
from kerasrobust.show.figures import is_no_ball
from kerasrobust.show.narrate import narrate, severity
from tui.read.series import Series

_GRAVITY = {"info": 0, "warning": 1, "error": 2}

LINES = 5000
FINDINGS = 200
_GPUS = 16
_HUGE = 1e300
MOST = 1000
"""Stages, attacks, corruptions, models and files of images: far above any real run. Rows: ten times as many."""


@dataclass(frozen=True)
class Stage:
    """A named part of a run. `epoch` and `epochs` are 0 where it isn't a training.

    Work began at the time `began`, or, in a resumed run, went on then after the seconds `before`.
    """

    name: str
    title: str
    began: float
    before: float = 0.0
    status: Literal["running", "done", "skipped", "failed", "stopped"] = "running"
    seconds: float = 0.0
    progress: events.Progress | None = None
    epoch: int = 0
    epochs: int = 0


@dataclass(frozen=True)
class AttackLine:
    """One attack: its settings, how far it is, and, once it has ended, what it found.

    Attributes:
        share: of the work that is done, in [0, 1]: whole examples, and the steps of the batch at hand.
        spared: examples that were wrong before the attack, which it leaves as they are.
        curve: share of survivors (y, in [0, 1]) over seconds since its beginning (x).
    """

    stage: str
    attack: str
    norm: str
    epsilon: float | None
    settings: dict[str, Any]
    began: float
    total: int
    done: int = 0
    survivors: int | None = None
    step: int = 0
    steps: int = 0
    gradients: int = 0
    forwards: int = 0
    seconds: float = 0.0
    seconds_left: float | None = None
    share: float = 0.0
    spared: int = 0
    robust_accuracy: float | None = None
    interval: list[float] | None = None
    median_distance: float | None = None
    status: Literal["running", "done", "stopped"] = "running"
    curve: Series = field(default_factory=Series)


@dataclass(frozen=True)
class Line:
    """A line of the log."""

    time: float
    severity: events.Severity
    text: str


@dataclass
class RunState:
    """All that the UI shows of one run. Made by `advance` only.

    Attributes:
        source: which file it comes from: another number where the run was replaced by another of its name.
        series: curves by (stage, split, metric), over training steps.
        clocks: seconds of work in each training, over its steps.
        epoch_steps: steps of an epoch of each training, once one has ended.
        stages: by name, in the order in which they began.
        now: the stage at work, or the last one.
        cells: what was measured under corruptions, by kind and severity.
        load: what the run took of its machine, by name, over seconds of work: shares in [0, 1], and memory in bytes.
        time: when the last event happened.
        before: seconds between the first event of the run's first start and those of the last one, without pauses.
        skipped: lines of the file that this version can't read.
    """

    started: events.RunStarted | None = None
    finished: events.RunFinished | None = None
    source: int = 0
    stages: dict[str, Stage] = field(default_factory=dict)
    now: str = ""
    series: dict[tuple[str, str, str], Series] = field(default_factory=dict)
    clocks: dict[str, Series] = field(default_factory=dict)
    epoch_steps: dict[str, float] = field(default_factory=dict)
    attacks: list[AttackLine] = field(default_factory=list)
    rows: list[events.Row] = field(default_factory=list)
    cells: dict[tuple[str, int], events.CorruptionFinished] = field(default_factory=dict)
    certified: events.Certified | None = None
    findings: deque[events.Finding] = field(default_factory=lambda: deque(maxlen=FINDINGS))
    found: int = 0
    models: dict[str, events.ModelSaved] = field(default_factory=dict)
    examples: dict[str, events.ExamplesSaved] = field(default_factory=dict)
    lines: deque[Line] = field(default_factory=lambda: deque(maxlen=LINES))
    logged: int = 0
    load: dict[str, Series] = field(default_factory=dict)
    time: float = 0.0
    before: float = 0.0
    skipped: int = 0

    @property
    def worst(self) -> events.Finding | None:
        """The gravest of the findings, the newest of those that are as grave."""
        return max(reversed(self.findings), key=lambda finding: _GRAVITY.get(finding.severity, 0), default=None)

    @property
    def trainings(self) -> list[str]:
        """The stages with curves, in their order."""
        return list(dict.fromkeys(stage for stage, _, _ in self.series))


def advance(state: RunState, fresh: Iterable[events.Event], skipped: int = 0) -> RunState:
    """Returns the state after fresh events and skipped lines, which couldn't be read; the given one stays as it was.

    Example:
        >>> advance(RunState(), [Log(level="info", message="hello")]).lines[-1].text
        'hello'
    """
    after = copy.copy(state)
    after.stages = state.stages.copy()
    after.series = {key: series.copy() for key, series in state.series.items()}
    after.clocks = {key: series.copy() for key, series in state.clocks.items()}
    after.epoch_steps = state.epoch_steps.copy()
    after.load = {key: series.copy() for key, series in state.load.items()}
    # A curve that is still growing is copied too; that of an ended attack is shared.
    after.attacks = [
        replace(line, curve=line.curve.copy()) if line.status == "running" else line for line in state.attacks
    ]
    for name in ("rows", "cells", "findings", "models", "examples", "lines"):
        setattr(after, name, copy.copy(getattr(state, name)))
    after.skipped += skipped
    for event in fresh:
        _apply(after, event)
    return after


def _apply(state: RunState, event: events.Event) -> None:
    earlier, state.time = state.time, event.time
    stage = state.stages.get(event.stage or "")
    if (text := narrate(event, stage.title if stage is not None else "")) is not None:
        _log(state, event, text, severity(event))
    match event:
        case events.RunStarted():
            _start(state, event, earlier)
        case events.StageStarted():
            _start_stage(state, event)
        case events.StageFinished() if stage is not None:
            state.stages[stage.name] = replace(stage, status=event.status, seconds=event.seconds)
        case events.Progress() if stage is not None:
            epoch = event.unit == "epoch"
            news: dict[str, Any] = {"epoch": event.done, "epochs": event.total or 0} if epoch else {"progress": event}
            state.stages[stage.name] = replace(stage, **news)
        case events.Metrics():
            _metrics(state, event)
        case events.AttackStarted():
            _start_attack(state, event)
        case events.AttackProgress() if (place := _at_work(state, event)) is not None:
            _attack_progress(state, event, place)
        case events.AttackFinished() if (place := _at_work(state, event)) is not None:
            _finish_attack(state, event, place)
        case events.ExamplesSaved():
            if len(state.examples) < MOST:
                state.examples[event.path] = event
        case events.ModelSaved():
            if len(state.models) < MOST:
                state.models[event.name] = event
        case events.Row():
            if len(state.rows) < 10 * MOST:
                add_row(state.rows, event)
        case events.CorruptionFinished():
            if len(state.cells) < MOST:
                state.cells[event.kind, event.severity] = event
        case events.Certified():
            state.certified = event
        case events.SystemSampled():
            _sampled(state, event)
        case events.Finding():
            state.found += 1
            state.findings.append(event)
        case events.RunFinished():
            state.finished = event
            _stop(state, event.time)


def _log(state: RunState, event: events.Event, text: str, level: events.Severity = "info") -> None:
    state.logged += 1
    state.lines.append(Line(event.time, level, text))


def _start(state: RunState, event: events.RunStarted, earlier: float) -> None:
    """Begins a run, or goes on with one whose events so far have ended at the time `earlier`."""
    if state.started is not None:  # Resumed: what was under way is void, and its rows and cells come once more.
        _stop(state, earlier)
        state.before += max(0.0, earlier - state.started.time)
        state.attacks = [line for line in state.attacks if line.status == "done"]
        state.rows = []
        state.cells, state.certified = {}, None
        state.finished = None
    state.started = event


def _stop(state: RunState, at: float) -> None:
    """Marks what was under way as ended, with the run, at a time."""
    for name, stage in state.stages.items():
        if stage.status == "running":
            state.stages[name] = replace(stage, status="stopped", seconds=max(0.0, at - stage.began))
    state.attacks = [replace(line, status="stopped") if line.status == "running" else line for line in state.attacks]


def _start_stage(state: RunState, event: events.StageStarted) -> None:
    name = event.stage or event.title
    if len(state.stages) >= MOST:
        return
    before = state.stages.pop(name, None)
    # One that is skipped now was done in an earlier start of this run, whose figures stand.
    worked = before.before + before.seconds if before else 0.0
    epoch = (before.epoch, before.epochs) if before else (0, 0)
    state.stages[name] = Stage(name, event.title, event.time, worked, epoch=epoch[0], epochs=epoch[1])
    state.now = name


def _metrics(state: RunState, event: events.Metrics) -> None:
    stage = event.stage or ""
    if event.split == "train":
        if stage in state.clocks or len(state.clocks) < MOST:
            state.clocks.setdefault(stage, Series()).add(event.step, _seconds_in(state, event))
    elif event.epoch > 0 and len(state.epoch_steps) < MOST:
        state.epoch_steps[stage] = event.step / event.epoch
    for name, value in event.values.items():
        if value is None:
            _log(state, event, f"{name} is not a number at step {event.step:,}", "warning")
            continue
        key = (stage, event.split, name)
        if key not in state.series:
            if len(state.series) >= FINDINGS:  # No real run has so many: a file of something else.
                continue
            state.series[key] = Series()
        state.series[key].add(event.step, value)
    if event.split == "validation":
        parts = [
            f"{name.replace('_', ' ')} {value:.3f}" if name == "loss" else f"{name.replace('_', ' ')} {value:.1%}"
            for name, value in event.values.items()
            if value is not None
        ]
        _log(state, event, f"epoch {event.epoch}, validation: {', '.join(parts)}")


def _sampled(state: RunState, event: events.SystemSampled) -> None:
    if state.started is None:
        return
    found = {"processor": _share(event.cpu, 100.0), "memory": event.process_memory}
    for number, gpu in enumerate(event.gpus[:_GPUS]):
        values = gpu if isinstance(gpu, dict) else {}
        found[f"GPU {number}"] = _share(values.get("utilisation"), 100.0)
        found[f"GPU {number} memory"] = _share(values.get("memory_used"), values.get("memory_total"))
    seconds = state.before + event.time - state.started.time
    for name, value in found.items():
        if value is not None:
            state.load.setdefault(name, Series()).add(seconds, value)


def _share(part: Any, whole: Any) -> float | None:
    """Returns part / whole, or None where one of them isn't known: inside an event nobody has checked them."""
    known = all(isinstance(value, int | float) and abs(value) < _HUGE for value in (part, whole))
    return part / whole if known and whole else None


def _seconds_in(state: RunState, event: events.Event) -> float:
    """Returns how long the event's stage has been worked on."""
    stage = state.stages.get(event.stage or "")
    return 0.0 if stage is None else stage.before + event.time - stage.began


def _start_attack(state: RunState, event: events.AttackStarted) -> None:
    line = AttackLine(
        stage=event.stage or "",
        attack=event.attack,
        norm=event.norm,
        epsilon=event.epsilon,
        settings=event.settings,
        began=event.time,
        total=event.examples,
    )
    identity = operator.attrgetter("stage", "attack", "norm", "epsilon", "settings")
    # An attack that is repeated in a resumed run replaces the earlier one; in one start equal attacks may follow.
    began = state.started.time if state.started else 0.0
    state.attacks = [item for item in state.attacks if item.began >= began or identity(item) != identity(line)]
    if len(state.attacks) < MOST:
        state.attacks.append(line)


def _at_work(state: RunState, event: events.AttackProgress | events.AttackFinished) -> int | None:
    """Returns the place of the attack that an event is about, the last one of its name that is under way."""
    wanted = event.attack, event.stage or "", "running"
    places = [place for place, line in enumerate(state.attacks) if (line.attack, line.stage, line.status) == wanted]
    return places[-1] if places else None


def _attack_progress(state: RunState, event: events.AttackProgress, place: int) -> None:
    line = state.attacks[place]
    seconds = max(0.0, event.time - line.began)
    # Those that were wrong from the start cost nothing: they are there before the first step.
    spared = event.done if line.survivors is None and not event.gradients else line.spared
    batch = state.started.config.get("batch_size") if state.started is not None else None
    at_hand = min(batch if isinstance(batch, int) else event.total, event.total - event.done)
    steps = event.step / event.steps if event.steps > 0 else 0.0
    work = event.total - spared
    share = (event.done - spared + at_hand * steps) / work if work > 0 else 0.0
    # The first moments go into tracing, and say nothing about the rest.
    left = seconds * (1 - share) / share if 0.02 < share <= 1 else None
    if event.total:
        line.curve.add(seconds, event.survivors / event.total)
    state.attacks[place] = replace(
        line,
        done=event.done,
        total=event.total,
        survivors=event.survivors,
        step=event.step,
        steps=event.steps,
        gradients=event.gradients,
        forwards=event.forwards,
        seconds=seconds,
        seconds_left=left,
        share=min(max(share, 0.0), 1.0),
        spared=spared,
    )


def _finish_attack(state: RunState, event: events.AttackFinished, place: int) -> None:
    line = state.attacks[place]
    if line.epsilon is not None or is_no_ball(line.norm):  # A minimum-norm attack has no accuracy of its own.
        line.curve.add(event.seconds, event.robust_accuracy)
    state.attacks[place] = replace(
        line,
        done=line.total,
        seconds=event.seconds,
        seconds_left=None,
        gradients=event.gradients,
        forwards=event.forwards,
        robust_accuracy=event.robust_accuracy,
        interval=event.interval,
        median_distance=event.median_distance,
        status="done",
    )

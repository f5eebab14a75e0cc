"""What happened in a run: typed events, one JSON object a line, with a schema version.

The engine emits them, `events.jsonl` keeps them, the console and the terminal UI draw them. A reader skips unknown
types and fields, so that an old reader can follow a newer run. No TensorFlow here.

Example:
    >>> line = to_json(Log(level="info", message="hello", time=0.0))
    >>> from_json(line)
    Log(time=0.0, stage=None, level='info', message='hello')
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import re
import time as clock
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from kerasrobust.errors import Cancelled

SCHEMA = 1

Severity = Literal["info", "warning", "error"]
Status = Literal["done", "failed", "cancelled"]
Steering = Literal["on", "off", "frozen"]
"""The noise of a randomized network while it is attacked and judged; `frozen` to one draw."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """What all events have: `time` in Unix seconds and, inside a stage, the `stage`'s name."""

    types: ClassVar[dict[str, type[Event]]] = {}

    time: float = field(default_factory=clock.time)
    stage: str | None = None

    def __init_subclass__(cls) -> None:
        Event.types[cls.__name__] = cls


Emit = Callable[[Event], None]


@dataclass(frozen=True, kw_only=True)
class RunStarted(Event):
    """The first event of a run: what was asked for, and on what it runs."""

    run: str
    kind: str
    config: dict[str, Any]
    command: str
    versions: dict[str, str]
    devices: list[str]
    pid: int


@dataclass(frozen=True, kw_only=True)
class StageStarted(Event):
    """A named part of the run begins; `title` is for people."""

    title: str


@dataclass(frozen=True, kw_only=True)
class StageFinished(Event):
    """The stage of this name ended after `seconds`; `stopped`: out of time, before it had found anything."""

    status: Literal["done", "skipped", "failed", "stopped"]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Progress(Event):
    """How far a stage is: `done` of `total` units (`total` null: unknown), units per second, seconds to go."""

    unit: str
    done: int
    total: int | None = None
    rate: float | None = None
    seconds_left: float | None = None


@dataclass(frozen=True, kw_only=True)
class Metrics(Event):
    """Figures of training, named as Keras names them."""

    step: int
    epoch: int
    values: dict[str, float]
    split: Literal["train", "validation"]


@dataclass(frozen=True, kw_only=True)
class AttackStarted(Event):
    """An attack begins on `examples` images."""

    attack: str
    norm: str
    epsilon: float | None
    examples: int
    settings: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class AttackProgress(Event):
    """Examples `done` of `total`, of which `survivors` are still classified correctly, and what it has cost."""

    attack: str
    done: int
    total: int
    survivors: int
    step: int
    steps: int
    gradients: int
    forwards: int


@dataclass(frozen=True, kw_only=True)
class AttackFinished(Event):
    """An attack ended: the fields of its entry in `result.json`."""

    attack: str
    name: str
    norm: str
    epsilon: float | None
    robust_accuracy: float
    interval: list[float]
    median_distance: float | None
    seconds: float
    gradients: int
    forwards: int
    attacked: int | None = None
    curve: list[list[float]] | None = None
    median_queries: float | None = None
    query_curve: list[list[float]] | None = None
    reached: float | None = None
    reached_interval: list[float] | None = None
    surrogate: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Evaluated(Event):
    """All attacks on a model ended: the accuracies of its `result.json`, without any and under all of them together."""

    clean_accuracy: float
    clean_interval: list[float]
    robust_accuracy: float
    interval: list[float]


@dataclass(frozen=True, kw_only=True)
class Audited(Event):
    """An audit ended: the codes of what was looked for, of what wasn't, and of findings that are reasons for doubt, or
    mere notes.
    """

    checked: list[str]
    left_out: list[str]
    doubts: list[str]
    notes: list[str]


@dataclass(frozen=True, kw_only=True)
class LabelFinished(Event):
    """One of several labels was attacked alone: the fields of its entry in `result.json`, but for its `attacks`."""

    name: str
    share: float
    clean_accuracy: float
    clean_interval: list[float]
    robust_accuracy: float
    interval: list[float]


@dataclass(frozen=True, kw_only=True)
class Certified(Event):
    """A network was certified: the fields of `certificate` in `result.json`, and the smoothed network's accuracy."""

    clean_accuracy: float
    clean_interval: list[float]
    certificate: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class CorruptionFinished(Event):
    """A corruption was measured at a severity: the fields of its entry in `result.json`.

    `reference` is the accuracy of the reference network on the same images, or null.
    """

    kind: str
    severity: int
    accuracy: float
    interval: list[float]
    reference: float | None = None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class ExamplesSaved(Event):
    """`count` examples of `attack` were written to the HDF5 file at `path` (relative to the run's folder)."""

    path: str
    count: int
    attack: str


@dataclass(frozen=True, kw_only=True)
class ModelSaved(Event):
    """A model was saved in the folder `path`; `card` is its `card.json`."""

    name: str
    path: str
    card: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Row(Event):
    """One row of the study's table, fields as in `result.json`; null if not applicable.

    `name` is the network's, null in older runs; `noise` says how a randomized network was attacked and judged;
    `examples` is the number of images, where rows have each their own.
    """

    name: str | None = None
    model: str
    training: str
    randomized: bool
    noise: Steering = "on"
    attack: str | None = None
    norm: str | None = None
    epsilon: float | None = None
    steps: int | None = None
    eot: int | None = None
    accuracy: float
    interval: list[float]
    median_distance: float | None = None
    published: float | None = None
    examples: int | None = None


@dataclass(frozen=True, kw_only=True)
class Finding(Event):
    """A reason to doubt a figure, with a stable `code`, a sentence, and the figures behind it."""

    code: str
    message: str
    severity: Severity
    evidence: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Log(Event):
    """A line for people."""

    level: Severity
    message: str


@dataclass(frozen=True, kw_only=True)
class SystemSampled(Event):
    """What a run took of its machine since the sample before; null for what the system doesn't tell.

    `cpu` is in percent of all cores, `process_cpu` of one core; memory is in bytes, used by all programs, there in all,
    and held by the run's process. Each GPU has `name`, `utilisation` in percent of the time, `memory_used` and
    `memory_total` in bytes, `temperature` in degrees Celsius, `power` and `power_limit` in watts.
    """

    cpu: float | None
    process_cpu: float | None
    memory: float | None
    memory_total: float | None
    process_memory: float | None
    gpus: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class RunFinished(Event):
    """The last event of a run that ended by itself."""

    status: Status
    seconds: float
    message: str


def as_doubt(finding: Finding) -> dict[str, Any]:
    """Returns a finding as `warnings` in `result.json` have it."""
    return finite({name: getattr(finding, name) for name in ("code", "message", "severity", "evidence")})


@contextlib.contextmanager
def staged(
    emit: Emit, name: str, title: str, ended: Callable[[], Literal["done", "stopped"]] = lambda: "done"
) -> Iterator[Emit]:
    """Emits the beginning and the end of a stage; yields an emit that marks what has no stage yet with its name.

    `ended` is asked at the end how it went.

    Example:
        >>> with staged(print, "train", "Training convnet") as emit:
        ...     emit(Log(level="info", message="hello"))
    """
    began = clock.monotonic()
    emit(StageStarted(stage=name, title=title))

    def finish(status: Literal["done", "failed", "stopped"]) -> None:
        emit(StageFinished(stage=name, status=status, seconds=clock.monotonic() - began))

    try:
        yield lambda event: emit(event if event.stage is not None else dataclasses.replace(event, stage=name))
        finish(ended())
    except (Cancelled, KeyboardInterrupt):  # Neither done nor failed: the run reports that it was cancelled.
        raise
    except BaseException:
        with contextlib.suppress(OSError):  # The error may be a full disk.
            finish("failed")
        raise


def finite(value: Any) -> Any:
    """Returns `value` with non-finite numbers, which JSON lacks, replaced by None at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def as_dict(event: Event) -> dict[str, Any]:
    """Returns the JSON object of an event's line; without `stage` outside of stages."""
    fields = {item.name: getattr(event, item.name) for item in dataclasses.fields(event)}
    if fields["stage"] is None:
        del fields["stage"]
    return {"schema": SCHEMA, "type": type(event).__name__, **finite(fields)}


def to_json(event: Event) -> str:
    """Returns the event as one line of JSON, without the line's end."""
    return json.dumps(as_dict(event), separators=(",", ":"), allow_nan=False)


def from_json(line: str | bytes) -> Event | None:
    """Returns the event of a line, or None for one that this version doesn't know (torn, foreign, newer).

    Its fields have the types that its class declares, whoever wrote the line: readers need no further checks.
    """
    try:
        text = line if isinstance(line, str) else line.decode()
        record = _DECODER.decode(text)
    except (ValueError, RecursionError):  # The latter for endless brackets.
        return None
    if not isinstance(record, dict):
        return None
    # Most lines are plain, and found to be so much sooner.
    if not (text.isascii() and text.isprintable() and "\\" not in text) and _ODD.search(text):
        record = printable(record)
    kind = Event.types.get(str(record.get("type")))
    if kind is None:
        return None
    checks = _checks(kind.__name__)
    given = {}
    for name, value in record.items():
        if (fits := checks.get(name)) is not None:
            if not fits(value):
                return None
            given[name] = value
    try:
        return kind(**given)
    except TypeError:  # A field is missing.
        return None


# Control characters, escaped or as they are.
_ODD = re.compile(r"\\u00|\\[bf]|[\x7f-\x9f]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(value: Any) -> Any:
    r"""Returns a value without control characters in its texts, at any depth: in a terminal they are commands.

    Line ends and tabs stay.

    Example:
        >>> printable({"message": "red \x1b[31m alert"})
        {'message': 'red [31m alert'}
    """
    if isinstance(value, str):
        return _CONTROL.sub("", value)
    if isinstance(value, dict):
        return {printable(key): printable(item) for key, item in value.items()}
    return [printable(item) for item in value] if isinstance(value, list) else value


# NaN and infinities aren't JSON, though Python writes and reads them.
_DECODER = json.JSONDecoder(parse_constant=lambda word: None)

# A number of a thousand digits is JSON, but not a float.
_HUGE = 10**300

Check = Callable[[Any], bool]


@functools.cache
def _checks(name: str) -> dict[str, Check]:
    """Returns a check for each field of an event type."""
    kind = Event.types[name]
    hints = get_type_hints(kind)
    return {item.name: _check(hints[item.name]) for item in dataclasses.fields(kind)}


def _check(hint: Any) -> Check:
    """Returns a function that checks whether a value from JSON fits a type hint."""
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return lambda value: True
    if hint is float:
        whole = _check(int)
        return lambda value: math.isfinite(value) if type(value) is float else whole(value)
    if hint is int:
        return lambda value: type(value) is int and -_HUGE < value < _HUGE
    if origin is Literal:
        return lambda value: type(value) is str and value in parts
    if origin in (Union, UnionType):
        checks = [_check(part) for part in parts]
        return lambda value: any(fits(value) for fits in checks)
    if origin in (list, dict):
        inside = _check(parts[-1])

        def fits_inside(value: Any) -> bool:
            if type(value) is not origin:
                return False
            # A loop, as it takes half the time of all(), and long runs have many. Inside, null is a non-finite number.
            for item in value.values() if origin is dict else value:
                if item is not None and not inside(item):
                    return False
            return True

        return fits_inside
    return lambda value: type(value) is hint

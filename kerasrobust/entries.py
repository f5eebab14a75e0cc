"""The parts of results and model cards: what their JSON holds, checked once and then known by name.

A file may be of another version, somebody else's, or damaged. What has the expected type is taken over; what hasn't
counts as missing. No TensorFlow here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from kerasrobust.names import uncorrupted

Interval = tuple[float, float]
JSON = Mapping[str, Any]


def text(value: Any) -> str:
    """Returns a value as one line of printable text; empty for None, lists and objects."""
    if value is None or isinstance(value, list | tuple | dict):
        return ""
    return "".join(letter for letter in " ".join(str(value).split()) if letter.isprintable())


def number(value: Any) -> float | None:
    """Returns a value if it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 10**15 or (isinstance(value, float) and math.isfinite(value)) else None


def interval(value: Any) -> Interval | None:
    """Returns a list of two numbers as a pair, else None."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    low, high = map(number, value)
    return None if low is None or high is None else (low, high)


def as_object(value: Any) -> dict[str, Any]:
    """Returns a value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def objects(value: Any) -> tuple[dict[str, Any], ...]:
    """Returns the objects of a list; none of anything else."""
    return tuple(item for item in value if isinstance(item, dict)) if isinstance(value, list | tuple) else ()


def whole(value: Any) -> int | None:
    """Returns a value if it is a whole number, else None."""
    return value if type(value) is int else None


def _radius(value: Any) -> float | None:
    radius = number(value)
    return radius if radius is None or radius >= 0 else None


def _distance(value: Any) -> float | None:
    return math.inf if value == math.inf else number(value)


_READERS: dict[Any, Callable[[Any], Any]] = {
    "str": text,
    "str | None": lambda value: text(value) or None,
    "bool": lambda value: value is True,
    "int | None": whole,
    "float | None": number,
    "Interval | None": interval,
    "dict[str, Any]": as_object,
    "tuple[dict[str, Any], ...]": objects,
    "Any": lambda value: value,
}
"""How a field is read, by the type that its class declares."""

_OWN_READERS: dict[str, Callable[[Any], Any]] = {
    "epsilon": _radius,
    "median_distance": _distance,
    "noise": lambda value: text(value) or "on",
}
"""The same for fields of which the type says too little, by their names."""


def read_fields(kind: type, record: JSON) -> dict[str, Any]:
    """Returns the fields of a dataclass that a record has under their own names."""
    readers = {item.name: _OWN_READERS.get(item.name) or _READERS.get(item.type) for item in fields(kind)}
    return {name: read(record.get(name)) for name, read in readers.items() if read is not None}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table: a network under one attack, or, with `attack` None, without any.

    `noise` says how a randomized network was attacked and judged: "on", "off", or "frozen" to one draw.
    """

    name: str | None = None
    model: str
    training: str | None = None
    randomized: bool = False
    noise: str = "on"
    attack: str | None = None
    norm: str | None = None
    epsilon: float | None = None
    steps: int | None = None
    eot: int | None = None
    accuracy: float | None = None
    interval: Interval | None = None
    median_distance: float | None = None
    published: float | None = None
    examples: int | None = None
    target: str | None = None
    surrogate: str | None = None

    @classmethod
    def parse(cls, record: JSON) -> Row:
        return cls(**read_fields(cls, record))

    @property
    def network(self) -> str:
        """The network's name: its own, or one spelled as the models that come with the project are.

        Example:
            >>> Row(model="convnet", training="pgd", randomized=True).network
            'convnet-random-pgd'
        """
        if self.name:
            return self.name
        training = self.training if self.training != "standard" else None
        return "-".join(filter(None, (self.model, "random" if self.randomized else None, training)))


@dataclass(frozen=True, kw_only=True)
class AttackEntry:
    """One attack of a result or card; `curve` holds points (epsilon, accuracy, low, high), `query_curve` points
    (queries, accuracy, low, high).

    `attacked` is the number of images that it ran on, where those weren't all; `version` is AutoAttack's, and
    `examples` the number of images of the data, where an entry says so for itself. `surrogate` names the model whose
    gradients were taken, where that isn't the attacked one. `within`: its curve is of attacks within one radius after
    another.
    """

    name: str
    norm: str
    epsilon: float | None
    robust_accuracy: float | None
    interval: Interval | None
    median_distance: float | None
    seconds: float | None
    gradients: int | None
    forwards: int | None
    reached: float | None
    reached_interval: Interval | None
    settings: dict[str, Any]
    curve: tuple[tuple[float, float, float, float], ...]
    query_curve: tuple[tuple[float, float, float, float], ...] = ()
    median_queries: float | None = None
    attacked: int | None = None
    version: str | None = None
    examples: int | None = None
    surrogate: str | None = None
    within: bool = False

    @classmethod
    def parse(cls, record: JSON) -> AttackEntry:
        curves = {name: points_of(record.get(name)) for name in ("curve", "query_curve")}
        return cls(**read_fields(cls, record) | curves)


def points_of(curve: Any) -> tuple[Any, ...]:
    """Returns the points of a curve, four numbers each; others are left out."""
    entries = curve if isinstance(curve, list | tuple) else ()
    points = [tuple(map(number, entry)) for entry in entries if isinstance(entry, list | tuple)]
    return tuple(point for point in points if len(point) == 4 and None not in point)


class Doubt(NamedTuple):
    """A finding: a stable code, a sentence, and how grave it is (`events.Severity`); "info" is no reason to doubt."""

    code: str
    message: str
    severity: str = "warning"


@dataclass(frozen=True, kw_only=True)
class Data:
    """The data of a result: `split` is the one it names first, `test_split` that of a training's test."""

    name: str = ""
    split: str = ""
    test_split: str = ""
    examples: int | None = None
    synthetic: bool = False
    classes: tuple[str, ...] = ()

    @classmethod
    def parse(cls, record: JSON) -> Data:
        data = as_object(record.get("data"))
        name = text(data.get("name")) or text(record.get("data"))
        count, known = number(data.get("examples")), data.get("synthetic")
        own = {
            "name": name,
            "examples": None if count is None else int(count),
            "synthetic": known if isinstance(known, bool) else uncorrupted(name) == "shapes",
            "classes": tuple(map(text, found)) if isinstance(found := data.get("classes"), list) else (),
        }
        return cls(**read_fields(cls, data) | own)

    @property
    def measured(self) -> str:
        """The split that was measured."""
        return self.test_split or self.split


@dataclass(frozen=True, kw_only=True)
class LabelEntry:
    """One of several labels of a result: the share of the images that have it, and its accuracies, attacked alone."""

    name: str
    share: float | None
    clean_accuracy: float | None
    clean_interval: Interval | None
    robust_accuracy: float | None
    interval: Interval | None

    @classmethod
    def parse(cls, record: JSON) -> LabelEntry:
        return cls(**read_fields(cls, record))


@dataclass(frozen=True, kw_only=True)
class ClassEntry:
    """One class of a result: how many images are of it, and the shares that are right as they are and attacked."""

    name: str
    images: int | None
    accuracy: float | None
    interval: Interval | None
    robust_accuracy: float | None = None
    robust_interval: Interval | None = None

    @classmethod
    def parse(cls, record: JSON) -> ClassEntry:
        return cls(**read_fields(cls, record))


@dataclass(frozen=True, kw_only=True)
class PairEntry:
    """How two models that were assessed together differ under a threat, on the same images.

    `only_first` of the images only `model` gets wrong, `only_second` only `other`; `p` is that of McNemar's exact test,
    and `difference` the first's accuracy minus the second's.
    """

    model: str
    other: str
    threat: str
    images: int | None
    only_first: int | None
    only_second: int | None
    p: float | None
    difference: float | None

    @classmethod
    def parse(cls, record: JSON) -> PairEntry:
        return cls(**read_fields(cls, record))


@dataclass(frozen=True, kw_only=True)
class CertificateEntry:
    """What randomized smoothing certified; `points`, those of the table, and `curve` are (radius, accuracy, low, high).

    `confidence` is that of each image's certificate by itself, and `abstained` the share of images without one.
    """

    noise: str
    sigma: float | None
    norm: str
    samples: int | None
    confidence: float | None
    abstained: float | None
    counted: int | None
    points: tuple[tuple[float, float, float, float], ...]
    curve: tuple[tuple[float, float, float, float], ...]

    @classmethod
    def parse(cls, record: JSON) -> CertificateEntry:
        own = {"noise": text(record.get("noise")), "curve": points_of(record.get("curve"))}
        return cls(**read_fields(cls, record) | own | {"points": points_of(record.get("points"))})


class Verdicts(NamedTuple):
    """Robust accuracy of a randomized network by majority and in the worst of `passes`, each with its interval."""

    passes: int
    majority: tuple[float, Interval | None]
    worst_case: tuple[float, Interval | None]


def add_row(rows: list[Any], row: Any) -> None:
    """Adds a row to those of a table as it grows; one of an assessment takes the place of that on fewer images.

    Example:
        >>> rows = [Row(model="net", attack="pgd", examples=64), Row(model="net", attack="cw", examples=64)]
        >>> add_row(rows, Row(model="net", attack="pgd", examples=128))
        >>> [row.examples for row in rows]
        [128, 64]
    """
    threat = _threat_of(row)
    place = next((number for number, other in enumerate(rows) if _threat_of(other) == threat), None)
    if place is None or row.examples is None:
        rows.append(row)
    else:
        rows[place] = row


def _threat_of(row: Any) -> tuple[Any, ...]:
    return row.name, row.model, row.attack, row.norm, row.epsilon

"""Results and model cards: what their JSON holds, checked once and then known by name.

A file may be of another version, somebody else's, or damaged. What has the expected type is taken over; what hasn't
counts as missing. No TensorFlow here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
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


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _objects(value: Any) -> tuple[dict[str, Any], ...]:
    return tuple(item for item in value if isinstance(item, dict)) if isinstance(value, list | tuple) else ()


def _whole(value: Any) -> int | None:
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
    "int | None": _whole,
    "float | None": number,
    "Interval | None": interval,
    "dict[str, Any]": _object,
    "tuple[dict[str, Any], ...]": _objects,
    "Any": lambda value: value,
}
"""How a field is read, by the type that its class declares."""

_OWN_READERS: dict[str, Callable[[Any], Any]] = {
    "epsilon": _radius,
    "median_distance": _distance,
    "noise": lambda value: text(value) or "on",
}
"""The same for fields of which the type says too little, by their names."""


def _read(kind: type, record: JSON) -> dict[str, Any]:
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
        return cls(**_read(cls, record))

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
    gradients were taken, where that isn't the attacked one.
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

    @classmethod
    def parse(cls, record: JSON) -> AttackEntry:
        return cls(**_read(cls, record) | {name: _points(record.get(name)) for name in ("curve", "query_curve")})


def _points(curve: Any) -> tuple[Any, ...]:
    entries = curve if isinstance(curve, list | tuple) else ()
    points = [tuple(map(number, entry)) for entry in entries if isinstance(entry, list | tuple)]
    return tuple(point for point in points if len(point) == 4 and None not in point)


class Doubt(NamedTuple):
    """A warning: a stable code and a sentence."""

    code: str
    message: str


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
        data = _object(record.get("data"))
        name = text(data.get("name")) or text(record.get("data"))
        count, known = number(data.get("examples")), data.get("synthetic")
        own = {
            "name": name,
            "examples": None if count is None else int(count),
            "synthetic": known if isinstance(known, bool) else uncorrupted(name) == "shapes",
            "classes": tuple(map(text, found)) if isinstance(found := data.get("classes"), list) else (),
        }
        return cls(**_read(cls, data) | own)

    @property
    def measured(self) -> str:
        """The split that was measured."""
        return self.test_split or self.split


@dataclass(frozen=True, kw_only=True)
class Card:
    """What is known of a saved model, or of a run that made or measured one.

    Attributes:
        training: its settings, as they stand in the file.
        randomized: None if the file doesn't say.
        measured: further attacks that were run on it by themselves, each with its own number of images.
        target: what the attack drove images to, if it was targeted.
    """

    data: Data = field(default_factory=Data)
    training: dict[str, Any] = field(default_factory=dict)
    randomized: bool | None = None
    clean_accuracy: float | None = None
    clean_interval: Interval | None = None
    attacks: tuple[AttackEntry, ...] = ()
    measured: tuple[AttackEntry, ...] = ()
    robust_accuracy: float | None = None
    robust_interval: Interval | None = None
    doubts: tuple[Doubt, ...] = ()
    layers: tuple[dict[str, Any], ...] = ()
    parameters: int | None = None
    image_shape: Any = None
    classes: str = ""
    command: str = ""
    target: str = ""
    seed: str = ""
    versions: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def _fields(cls, record: JSON) -> dict[str, Any]:
        known = record.get("randomized")
        randomized = _object(record.get("training")).get("randomize") is not None or known is True
        return _read(cls, record) | {
            "data": Data.parse(record),
            "randomized": True if randomized else known if isinstance(known, bool) else None,
            **{name: tuple(map(AttackEntry.parse, _objects(record.get(name)))) for name in ("attacks", "measured")},
            "robust_interval": interval(record.get("robust_interval", record.get("interval"))),
            "doubts": tuple(
                Doubt(text(item.get("code")), text(item.get("message"))) for item in _objects(record.get("warnings"))
            ),
        }

    @classmethod
    def parse(cls, record: JSON) -> Card:
        return cls(**cls._fields(record))

    @property
    def architecture(self) -> str:
        """What the model was built or trained on from; empty if the card doesn't say."""
        return text(self.training.get("model"))

    @property
    def entries(self) -> tuple[AttackEntry, ...]:
        """All attacks that have a name: those of the record's own measurement, then the further ones."""
        return tuple(entry for entry in (*self.attacks, *self.measured) if entry.name)

    @property
    def autoattack(self) -> AttackEntry | None:
        """The AutoAttack figure: in Linf, or else the first; None where it wasn't measured."""
        found = [entry for entry in self.entries if entry.name == "autoattack" and entry.robust_accuracy is not None]
        return min(found, key=lambda entry: entry.norm != "linf", default=None)

    def table(self, title: str) -> tuple[Row, ...]:
        """Returns the figures as rows: without an attack, then under each.

        Args:
            title: the network's name if the record has none.
        """
        return self._table(self.architecture.rpartition("/")[2] or title, text(self.training.get("training")) or None)

    def _table(self, model: str, training: str | None) -> tuple[Row, ...]:
        # A network without a training was given by name, and its name says already what it is.
        known: dict[str, Any] = {"model": model, "training": training}
        known["randomized"] = self.randomized is True and training is not None
        rows = [Row(**known, accuracy=self.clean_accuracy, interval=self.clean_interval)]
        for entry in self.entries:
            settings: dict[str, Any] = {name: _whole(entry.settings.get(name)) for name in ("steps", "eot")}
            rows.append(
                Row(
                    **known, **settings, attack=entry.name, norm=entry.norm or None, epsilon=entry.epsilon,
                    accuracy=entry.robust_accuracy, interval=entry.interval, median_distance=entry.median_distance,
                    target=self.target or None, surrogate=entry.surrogate,
                )
            )  # fmt: skip
        return tuple(rows)


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
        return cls(**_read(cls, record))


@dataclass(frozen=True, kw_only=True)
class ClassEntry:
    """One class of a result: how many images are of it, and the share of them that is right as it is."""

    name: str
    images: int | None
    accuracy: float | None
    interval: Interval | None

    @classmethod
    def parse(cls, record: JSON) -> ClassEntry:
        return cls(**_read(cls, record))


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
        own = {"noise": text(record.get("noise")), "curve": _points(record.get("curve"))}
        return cls(**_read(cls, record) | own | {"points": _points(record.get("points"))})


class Verdicts(NamedTuple):
    """Robust accuracy of a randomized network by majority and in the worst of `passes`, each with its interval."""

    passes: int
    majority: tuple[float, Interval | None]
    worst_case: tuple[float, Interval | None]


@dataclass(frozen=True, kw_only=True)
class Result(Card):
    """What a `result.json` holds.

    Attributes:
        model: the network that was measured, by name or path.
        attack: the attack that was asked for.
        version: AutoAttack's, where that is the attack.
        rows: of a study; None for any other run.
        verdict: of a run that looked into randomness; of a study, whether it helps.
        labels: each alone, where an image has several; the other figures are of all of them together.
        by_class: each class on unchanged images; `confusion` counts them by true (row) and predicted class.
        calibration_error: the expected calibration error on unchanged images, with its interval.
        left_out: what an assessment hasn't looked at, and why.
        curves: accuracy over the radius, as entries of attacks that have nothing else.
        certificate: what was certified of a network that votes under noise, whose figures the others then are.
        corruptions: what was measured under common corruptions, which `show.corruptions` reads; empty elsewhere.
    """

    kind: str = ""
    model: str = ""
    attack: str = ""
    version: str | None = None
    rows: tuple[Row, ...] | None = None
    verdict: str = ""
    verdicts: Verdicts | None = None
    labels: tuple[LabelEntry, ...] = ()
    by_class: tuple[ClassEntry, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    calibration_error: float | None = None
    calibration_interval: Interval | None = None
    left_out: tuple[str, ...] = ()
    curves: tuple[AttackEntry, ...] = ()
    certificate: CertificateEntry | None = None
    corruptions: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, record: JSON) -> Result:
        return cls(
            **cls._fields(record),
            rows=tuple(map(Row.parse, _objects(record.get("rows")))) if "rows" in record else None,
            verdicts=_verdicts(_object(record.get("verdicts"))),
            labels=tuple(map(LabelEntry.parse, _objects(record.get("labels")))),
            by_class=tuple(map(ClassEntry.parse, _objects(record.get("by_class")))),
            confusion=_counts(record.get("confusion")),
            curves=tuple(map(AttackEntry.parse, _objects(record.get("curves")))),
            left_out=tuple(map(text, found)) if isinstance(found := record.get("left_out"), list) else (),
            certificate=CertificateEntry.parse(entry) if (entry := _object(record.get("certificate"))) else None,
        )

    @property
    def has_card(self) -> bool:
        """Whether the run made a model, so that its result is the model's card."""
        return self.kind in ("train", "import")

    def table(self, title: str) -> tuple[Row, ...]:
        if self.rows is not None:
            return self.rows
        if self.has_card:
            return super().table(title)
        return (
            self._table(self.model.rpartition("/")[2] or title, None)
            if self.attacks or self.clean_accuracy is not None
            else ()
        )


def _counts(value: Any) -> tuple[tuple[int, ...], ...]:
    """Returns a square table of whole numbers; an empty one for anything else."""
    rows = value if isinstance(value, list) else []
    whole = all(isinstance(row, list) and len(row) == len(rows) and all(type(n) is int for n in row) for row in rows)
    return tuple(map(tuple, rows)) if whole else ()


def _verdicts(record: JSON) -> Verdicts | None:
    shares = {name: _object(record.get(name)) for name in ("majority", "worst_case")}
    accuracies = {name: number(share.get("accuracy")) for name, share in shares.items()}
    passes = _whole(record.get("passes"))
    if passes is None or None in accuracies.values():
        return None
    found = [(accuracies[name] or 0.0, interval(share.get("interval"))) for name, share in shares.items()]
    return Verdicts(passes, *found)

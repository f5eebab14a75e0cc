"""Results and model cards: what their JSON holds, checked once and then known by name.

A file may be of another version, somebody else's, or damaged. What has the expected type is taken over; what hasn't
counts as missing. No TensorFlow here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

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


def part(record: JSON, key: str) -> dict[str, Any]:
    """Returns an object inside a record; empty if there is none."""
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def items(record: JSON, key: str) -> list[dict[str, Any]]:
    """Returns the objects of a list inside a record."""
    value = record.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list | tuple) else []


def _whole(value: Any) -> int | None:
    return value if type(value) is int else None


def _radius(value: Any) -> float | None:
    radius = number(value)
    return radius if radius is None or radius >= 0 else None


def _distance(value: Any) -> float | None:
    return math.inf if value == math.inf else number(value)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table: a network under one attack, or, with `attack` None, without any."""

    model: str
    training: str | None = None
    randomized: bool = False
    attack: str | None = None
    norm: str | None = None
    epsilon: float | None = None
    steps: int | None = None
    eot: int | None = None
    accuracy: float | None = None
    interval: Interval | None = None
    median_distance: float | None = None
    published: float | None = None

    @classmethod
    def parse(cls, record: JSON) -> Row:
        return cls(
            model=text(record.get("model")),
            training=text(record.get("training")) or None,
            randomized=record.get("randomized") is True,
            attack=text(record.get("attack")) or None,
            norm=text(record.get("norm")) or None,
            epsilon=_radius(record.get("epsilon")),
            steps=_whole(record.get("steps")),
            eot=_whole(record.get("eot")),
            accuracy=number(record.get("accuracy")),
            interval=interval(record.get("interval")),
            median_distance=_distance(record.get("median_distance")),
            published=number(record.get("published")),
        )

    @property
    def network(self) -> str:
        """The network's name, spelled as the models that come with the project are.

        Example:
            >>> Row(model="convnet", training="pgd", randomized=True).network
            'convnet-random-pgd'
        """
        training = self.training if self.training != "standard" else None
        return "-".join(filter(None, (self.model, "random" if self.randomized else None, training)))


@dataclass(frozen=True, kw_only=True)
class AttackEntry:
    """One attack of a result or card; `curve` holds points (epsilon, accuracy, low, high)."""

    name: str
    norm: str
    epsilon: float | None
    robust_accuracy: float | None
    interval: Interval | None
    median_distance: float | None
    seconds: float | None
    gradients: int | None
    forwards: int | None
    settings: dict[str, Any]
    curve: tuple[tuple[float, float, float, float], ...]

    @classmethod
    def parse(cls, record: JSON) -> AttackEntry:
        curve = record.get("curve")
        points = (
            [tuple(map(number, point)) for point in curve or () if isinstance(point, list | tuple)]
            if isinstance(curve, list | tuple)
            else []
        )
        return cls(
            name=text(record.get("name")),
            norm=text(record.get("norm")),
            epsilon=_radius(record.get("epsilon")),
            robust_accuracy=number(record.get("robust_accuracy")),
            interval=interval(record.get("interval")),
            median_distance=_distance(record.get("median_distance")),
            seconds=number(record.get("seconds")),
            gradients=_whole(record.get("gradients")),
            forwards=_whole(record.get("forwards")),
            settings=part(record, "settings"),
            curve=tuple(point for point in points if len(point) == 4 and None not in point),  # type: ignore[misc]
        )


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

    @classmethod
    def parse(cls, record: JSON) -> Data:
        data = part(record, "data")
        name = text(data.get("name")) or text(record.get("data"))
        count = number(data.get("examples"))
        known = data.get("synthetic")
        return cls(
            name=name,
            split=text(data.get("split")),
            test_split=text(data.get("test_split")),
            examples=None if count is None else int(count),
            synthetic=known if isinstance(known, bool) else name == "shapes",
        )

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
    """

    data: Data = field(default_factory=Data)
    training: dict[str, Any] = field(default_factory=dict)
    randomized: bool | None = None
    clean_accuracy: float | None = None
    clean_interval: Interval | None = None
    attacks: tuple[AttackEntry, ...] = ()
    robust_accuracy: float | None = None
    robust_interval: Interval | None = None
    doubts: tuple[Doubt, ...] = ()
    layers: tuple[dict[str, Any], ...] = ()
    parameters: int | None = None
    image_shape: Any = None
    classes: str = ""
    command: str = ""
    seed: str = ""
    versions: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def _fields(cls, record: JSON) -> dict[str, Any]:
        known = record.get("randomized")
        randomized = part(record, "training").get("randomize") is not None or known is True
        return {
            "data": Data.parse(record),
            "training": part(record, "training"),
            "randomized": True if randomized else known if isinstance(known, bool) else None,
            "clean_accuracy": number(record.get("clean_accuracy")),
            "clean_interval": interval(record.get("clean_interval")),
            "attacks": tuple(map(AttackEntry.parse, items(record, "attacks"))),
            "robust_accuracy": number(record.get("robust_accuracy")),
            "robust_interval": interval(record.get("robust_interval", record.get("interval"))),
            "doubts": tuple(
                Doubt(text(item.get("code")), text(item.get("message"))) for item in items(record, "warnings")
            ),
            "layers": tuple(items(record, "layers")),
            "parameters": _whole(record.get("parameters")),
            "image_shape": record.get("image_shape"),
            "classes": text(record.get("classes")),
            "command": text(record.get("command")),
            "seed": text(record.get("seed")),
            "versions": part(record, "versions"),
        }

    @classmethod
    def parse(cls, record: JSON) -> Card:
        return cls(**cls._fields(record))

    @property
    def architecture(self) -> str:
        """What the model was built or trained on from; empty if the card doesn't say."""
        return text(self.training.get("model"))

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
        for entry in self.attacks:
            if entry.name:
                settings: dict[str, Any] = {name: _whole(entry.settings.get(name)) for name in ("steps", "eot")}
                rows.append(
                    Row(
                        **known, **settings, attack=entry.name, norm=entry.norm or None, epsilon=entry.epsilon,
                        accuracy=entry.robust_accuracy, interval=entry.interval, median_distance=entry.median_distance,
                    )
                )  # fmt: skip
        return tuple(rows)


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
        rows: of a study; None for any other run.
        verdict: of a run that looked into randomness.
    """

    kind: str = ""
    model: str = ""
    attack: str = ""
    rows: tuple[Row, ...] | None = None
    verdict: str = ""
    verdicts: Verdicts | None = None

    @classmethod
    def parse(cls, record: JSON) -> Result:
        return cls(
            **cls._fields(record),
            kind=text(record.get("kind")),
            model=text(record.get("model")),
            attack=text(record.get("attack")),
            rows=tuple(map(Row.parse, items(record, "rows"))) if "rows" in record else None,
            verdict=text(record.get("verdict")),
            verdicts=_verdicts(part(record, "verdicts")),
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
        return self._table(self.model.rpartition("/")[2] or title, None) if self.attacks else ()


def _verdicts(record: JSON) -> Verdicts | None:
    shares = {name: part(record, name) for name in ("majority", "worst_case")}
    accuracies = {name: number(share.get("accuracy")) for name, share in shares.items()}
    passes = _whole(record.get("passes"))
    if passes is None or None in accuracies.values():
        return None
    found = [(accuracies[name] or 0.0, interval(share.get("interval"))) for name, share in shares.items()]
    return Verdicts(passes, *found)

"""Model cards and results as a whole; `entries` has their parts, and how they are read. No TensorFlow here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kerasrobust.entries import (
    JSON,
    AttackEntry,
    CertificateEntry,
    ClassEntry,
    Data,
    Doubt,
    Interval,
    LabelEntry,
    PairEntry,
    Row,
    Verdicts,
    as_object,
    interval,
    number,
    objects,
    read_fields,
    text,
    whole,
)


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
        randomized = as_object(record.get("training")).get("randomize") is not None or known is True
        return read_fields(cls, record) | {
            "data": Data.parse(record),
            "randomized": True if randomized else known if isinstance(known, bool) else None,
            **{name: tuple(map(AttackEntry.parse, objects(record.get(name)))) for name in ("attacks", "measured")},
            "robust_interval": interval(record.get("robust_interval", record.get("interval"))),
            "doubts": tuple(
                Doubt(text(item.get("code")), text(item.get("message")), text(item.get("severity")) or "warning")
                for item in objects(record.get("warnings"))
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
    def figures(self) -> tuple[AttackEntry, ...]:
        """What has a line in tables: all attacks, and what several of them say together."""
        return self.entries

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
        for entry in self.figures:
            settings: dict[str, Any] = {name: whole(entry.settings.get(name)) for name in ("steps", "eot")}
            rows.append(
                Row(
                    **known, **settings, attack=entry.name, norm=entry.norm or None, epsilon=entry.epsilon,
                    accuracy=entry.robust_accuracy, interval=entry.interval, median_distance=entry.median_distance,
                    target=self.target or None, surrogate=entry.surrogate,
                )
            )  # fmt: skip
        return tuple(rows)


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
        by_class: each class on unchanged images, and under attack where there was one; `confusion` counts unchanged
            images by true (row) and predicted class, `confusion_under_attack` what attacks made of them.
        calibration_error: the expected calibration error on unchanged images, with its interval.
        left_out: what an assessment hasn't looked at, and why.
        compared: how models that were assessed together differ on the same images, in sentences.
        pairs: the same in figures, in the same order; older results lack them.
        curves: accuracy over the radius, as entries of attacks that have nothing else.
        audit: what reasons for doubt were looked for, which `show.audited` reads; empty where none were.
        certificate: what was certified of a network that votes under noise; without rows all figures are its.
        corruptions: what was measured under common corruptions, which `show.corrupted` reads; empty elsewhere.
        beside: the models that were assessed together with this one, each with what is its own.
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
    confusion_under_attack: tuple[tuple[int, ...], ...] = ()
    calibration_error: float | None = None
    calibration_interval: Interval | None = None
    left_out: tuple[str, ...] = ()
    compared: tuple[str, ...] = ()
    pairs: tuple[PairEntry, ...] = ()
    curves: tuple[AttackEntry, ...] = ()
    audit: dict[str, Any] = field(default_factory=dict)
    certificate: CertificateEntry | None = None
    corruptions: dict[str, Any] = field(default_factory=dict)
    beside: tuple[Result, ...] = ()

    @classmethod
    def parse(cls, record: JSON) -> Result:
        return cls(
            **cls._fields(record),
            rows=tuple(map(Row.parse, objects(record.get("rows")))) if "rows" in record else None,
            verdicts=_verdicts(as_object(record.get("verdicts"))),
            labels=tuple(map(LabelEntry.parse, objects(record.get("labels")))),
            by_class=tuple(map(ClassEntry.parse, objects(record.get("by_class")))),
            confusion=_counts(record.get("confusion")),
            confusion_under_attack=_counts(record.get("confusion_under_attack")),
            curves=tuple(map(AttackEntry.parse, objects(record.get("curves")))),
            left_out=_texts(record.get("left_out")),
            compared=_texts(record.get("compared")),
            pairs=tuple(map(PairEntry.parse, objects(record.get("pairs")))),
            certificate=CertificateEntry.parse(entry) if (entry := as_object(record.get("certificate"))) else None,
            # All were measured on the same images.
            beside=tuple(cls.parse({"data": record.get("data")} | item) for item in objects(record.get("beside"))),
        )

    @property
    def models(self) -> list[tuple[str, Result]]:
        """The models that were measured, each with what is its own; one alone has no name here."""
        if not self.beside:
            return [("", self)]
        every = (self, *self.beside)
        names = list(dict.fromkeys(row.network for row in self.rows or ()))
        return list(zip(names if len(names) == len(every) else [one.model for one in every], every, strict=True))

    @property
    def figures(self) -> tuple[AttackEntry, ...]:
        # A curve alone is that of an attack which has nothing else.
        return self.entries + tuple(entry for entry in self.curves if entry.name and entry.robust_accuracy is not None)

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


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(map(text, value)) if isinstance(value, list) else ()


def _counts(value: Any) -> tuple[tuple[int, ...], ...]:
    """Returns a square table of whole numbers; an empty one for anything else."""
    rows = value if isinstance(value, list) else []
    whole = all(isinstance(row, list) and len(row) == len(rows) and all(type(n) is int for n in row) for row in rows)
    return tuple(map(tuple, rows)) if whole else ()


def _verdicts(record: JSON) -> Verdicts | None:
    shares = {name: as_object(record.get(name)) for name in ("majority", "worst_case")}
    accuracies = {name: number(share.get("accuracy")) for name, share in shares.items()}
    passes = whole(record.get("passes"))
    if passes is None or None in accuracies.values():
        return None
    found = [(accuracies[name] or 0.0, interval(share.get("interval"))) for name, share in shares.items()]
    return Verdicts(passes, *found)

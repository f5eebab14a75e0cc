"""The curves of a run, read from its events: metrics of its trainings, and how many images its attacks have left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from kerasrobust.events import Event, Metrics
from kerasrobust.show.export.subject import Subject
from kerasrobust.tail import read_all


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A figure of a training at the end of an epoch.

    Attributes:
        stage: the training's; a study has several.
        values: by Keras' names; those of validation begin with `val_`.
    """

    stage: str
    epoch: int
    step: int
    values: dict[str, float]


def events_of(subject: Subject) -> Iterator[Event]:
    """Yields what happened in a run, in order; nothing of a saved model, or a run without a log."""
    if subject.events.is_file():
        yield from read_all(subject.events)


def trainings(happened: Iterable[Event]) -> list[Measured]:
    """Returns what was measured last in each epoch of each training, also where epochs were repeated by a resume."""
    found: dict[tuple[str, int], Measured] = {}
    for event in happened:
        if isinstance(event, Metrics):
            before = found.get((event.stage or "", event.epoch))
            prefix = "val_" if event.split == "validation" else ""
            values = {
                f"{prefix}{name.removeprefix('val_')}": value
                for name, value in event.values.items()
                if value is not None
            }
            found[event.stage or "", event.epoch] = Measured(
                stage=event.stage or "",
                epoch=event.epoch,
                step=event.step,
                values=(before.values if before else {}) | values,
            )
    return list(found.values())


def epochs(subject: Subject) -> list[dict[str, Any]]:
    """Returns a record for each epoch of each training of a run."""
    return [
        {"stage": item.stage, "epoch": item.epoch, "step": item.step} | item.values
        for item in trainings(events_of(subject))
    ]

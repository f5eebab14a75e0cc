"""The progress of an evaluation as Keras' own bars, for who calls it in a terminal or a notebook."""

from __future__ import annotations

import sys

import keras

from kerasrobust.events import AttackFinished, AttackProgress, AttackStarted, Event, Finding
from kerasrobust.show.figures import format_budget


def is_watched() -> bool:
    """Returns whether somebody sees what is printed as it comes: in a terminal, or in a notebook."""
    return sys.stdout.isatty() or "ipykernel" in sys.modules


class Bars:
    """Takes events, and prints a bar for each attack and the findings that are reasons for doubt.

    Example:
        >>> evaluate(model, x, y, attacks="pgd", emit=Bars())
    """

    def __init__(self) -> None:
        self._bar = keras.utils.Progbar(0)
        self._within = False

    def __call__(self, event: Event) -> None:
        match event:
            case AttackStarted():
                print(" ".join(filter(None, (event.attack, format_budget(event.epsilon, event.norm)))))
                self._bar = keras.utils.Progbar(event.examples, stateful_metrics=["robust_accuracy"], unit_name="image")
                # What looks for the nearest example leaves none in the end, however far that is.
                self._within = event.epsilon is not None
            case AttackProgress():
                left = [("robust_accuracy", event.survivors / event.total)] if self._within else []
                self._bar.update(event.done, left, finalize=False)
            case AttackFinished() if self._bar.target:
                self._bar.update(self._bar.target, [("robust_accuracy", event.robust_accuracy)], finalize=True)
                self._bar = keras.utils.Progbar(0)  # What several attacks say together has none.
            case Finding() if event.severity != "info":
                print(f"{event.message} ({event.code})")

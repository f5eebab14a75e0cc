"""What a training attack is in each epoch, as Keras callbacks of an `AdversarialModel`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

from kerasrobust.errors import InputError


class EpsilonSchedule(keras.callbacks.Callback):
    """Sets which share of its epsilon the training attack has in each epoch.

    Args:
        share: of the epoch, from 0, to a number in [0, 1].

    Example:
        >>> model.fit(x, y, epochs=30, callbacks=[EpsilonSchedule(lambda epoch: min(1, (epoch + 1) / 10))])
    """

    def __init__(self, share: Callable[[int], float]) -> None:
        super().__init__()
        self._share = share

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        share = float(self._share(epoch))
        if not 0 <= share <= 1:
            raise InputError(
                f"Expected a share of epsilon in [0, 1] for epoch {epoch}. Received: {share}. "
                "Return what epsilon is multiplied by."
            )
        self.model.budget.assign(share)


class StepsSchedule(keras.callbacks.Callback):
    """Sets how many steps the training attack takes in each epoch; their length follows, unless it was given.

    Args:
        steps: by the epoch, from 0, from which on they are taken: {0: 1, 3: 2} is 1 step in three epochs, 2 after them.

    Raises:
        InputError: unless there are steps for epoch 0, and all are at least 1.

    Example:
        >>> model.fit(x, y, epochs=30, callbacks=[StepsSchedule({0: 1, 3: 2, 27: 5})])
    """

    def __init__(self, steps: Mapping[int, int]) -> None:
        super().__init__()
        if 0 not in steps or min(steps.values()) < 1:
            raise InputError(
                f"Expected numbers of steps, at least 1, by the epoch from which on they are taken, from 0. "
                f"Received: {dict(steps)}. Try {{0: 1, 3: 2}}, or 0:1 3:2 on the command line."
            )
        self._steps = dict(steps)

    def at(self, epoch: int) -> int:
        """Returns how many steps the attack takes in an epoch."""
        return self._steps[max(begin for begin in self._steps if begin <= epoch)]

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.model.attack_steps.assign(self.at(epoch))


class Clock(keras.callbacks.Callback):
    """Tells the model which share of its training is done, at the beginning of each epoch."""

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        # What the schedules of an earlier training have left.
        self.model.budget.assign(1.0)
        self.model.attack_steps.assign(self.model.objective.attack_steps())

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.model.progress.assign(epoch / max(1, self.params["epochs"]))

"""Callbacks of a training: the best epoch, events, cancelling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import pytest
from test_training import EPSILON, X_VAL, Y_VAL, X, Y, wrapped

from kerasrobust.errors import Cancelled
from kerasrobust.events import Event, Metrics, Progress
from kerasrobust.training import FGSM
from kerasrobust.training.callbacks import BestEpoch, EventCallback


def fit_with(callbacks: list[keras.callbacks.Callback], epochs: int = 3) -> Any:
    model = wrapped(FGSM(epsilon=EPSILON), rate=0.02)
    model.fit(
        X[:96], Y[:96], batch_size=32, epochs=epochs, validation_data=(X_VAL[:32], Y_VAL[:32]),
        callbacks=callbacks, verbose=0,
    )  # fmt: skip
    return model


class Planted(keras.callbacks.Callback):
    """Puts planted figures into the logs, and the number of the epoch into a bias of the network."""

    def __init__(self, name: str, values: list[float]) -> None:
        super().__init__()
        self.name, self.values = name, values

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        logs[self.name] = self.values[epoch]
        self.model.network.layers[-1].bias.assign([epoch + 1.0, 0.0])


def test_best_epoch_is_put_back_and_survives_a_restart(tmp_path: Path) -> None:
    best = BestEpoch("val_robust_accuracy", tmp_path)
    model = fit_with([Planted("val_robust_accuracy", [0.2, 0.6, 0.4]), best])
    assert (best.epoch, best.best) == (2, pytest.approx(0.6))
    assert float(model.network.layers[-1].bias[0]) == 2
    # Taken up again: 0.5 is not better than what the folder holds.
    again = BestEpoch("val_robust_accuracy", tmp_path)
    model = fit_with([Planted("val_robust_accuracy", [0.5]), again], epochs=1)
    assert (again.epoch, float(model.network.layers[-1].bias[0])) == (2, 2.0)


def test_events_tell_progress_and_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kerasrobust.training.callbacks.PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr("kerasrobust.training.callbacks.METRICS_SECONDS", 0.0)
    told: list[Event] = []
    fit_with([EventCallback(told.append, lambda: False, steps_per_epoch=3)], epochs=2)
    steps = [event for event in told if isinstance(event, Progress) and event.unit == "step"]
    assert [event.done for event in steps] == [1, 2, 3, 4, 5, 6]
    assert {event.total for event in steps} == {6}
    assert [(event.done, event.total) for event in told if isinstance(event, Progress) and event.unit == "epoch"] == [
        (1, 2),
        (2, 2),
    ]
    validation = [event for event in told if isinstance(event, Metrics) and event.split == "validation"]
    assert [(event.epoch, event.step) for event in validation] == [(1, 3), (2, 6)]
    assert set(validation[0].values) == {"loss", "accuracy", "robust_accuracy"}
    train = [event for event in told if isinstance(event, Metrics) and event.split == "train"]
    assert set(train[-1].values) == {"loss", "accuracy", "robust_accuracy", "learning_rate"}
    assert train[-1].values["learning_rate"] == pytest.approx(0.02)


@pytest.mark.parametrize("after", [0, 1, 4])
def test_cancelling_after_a_batch(after: int) -> None:
    """Four of the batches asked about: three of training, one of validation."""
    asked: list[int] = []

    def should_stop() -> bool:
        asked.append(1)
        return len(asked) > after

    with pytest.raises(Cancelled):
        fit_with([EventCallback(lambda event: None, should_stop, steps_per_epoch=3)])
    assert len(asked) == after + 1

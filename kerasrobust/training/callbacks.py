"""Keras callbacks: training becomes events, can be cancelled and keeps its best epoch."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasrobust.errors import Cancelled
from kerasrobust.events import Emit, Metrics, Progress
from kerasrobust.runs import read_json, write_json

PROGRESS_SECONDS = 0.2
METRICS_SECONDS = 1.0


class EventCallback(keras.callbacks.Callback):
    """Emits progress and metrics, and raises `Cancelled` after the batch in which `should_stop` says so."""

    def __init__(self, emit: Emit, should_stop: Callable[[], bool], steps_per_epoch: int) -> None:
        super().__init__()
        self._emit = emit
        self._should_stop = should_stop
        self._steps_per_epoch = steps_per_epoch
        self._epoch = 0
        self._done_before: int | None = None
        self._began = time.monotonic()
        self._emitted = self._measured = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._check()
        now = time.monotonic()
        if now - self._emitted < PROGRESS_SECONDS:
            return
        self._emitted = now
        total = self._steps_per_epoch * self.params["epochs"]
        done = self._epoch * self._steps_per_epoch + batch + 1
        if self._done_before is None:  # Tracing took most of the first step: the clock starts after it.
            self._done_before, self._began = done, now
        rate = (done - self._done_before) / (now - self._began) if now > self._began else 0.0
        left = (total - done) / rate if rate else None
        self._emit(Progress(unit="step", done=done, total=total, rate=rate or None, seconds_left=left))
        if logs and now - self._measured >= METRICS_SECONDS:
            self._measured = now
            self._emit(Metrics(step=done, epoch=self._epoch + 1, values=_plain(logs), split="train"))

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._check()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = dict(logs or {})
        step = (epoch + 1) * self._steps_per_epoch
        train = {name: value for name, value in logs.items() if not name.startswith("val_")}
        train["learning_rate"] = float(self.model.optimizer.learning_rate)
        validation = {name.removeprefix("val_"): value for name, value in logs.items() if name.startswith("val_")}
        self._emit(Metrics(step=step, epoch=epoch + 1, values=_plain(train), split="train"))
        if validation:
            self._emit(Metrics(step=step, epoch=epoch + 1, values=_plain(validation), split="validation"))
        total = self.params["epochs"]
        self._emit(Progress(unit="epoch", done=epoch + 1, total=total))

    def _check(self) -> None:
        if self._should_stop():
            raise Cancelled


def _plain(logs: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in logs.items()}


class DataOrder(keras.callbacks.Callback):
    """Tells a `train_pipeline` which epoch begins, so that a training that is resumed sees what it would have seen."""

    def __init__(self, epoch: tf.Variable) -> None:
        super().__init__()
        self._epoch = epoch

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch.assign(epoch)


class BestEpoch(keras.callbacks.Callback):
    """Keeps the weights of the epoch with the highest validation figure, and puts them back when training ends.

    Args:
        monitor: the figure, as `val_robust_accuracy`.
        folder: where the best weights lie, so that a training that is taken up again still knows them.
    """

    def __init__(self, monitor: str, folder: Path) -> None:
        super().__init__()
        self.monitor = monitor
        self._note = folder / "best.json"
        self._weights = folder / "best.weights.h5"
        before = read_json(self._note) if self._weights.exists() else None
        self.best: float = -np.inf if before is None else before["value"]
        self.epoch: int | None = None if before is None else before["epoch"]

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        value = (logs or {}).get(self.monitor)
        if value is not None and value > self.best:
            self.best, self.epoch = float(value), epoch + 1
            self.model.evaluated.save_weights(self._weights)
            write_json(self._note, {"value": self.best, "epoch": self.epoch})

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self.epoch is not None:
            self.model.network.load_weights(self._weights)

"""One batch on its way through an attack: in chunks, with progress and cancelling, kept for a process to come."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from kerasrobust.errors import Cancelled
from kerasrobust.memory import SAVE_SECONDS, Memory
from kerasrobust.tracing import Traced

if TYPE_CHECKING:
    from kerasrobust.attacks.base import Attack

State = dict[str, tf.Tensor]
Parameters = dict[str, tf.Tensor]
CHUNK_SECONDS = 0.4


@dataclass(frozen=True, kw_only=True)
class Step:
    """How far an attack is: what `progress` is called with."""

    done: int
    total: int
    survivors: int
    step: int
    steps: int
    gradients: int
    forwards: int


@dataclass
class Counts:
    """What a call has cost and reached so far."""

    total: int
    runs: int
    run: int = 0
    done: int = 0
    size: int = 0
    """Of the batch at hand."""
    survivors: int = 0
    gradients: int = 0
    forwards: int = 0
    seconds: float = 0.0
    """Of batches that an earlier process computed."""
    progress: Callable[[Step], None] | None = None

    def tell(self, step: int, steps: int) -> None:
        if self.progress:
            self.progress(
                Step(
                    done=(self.run * self.total + self.done + self.size * step // max(steps, 1)) // self.runs,
                    total=self.total,
                    survivors=self.survivors,
                    step=step,
                    steps=steps,
                    gradients=self.gradients,
                    forwards=self.forwards,
                )
            )


@dataclass(frozen=True)
class Compiled:
    """The graphs of an attack on a model, for one batch shape and precision."""

    begin: Traced
    advance: Traced
    finish: Traced


@dataclass
class Batch:
    """One batch on its way through an attack."""

    attack: Attack
    compiled: Compiled
    numbers: Parameters
    size: int
    classes: int
    counts: Counts
    memory: Memory
    name: str

    def run(self, inputs: tuple[tf.Tensor, ...], index: np.ndarray, stop: Callable[[], bool]) -> dict[str, np.ndarray]:
        """Runs the batch to its end, from where an earlier process left it; returns what was found and what it cost.

        Args:
            inputs: images, labels and keys.
            index: int64, which images of the data they are, without the padding.
            stop: whether to stop.
        """
        self.counts.size = self.size
        began = time.perf_counter()
        before = self.counts.gradients, self.counts.forwards
        state, taken, seconds = self._begin(inputs, index)
        saved, count, steps = began, 1, self.attack.step_count()
        asked = int(state.get("forwards", 0))  # Of an attack whose steps don't all cost the same.
        while taken < steps:
            self.counts.tell(taken, steps)
            now = time.perf_counter()
            stopping = stop()
            if stopping or now - saved > SAVE_SECONDS:
                self._keep(state, index, before, seconds + now - began)
                saved = now
            if stopping:
                raise Cancelled
            count = min(count, steps - taken)
            fresh = not self.compiled.advance.traces
            state = self.compiled.advance(state, tf.constant(count), self.numbers)
            reached = int(state["step"])  # Waits for the device.
            chunk = time.perf_counter() - now
            self.counts.gradients += (reached - taken) * self.size * self.attack.cost_per_step(self.classes)
            self.counts.forwards += (reached - taken) * self.size * self.attack.queries_per_step()
            if "forwards" in state:
                self.counts.forwards += self.size * (int(state["forwards"]) - asked)
                asked = int(state["forwards"])
            if reached < taken + count:  # All of the batch is done.
                break
            taken = reached
            if not fresh:  # The first call also traced.
                count = max(1, min(int(count * CHUNK_SECONDS / max(chunk, 1e-4)), 4 * count))
        images, scores = self.compiled.finish(state, self.numbers)
        self.counts.forwards += self.size * self.attack.queries_around()
        found = {"images": images.numpy()[: self.size], "scores": scores.numpy()[: self.size], "index": index}
        self.memory.put(self.name, found | self._costs(before, seconds + time.perf_counter() - began))
        self.memory.drop(f"{self.name}-at-hand")
        self.counts.size = 0
        return found

    def _begin(self, inputs: tuple[tf.Tensor, ...], index: np.ndarray) -> tuple[State, int, float]:
        """Returns the state to go on from, the steps taken so far, and the seconds that they took."""
        state = self.compiled.begin(*inputs, self.numbers)
        kept = self.memory.get(f"{self.name}-at-hand")
        if kept is None or not np.array_equal(kept.pop("index"), index):
            return state, 0, 0.0
        self.counts.gradients += int(kept.pop("gradients"))
        self.counts.forwards += int(kept.pop("forwards"))
        seconds = float(kept.pop("seconds"))
        self.counts.seconds += seconds
        state = {name: tf.constant(value) for name, value in kept.items()}
        return state, int(state["step"]), seconds

    def _keep(self, state: State, index: np.ndarray, before: tuple[int, int], seconds: float) -> None:
        arrays = {name: value.numpy() for name, value in state.items()} | {"index": index}
        self.memory.put(f"{self.name}-at-hand", arrays | self._costs(before, seconds))

    def _costs(self, before: tuple[int, int], seconds: float) -> dict[str, np.ndarray]:
        gradients, forwards = self.counts.gradients - before[0], self.counts.forwards - before[1]
        return {"gradients": np.array(gradients), "forwards": np.array(forwards), "seconds": np.array(seconds)}

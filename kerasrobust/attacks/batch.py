"""The images that an attack works on at once: those that are done leave, and others join from a queue.

It advances in chunks of about half a second, between which it emits progress, can be cancelled, and saves a checkpoint.
When images leave follows from the data alone, never from the clock, so that an attack repeats.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from kerasrobust.attacks.algorithm import Algorithm, Images, Numbers
from kerasrobust.attacks.checkpoint import SAVE_SECONDS, Found, RunCheckpoint
from kerasrobust.attacks.loop import Graphs
from kerasrobust.attacks.network import Cost
from kerasrobust.errors import Cancelled
from kerasrobust.events import AttackProgress, Emit
from kerasrobust.ops.tracing import on_gpu

CHUNK_SECONDS = 0.4
EMIT_SECONDS = 0.2
UNITS = 16
"""A batch changes where a sixteenth of it is done: packing costs about what a step does."""

GPU_UNITS = 2
"""On a GPU packing costs several steps, as it waits, and as convolutions of a new size are tried out first."""


@dataclass
class Tally:
    """What a call has cost and reached so far.

    Attributes:
        name: of the attack.
        total: examples of the call.
        runs: how often the attack is run.
        emit: takes `AttackProgress` a few times a second.
        run: number of this run.
        done: examples that are done in this run.
        taken: steps of the examples at hand, summed.
        survivors: examples that the attack hasn't broken.
        gradients: gradient evaluations, summed over examples.
        forwards: forward passes beyond those.
        seconds: of earlier processes.
    """

    name: str
    total: int
    runs: int
    emit: Emit | None = None
    run: int = 0
    done: int = 0
    taken: int = 0
    survivors: int = 0
    gradients: int = 0
    forwards: int = 0
    seconds: float = 0.0
    _emitted: float = 0.0

    def spend(self, gradients: int, forwards: int) -> None:
        """Counts gradient evaluations and forward passes."""
        self.gradients += gradients
        self.forwards += forwards

    def progress(self, step: int, steps: int) -> None:
        """Emits how far the attack is, unless that was done a moment ago."""
        done = (self.run * self.total + self.done + self.taken // max(steps, 1)) // self.runs
        now = time.monotonic()
        if self.emit is None or (now - self._emitted < EMIT_SECONDS and done < self.total):
            return
        self._emitted = now
        self.emit(
            AttackProgress(
                attack=self.name, done=done, total=self.total, survivors=self.survivors, step=step, steps=steps,
                gradients=self.gradients, forwards=self.forwards,
            )
        )  # fmt: skip


class Batch:
    """The examples of one run of an attack, some of them at hand, the rest in a queue.

    Args:
        algorithm: what runs.
        graphs: its graphs.
        numbers: its numbers.
        inputs: gives the images of the examples with some indices.
        queue: int64 (N,), the indices of the examples to attack.
        size: rows at most.
        any_size: whether the graphs take fewer rows.
        looks: whether rows that have taken all steps get a last look.
        tally: where costs and results are counted.
        checkpoint: where they are saved.
    """

    def __init__(
        self,
        algorithm: Algorithm[Any],
        graphs: Graphs,
        numbers: Numbers,
        inputs: Callable[[np.ndarray], Images],
        queue: np.ndarray,
        *,
        size: int,
        any_size: bool,
        looks: bool,
        tally: Tally,
        checkpoint: RunCheckpoint,
    ) -> None:
        self.algorithm, self.graphs, self.numbers, self.inputs = algorithm, graphs, numbers, inputs
        self.queue, self.size, self.any_size, self.looks = queue, size, any_size, looks
        self.tally, self.checkpoint = tally, checkpoint
        self.images: Images | None = None
        self.state: Any = None
        self.key = tf.zeros(2, tf.int32)
        self.step = tf.constant(0)
        self.rows = np.zeros(0, np.int64)  # Which example stands in each row; -1 where it has left, or only fills up.
        self.ages = np.zeros(0, np.int64)  # Steps that each row has taken.
        self.leave = 0  # Rows that are done at which the batch changes.
        self.taken = 0  # Examples taken from the queue so far.
        self.cost = np.zeros(2, np.int64)  # Gradients and forward passes of this run, in earlier processes too.
        self.seconds = 0.0

    def run(self, stop: Callable[[], bool]) -> Iterator[Found]:
        """Runs all to their end, from where an earlier process left them; yields what was found.

        Raises:
            Cancelled: once `stop` says so.
        """
        yield from self._resume()
        if self._is_finished:
            return
        saved, count, steps = time.perf_counter(), 1, self.algorithm.step_count()
        if self.images is None:
            self._fill()
        while not self._is_finished:
            now = time.perf_counter()
            live = self.rows >= 0
            oldest = int(self.ages[live].max())
            self.tally.taken = int(self.ages[live].sum())
            self.tally.progress(oldest, steps)
            stopping = stop()
            if stopping or now - saved > SAVE_SECONDS:
                self._save()
                saved = now
            if stopping:
                raise Cancelled
            count = min(count, steps - oldest)
            fresh = not self.graphs.advance.traces
            reached = self._advance(count)
            self._spend(self.graphs.step_cost, reached * int(live.sum()))
            done, old = self._done, self.ages >= steps
            if old[live].any() or done.sum() >= self.leave:
                yield from self._release(live & old, live & done & ~old)
                self._fill(anew=bool(old[live].any()))
            chunk = max(time.perf_counter() - now, 1e-4)
            self.seconds += chunk
            if not fresh and reached == count:  # The first call also traced.
                count = max(1, min(int(count * CHUNK_SECONDS / chunk), 4 * count))
        self.tally.taken = 0
        self._save()

    @property
    def _is_finished(self) -> bool:
        return self.taken == len(self.queue) and not (self.rows >= 0).any()

    @property
    def _done(self) -> np.ndarray:
        return self.algorithm.done(self.state, self.numbers).numpy()

    @property
    def _unit(self) -> int:
        """How many rows are done when the batch changes: all of them where the graphs take no fewer."""
        return -(-len(self.rows) // (GPU_UNITS if on_gpu() else UNITS)) if self.any_size else self.size

    def _advance(self, count: int) -> int:
        """Takes up to `count` steps; returns how many it took."""
        before = int(self.step)
        self.state, self.step = self.graphs.advance(
            self.images, self.state, self.key, self.step, tf.constant(count), tf.constant(self.leave), self.numbers
        )
        reached = int(self.step) - before  # Waits for the device.
        self.ages += reached
        return reached

    def _spend(self, cost: Cost, examples: int) -> None:
        spent = [examples * part for part in cost.of(self.algorithm.eot)]
        self.cost += spent
        self.tally.spend(*spent)

    def _fill(self, anew: bool = False) -> None:
        """Packs the batch where a unit of rows is free, or `anew`: live rows, new examples, and what fills it up."""
        if not self._is_finished:
            self._pack(anew)
        self.leave = min(int(self._done.sum()) + self._unit, len(self.rows))

    def _pack(self, anew: bool) -> None:
        live = np.flatnonzero(self.rows >= 0)
        if len(live) and len(self.rows) - len(live) < self._unit and not anew:
            return
        # A graph for one size of batch needs that many rows.
        wanted = min(self.size, len(live) + len(self.queue) - self.taken) if self.any_size else self.size
        fresh = self.queue[self.taken : self.taken + wanted - len(live)]
        keep = live
        if len(fresh):
            # Padding repeats the examples themselves, so nothing in the graph meets an unusual value.
            images = self.inputs(fresh if self.any_size else np.resize(fresh, self.size))
            state, key = self.graphs.begin(images, self.numbers)
            if len(live):
                keep = np.concatenate([live, len(self.rows) + np.arange(len(fresh))])
                self.images, self.state = tf.nest.map_structure(
                    lambda old, new: tf.concat([old, new], axis=0), (self.images, self.state), (images, state)
                )
            else:
                self.images, self.state, self.key, self.step = images, state, key, tf.constant(0)
                keep = np.arange(len(fresh))
            self._spend(self.graphs.begin_cost, len(fresh))
        self.images, self.state = take_rows((self.images, self.state), np.resize(keep, wanted))
        self.ages = np.resize(np.concatenate([self.ages[live], np.zeros(len(fresh), np.int64)]), wanted)
        filling = np.full(wanted - len(live) - len(fresh), -1)
        self.rows = np.concatenate([self.rows[live], fresh, filling])
        self.taken += len(fresh)

    def _release(self, old: np.ndarray, done: np.ndarray) -> Iterator[Found]:
        """Lets the rows go that have taken all steps, after a last look, and those that have succeeded."""
        for chosen, ended in ((old, True), (done, False)):
            if not len(places := np.flatnonzero(chosen)):
                continue
            state, rows = self.state, places
            if ended and self.looks:
                size = len(places) if self.any_size else self.size
                images, state = take_rows((self.images, self.state), np.resize(places, size))
                state, rows = self.graphs.look(images, state, self.key, self.step, self.numbers), np.arange(len(places))
                self._spend(self.graphs.look_cost, len(places))
            values = *self.algorithm.found(state, self.numbers), self.algorithm.asked(state)
            # As a view: `numpy()` would copy what has just been gathered.
            found = Found(self.rows[places], *(np.asarray(tf.gather(value, rows)) for value in values))
            self.rows[places] = -1
            self.checkpoint.add(found)
            self.tally.done += len(places)
            yield found

    def _resume(self) -> Iterator[Found]:
        """Goes back to where an earlier process left this run, if one did; yields what it had found."""
        if (loaded := self.checkpoint.load()) is None:
            return
        saved, found = loaded
        self.taken, self.leave = int(saved["taken"]), int(saved["leave"])
        self.rows, self.ages = saved["rows"], saved["ages"]
        self.cost, self.seconds = saved["cost"], float(saved["seconds"])
        self.tally.spend(*self.cost.tolist())
        self.tally.seconds += self.seconds
        if (self.rows >= 0).any():
            # The state's structure is the algorithm's: any example's has it.
            images = self.inputs(np.resize(self.queue, 1 if self.any_size else self.size))
            begun = self.graphs.begin(images, self.numbers)[0]
            like = images, self.algorithm.lean(begun)
            leaves = [tf.constant(saved[f"leaf-{place}"]) for place in range(len(tf.nest.flatten(like)))]
            self.images, self.state = tf.nest.pack_sequence_as(like, leaves)
            self.key, self.step = tf.constant(saved["key"]), tf.constant(saved["step"])
            if like[1] is not begun:
                self.state = self.graphs.complete(self.images, self.state, self.key, self.numbers)
        for part in found:
            self.tally.done += len(part.examples)
            yield part

    def _save(self) -> None:
        """Saves where the run is: what a killed process resumes from."""
        live = (self.rows >= 0).any()
        leaves = tf.nest.flatten((self.images, self.algorithm.lean(self.state))) if live else []
        names = "taken", "leave", "cost", "seconds", "rows", "ages", "key", "step"
        kept = {name: np.asarray(getattr(self, name)) for name in names}
        self.checkpoint.save(kept | {f"leaf-{place}": leaf.numpy() for place, leaf in enumerate(leaves)})


def take_rows(values: Any, places: np.ndarray) -> Any:
    """Returns some rows of tensors in any structure."""
    if np.array_equal(places, np.arange(tf.nest.flatten(values)[0].shape[0])):  # All of them: nothing to copy.
        return values
    chosen = tf.constant(places, tf.int32)
    return tf.nest.map_structure(lambda value: tf.gather(value, chosen), values)

"""The images that an attack works on at once: a batch that they leave when they are done, and join from a queue.

It advances in chunks of about half a second, with progress and cancelling between them, and is kept for a process to
come. When images leave follows from the data alone, never from the clock, so that an attack repeats.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from kerasrobust.attacks.checkpoint import SAVE_SECONDS, Memory
from kerasrobust.errors import Cancelled
from kerasrobust.ops.tracing import Traced

if TYPE_CHECKING:
    from kerasrobust.attacks.base import Attack

State = dict[str, tf.Tensor]
Parameters = dict[str, tf.Tensor]
CHUNK_SECONDS = 0.4
UNITS = 16
"""A batch changes where a sixteenth of it is done: packing costs about what a step does."""

COSTS = ("gradients", "forwards", "seconds")


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
    taken: int = 0
    """Steps of the examples at hand, summed."""
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
                    done=(self.run * self.total + self.done + self.taken // max(steps, 1)) // self.runs,
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
    """The graphs of an attack on a model, for one shape of images and precision, and batches of any size."""

    begin: Traced
    advance: Traced
    finish: Traced


Found = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Indices of examples, their candidates and scores."""


@dataclass
class Batch:
    """The examples of one run of an attack, some of them at hand, the rest in a queue."""

    attack: Attack
    compiled: Compiled
    numbers: Parameters
    inputs: Callable[[np.ndarray], tuple[tf.Tensor, ...]]
    """Images, labels and keys of the examples with these indices."""
    queue: np.ndarray
    """int64 (N,), the indices of the examples to attack."""
    size: int
    """Rows at most."""
    any_size: bool
    """Whether the graphs take fewer rows."""
    last_look: bool
    """Whether `finish` is called for rows that have taken all steps."""
    classes: int
    counts: Counts
    memory: Memory
    name: str

    state: State = field(default_factory=dict)
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """Which example stands in each row; -1 where it is done and has left, or only fills up."""
    ages: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """Steps that each row has taken."""
    leave: int = 0
    """Rows that are done at which the batch changes."""
    taken: int = 0
    """Examples taken from the queue so far."""
    parts: int = 0
    """Files of finished examples written so far."""
    pending: list[Found] = field(default_factory=list)
    """Finished examples that aren't in a file yet."""
    gradients: int = 0
    forwards: int = 0
    seconds: float = 0.0
    """What this run has cost, in earlier processes too."""

    def run(self, stop: Callable[[], bool]) -> Iterator[Found]:
        """Runs all to their end, from where an earlier process left them; yields what was found.

        Args:
            stop: whether to stop.
        """
        yield from self._resume()
        if self.taken == len(self.queue) and not (self.rows >= 0).any():
            return
        saved, count, steps = time.perf_counter(), 1, self.attack.step_count()
        if not self.state:
            self._fill()
        while self.taken < len(self.queue) or (self.rows >= 0).any():
            now = time.perf_counter()
            live = self.rows >= 0
            self.counts.taken = int(self.ages[live].sum())
            self.counts.tell(int(self.ages[live].max()), steps)
            stopping = stop()
            if stopping or now - saved > SAVE_SECONDS:
                self._keep()
                saved = now
            if stopping:
                raise Cancelled
            count = min(count, steps - int(self.ages[live].max()))
            fresh = not self.compiled.advance.traces
            before = int(self.state["step"])
            numbers = self.numbers | {"leave": tf.constant(self.leave)}
            self.state = self.compiled.advance(self.state, tf.constant(count), numbers)
            reached = int(self.state["step"]) - before  # Waits for the device.
            self.ages += reached
            self._spend(
                reached * live.sum() * self.attack.cost_per_step(self.classes),
                reached * live.sum() * self.attack.queries_per_step(),
            )
            done = self._done()
            old = self.ages >= steps
            if old[live].any() or done.sum() >= self.leave:
                yield from self._release(live & old, live & done & ~old)
                self._fill(anew=bool(old[live].any()))
            chunk = time.perf_counter() - now
            self.seconds += chunk
            if not fresh and reached == count:  # The first call also traced.
                count = max(1, min(int(count * CHUNK_SECONDS / max(chunk, 1e-4)), 4 * count))
        self.counts.taken = 0
        self._keep()

    @property
    def _unit(self) -> int:
        """How many rows are done when the batch changes: all of them where the graphs take no fewer."""
        return -(-len(self.rows) // UNITS) if self.any_size else self.size

    def _spend(self, gradients: int, forwards: int) -> None:
        self.gradients += int(gradients)
        self.forwards += int(forwards)
        self.counts.gradients += int(gradients)
        self.counts.forwards += int(forwards)

    def _done(self) -> np.ndarray:
        return self.attack.done(self.state, self.numbers).numpy()

    def _fill(self, anew: bool = False) -> None:
        """Packs the batch where a unit of rows is free, or `anew`: live rows, new examples, and what fills it up."""
        if (self.rows >= 0).any() or self.taken < len(self.queue):
            self._pack(anew)
        self.leave = min(int(self._done().sum()) + self._unit, len(self.rows))

    def _pack(self, anew: bool) -> None:
        live = np.flatnonzero(self.rows >= 0)
        waiting = len(self.queue) - self.taken
        free = len(self.rows) - len(live)
        if len(live) and free < self._unit and not anew:
            return
        # A graph for one size of batch needs that many rows.
        wanted = min(self.size, len(live) + waiting) if self.any_size else self.size
        fresh = self.queue[self.taken : self.taken + wanted - len(live)]
        keep = live
        if len(fresh):
            # Padding repeats the examples themselves, so nothing in the graph meets an unusual value.
            padded = fresh if self.any_size else np.resize(fresh, self.size)
            begun = self.compiled.begin(*self.inputs(padded), self.numbers)
            if len(live):
                keep = np.concatenate([live, len(self.rows) + np.arange(len(fresh))])
                self.state = {
                    name: tf.concat([value, begun[name]], axis=0) if per_example(name, value) else value
                    for name, value in self.state.items()
                }
            else:
                self.state, keep = begun, np.arange(len(fresh))
        places = np.resize(keep, wanted)
        self.state = take_rows(self.state, places)
        ages = np.concatenate([self.ages[live], np.zeros(len(fresh), np.int64)])
        rows = np.concatenate([self.rows[live], fresh])
        self.ages = np.resize(ages, wanted)
        self.rows = np.concatenate([rows, np.full(wanted - len(rows), -1)])
        self.taken += len(fresh)
        self._spend(0, len(fresh) * self.attack.queries_at_start())

    def _release(self, old: np.ndarray, done: np.ndarray) -> Iterator[Found]:
        """Lets the rows go that have taken all steps, after a last look, and those that have succeeded."""
        for chosen, ended in ((old, True), (done, False)):
            if not chosen.any():
                continue
            places = np.flatnonzero(chosen)
            if ended and self.last_look:
                size = len(places) if self.any_size else self.size
                state = self.compiled.finish(take_rows(self.state, np.resize(places, size)), self.numbers)
                images, scores = (value[: len(places)] for value in self.attack.found(state, self.numbers))
                self._spend(0, len(places) * self.attack.queries_at_end())
            else:
                images, scores = (tf.gather(value, places) for value in self.attack.found(self.state, self.numbers))
            found = self.rows[places], images.numpy(), scores.numpy()
            self.rows[places] = -1
            self.pending.append(found)
            self.counts.done += len(places)
            yield found

    def _resume(self) -> Iterator[Found]:
        """Goes back to where an earlier process left this run, if one did; yields what it had found."""
        kept = self.memory.get(f"{self.name}-at-hand")
        # Noise that can't be seeded may have left other examples in another process.
        if kept is None or not np.array_equal(kept.pop("queue"), self.queue):
            return
        files = [self.memory.get(f"{self.name}-{number}") for number in range(int(kept["parts"]))]
        if None in files:  # Lost since: all of the run is computed again.
            return
        self.parts, self.taken, self.leave = (int(kept.pop(name)) for name in ("parts", "taken", "leave"))
        self._spend(int(kept.pop("gradients")), int(kept.pop("forwards")))
        self.seconds = float(kept.pop("seconds"))
        self.counts.seconds += self.seconds
        self.rows, self.ages = kept.pop("rows"), kept.pop("ages")
        self.state = {name: tf.constant(value) for name, value in kept.items()}
        for file in files:
            assert file is not None
            self.counts.done += len(file["index"])
            yield file["index"], file["images"], file["scores"]

    def _keep(self) -> None:
        """Writes what was found since the last time, and then where the run is: what a killed process goes on from."""
        if self.pending:
            index, images, scores = (np.concatenate(items) for items in zip(*self.pending, strict=True))
            self.memory.put(f"{self.name}-{self.parts}", {"index": index, "images": images, "scores": scores})
            self.pending = []
            self.parts += 1
        ended = not (self.rows >= 0).any()
        state = {} if ended else {name: value.numpy() for name, value in self.state.items()}
        numbers = {name: np.array(getattr(self, name)) for name in ("parts", "taken", "leave", *COSTS)}
        arrays = {"queue": self.queue, "rows": self.rows, "ages": self.ages}
        self.memory.put(f"{self.name}-at-hand", state | numbers | arrays)


def per_example(name: str, value: tf.Tensor) -> bool:
    """Tells whether an entry of a state has a row for each example; numbers and the noise's key haven't."""
    return value.shape.rank > 0 and name != "key"


def take_rows(state: State, places: np.ndarray) -> State:
    """Returns the state of some of a batch's examples."""
    rows = next(value.shape[0] for name, value in state.items() if per_example(name, value))
    if np.array_equal(places, np.arange(rows)):  # All of them: nothing to copy.
        return state
    chosen = tf.constant(places, tf.int32)
    return {name: tf.gather(value, chosen) if per_example(name, value) else value for name, value in state.items()}


def open_batch(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns the signature of a graph for batches of any size, given tensors for one."""

    def opened(name: str, value: tf.Tensor) -> tf.TensorSpec:
        shape = [None, *value.shape[1:]] if per_example(name, value) else value.shape
        return tf.TensorSpec(shape, value.dtype)

    return tuple(
        {name: opened(name, value) for name, value in item.items()} if isinstance(item, dict) else opened("", item)
        for item in arguments
    )

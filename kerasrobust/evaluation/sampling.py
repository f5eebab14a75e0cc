"""The votes of randomized smoothing: what a network says of images under noise, samples of several images at once.

A batch is made of samples, whichever images they are of. Every sample has a number, and its noise follows from the
seed, the image's index and that number alone, so that it is the same in whatever batch it stands. All images still
undecided advance together, in rounds, short ones first; after each, those leave that can't be certified any more.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from kerasrobust.attacks.batch import CHUNK_SECONDS, EMIT_SECONDS
from kerasrobust.attacks.checkpoint import SAVE_SECONDS, Checkpoints
from kerasrobust.attacks.task import Task
from kerasrobust.attacks.verdict import NO_CLASS
from kerasrobust.errors import Cancelled
from kerasrobust.events import Progress
from kerasrobust.names import SmoothingNoise
from kerasrobust.networks.classifier import Classifier
from kerasrobust.ops import draws
from kerasrobust.ops.tracing import Traced, full_float32, one_piece
from kerasrobust.stats import few_of_many

ROUNDS, FIRST = 20, 100
"""Images may leave after so many samples, after twice, four, eight times as many, and later each twentieth of all."""

UNLIKELY = 1e-9
"""Images leave that all samples would certify with no more than this probability."""

VOTES = "votes"
"""The name under which an unfinished count is kept."""


@dataclass(frozen=True, kw_only=True)
class Smoothing:
    """The noise that a network is asked under, and how often.

    Attributes:
        noise: normal, or uniform, in each pixel by itself.
        sigma: its standard deviation, in units of an image in [0, 1].
        samples: that the bound is made of, for each image.
        selection: samples before those, that choose the class.
        needed: votes of `samples` that a class needs to be certified.
    """

    noise: SmoothingNoise
    sigma: float
    samples: int
    selection: int
    needed: int

    @property
    def half_width(self) -> float:
        """Of uniform noise of deviation sigma: it lies in [-lambda, lambda], with lambda = sqrt(3) sigma."""
        return math.sqrt(3) * self.sigma

    def drawn(self, keys: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
        """Returns noise of `shape`, (N, H, W, C), from a key for each sample, (N, 2)."""
        if self.noise == "gaussian":
            return self.sigma * draws.normal_pairs(keys, shape)
        return draws.uniform(keys, shape, -self.half_width, self.half_width)


@dataclass
class Votes:
    """What was counted so far.

    Attributes:
        selected: int64 (N, K), votes of the samples that choose the class.
        chosen: int64 (N,), the class with most of these, the lowest of equals; `NO_CLASS` before they are counted, and
            where all logits held NaN.
        right: int64 (N,), votes for it among the samples after those.
        taken: int64 (N,), how many of these were drawn in finished rounds.
        place: samples of the round at hand that are counted.
    """

    selected: np.ndarray
    chosen: np.ndarray
    right: np.ndarray
    taken: np.ndarray
    place: int = 0

    @staticmethod
    def none(count: int, classes: int) -> Votes:
        chosen = np.full(count, NO_CLASS)
        return Votes(np.zeros((count, classes), np.int64), chosen, np.zeros(count, np.int64), np.zeros(count, np.int64))


@dataclass
class Ballot:
    """Counts the votes for images; the work is done by `count`.

    Attributes:
        task: the network and the images.
        smoothing: the noise.
        checkpoints: where an unfinished count is kept.
    """

    task: Task
    smoothing: Smoothing
    checkpoints: Checkpoints = field(default_factory=Checkpoints)

    def count(self) -> Votes:
        """Returns the votes, from where an earlier process left them.

        Raises:
            Cancelled: when the task's `should_stop` says so.
        """
        smoothing, total = self.smoothing, len(self.task.x)
        votes = self._kept() or Votes.none(total, self.task.classifier.classes)
        pace = _Pace(self, votes)
        with full_float32():
            asked = Asked(self.task, smoothing)
            if (votes.chosen == NO_CLASS).all():
                for places, classes in self._round(asked, pace, np.arange(total), 0, smoothing.selection):
                    known = classes != NO_CLASS
                    np.add.at(votes.selected, (places[known], classes[known]), 1)
                votes.chosen = np.where(votes.selected.any(axis=1), votes.selected.argmax(axis=1), NO_CLASS)
            while len(left := self.undecided(votes)):
                self._look(pace)  # A round may be a single call.
                # All that are left have drawn as many samples. A round fills a batch at least.
                taken = int(votes.taken[left[0]])
                more = min(max(taken, FIRST), -(-smoothing.samples // ROUNDS))
                more = max(more, -(-self.task.batch_size // len(left)))
                more = min(more, smoothing.samples - taken)
                for places, classes in self._round(asked, pace, left, smoothing.selection + taken, more):
                    np.add.at(votes.right, places[classes == votes.chosen[places]], 1)
                votes.taken[left] += more
        self._keep(votes)
        return votes

    def undecided(self, votes: Votes) -> np.ndarray:
        """Returns which images are asked on, int64 (M,): samples are left, and they could bring enough votes.

        Whoever leaves abstains, so that leaving makes no certificate that all samples wouldn't have given: the
        confidence is that of the fixed number of samples. It takes one away with a probability of `UNLIKELY` a look at
        most, whatever the network's share of such votes.
        """
        needed, samples = self.smoothing.needed, self.smoothing.samples
        remaining = samples - votes.taken
        able = (votes.right + remaining >= needed) & (votes.chosen != NO_CLASS)
        able &= few_of_many(votes.right, votes.taken, needed, samples) > UNLIKELY
        return np.flatnonzero((remaining > 0) & able)

    def _round(
        self, asked: Asked, pace: _Pace, places: np.ndarray, first: int, count: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields what is said of `count` samples, from number `first` on, of each of some images: images, classes.

        Between two yields of at most about half a second it emits progress, saves, and may stop.
        """
        total = len(places) * count
        while pace.votes.place < total:
            rows = np.arange(pace.votes.place, min(pace.votes.place + pace.rows, total))
            began = time.perf_counter()
            of = places[rows // count]
            yield of, asked(of, first + rows % count)
            pace.votes.place += len(rows)
            pace.after(len(rows), time.perf_counter() - began)
            if pace.votes.place < total:
                self._look(pace)
        pace.votes.place = 0

    def _look(self, pace: _Pace) -> None:
        """Saves the votes where that is due, and stops if the person asked to."""
        stopping = self.task.should_stop()
        if stopping or time.monotonic() - pace.saved > SAVE_SECONDS:
            self._keep(pace.votes)
            pace.saved = time.monotonic()
        if stopping:
            raise Cancelled

    def _keep(self, votes: Votes) -> None:
        self.checkpoints.put(VOTES, vars(votes))

    def _kept(self) -> Votes | None:
        found = self.checkpoints.get(VOTES)
        if found is None:
            return None
        kept = {name: found[name] for name in ("selected", "chosen", "right", "taken")}
        return Votes(**kept, place=int(found["place"]))


@dataclass
class _Pace:
    """How many samples are asked for at once, and how far the count is.

    Attributes:
        batches: asked for at once; as many as take a chunk's time.
        saved: when the votes were last saved.
    """

    ballot: Ballot
    votes: Votes
    batches: int = 1
    saved: float = field(default_factory=time.monotonic)
    _warm: bool = False
    _counted: int = 0
    _seconds: float = 0.0
    _emitted: float = 0.0

    @property
    def rows(self) -> int:
        return self.batches * self.ballot.task.batch_size

    def after(self, count: int, seconds: float) -> None:
        """Notes how long so many samples took, and emits how far the count is."""
        if self._warm:  # The first call also traced.
            self._seconds += seconds
            self._counted += count
            if count == self.rows:
                self.batches = max(1, min(int(self.batches * CHUNK_SECONDS / seconds), 4 * self.batches))
        self._warm = True
        now = time.monotonic()
        emit = self.ballot.task.emit
        if emit is not None and now - self._emitted > EMIT_SECONDS:
            self._emitted = now
            emit(self._progress())

    def _progress(self) -> Progress:
        votes, smoothing = self.votes, self.ballot.smoothing
        selecting = bool((votes.chosen == NO_CLASS).all())
        left = len(votes.taken) * smoothing.samples
        done = votes.place
        if not selecting:
            open_ = self.ballot.undecided(votes)
            done += len(votes.taken) * smoothing.selection + int(votes.taken.sum())
            left = int((smoothing.samples - votes.taken[open_]).sum()) - votes.place
        else:
            left += len(votes.taken) * smoothing.selection - votes.place
        rate = self._counted / self._seconds if self._seconds else None
        return Progress(
            unit="sample", done=done, total=done + left, rate=rate, seconds_left=left / rate if rate else None
        )


class Asked:
    """A network that is asked about samples, as one graph for any number of batches.

    Args:
        task: the network, the images, and the seed.
        smoothing: the noise.
    """

    def __init__(self, task: Task, smoothing: Smoothing) -> None:
        self._size = task.batch_size
        self._images = tf.constant(task.x)
        self._seed = tf.constant(task.seed, tf.int32)
        self._graph = Traced(_graph(task.classifier, smoothing), _any_count)

    def __call__(self, places: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Returns the classes, int64 (M,), of samples of these numbers, (M,), of the images at these places, (M,)."""
        count = -(-len(places) // self._size) * self._size
        # The last batch is filled up with samples of its own, whose classes are dropped.
        rows = [np.resize(part, count).reshape(-1, self._size).astype(np.int32) for part in (places, numbers)]
        found = self._graph(self._images, self._seed, *map(tf.constant, rows))
        return found.numpy().reshape(-1)[: len(places)].astype(np.int64)


def _any_count(arguments: tuple[tf.Tensor, ...]) -> tuple[Any, ...]:
    images, seed, *rows = arguments
    return images, seed, *(tf.TensorSpec((None, row.shape[1]), row.dtype) for row in rows)


def _graph(classifier: Classifier, smoothing: Smoothing) -> Callable[..., tf.Tensor]:
    """Returns the graph from images (N, H, W, C) and samples, places and numbers (R, B), to classes, int32 (R, B)."""

    def voted(images: tf.Tensor, seed: tf.Tensor, places: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
        keys = tf.stack([tf.fill(tf.shape(places), seed), places], axis=1)
        x = tf.gather(images, places)
        # Nothing clips: the bounds are those of whole noise, and networks are trained on such pixels.
        x += smoothing.drawn(draws.fold(keys, numbers), tf.shape(x))
        # A network's own noise is drawn for a batch, by the first sample in it.
        own = draws.fold(draws.fold(keys[0], numbers[0]), 7) if classifier.randomized and classifier.seedable else None
        logits = classifier(x, own)
        bad = tf.reduce_any(tf.math.is_nan(logits), axis=1)
        return tf.where(bad, NO_CLASS, tf.argmax(logits, axis=1, output_type=tf.int32))

    def run(images: tf.Tensor, seed: tf.Tensor, places: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
        batch = one_piece(voted)
        return tf.map_fn(
            lambda row: tf.ensure_shape(batch(images, seed, *row), places.shape[1:]),
            (places, numbers),
            fn_output_signature=tf.TensorSpec(places.shape[1:], tf.int32),
            parallel_iterations=1,
        )

    return run

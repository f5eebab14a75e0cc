"""What all attacks share: the call that checks, runs, judges and counts. An attack itself is three small functions.

`begin` makes the state of a batch, `advance` moves it a tensor-valued number of steps, `finish` names the example to be
judged. Each is traced once per (attack, model, batch shape, precision): numbers such as epsilon are tensors, the last,
smaller batch is padded. `advance` is called in chunks of about half a second, and between chunks progress is told and
cancelling looked at.
"""

from __future__ import annotations

import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import tensorflow as tf

from kerasrobust import losses, threat
from kerasrobust.classifier import Classifier, as_classifier, check_images
from kerasrobust.errors import Cancelled, InputError
from kerasrobust.precision import at_precision
from kerasrobust.tracing import Traced, one_piece
from kerasrobust.verdict import Verdict, judge

State = dict[str, tf.Tensor]
Parameters = dict[str, tf.Tensor]
Network = Callable[[tf.Tensor, tf.Tensor | None], tf.Tensor]
"""Images (N, H, W, C) and a noise key (2,) or None -> float32 logits (N, K)."""

CHUNK_SECONDS = 0.4
PASSES = 20
"""Fresh passes that judge an example of a randomized network."""


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


@dataclass(frozen=True, kw_only=True)
class AttackResult:
    """What an attack found, one entry per example in the order of the data.

    Attributes:
        x_adv: float32 (N, H, W, C) in [0, 1].
        prediction: int64 (N,), the class of the unchanged image (for a randomized network the most frequent one).
        prediction_adv: int64 (N,), the same of `x_adv`, re-predicted in float32 after the attack.
        success: bool (N,): the model is wrong on `x_adv`, also where it was wrong from the start; with targets: it
            says the target. For a randomized network the majority of fresh passes decides.
        clean_rate: float64 (N,), share of fresh passes over the unchanged image that are right.
        correct_rate: float64 (N,), the same over `x_adv`; 0 or 1 where nothing is random.
        confidence: float32 (N,), mean softmax probability of `prediction`.
        confidence_adv: float32 (N,), the same of `prediction_adv`.
        distance: float32 (N,), the norm of `x_adv - x` in the attack's norm.
        gradients: gradient evaluations spent, summed over examples (a Jacobian counts once per class).
        forwards: forward passes beyond those, summed over examples.
        seconds: wall time.
        passes: predictions of each fresh pass over `x_adv`, int64 (passes, N).
    """

    x_adv: np.ndarray
    prediction: np.ndarray
    prediction_adv: np.ndarray
    success: np.ndarray
    clean_rate: np.ndarray
    correct_rate: np.ndarray
    confidence: np.ndarray
    confidence_adv: np.ndarray
    distance: np.ndarray
    gradients: int
    forwards: int
    seconds: float
    passes: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        """Bool (N,), right before the attack."""
        return self.clean_rate > 0.5

    @property
    def median_distance(self) -> float:
        """Median distance over the examples that were right before the attack; a failure counts as infinite."""
        reached = np.where(self.success, self.distance, np.inf)[self.correct]
        return float(np.median(reached)) if len(reached) else float("nan")


@dataclass
class _Counts:
    """What a call has cost and reached so far."""

    total: int
    runs: int
    run: int = 0
    done: int = 0
    survivors: int = 0
    gradients: int = 0
    forwards: int = 0
    progress: Callable[[Step], None] | None = None

    def tell(self, step: int, steps: int) -> None:
        if self.progress:
            self.progress(
                Step(
                    done=(self.run * self.total + self.done) // self.runs,
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


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """Base of all attacks: settings as fields, the work in `__call__`.

    Attributes:
        norm: "linf" or "l2".
        eot: passes over which each gradient of a randomized network is averaged (Athalye et al. 2018), at least 1.
        targeted: whether the attack drives images to given classes (`target` of the call) instead of away from theirs.
    """

    name: ClassVar[str]
    minimum_norm: ClassVar[bool] = False
    """Whether the attack looks for the nearest adversarial example instead of the worst one inside a ball."""
    largest_batch: ClassVar[int | None] = None
    """Images that the attack takes at once at most, whatever the caller's batch size."""

    norm: threat.Norm = "linf"
    eot: int = 1
    targeted: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if self.norm not in threat.NORMS:
            raise InputError(f"Expected a norm out of {', '.join(threat.NORMS)}. Received: {self.norm!r}. Choose one.")
        if self.eot < 1:
            raise InputError(f"Expected at least 1 EOT pass. Received: eot={self.eot}. Use 1 for no averaging.")

    @abstractmethod
    def structure(self) -> Hashable:
        """Returns what decides the shape of the graph: attacks that differ in other settings share their traces."""

    @abstractmethod
    def parameters(self) -> dict[str, float | int]:
        """Returns the numbers that enter the graph as tensors."""

    @abstractmethod
    def step_count(self) -> int:
        """Returns how many steps one run takes at most."""

    @abstractmethod
    def begin(self, network: Network, x: tf.Tensor, y: tf.Tensor, keys: tf.Tensor, numbers: Parameters) -> State:
        """Returns the state before the first step. `y` holds labels, or targets where the attack is targeted."""

    @abstractmethod
    def advance(self, network: Network, state: State, count: tf.Tensor, numbers: Parameters) -> State:
        """Returns the state `count` steps later. Stops early where `numbers["early_stop"]` is set and all are done."""

    @abstractmethod
    def finish(self, network: Network, state: State, numbers: Parameters) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the examples (N, H, W, C) and their scores (N,): below 0 where the attack believes it succeeded."""

    def cost_per_step(self, classes: int) -> int:
        """Returns the gradient evaluations of one step of one example."""
        return self.eot

    def run_count(self) -> int:
        """Returns how often the attack is started from a new random point."""
        return 1

    def against(self, randomized: bool) -> Self:
        """Returns the attack as it runs against a network: some do otherwise where that is randomized."""
        return self

    def radius(self) -> float | None:
        """Returns the largest distance that is allowed, or None for a minimum-norm attack."""
        return None

    def settings(self) -> dict[str, Any]:
        """Returns the attack's settings as JSON has them."""
        return dict(vars(self))

    def __call__(
        self,
        model: Any,
        x: np.ndarray,
        y: np.ndarray,
        *,
        seed: int = 0,
        precision: str = "auto",
        batch_size: int = 256,
        progress: Callable[[Step], None] | None = None,
        early_stop: bool = True,
        should_stop: Callable[[], bool] | None = None,
        target: np.ndarray | None = None,
        passes: int = PASSES,
        clean: Verdict | None = None,
    ) -> AttackResult:
        """Attacks images and judges the result by re-prediction in float32.

        Args:
            model: Keras model, SavedModel network, or callable giving logits.
            x: float32 (N, H, W, C) in [0, 1].
            y: integers (N,), the true classes.
            seed: of the random starts and of the noise in our noise layers; equal seeds give equal results.
            precision: of the gradients: "float32", "bfloat16" (Keras models only), or "auto". Verdicts are float32.
            batch_size: images attacked at once.
            progress: called about every half second with a `Step`.
            early_stop: leave examples that the model gets wrong as they are, and stop a batch where all are done.
            should_stop: asked about every half second; where it says True, `Cancelled` is raised.
            target: integers (N,), the classes to reach; for a targeted attack only.
            passes: fresh passes that judge each example of a randomized network.
            clean: the verdict on the unchanged images, where the caller has it already.

        Raises:
            InputError: for images or labels that don't fit the model.
            Cancelled: when `should_stop` says so.

        Example:
            >>> result = PGD(epsilon=8 / 255, steps=20)(model, x, y, seed=0)
            >>> robust_accuracy = 1 - result.success.mean()
        """
        began = time.perf_counter()
        # A plain callable doesn't tell its shape: the images do.
        classifier = as_classifier(model, image_shape=np.shape(x)[1:] if np.ndim(x) == 4 else None)
        x, y = check_images(classifier, x, y)
        goal = self._goal(classifier, y, target)
        if batch_size < 1 or passes < 1:
            raise InputError(
                "Expected a batch size and a number of fresh passes of at least 1. "
                f"Received: {batch_size} and {passes}. Try 256 and 20."
            )
        stop = should_stop or (lambda: False)
        passes = passes if classifier.randomized else 1
        before = clean or judge(
            classifier, x, y, passes=passes, seed=[seed, 1], batch_size=batch_size, should_stop=stop
        )
        reached = before.prediction == goal if self.targeted else before.wrong
        # A randomized network is judged by its mean over passes: an image that is right now and then can still fall.
        idle = before.correct_rate == 0 if classifier.randomized and not self.targeted else reached
        active = np.flatnonzero(~idle) if early_stop else np.arange(len(x))
        counts = _Counts(
            total=len(x),
            runs=self.run_count(),
            done=len(x) - len(active),
            survivors=int(np.sum(~reached)),
            forwards=0 if clean else len(x) * passes,
            progress=progress,
        )
        x_adv = x.copy()
        score = np.full(len(x), np.inf, np.float32)
        crafting = at_precision(classifier, precision)
        attack = self.against(classifier.randomized)
        for run in range(self.run_count()):
            remaining = active if not early_stop or classifier.randomized else active[score[active] >= 0]
            counts.run, counts.done = run, len(x) - len(remaining)
            work = attack._batches(crafting, x, goal, remaining, [seed, run], batch_size, early_stop, counts, stop)
            for index, images, scores in work:
                better = scores < score[index]
                x_adv[index[better]], score[index[better]] = images[better], scores[better]
                counts.survivors -= 0 if classifier.randomized else int(np.sum((scores < 0) & ~reached[index]))
                reached[index] |= scores < 0
        after = judge(classifier, x_adv, y, passes=passes, seed=[seed, 2], batch_size=batch_size, should_stop=stop)
        distance = _distances(x_adv, x, self.norm)
        self._check(x_adv, distance)
        success = after.prediction == goal if self.targeted else after.wrong
        counts.done, counts.survivors = len(x), int(np.sum(~success))
        counts.forwards += len(x) * passes
        counts.tell(self.step_count(), self.step_count())
        return AttackResult(
            x_adv=x_adv,
            prediction=before.prediction,
            prediction_adv=after.prediction,
            success=success,
            clean_rate=before.correct_rate,
            correct_rate=after.correct_rate,
            confidence=before.confidence,
            confidence_adv=after.confidence,
            distance=distance,
            gradients=counts.gradients,
            forwards=counts.forwards,
            seconds=time.perf_counter() - began,
            passes=after.passes,
        )

    def _goal(self, classifier: Classifier, y: np.ndarray, target: np.ndarray | None) -> np.ndarray:
        """Returns the classes that the loss is about: the targets of a targeted attack, the labels otherwise."""
        if self.targeted != (target is not None):
            expected = "target classes for a targeted attack" if self.targeted else "no targets for an untargeted one"
            raise InputError(f"Expected {expected}. Set targeted=True and give target=..., or neither.")
        if target is None:
            return y
        target = np.asarray(target)
        if target.shape != y.shape or not ((target >= 0) & (target < classifier.classes)).all():
            raise InputError(
                f"Expected one target in 0..{classifier.classes - 1} per image. Received: shape {target.shape}. "
                "Check the targets."
            )
        return target.astype(np.int64)

    def _batches(
        self,
        classifier: Classifier,
        x: np.ndarray,
        goal: np.ndarray,
        remaining: np.ndarray,
        seed: list[int],
        batch_size: int,
        early_stop: bool,
        counts: _Counts,
        stop: Callable[[], bool],
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Attacks the examples `remaining`, batch after batch; yields their indices, candidates and scores."""
        size = min(batch_size, len(x), self.largest_batch or batch_size)
        compiled = self._compile(classifier, (size, *x.shape[1:]))
        # A randomized network has no "done": one lucky pass is no success.
        ends_early = early_stop and not classifier.randomized
        numbers = {name: tf.constant(value) for name, value in self.parameters().items()}
        numbers["early_stop"] = tf.constant(ends_early)
        for first in range(0, len(remaining), size):
            index = remaining[first : first + size]
            # Padding repeats the batch's own images, so nothing in the graph meets an unusual value.
            padded = np.resize(index, size)
            # An image's noise follows from the image, so it is the same wherever in whatever batch it stands.
            marks = np.array([zlib.crc32(image.tobytes()) >> 1 for image in x[padded]])
            keys = np.stack([np.full(size, _key(*seed)), marks], axis=1).astype(np.int32)
            state = compiled.begin(tf.constant(x[padded]), tf.constant(goal[padded]), tf.constant(keys), numbers)
            taken, count, steps = 0, 1, self.step_count()
            while taken < steps:
                counts.tell(taken, steps)
                if stop():
                    raise Cancelled
                count = min(count, steps - taken)
                fresh = not compiled.advance.traces
                began = time.perf_counter()
                state = compiled.advance(state, tf.constant(count), numbers)
                now = int(state["step"])  # Waits for the device.
                seconds = time.perf_counter() - began
                counts.gradients += (now - taken) * len(index) * self.cost_per_step(classifier.classes)
                if now < taken + count:  # All of the batch is done.
                    break
                taken = now
                if not fresh:  # The first call also traced.
                    count = max(1, min(int(count * CHUNK_SECONDS / max(seconds, 1e-4)), 4 * count))
            images, scores = compiled.finish(state, numbers)
            counts.forwards += len(index) * self.eot
            counts.done += len(index)
            yield index, images.numpy()[: len(index)], scores.numpy()[: len(index)]

    def _compile(self, classifier: Classifier, shape: tuple[int, ...]) -> Compiled:
        """Returns the attack's functions for this model and batch shape, traced at their first call."""
        key = (self.structure(), shape)
        if key not in classifier.compiled:
            network = classifier.__call__
            if not classifier.seedable:

                def network(x: tf.Tensor, key: tf.Tensor | None) -> tf.Tensor:
                    return classifier(x)

            classifier.compiled[key] = Compiled(
                begin=Traced(lambda x, y, keys, numbers: self.begin(network, x, y, keys, numbers)),
                advance=Traced(lambda state, count, numbers: self.advance(network, state, count, numbers)),
                finish=Traced(lambda state, numbers: self.finish(network, state, numbers)),
            )
        return classifier.compiled[key]

    def _check(self, x_adv: np.ndarray, distance: np.ndarray) -> None:
        """Raises where the attack broke its own rules. That is a bug of ours, never the caller's."""
        radius = self.radius()
        if not np.isfinite(x_adv).all() or x_adv.min() < 0 or x_adv.max() > 1:
            raise RuntimeError(f"{self.name} returned values outside [0, 1] or NaN: a bug in the attack, report it.")
        if radius is not None and distance.max(initial=0) > radius + 1e-6:
            raise RuntimeError(
                f"{self.name} returned a distance of {distance.max():.8f} above epsilon {radius:.8f}: "
                "a bug in the attack, report it."
            )


def _key(*numbers: int) -> int:
    """Returns one int32 that stands for several numbers."""
    return int(np.random.SeedSequence([number % 2**32 for number in numbers]).generate_state(1, np.uint32)[0] >> 1)


def _distances(x_adv: np.ndarray, x: np.ndarray, norm: threat.Norm) -> np.ndarray:
    """Returns the norms of x_adv - x in float32, computed in float64 slice by slice."""
    order = np.inf if norm == "linf" else 2
    found = np.zeros(len(x), np.float32)
    for first in range(0, len(x), 256):
        part = slice(first, first + 256)
        gap = x_adv[part].astype(np.float64) - x[part]
        found[part] = np.linalg.norm(gap.reshape(len(gap), -1), ord=order, axis=1)
    return found


def score(logits: tf.Tensor, y: tf.Tensor, targeted: bool) -> tf.Tensor:
    """Returns how far an attack is from success, float32 (N,): below 0 where it got there."""
    gap = losses.margin(logits, y)
    return -gap if targeted else gap


def finite(slope: tf.Tensor) -> tf.Tensor:
    """Returns a gradient with 0 where it is no number: one such pixel (a root at 0) would spoil the whole image."""
    return tf.where(tf.math.is_finite(slope), slope, 0.0)


def gradient(
    network: Network, x: tf.Tensor, y: tf.Tensor, *, key: tf.Tensor, eot: tf.Tensor | int, targeted: bool
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the direction of ascent of the attack's loss and the score, both as means over `eot` noisy passes.

    Args:
        network: logits of images.
        x: float32 (N, H, W, C).
        y: integers (N,), labels or targets.
        key: (2,), of the noise; each pass folds its own number in.
        eot: the number of passes; the Python number 1 costs no loop.
        targeted: descend towards `y` instead of ascending away from it.
    """

    @one_piece
    def once(number: tf.Tensor | int) -> tuple[tf.Tensor, tf.Tensor]:
        # Not watching the weights: their gradients would be computed with the images' otherwise.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            logits = network(x, threat.fold(key, number))
            loss = tf.reduce_sum(losses.cross_entropy(logits, y))
            loss = -loss if targeted else loss
        found = tape.gradient(loss, x, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return finite(found), score(logits, y, targeted)

    if isinstance(eot, int) and eot == 1:
        return once(0)
    first = tf.zeros_like(x), tf.zeros([tf.shape(x)[0]])
    _, total, margin = tf.while_loop(
        lambda number, *_: number < eot,
        lambda number, total, margin: (
            number + 1,
            *(old + new for old, new in zip((total, margin), once(number), strict=True)),
        ),
        (tf.constant(0), *first),
    )
    return total / tf.cast(eot, tf.float32), margin / tf.cast(eot, tf.float32)

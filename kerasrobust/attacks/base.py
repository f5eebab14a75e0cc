"""What all attacks share: the call that checks, runs, judges and counts. An attack itself is three small functions.

`begin` makes the state of a batch, `advance` moves it a tensor-valued number of steps, `finish` has a last look. Each
is traced once per (attack, classifier, shape of images, precision): numbers such as epsilon are tensors, and one graph
serves batches of any size. `advance` is called in chunks of about half a second, and between chunks progress is told
and cancelling looked at; examples that are done leave the batch there, and others take their place (`attacks.batch`).
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

from kerasrobust import twins
from kerasrobust.attacks.batch import Batch, Compiled, Counts, Parameters, State, Step, open_batch
from kerasrobust.attacks.checkpoint import Memory
from kerasrobust.attacks.network import Network, Passes
from kerasrobust.attacks.verdict import Verdict, check_sizes, judge, judge_again
from kerasrobust.errors import InputError
from kerasrobust.networks.classifier import Classifier, check_images, classifier_of
from kerasrobust.ops import balls
from kerasrobust.ops.tracing import Traced

PASSES = 20
"""Fresh passes that judge an example of a randomized network."""


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
        precision: of the gradients (`twins.precision`): where "bfloat16" was asked for, the nearest adversarial
            examples are looked for in "folded".
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
    precision: str
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


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """Base of all attacks: settings as fields, the work in `__call__`.

    Attributes:
        norm: "linf" or "l2"; some attacks take "l1" too.
        eot: passes over which each gradient of a randomized network is averaged (Athalye et al. 2018), at least 1.
        targeted: whether the attack drives images to given classes (`target` of the call) instead of away from theirs.
    """

    name: ClassVar[str]
    minimum_norm: ClassVar[bool] = False
    """Whether the attack looks for the nearest adversarial example instead of the worst one inside a ball."""
    scores_distance: ClassVar[bool] = False
    """Whether its scores are distances, infinite where it found nothing, so that the nearest of several runs counts."""
    gradient_free: ClassVar[bool] = False
    """Whether the attack asks for predictions only."""
    largest_batch: ClassVar[int | None] = None
    """Images that the attack takes at once at most, whatever the caller's batch size."""
    fewest_classes: ClassVar[int] = 2
    norms: ClassVar[tuple[balls.Norm, ...]] = ("linf", "l2")

    norm: balls.Norm = "linf"
    eot: int = 1
    targeted: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if self.norm not in self.norms:
            raise InputError(
                f"Expected a norm of {self.name}: {', '.join(self.norms)}. Received: {self.norm!r}. Choose another."
            )
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
    def step(self, network: Network, state: State, numbers: Parameters) -> State:
        """Returns the state one step later; its "step" counts them."""

    def advance(self, network: Network, state: State, count: tf.Tensor, numbers: Parameters) -> State:
        """Returns the state `count` steps later, or earlier where `numbers["leave"]` rows are done."""
        last = state["step"] + count

        def unfinished(state: State) -> tf.Tensor:
            done = tf.reduce_sum(tf.cast(self.done(state, numbers), tf.int32))
            return (state["step"] < last) & (done < numbers["leave"])

        (state,) = tf.while_loop(unfinished, lambda state: (self.step(network, state, numbers),), (state,))
        return state

    def done(self, state: State, numbers: Parameters) -> tf.Tensor:
        """Returns which examples no further step changes, bool (N,)."""
        return tf.zeros(tf.shape(state["y"]), tf.bool)

    def finish(self, network: Network, state: State, numbers: Parameters) -> State:
        """Returns the state after a last look at where the steps ended."""
        return state

    @abstractmethod
    def found(self, state: State, numbers: Parameters) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the examples (N, H, W, C) and their scores (N,): below 0 where the attack believes it succeeded.

        Of several runs the lowest score counts.
        """

    def passes(self, numbers: Parameters) -> Passes:
        """Returns over how many noisy passes gradients and scores are means."""
        return Passes() if self.eot == 1 else Passes(numbers["eot"], numbers["rows"])

    def cost_per_step(self, classes: int) -> int:
        """Returns the gradient evaluations of one step of one example."""
        return 0 if self.gradient_free else self.eot

    def queries_per_step(self) -> int:
        """Returns the forward passes of one step of one example, beyond those of its gradients."""
        return self.eot if self.gradient_free else 0

    def queries_at_start(self) -> int:
        """Returns the forward passes of `begin` on one example."""
        return 0

    def queries_at_end(self) -> int:
        """Returns the forward passes of `finish` on one example; one that is done before doesn't get there."""
        return self.eot

    def has_last_look(self, randomized: bool) -> bool:
        """Tells whether `finish` is called: not where nothing would come of what it finds."""
        return True

    def run_count(self) -> int:
        """Returns how often the attack is run, each time on the examples that are left: restarts, or target classes.

        The number of the run reaches the graph as `numbers["run"]`.
        """
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
        only: np.ndarray | None = None,
        memory: Memory | None = None,
    ) -> AttackResult:
        """Attacks images and judges the result by re-prediction in float32.

        Args:
            model: Keras model, SavedModel network, callable giving logits (traced anew in each call), or the
                `Classifier` that `as_classifier` makes of one, whose graphs are used again.
            x: float32 (N, H, W, C) in [0, 1].
            y: integers (N,), the true classes.
            seed: of the random starts and of the noise in our noise layers; equal seeds give equal results.
            precision: of the gradients: "float32" for the model as it is, "bfloat16" for a twin in that arithmetic
                (Keras models only), or "auto" for what is fastest (`twins.precision`, which knows more of them).
                Verdicts are float32.
            batch_size: images attacked at once. One that is done leaves the batch, and another takes its place.
            progress: called about every half second with a `Step`.
            early_stop: leave examples that the model gets wrong as they are, and stop a batch where all are done.
            should_stop: asked about every half second; where it says True, `Cancelled` is raised.
            target: integers (N,), the classes to reach; for a targeted attack only.
            passes: fresh passes that judge each example of a randomized network.
            clean: the verdict on the unchanged images, where the caller has it already.
            only: bool (N,), the examples to attack; the others stay as they are. All without it.
            memory: where finished batches are kept and found again; each call needs one of its own.

        Raises:
            InputError: for images or labels that don't fit the model.
            Cancelled: when `should_stop` says so.

        Example:
            >>> result = PGD(epsilon=8 / 255, steps=20)(model, x, y, seed=0)
            >>> robust_accuracy = 1 - result.success.mean()
        """
        began = time.perf_counter()
        # A plain callable doesn't tell its shape: the images do.
        classifier = classifier_of(model, image_shape=np.shape(x)[1:] if np.ndim(x) == 4 else None)
        x, y = check_images(classifier, x, y)
        if classifier.classes < self.fewest_classes:
            raise InputError(
                f"Expected at least {self.fewest_classes} classes for {self.name}. Received: {classifier.classes}. "
                "Its loss is undefined for fewer: use apgd-margin."
            )
        goal = self._goal(classifier, y, target)
        check_sizes(batch_size, passes)
        stop = should_stop or (lambda: False)
        passes = passes if classifier.randomized else 1
        before = clean or judge(
            classifier, x, y, passes=passes, seed=[seed, 1], batch_size=batch_size, should_stop=stop
        )
        reached = before.prediction == goal if self.targeted else before.wrong
        # A randomized network is judged by its mean over passes: an image that is right now and then can still fall.
        idle = before.correct_rate == 0 if classifier.randomized and not self.targeted else reached
        chosen = np.ones(len(x), bool) if only is None else np.asarray(only, bool)
        active = np.flatnonzero(chosen & ~idle if early_stop else chosen)
        counts = Counts(
            total=len(x),
            runs=self.run_count(),
            done=len(x) - len(active),
            survivors=int(np.sum(chosen & ~reached)),
            forwards=0 if clean else len(x) * passes,
            progress=progress,
        )
        x_adv = x.copy()
        score = np.full(len(x), np.inf, np.float32)
        # What looks for the nearest example ends on the boundary itself, whose place bfloat16 doesn't resolve.
        nearest = self.minimum_norm and getattr(self, "epsilon", None) is None
        precision = twins.chosen_precision(classifier, precision, x)
        precision = precision.replace("bfloat16", "folded") if nearest else precision
        # Inside a ball, without early stop, nothing is called done on the twin's word, so its word isn't tested.
        crafting = twins.of(classifier, precision, x if early_stop or self.minimum_norm else x[:0])
        attack = self.against(classifier.randomized)
        memory = memory or Memory()
        for run in range(self.run_count()):
            remaining = active if not early_stop or classifier.randomized else active[score[active] >= -crafting.slack]
            counts.run, counts.done = run, len(x) - len(remaining)
            work = attack._batches(
                crafting, x, goal, remaining, [seed, run], batch_size, early_stop, counts, stop, memory
            )
            for index, images, scores in work:
                better = scores < score[index]
                x_adv[index[better]], score[index[better]] = images[better], scores[better]
                fallen = scores < (np.inf if nearest and self.scores_distance else 0)
                counts.survivors -= 0 if classifier.randomized else int(np.sum(fallen & ~reached[index]))
                reached[index] |= fallen
        distance = _distances(x_adv, x, self.norm)
        self._check(x_adv, distance)
        options = {"passes": passes, "seed": [seed, 2], "batch_size": batch_size, "should_stop": stop}
        # A deterministic network says of what hasn't changed what it said; fewer images need a graph for any number.
        asked = (distance > 0) | classifier.randomized | (not classifier.any_batch)
        after = judge_again(classifier, before, asked, x_adv, y, **options)
        success = after.prediction == goal if self.targeted else after.wrong
        counts.done, counts.survivors = len(x), int(np.sum(~success))
        counts.forwards += int(asked.sum()) * passes
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
            seconds=time.perf_counter() - began + counts.seconds,
            precision=precision,
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
        counts: Counts,
        stop: Callable[[], bool],
        memory: Memory,
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Attacks the examples `remaining`; yields their indices, candidates and scores as they are done."""
        rows = min(batch_size, self.largest_batch or batch_size)
        size = min(rows, len(x))
        # A randomized network has no "done": one lucky pass is no success.
        ends_early = early_stop and not classifier.randomized
        numbers = {name: tf.constant(value) for name, value in self.parameters().items()}
        numbers |= {"early_stop": tf.constant(ends_early), "run": tf.constant(seed[1])}
        numbers |= {"slack": tf.constant(classifier.slack)}
        # Noise of unknown kind may be one draw for a whole batch: passes made at once would all get the same.
        numbers |= {"rows": tf.constant(rows if classifier.repeats else 1)}

        def inputs(index: np.ndarray) -> tuple[tf.Tensor, ...]:
            # An image's noise follows from the image, so it is the same wherever in whatever batch it stands.
            marks = np.array([zlib.crc32(image.tobytes()) >> 1 for image in x[index]])
            keys = np.stack([np.full(len(index), _key(*seed)), marks], axis=1).astype(np.int32)
            return tf.constant(x[index]), tf.constant(goal[index]), tf.constant(keys)

        yield from Batch(
            attack=self,
            compiled=self._compile(classifier, x.shape[1:] if classifier.any_batch else (size, *x.shape[1:])),
            numbers=numbers,
            inputs=inputs,
            queue=remaining,
            size=size,
            any_size=classifier.any_batch,
            last_look=self.has_last_look(classifier.randomized),
            classes=classifier.classes,
            counts=counts,
            memory=memory,
            name=str(seed[1]),
        ).run(stop)

    def _compile(self, classifier: Classifier, shape: tuple[int, ...]) -> Compiled:
        """Returns the attack's functions for this model and shape of images or batches, traced at their first call."""
        key = (self.structure(), shape)
        if key not in classifier.compiled:
            network = classifier.__call__
            if not classifier.seedable:

                def network(x: tf.Tensor, key: tf.Tensor | None) -> tf.Tensor:
                    return classifier(x)

            signature = open_batch if classifier.any_batch else None
            classifier.compiled[key] = Compiled(
                begin=Traced(lambda x, y, keys, numbers: self.begin(network, x, y, keys, numbers), signature),
                advance=Traced(lambda state, count, numbers: self.advance(network, state, count, numbers), signature),
                finish=Traced(lambda state, numbers: self.finish(network, state, numbers), signature),
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


def _distances(x_adv: np.ndarray, x: np.ndarray, norm: balls.Norm) -> np.ndarray:
    """Returns the norms of x_adv - x in float32, computed in float64 slice by slice."""
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    found = np.zeros(len(x), np.float32)
    for first in range(0, len(x), 256):
        part = slice(first, first + 256)
        gap = x_adv[part].astype(np.float64) - x[part]
        found[part] = np.linalg.norm(gap.reshape(len(gap), -1), ord=order, axis=1)
    return found

"""What all attacks share: the call that checks, runs, keeps the best, and judges by re-prediction.

`Attack` is an algorithm that can be called. `drive` runs it on a `Task`, which was checked once: packs examples into
batches (`attacks.batch`), counts what is spent, and judges the result on the model as it is now, in float32.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary, ref

import numpy as np
import tensorflow as tf

from kerasrobust import twins
from kerasrobust.attacks.algorithm import Algorithm, Images, S
from kerasrobust.attacks.batch import Batch, Tally
from kerasrobust.attacks.checkpoint import Checkpoints, RunCheckpoint
from kerasrobust.attacks.lesson import Lesson
from kerasrobust.attacks.loop import Graphs, make_graphs
from kerasrobust.attacks.result import AttackResult
from kerasrobust.attacks.surrogate import check_transfers
from kerasrobust.attacks.targets import NOWHERE
from kerasrobust.attacks.task import PASSES, Task
from kerasrobust.attacks.verdict import Verdict
from kerasrobust.errors import InputError
from kerasrobust.events import AttackProgress, Emit, Event
from kerasrobust.networks.classifier import Classifier
from kerasrobust.ops import balls

KEPT: WeakKeyDictionary[Classifier, dict[Hashable, Graphs]] = WeakKeyDictionary()
"""The graphs of attacks on a classifier, by the algorithm's structure and the shape of images or batches. They live as
long as the classifier."""


@dataclass(frozen=True, kw_only=True)
class Attack(Algorithm[S]):
    """An algorithm that can be called: `PGD(epsilon=8 / 255)(model, x, y)`."""

    def prepared(self, lesson: Lesson) -> Attack[S]:
        """Returns the attack that runs, once it has learned what it learns from all images together."""
        return self

    def learned(self) -> np.ndarray | None:
        """Returns what it has learned: the patch that it lays on every image, (S, S, C), or the perturbation that it
        adds to every image, (H, W, C).
        """
        return None

    def __call__(
        self,
        model: Any,
        x: np.ndarray,
        y: np.ndarray,
        *,
        seed: int = 0,
        precision: str = "auto",
        batch_size: int = 256,
        progress: Callable[[AttackProgress], None] | None = None,
        early_stop: bool = True,
        should_stop: Callable[[], bool] | None = None,
        target: np.ndarray | None = None,
        surrogate: Any = None,
        passes: int = PASSES,
        clean: Verdict | None = None,
        only: np.ndarray | None = None,
    ) -> AttackResult:
        """Attacks images and judges the result by re-prediction in float32.

        Args:
            model: Keras model, SavedModel network, callable giving logits (traced anew in each call), or the
                `Classifier` that `as_classifier` makes of one, whose graphs are used again.
            x: float32 (N, H, W, C) in [0, 1].
            y: integers (N,), the true classes.
            seed: of the random starts and of the noise in kerasrobust's noise layers; equal seeds give equal results.
            precision: of the gradients: "float32" for the model as it is, "bfloat16" for a twin in that arithmetic
                (Keras models only), or "auto" for what is fastest (`twins.precision` knows more of them).
                Verdicts are float32.
            batch_size: images attacked at once. One that is done leaves the batch, and another takes its place.
            progress: called with an `AttackProgress` a few times a second.
            early_stop: leave examples that the model gets wrong as they are, and stop a batch where all are done.
            should_stop: asked about every half second; where it says True, `Cancelled` is raised.
            target: integers (N,), the classes to reach; for a targeted attack only.
            surrogate: a model whose gradients are taken instead (transfer). No step stops at what fools that; `model`
                says what was wrong before, which of several restarts counts, and what has fallen in the end.
            passes: fresh passes that judge each example of a randomized network.
            clean: the verdict on the unchanged images, where the caller has it already.
            only: bool (N,), the examples to attack; the others stay as they are. All without it.

        Raises:
            InputError: for images or labels that don't fit the model, for an attack on the gradients of NumPy code, and
                for a surrogate of other images or classes, or of an attack that takes no gradients.
            Cancelled: when `should_stop` says so.

        Example:
            >>> result = PGD(epsilon=8 / 255, steps=20)(model, x, y, seed=0)
            >>> robust_accuracy = 1 - result.success.mean()
        """
        task = Task.checked(
            model, x, y, precision=precision, seed=seed, batch_size=batch_size, passes=passes,
            surrogate=surrogate, emit=as_emit(progress), should_stop=should_stop,
        ).settled([self])  # fmt: skip
        if task.surrogate is not None:
            check_transfers([self])
        if task.source.arrays and not self.gradient_free:
            raise InputError(
                f"Expected a model with gradients for {self.name}. Received: {task.classifier.name!r}, a function of "
                "arrays. Attack it by square or hopskipjump, which kerasrobust.evaluate does by itself."
            )
        with task.classifier.unchanged():
            return drive(self, task, early_stop=early_stop, target=target, clean=clean, only=only)


def as_emit(progress: Callable[[AttackProgress], None] | None) -> Emit | None:
    """Returns what takes all events and hands on those of an attack's progress."""
    if progress is None:
        return None

    def emit(event: Event) -> None:
        if isinstance(event, AttackProgress):
            progress(event)

    return emit


def drive(
    attack: Attack[Any],
    task: Task,
    *,
    early_stop: bool = True,
    target: np.ndarray | None = None,
    clean: Verdict | None = None,
    only: np.ndarray | None = None,
    checkpoints: Checkpoints | None = None,
) -> AttackResult:
    """Runs an attack on a task and judges what it found; the arguments are those of `Attack.__call__`.

    Args:
        attack: what runs.
        task: on what.
        early_stop: leave out what is wrong as it is, and stop a batch where all are done.
        target: integers (N,), for a targeted attack.
        clean: the verdict on the unchanged images.
        only: bool (N,), the examples to attack.
        checkpoints: where finished batches are saved and found again; each call needs a folder of its own.
    """
    began, checkpoints = time.perf_counter(), checkpoints or Checkpoints()
    classifier, x = task.classifier, task.x
    if classifier.classes < attack.fewest_classes:
        raise InputError(
            f"Expected at least {attack.fewest_classes} classes for {attack.name}. Received: {classifier.classes}. "
            "Its loss is undefined for fewer: use apgd-margin."
        )
    goal = _goal(attack, task, target)
    chosen = (goal != NOWHERE) & (True if only is None else np.asarray(only, bool))
    before = clean or task.judge(x, 1)
    reached = before.prediction == goal if attack.targeted else before.wrong
    # A randomized network is judged by its mean over passes: an image that is right now and then can still fall.
    idle = before.correct_rate == 0 if classifier.randomized and not attack.targeted else reached
    active = np.flatnonzero(chosen & ~idle if early_stop else chosen)
    tally = Tally(
        attack.name, len(x), attack.run_count(), task.emit,
        survivors=int(np.sum(chosen & ~reached)), forwards=0 if clean else len(x) * task.passes,
    )  # fmt: skip
    # What looks for the nearest example ends on the boundary itself, whose place bfloat16 doesn't resolve.
    precision = task.precision.replace("bfloat16", "folded") if is_nearest(attack) else task.precision
    # Inside a ball, without early stop, nothing is called done on the twin's word, so its word isn't tested.
    crafting = twins.of(task.source, precision, x if early_stop or attack.minimum_norm else x[:0])
    attack = attack.prepared(Lesson(crafting, x[active], goal[active], task.seed, tally, task.should_stop, checkpoints))
    x_adv, queries = _Search(attack, task, crafting, goal, early_stop, tally, checkpoints).run(active, reached)
    distance = _distances(x_adv, x, attack.norm)
    _check(attack, x_adv, distance)
    # A deterministic network needn't be asked again about unchanged images; leaving them out changes the number of
    # images, for which a graph has to be open.
    asked = (distance > 0) | classifier.randomized | (not classifier.any_batch)
    after = task.judge_again(before, asked, x_adv, 2)
    success = after.prediction == goal if attack.targeted else after.wrong
    tally.run, tally.done, tally.survivors = tally.runs - 1, len(x), int(np.sum(chosen & ~success))
    tally.forwards += int(asked.sum()) * task.passes
    tally.progress(attack.step_count(), attack.step_count())
    return AttackResult(
        x_adv=x_adv,
        prediction=before.prediction, prediction_adv=after.prediction,
        success=success,
        clean_rate=before.correct_rate, correct_rate=after.correct_rate,
        confidence=before.confidence, confidence_adv=after.confidence,
        distance=distance,
        gradients=tally.gradients, forwards=tally.forwards,
        seconds=time.perf_counter() - began + tally.seconds,
        precision=precision,
        passes=after.passes,
        learned=attack.learned(),
        queries=None if queries is None else np.where(success & ~before.wrong, queries, 0),
        # At a smaller radius the nearest examples count as they were before.
        shared=max(before.shared, after.shared) if attack.minimum_norm else after.shared,
    )  # fmt: skip


@dataclass(frozen=True)
class _Search:
    """An attack's runs on a task.

    Attributes:
        attack: what runs.
        task: on what.
        crafting: the classifier whose gradients are taken.
        goal: int64 (N,), the classes that the loss is about.
        early_stop: whether examples that have fallen are left out.
        tally: where costs and results are counted.
        checkpoints: where finished batches are saved.
    """

    attack: Attack[Any]
    task: Task
    crafting: Classifier
    goal: np.ndarray
    early_stop: bool
    tally: Tally
    checkpoints: Checkpoints

    def run(self, active: np.ndarray, reached: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Attacks the examples `active`; returns the image of the lowest score of each, (N, H, W, C), and the queries
        after which each fell, int64 (N,), 0 where it hasn't, for attacks that count them.

        Updates `reached`, bool (N,): which examples the attack believes to have broken.
        """
        if self.task.surrogate is not None:
            return self._transferred(active, reached), None
        x, tally, randomized = self.task.x, self.tally, self.task.classifier.randomized
        x_adv = x.copy()
        score = np.full(len(x), np.inf, np.float32)
        fell = np.zeros(len(x), np.int64)
        # Where any distance will do, a finite one is a success.
        threshold = np.inf if is_nearest(self.attack) and self.attack.scores_distance else 0
        for number in range(self.attack.run_count()):
            leave = self.early_stop and not randomized
            remaining = active[score[active] >= -self.crafting.slack] if leave else active
            tally.run, tally.done = number, len(x) - len(remaining)
            spent = number * self.attack.queries_of_run()
            for index, images, scores, queries in self._batch(number, remaining).run(self.task.should_stop):
                fell[index] = np.where((fell[index] == 0) & (queries > 0), spent + queries, fell[index])
                better = scores < score[index]
                if better.all():  # As they mostly are, and what is selected is copied.
                    x_adv[index], score[index] = images, scores
                else:
                    x_adv[index[better]], score[index[better]] = images[better], scores[better]
                fallen = scores < threshold
                tally.survivors -= 0 if randomized else int(np.sum(fallen & ~reached[index]))
                reached[index] |= fallen
        # One lucky pass of a randomized network is no success.
        return x_adv, fell if self.attack.queries_of_run() and not randomized else None

    def _transferred(self, active: np.ndarray, reached: np.ndarray) -> np.ndarray:
        """Does the same on a surrogate: of several runs one counts that fools the model, of those the lowest score."""
        x, tally, runs = self.task.x, self.tally, self.attack.run_count()
        leave = self.early_stop and not self.task.classifier.randomized and not is_nearest(self.attack)
        x_adv, score, fallen = x.copy(), np.full(len(x), np.inf, np.float32), np.zeros(len(x), bool)
        for number in range(runs):
            remaining = active[~fallen[active]] if leave else active
            tally.run, tally.done = number, len(x) - len(remaining)
            images, scores = x.copy(), np.full(len(x), np.inf, np.float32)
            for index, *found, _ in self._batch(number, remaining).run(self.task.should_stop):
                images[index], scores[index] = found
            fell = self._fooled(remaining, images, number) if runs > 1 else fallen
            better = (fell & ~fallen) | ((fell == fallen) & (scores < score))
            x_adv[better], score[better] = images[better], scores[better]
            tally.survivors -= int(np.sum(fell & ~fallen & ~reached))
            fallen |= fell
        reached |= fallen
        return x_adv

    def _fooled(self, index: np.ndarray, images: np.ndarray, run: int) -> np.ndarray:
        """Returns which of the examples `index` the model itself gets wrong, or takes for their target, bool (N,)."""
        task, fooled = self.task, np.zeros(len(images), bool)
        if len(index):
            part = replace(task, y=task.y[index])
            verdict = part.judge(images[index], 10 + run)
            self.tally.forwards += len(index) * task.passes
            fooled[index] = verdict.prediction == self.goal[index] if self.attack.targeted else verdict.wrong
        return fooled

    def _batch(self, run: int, queue: np.ndarray) -> Batch:
        """Returns the batch of one run over the examples in `queue`."""
        attack, crafting, x = self.attack, self.crafting, self.task.x
        rows = min(self.task.batch_size, attack.largest_batch or self.task.batch_size)
        size = min(rows, len(x))
        algorithm = attack.resolved(crafting.randomized)
        numbers = {name: tf.constant(value) for name, value in algorithm.numbers().items()} | {
            # A randomized network has no "done": one lucky pass is no success.
            # And what fools a surrogate isn't done either: the further inside, the more of it transfers.
            "early_stop": tf.constant(self.early_stop and not crafting.randomized and self.task.surrogate is None),
            "run": tf.constant(run),
            "eot": tf.constant(attack.eot),
            "slack": tf.constant(crafting.slack),
            # Noise of unknown kind may be one draw for a whole batch: passes made at once would all get the same.
            "rows": tf.constant(rows if crafting.repeats else 1),
        }

        def inputs(index: np.ndarray) -> Images:
            # An image's noise follows from the image, so it is the same wherever in whatever batch it stands.
            # What lies together needn't be copied.
            images = x[index[0] : index[-1] + 1] if (np.diff(index) == 1).all() else x[index]
            marks = np.array([zlib.crc32(np.ascontiguousarray(image).data) >> 1 for image in images])
            keys = np.stack([np.full(len(index), _key(self.task.seed, run)), marks], axis=1).astype(np.int32)
            return Images(tf.constant(images), tf.constant(self.goal[index]), tf.constant(keys))

        return Batch(
            algorithm,
            _graphs_of(algorithm, crafting, x.shape[1:] if crafting.any_batch else (size, *x.shape[1:])),
            numbers,
            inputs,
            queue,
            size=size,
            any_size=crafting.any_batch,
            looks=algorithm.looks(crafting.randomized),
            tally=self.tally,
            checkpoint=RunCheckpoint(self.checkpoints, str(run), queue),
        )


def _graphs_of(algorithm: Algorithm[Any], classifier: Classifier, shape: tuple[int, ...]) -> Graphs:
    """Returns the algorithm's graphs for a model and a shape of images or batches."""
    kept = KEPT.setdefault(classifier, {})
    key = algorithm.structure(), shape
    if key not in kept:
        # Weakly: what is kept for as long as a classifier lives must not keep it alive.
        alive, seedable = ref(classifier), classifier.seedable

        def forward(x: tf.Tensor, key: tf.Tensor | None) -> tf.Tensor:
            made = alive()
            assert made is not None  # Graphs are traced while the caller holds it.
            return made(x, key if seedable else None)

        local = twins.local_of(classifier, shape)
        kept[key] = make_graphs(algorithm, forward, classifier.classes, classifier.any_batch, local)
    return kept[key]


def is_nearest(attack: Attack[Any]) -> bool:
    """Returns whether an attack looks for the nearest adversarial example, wherever that is."""
    return attack.minimum_norm and attack.search_radius() is None


def _goal(attack: Attack[Any], task: Task, target: np.ndarray | None) -> np.ndarray:
    """Returns the classes that the loss is about: the targets of a targeted attack, the labels otherwise."""
    if attack.targeted and target is None and task.target is not None:
        return task.target
    if attack.targeted != (target is not None):
        expected = "target classes for a targeted attack" if attack.targeted else "no targets for an untargeted one"
        raise InputError(f"Expected {expected}. Set targeted=True and give target=..., or neither.")
    if target is None:
        return task.y
    target = np.asarray(target)
    if target.shape != task.y.shape or not ((target >= 0) & (target < task.classifier.classes)).all():
        raise InputError(
            f"Expected one target in 0..{task.classifier.classes - 1} per image. Received: shape {target.shape}. "
            "Check the targets."
        )
    return target.astype(np.int64)


def _check(attack: Attack[Any], x_adv: np.ndarray, distance: np.ndarray) -> None:
    """Raises where the attack broke its own rules. A failure here is a bug in kerasrobust."""
    radius = attack.radius()
    if not (x_adv.min() >= 0 and x_adv.max() <= 1):  # NaN is neither.
        raise RuntimeError(f"{attack.name} returned values outside [0, 1] or NaN: a bug in the attack, report it.")
    if radius is not None and distance.max(initial=0) > radius + 1e-6:
        raise RuntimeError(
            f"{attack.name} returned a distance of {distance.max():.8f} above epsilon {radius:.8f}: "
            "a bug in the attack, report it."
        )


def _key(*numbers: int) -> int:
    """Returns one int32 that stands for several numbers."""
    return int(np.random.SeedSequence([number % 2**32 for number in numbers]).generate_state(1, np.uint32)[0] >> 1)


def _distances(x_adv: np.ndarray, x: np.ndarray, norm: balls.Norm) -> np.ndarray:
    """Returns the norms of x_adv - x in float32, computed in float64 slice by slice."""
    order = {"linf": np.inf, "l2": 2, "l1": 1, "l0": 0}[norm]
    found = np.zeros(len(x), np.float32)
    for first in range(0, len(x), 256):
        part = slice(first, first + 256)
        gap = np.subtract(x_adv[part], x[part], dtype=np.float64)
        found[part] = np.linalg.norm(gap.reshape(len(gap), -1), ord=order, axis=1)
    return found

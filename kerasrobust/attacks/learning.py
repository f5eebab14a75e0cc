"""How one array is trained for all images together: a patch, or a perturbation."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary, ref

import numpy as np
import tensorflow as tf

from kerasrobust.attacks.algorithm import Images, Numbers
from kerasrobust.attacks.lesson import Lesson
from kerasrobust.attacks.loop import open_rows
from kerasrobust.attacks.nearest import annealed
from kerasrobust.attacks.network import Cost, Network, Passes
from kerasrobust.networks.classifier import Classifier
from kerasrobust.ops.tracing import Traced

LAST = 0.05
"""What share of its first length the last step has."""

KEPT: WeakKeyDictionary[Classifier, dict[Hashable, tuple[Traced, Cost]]] = WeakKeyDictionary()
"""The graphs that arrays are trained by, as the driver keeps those of attacks."""

Slope = Callable[[Network, Images, tf.Tensor, Numbers], tf.Tensor]
"""Gives the gradient of the examples' summed loss by the array, of its shape, from a network, some images, the array
and the numbers."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """Stochastic gradient ascent on one array: each step looks at some of the images, and is shorter than the last.

    Attributes:
        steps: how many.
        images: how many of them each step looks at.
        step_size: length of the first step; it falls to a twentieth along half a cosine.
        eot: passes over which each gradient of a randomized network is averaged.
        structure: what the graph depends on, besides network and shape of images.
        numbers: settings that enter the graph as tensors.
        slope: the gradient.
        move: gives the array after a step, from the array, the gradient and the step's length.
    """

    steps: int
    images: int
    step_size: float
    eot: int
    structure: Hashable
    numbers: dict[str, Any]
    slope: Slope
    move: Callable[[np.ndarray, np.ndarray, np.float32], np.ndarray]

    def taken(self, lesson: Lesson, draw: np.random.Generator, array: np.ndarray) -> np.ndarray:
        """Returns the array, float32, as it is after all steps.

        Args:
            lesson: the images.
            draw: chooses those of each step.
            array: where the ascent begins.

        Raises:
            Cancelled: when the lesson's `should_stop` says so.
        """
        count = min(self.images, len(lesson.x))
        queue = np.zeros(0, np.int64)
        known, array = lesson.found() or (0, array)
        for step in range(self.steps):
            lesson.went_on(max(step, known), self.steps)
            if len(queue) < count:
                queue = np.concatenate([queue, draw.permutation(len(lesson.x))])
            chosen, queue = queue[:count], queue[count:]
            keys = draw.integers(0, 2**31, (count, 2)).astype(np.int32)
            if step < known:  # Only its draws are needed.
                continue
            examples = Images(tf.constant(lesson.x[chosen]), tf.constant(lesson.goal[chosen]), tf.constant(keys))
            slope = self._slope(lesson, examples, array, step)
            length = float(annealed(self.step_size, LAST * self.step_size, tf.constant(step), tf.constant(self.steps)))
            array = self.move(array, slope, np.float32(length))
            lesson.save(step + 1, array)
        return array

    def _slope(self, lesson: Lesson, examples: Images, array: np.ndarray, step: int) -> np.ndarray:
        classifier = lesson.classifier
        kept = KEPT.setdefault(classifier, {})
        shape = examples.x.shape[1:] if classifier.any_batch else examples.x.shape
        key = self.structure, tuple(shape)
        if key not in kept:
            kept[key] = self._graph(classifier)
        graph, cost = kept[key]
        names = self.numbers | {"eot": self.eot, "rows": len(examples.x) if classifier.repeats else 1}
        numbers = {name: tf.constant(value) for name, value in names.items()}
        seed = tf.constant(np.array([lesson.seed % 2**31, 8], np.int32))
        found: np.ndarray = graph(examples, tf.constant(array), seed, tf.constant(step), numbers).numpy()
        lesson.spend(*(len(examples.x) * part for part in cost.of(self.eot)))
        return found

    def _graph(self, classifier: Classifier) -> tuple[Traced, Cost]:
        # Weakly: what is kept for as long as a classifier lives must not keep it alive.
        alive, seedable, classes, cost = ref(classifier), classifier.seedable, classifier.classes, Cost()
        averaged, found = self.eot > 1, self.slope

        def forward(x: tf.Tensor, key: tf.Tensor | None) -> tf.Tensor:
            made = alive()
            assert made is not None  # Graphs are traced while the caller holds it.
            return made(x, key if seedable else None)

        def slope(images: Images, array: tf.Tensor, key: tf.Tensor, step: tf.Tensor, numbers: Numbers) -> tf.Tensor:
            cost.clear()
            passes = Passes(numbers["eot"], numbers["rows"]) if averaged else Passes()
            network = Network(forward, key, passes, classes, cost=cost).at(step)
            return found(network, images, array, numbers)

        return Traced(slope, open_rows if classifier.any_batch else None), cost

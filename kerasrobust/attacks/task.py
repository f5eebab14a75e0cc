"""What is attacked and how it is judged, checked once for all attacks of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kerasrobust import twins
from kerasrobust.attacks.algorithm import Algorithm
from kerasrobust.attacks.surrogate import of_surrogate, surrogate_of
from kerasrobust.attacks.verdict import Verdict, check_sizes, judge, judge_again
from kerasrobust.errors import InputError
from kerasrobust.events import Emit
from kerasrobust.networks.adapters.ranges import understood
from kerasrobust.networks.classifier import Classifier
from kerasrobust.networks.images import channels_of, check_fits, read_images
from kerasrobust.networks.making import classifier_of, is_of_labels, of_labels
from kerasrobust.ops.stored import patterns
from kerasrobust.settings import check_seed

PASSES = 20
"""Fresh passes that judge an example of a randomized network."""

WORTH = 3_000
"""Gradient evaluations, or queries, below which "auto" is float32: the measurement takes about as long as so many."""


def _never() -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is attacked, checked once for all attacks of an evaluation.

    Attributes:
        classifier: the model, in float32: what gives the verdicts.
        x: float32 (N, H, W, C) in [0, 1]; grey images have one channel if the model takes one.
        y: int64 (N,), the true classes; for several labels an image the number of their pattern (`stored.patterns`).
        precision: of gradients, as `twins.chosen_precision` takes it; "auto" before `settled`.
        seed: of everything random.
        batch_size: images at once.
        passes: fresh passes that judge each example; 1 where nothing is random.
        target: int64 (N,), the classes that targeted attacks drive to, `targets.NOWHERE` where nothing is attacked.
        surrogate: the model whose gradients are taken instead of the classifier's own, in a transfer attack.
        emit: takes the events, or None.
        should_stop: asked about every half second.
    """

    classifier: Classifier
    x: np.ndarray
    y: np.ndarray
    precision: str
    seed: int = 0
    batch_size: int = 256
    passes: int = 1
    target: np.ndarray | None = None
    surrogate: Classifier | None = None
    emit: Emit | None = None
    should_stop: Callable[[], bool] = _never

    @staticmethod
    def checked(
        model: Any,
        x: Any,
        y: Any,
        *,
        precision: str = "auto",
        seed: int = 0,
        batch_size: int = 256,
        passes: int = PASSES,
        surrogate: Any = None,
        emit: Emit | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Task:
        """Returns the task of a public call.

        Raises:
            InputError: for a model that can't be attacked, images, labels or sizes that don't fit it, or a surrogate of
                other images or classes.
        """
        x, y = read_images(x, y, is_of_labels(model))
        # A plain callable has no known input shape: take that of the images.
        classifier = classifier_of(model, image_shape=x.shape[1:])
        x = channels_of(classifier, x)
        if y.ndim == 2:
            classifier, y = of_labels(classifier, y.shape[1]), patterns(y)
        check_fits(classifier, x.shape[1:], y)
        classifier = understood(classifier, x, y)
        if surrogate is not None:
            surrogate = surrogate_of(classifier, surrogate, x.shape[1:])
            try:
                surrogate = understood(surrogate, x, y)
            except InputError as error:
                raise InputError(of_surrogate(str(error))) from error
        check_sizes(batch_size, passes)
        check_seed(seed)
        return Task(
            classifier=classifier,
            x=x,
            y=y,
            precision=twins.checked_precision(precision),
            seed=seed,
            batch_size=batch_size,
            passes=passes if classifier.randomized else 1,
            surrogate=surrogate,
            emit=emit,
            should_stop=should_stop or _never,
        )

    @property
    def source(self) -> Classifier:
        """The model whose gradients are taken: the surrogate, or the attacked one itself."""
        return self.surrogate or self.classifier

    def settled(self, attacks: Sequence[Algorithm[Any]]) -> Task:
        """Returns the task in the arithmetic that its precision means for some attacks."""
        asked = len(self.x) * sum(attack.step_count() * attack.run_count() * attack.eot for attack in attacks)
        if self.precision == "auto" and asked < WORTH:
            return replace(self, precision="float32")
        return replace(self, precision=twins.chosen_precision(self.source, self.precision, self.x, self.emit))

    def judge(self, x: np.ndarray, use: int) -> Verdict:
        """Returns the verdict of fresh passes over images in the place of `x`; their noise depends on `use`."""
        return judge(self.classifier, x, self.y, **self._options(use))

    def judge_again(self, before: Verdict, asked: np.ndarray, x: np.ndarray, use: int) -> Verdict:
        """Returns the verdict on images of which only those `asked` about, bool (N,), have changed since `before`."""
        return judge_again(self.classifier, before, asked, x, self.y, **self._options(use))

    def _options(self, use: int) -> dict[str, Any]:
        sizes = {"passes": self.passes, "batch_size": self.batch_size}
        return {**sizes, "seed": [self.seed, use], "should_stop": self.should_stop}

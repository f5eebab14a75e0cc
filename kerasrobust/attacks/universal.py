"""Universal perturbation: one for all images, small in Linf or L2."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from kerasrobust.attacks.algorithm import Images, Numbers
from kerasrobust.attacks.driver import Attack
from kerasrobust.attacks.gradient import Walk
from kerasrobust.attacks.learning import Course
from kerasrobust.attacks.lesson import Lesson
from kerasrobust.attacks.network import Network
from kerasrobust.errors import InputError
from kerasrobust.ops import losses
from kerasrobust.settings import read_epsilon


@dataclass(frozen=True, kw_only=True)
class Universal(Attack[Walk]):
    """Trains one perturbation on all images together, and adds it to each of them.

        d_{t+1} = Proj(d_t + a_t * direction(sum of the gradients of min(loss(x_i + d_t), limit)))

    over some of the images in each step, with steps a_t that shrink along half a cosine. The loss is the
    cross-entropy; of images whose loss has reached the limit nothing more is asked, as they would outvote those that
    are still right. The result has the perturbation as `learned`, and `perturbation` takes it again for other images.

    Attributes:
        norm: "linf" or "l2".
        epsilon: radius of the ball, in units of an image in [0, 1].
        steps: of the training.
        images: how many of them each step looks at.
        step_size: length of the first step; None for twice epsilon, which lets signs change late.
        limit: of an image's loss.
        perturbation: float32 (H, W, C) inside the ball, one that was trained before; None trains one.

    Example:
        >>> perturbation = Universal(epsilon=8 / 255)(model, x, y).learned
        >>> result = Universal(epsilon=8 / 255, perturbation=perturbation)(model, others, labels)

    Reference: Moosavi-Dezfooli et al. 2017, for the threat; Shafahi et al. 2020, equations 2 and 3 and algorithm 2, for
    the ascent on a clipped loss.
    """

    name: ClassVar[str] = "universal"
    takes_targets: ClassVar[bool] = True

    epsilon: float = 8 / 255
    steps: int = 100
    images: int = 64
    step_size: float | None = None
    limit: float = 9.0
    perturbation: np.ndarray | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        read_epsilon(self)
        if min(self.steps, self.images) < 1 or not (self.step_size is None or self.step_size > 0) or not self.limit > 0:
            raise InputError(
                "Expected at least 1 step and 1 image a step, and a step size and limit above 0. Received: "
                f"{self.steps}, {self.images}, {self.step_size} and {self.limit}. Leave them out for the defaults."
            )
        if self.perturbation is None:
            return
        known = np.asarray(self.perturbation, np.float32)
        if known.ndim != 3 or not np.isfinite(known).all():
            raise InputError(
                f"Expected a perturbation of shape (H, W, C), of finite values. Received: {known.shape}. Take the "
                "`learned` of a result."
            )
        size = _norm(known, self.norm)
        if size > self.epsilon + 1e-6:
            raise InputError(
                f"Expected a perturbation of norm at most epsilon, {self.epsilon:.6g}. Received: {size:.6g} in "
                f"{self.norm}. Give the epsilon and the norm that it was trained with."
            )
        object.__setattr__(self, "perturbation", known)

    def numbers(self) -> dict[str, Any]:
        return {} if self.perturbation is None else {"perturbation": self.perturbation}

    def settings(self) -> dict[str, Any]:
        known = self.perturbation
        return super().settings() | {"perturbation": None if known is None else zlib.crc32(known.tobytes())}

    def step_count(self) -> int:
        return 1

    def radius(self) -> float | None:
        return self.epsilon

    def looks(self, randomized: bool) -> bool:
        return False

    def begin(self, network: Network, images: Images, numbers: Numbers) -> Walk:
        return Walk(_added(images.x, numbers["perturbation"]), tf.zeros(tf.shape(images.y)[:1]))

    def step(self, network: Network, images: Images, state: Walk, numbers: Numbers) -> Walk:
        return state._replace(score=network.score(state.x_adv, images.y, self.targeted))

    def found(self, state: Walk, numbers: Numbers) -> tuple[tf.Tensor, tf.Tensor]:
        return state.x_adv, state.score

    def learned(self) -> np.ndarray | None:
        return self.perturbation

    def prepared(self, lesson: Lesson) -> Attack[Walk]:
        shape = lesson.x.shape[1:]
        if self.perturbation is not None:
            if self.perturbation.shape != shape:
                raise InputError(
                    f"Expected a perturbation of shape {shape}, as the images have. Received: "
                    f"{self.perturbation.shape}. Train one on such images."
                )
            return self
        if not len(lesson.x):  # Nothing to learn from, and nothing to add it to.
            return self
        draw = np.random.default_rng([lesson.seed % 2**32, *shape])
        noise = draw.uniform(-1, 1, shape) if self.norm == "linf" else draw.normal(size=shape)
        start = np.float32(self.epsilon) * (noise / _norm(noise, self.norm)).astype(np.float32)
        course = Course(
            steps=self.steps, images=self.images, eot=self.eot,
            step_size=2 * self.epsilon if self.step_size is None else self.step_size,
            structure=self.structure(), numbers={"limit": float(self.limit)}, slope=self._slope, move=self._moved,
        )  # fmt: skip
        return replace(self, perturbation=course.taken(lesson, draw, self._inside(start)))

    def _slope(self, network: Network, images: Images, perturbation: tf.Tensor, numbers: Numbers) -> tf.Tensor:
        """Returns the gradient of the examples' summed losses by the perturbation, (H, W, C)."""

        def clipped(logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
            found = losses.cross_entropy(logits, y)
            return found if self.targeted else tf.minimum(found, numbers["limit"])

        moved = images.x + perturbation
        found, _, _ = network.gradient(_added(images.x, perturbation), images.y, targeted=self.targeted, loss=clipped)
        # What the box cuts off doesn't change with the perturbation.
        return tf.reduce_sum(tf.where((moved < 0) | (moved > 1), 0.0, found), axis=0)

    def _moved(self, perturbation: np.ndarray, slope: np.ndarray, length: np.float32) -> np.ndarray:
        if self.norm == "linf":
            return self._inside(perturbation + length * np.sign(slope))
        size = _norm(slope, "l2")
        return self._inside(perturbation + (length * slope / np.float32(size) if size else 0))

    def _inside(self, perturbation: np.ndarray) -> np.ndarray:
        """Returns the perturbation projected onto the ball."""
        radius = np.float32(self.epsilon)
        if self.norm == "linf":
            return np.clip(perturbation, -radius, radius)
        return perturbation * np.float32(min(1.0, self.epsilon / max(_norm(perturbation, "l2"), 1e-12)))


def _added(x: tf.Tensor, perturbation: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(x + perturbation, 0.0, 1.0)


def _norm(values: np.ndarray, norm: str) -> float:
    """Returns the Linf or L2 norm of an array, computed in float64."""
    return float(np.linalg.norm(values.astype(np.float64).ravel(), ord=np.inf if norm == "linf" else 2))

"""Universal patch: one square of pixels that fools the network on whatever image it lies on."""

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
from kerasrobust.attacks.patch import Patching, put
from kerasrobust.errors import InputError


@dataclass(frozen=True, kw_only=True)
class UniversalPatch(Patching):
    """Trains one patch on all images together, and lays it on each of them.

    Each step looks at some of the images, with the patch at new places, and moves its pixels by the sign of their mean
    gradient; the steps shrink along half a cosine. The result has it as `patch`, `pixels` takes it again, and
    `apply_patch` lays it on other images.

    Attributes:
        size: side of the square, in pixels.
        place: row and column of its upper left corner, in all images. Without it each image has a place of its own,
            drawn at random, and another one in each restart.
        steps: of the training.
        images: how many of them each step looks at.
        step_size: length of the first step.
        restarts: places that are tried on each image; the worst counts.
        pixels: float32 (size, size, C) in [0, 1], a patch that was trained before; None trains one.

    Example:
        >>> patch = UniversalPatch(size=8)(model, x, y).patch
        >>> result = UniversalPatch(size=8, pixels=patch)(model, others, labels)

    Reference: Brown et al. 2017.
    """

    name: ClassVar[str] = "universal-patch"

    steps: int = 100
    images: int = 64
    step_size: float = 0.2
    pixels: np.ndarray | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.images < 1 or not self.step_size > 0:
            raise InputError(
                "Expected at least 1 image a step, and a step size above 0. "
                f"Received: {self.images} and {self.step_size}. Try 64 and 0.2."
            )
        if self.pixels is None:
            return
        pixels = np.asarray(self.pixels, np.float32)
        if pixels.ndim != 3 or pixels.shape[:2] != (self.size, self.size):
            raise InputError(
                f"Expected pixels of shape ({self.size}, {self.size}, channels), as size={self.size} says. "
                f"Received: {pixels.shape}. Give the size of the patch."
            )
        if not (pixels.min() >= 0 and pixels.max() <= 1):
            raise InputError(
                f"Expected pixels in [0, 1]. Received: {pixels.min():g} to {pixels.max():g}. Divide them by 255?"
            )
        object.__setattr__(self, "pixels", pixels)

    def numbers(self) -> dict[str, Any]:
        return super().numbers() | ({} if self.pixels is None else {"pixels": self.pixels})

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"pixels": None if self.pixels is None else zlib.crc32(self.pixels.tobytes())}

    def step_count(self) -> int:
        return 1

    def looks(self, randomized: bool) -> bool:
        return False

    def begin(self, network: Network, images: Images, numbers: Numbers) -> Walk:
        patched = put(images.x, numbers["pixels"], *self.corners(images, numbers))
        return Walk(patched, tf.zeros(tf.shape(images.y)[:1]))

    def step(self, network: Network, images: Images, state: Walk, numbers: Numbers) -> Walk:
        return state._replace(score=network.score(state.x_adv, images.y, self.targeted))

    def learned(self) -> np.ndarray | None:
        return self.pixels

    def prepared(self, lesson: Lesson) -> Attack[Walk]:
        channels = lesson.x.shape[3]
        if self.pixels is not None:
            if self.pixels.shape[2] != channels:
                raise InputError(
                    f"Expected a patch of {channels} channels, as the images have. Received: {self.pixels.shape}. "
                    "Train one on such images."
                )
            return self
        if not len(lesson.x):  # Nothing to learn from, and nothing to lay a patch on.
            return self
        draw = np.random.default_rng([lesson.seed % 2**32, self.size, channels])
        start = draw.random((self.size, self.size, channels), np.float32)
        course = Course(
            steps=self.steps, images=self.images, step_size=self.step_size, eot=self.eot,
            structure=self.structure(), numbers=Patching.numbers(self), slope=self._slope, move=_moved,
        )  # fmt: skip
        return replace(self, pixels=course.taken(lesson, draw, start))

    def _slope(self, network: Network, images: Images, pixels: tf.Tensor, numbers: Numbers) -> tf.Tensor:
        """Returns the gradient of the examples' summed loss by the pixels of a patch, (S, S, C)."""
        top, left = self.corners(images, numbers)
        found, _, _ = network.gradient(put(images.x, pixels, top, left), images.y, targeted=self.targeted)
        places = tf.range(self.size)[None]
        lines = tf.gather(found, top[:, None] + places, axis=1, batch_dims=1)
        return tf.reduce_sum(tf.gather(lines, left[:, None] + places, axis=2, batch_dims=1), axis=0)


def _moved(pixels: np.ndarray, slope: np.ndarray, length: np.float32) -> np.ndarray:
    return np.clip(pixels + length * np.sign(slope), 0, 1)

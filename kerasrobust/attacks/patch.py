"""Patch: a square of pixels of any colours, somewhere in the image."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, ClassVar

import tensorflow as tf

from kerasrobust.attacks.algorithm import Algorithm, Images, Numbers
from kerasrobust.attacks.best import best_of
from kerasrobust.attacks.driver import Attack
from kerasrobust.attacks.gradient import Walk
from kerasrobust.attacks.network import Network
from kerasrobust.errors import InputError
from kerasrobust.ops import balls, draws


@dataclass(frozen=True, kw_only=True)
class Patch(Attack[Walk]):
    """Covers a square of each image with the worst pixels that sign steps along the gradient find.

    The pixels may take any values in [0, 1], and begin at random ones; all others stay as they are. The result's
    `distance` is the number of values that change.

    Attributes:
        size: side of the square, in pixels.
        place: row and column of its upper left corner, in all images. Without it each image has a place of its own,
            drawn at random, and another one in each restart.
        steps: how many.
        step_size: length of a step; None for 2.5 / steps, with which any value can be reached.
        restarts: how often the attack is run; the best result per example counts.

    Example:
        >>> result = Patch(size=8, restarts=5)(model, x, y)

    Reference: Brown et al. 2017; Karmon et al. 2018, for patches of an image's own.
    """

    name: ClassVar[str] = "patch"
    takes_targets: ClassVar[bool] = True
    in_ball: ClassVar[bool] = False
    norms: ClassVar[tuple[balls.Norm, ...]] = ("l0",)

    norm: balls.Norm = "l0"
    size: int = 8
    place: tuple[int, int] | None = None
    steps: int = 50
    step_size: float | None = None
    restarts: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.size, self.steps, self.restarts) < 1:
            raise InputError(
                "Expected a size, steps and restarts of at least 1. "
                f"Received: {self.size}, {self.steps} and {self.restarts}. Try 8, 50 and 1."
            )
        if self.step_size is not None and not self.step_size > 0:
            raise InputError(f"Expected a step size above 0. Received: {self.step_size}. Leave it out for the default.")
        if self.place is not None and min(self.place) < 0:
            raise InputError(f"Expected a row and a column of at least 0. Received: {self.place}. Try (0, 0).")

    def threat(self) -> str:
        return f"{self.size}x{self.size} pixels"

    def structure(self) -> Hashable:
        return super().structure(), self.size, self.place is None

    def numbers(self) -> dict[str, float | int]:
        row, column = self.place or (0, 0)
        length = 2.5 / self.steps if self.step_size is None else float(self.step_size)
        return {"step_size": length, "row": row, "column": column}

    def step_count(self) -> int:
        return self.steps

    def run_count(self) -> int:
        return self.restarts

    def resolved(self, randomized: bool) -> Algorithm[Any]:
        # As in `gradient.Iterative`: the lowest of many noisy margins is mostly that of lucky noise.
        return self if randomized else best_of(self)

    def looks(self, randomized: bool) -> bool:
        return not randomized or self.restarts > 1

    def constants(self, images: Images, numbers: Numbers) -> Numbers:
        return {"inside": self._inside(images, numbers)}

    def begin(self, network: Network, images: Images, numbers: Numbers) -> Walk:
        start = draws.uniform(images.keys, tf.shape(images.x))
        inside = self._inside(images, numbers)
        return Walk(tf.where(inside, start, images.x), tf.zeros(tf.shape(images.y)[:1]))

    def step(self, network: Network, images: Images, state: Walk, numbers: Numbers) -> Walk:
        slope, _, score = network.gradient(state.x_adv, images.y, targeted=self.targeted)
        moved = tf.clip_by_value(state.x_adv + numbers["step_size"] * tf.sign(slope), 0.0, 1.0)
        return Walk(tf.where(numbers["inside"], moved, images.x), score)

    def look(self, network: Network, images: Images, state: Walk, numbers: Numbers) -> Walk:
        return state._replace(score=network.score(state.x_adv, images.y, self.targeted))

    def found(self, state: Walk, numbers: Numbers) -> tuple[tf.Tensor, tf.Tensor]:
        return state.x_adv, state.score

    def _inside(self, images: Images, numbers: Numbers) -> tf.Tensor:
        """Returns which pixels the patch covers, bool (N, H, W, 1)."""
        _, height, width, _ = images.x.shape
        if self.size > min(height, width):
            raise InputError(
                f"Expected a patch that fits into images of {height}x{width}. Received: size={self.size}. "
                "Choose a smaller one."
            )
        room = height - self.size, width - self.size
        if self.place is None:
            # A hash, as places are drawn whenever a chunk of steps begins.
            chances = draws.hashed_uniform(images.keys, tf.constant(0), 2)
            top, left = (tf.cast(chances[:, place] * (room[place] + 1), tf.int32)[:, None] for place in (0, 1))
        else:
            row, column = self.place
            if row > room[0] or column > room[1]:
                raise InputError(
                    f"Expected a place of the patch inside images of {height}x{width}. Received: {self.place} for one "
                    f"of {self.size}x{self.size}. At most {room} fits."
                )
            zero = tf.zeros_like(images.keys[:, :1])
            top, left = zero + numbers["row"], zero + numbers["column"]
        rows, columns = tf.range(height)[None] - top, tf.range(width)[None] - left
        down, across = ((part >= 0) & (part < self.size) for part in (rows, columns))
        return (down[:, :, None] & across[:, None, :])[..., None]

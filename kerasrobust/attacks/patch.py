"""Patches: a square of pixels of any colours, somewhere in the image."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from kerasrobust.attacks.algorithm import Algorithm, Images, Numbers
from kerasrobust.attacks.best import best_of
from kerasrobust.attacks.driver import Attack
from kerasrobust.attacks.gradient import Walk
from kerasrobust.attacks.network import Network
from kerasrobust.errors import InputError
from kerasrobust.ops import balls, draws


@dataclass(frozen=True, kw_only=True)
class Patching(Attack[Walk]):
    """What attacks with a patch share: where it lies.

    Attributes:
        size: side of the square, in pixels.
        place: row and column of its upper left corner, in all images. Without it each image has a place of its own,
            drawn at random, and another one in each restart.
        steps: of the search for the pixels.
        restarts: how often the attack is run; the best result per example counts.
    """

    takes_targets: ClassVar[bool] = True
    in_ball: ClassVar[bool] = False
    norms: ClassVar[tuple[balls.Norm, ...]] = ("l0",)

    norm: balls.Norm = "l0"
    size: int = 8
    place: tuple[int, int] | None = None
    steps: int = 50
    restarts: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.size, self.steps, self.restarts) < 1:
            raise InputError(
                "Expected a size, steps and restarts of at least 1. "
                f"Received: {self.size}, {self.steps} and {self.restarts}. Try 8, 50 and 1."
            )
        if self.place is not None and min(self.place) < 0:
            raise InputError(f"Expected a row and a column of at least 0. Received: {self.place}. Try (0, 0).")

    def threat(self) -> str:
        return f"{self.size}x{self.size} pixels"

    def structure(self) -> Hashable:
        return super().structure(), self.size, self.place is None

    def numbers(self) -> dict[str, Any]:
        row, column = self.place or (0, 0)
        return {"row": row, "column": column}

    def run_count(self) -> int:
        return self.restarts

    def found(self, state: Walk, numbers: Numbers) -> tuple[tf.Tensor, tf.Tensor]:
        return state.x_adv, state.score

    def corners(self, images: Images, numbers: Numbers) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the row and the column of each patch's upper left corner, int32 (N,)."""
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
            return tuple(tf.cast(chances[:, part] * (room[part] + 1), tf.int32) for part in (0, 1))
        row, column = self.place
        if row > room[0] or column > room[1]:
            raise InputError(
                f"Expected a place of the patch inside images of {height}x{width}. Received: {self.place} for one of "
                f"{self.size}x{self.size}. At most {room} fits."
            )
        zero = tf.zeros_like(images.keys[:, 0])
        return zero + numbers["row"], zero + numbers["column"]


def covered(x: tf.Tensor, size: int, top: tf.Tensor, left: tf.Tensor) -> tf.Tensor:
    """Returns which pixels of images (N, H, W, C) a square covers whose corner is at `top` and `left`, (N,).

    Returns:
        bool (N, H, W, 1).
    """
    _, height, width, _ = x.shape
    rows, columns = tf.range(height)[None] - top[:, None], tf.range(width)[None] - left[:, None]
    down, across = ((part >= 0) & (part < size) for part in (rows, columns))
    return (down[:, :, None] & across[:, None, :])[..., None]


def put(x: tf.Tensor, pixels: tf.Tensor, top: tf.Tensor, left: tf.Tensor) -> tf.Tensor:
    """Returns images (N, H, W, C) with one patch, (S, S, C), on them, its corner at `top` and `left`, int32 (N,)."""
    _, height, width, _ = x.shape
    size = pixels.shape[0]
    rows, columns = tf.range(height)[None] - top[:, None], tf.range(width)[None] - left[:, None]
    lines = tf.gather(pixels, tf.clip_by_value(rows, 0, size - 1))
    canvas = tf.gather(lines, tf.clip_by_value(columns, 0, size - 1), axis=2, batch_dims=1)
    return tf.where(covered(x, size, top, left), canvas, x)


def apply_patch(x: np.ndarray, patch: np.ndarray, where: tuple[int, int] | np.ndarray) -> np.ndarray:
    """Returns images with a patch on them.

    Args:
        x: float32 (N, H, W, C) in [0, 1].
        patch: float32 (S, S, C) in [0, 1].
        where: row and column of its upper left corner, for all images, or integers (N, 2), for each.

    Raises:
        InputError: for a patch that has other channels, or doesn't fit there.

    Example:
        >>> result = UniversalPatch(place=(0, 0))(model, x, y)
        >>> accuracy = (model.predict(apply_patch(others, result.patch, (0, 0))).argmax(-1) == labels).mean()
    """
    x, patch = np.asarray(x, np.float32), np.asarray(patch, np.float32)
    if patch.ndim != 3 or patch.shape[0] != patch.shape[1] or patch.shape[2] != x.shape[3]:
        raise InputError(
            f"Expected a patch of shape (S, S, {x.shape[3]}), as the images' channels are. Received: {patch.shape}. "
            "Take the `patch` of a result."
        )
    corners = np.broadcast_to(np.asarray(where, np.int32), (len(x), 2))
    if corners.size and (corners.min() < 0 or (corners + len(patch) > x.shape[1:3]).any()):
        raise InputError(
            f"Expected places where {len(patch)}x{len(patch)} pixels fit into images of {x.shape[1]}x{x.shape[2]}. "
            f"Received: rows and columns from {corners.min()} to {corners.max()}. Choose smaller ones."
        )
    found: np.ndarray = put(tf.constant(x), tf.constant(patch), *tf.unstack(tf.constant(corners), axis=1)).numpy()
    return found


@dataclass(frozen=True, kw_only=True)
class Patch(Patching):
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

    step_size: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step_size is not None and not self.step_size > 0:
            raise InputError(f"Expected a step size above 0. Received: {self.step_size}. Leave it out for the default.")

    def numbers(self) -> dict[str, Any]:
        return super().numbers() | {"step_size": 2.5 / self.steps if self.step_size is None else float(self.step_size)}

    def step_count(self) -> int:
        return self.steps

    def resolved(self, randomized: bool) -> Algorithm[Any]:
        # As in `gradient.Iterative`: the lowest of many noisy margins is mostly that of lucky noise.
        return self if randomized else best_of(self)

    def looks(self, randomized: bool) -> bool:
        return not randomized or self.restarts > 1

    def constants(self, images: Images, numbers: Numbers) -> Numbers:
        return {"inside": covered(images.x, self.size, *self.corners(images, numbers))}

    def begin(self, network: Network, images: Images, numbers: Numbers) -> Walk:
        start = draws.uniform(images.keys, tf.shape(images.x))
        inside = self.constants(images, numbers)["inside"]
        return Walk(tf.where(inside, start, images.x), tf.zeros(tf.shape(images.y)[:1]))

    def step(self, network: Network, images: Images, state: Walk, numbers: Numbers) -> Walk:
        slope, _, score = network.gradient(state.x_adv, images.y, targeted=self.targeted)
        moved = tf.clip_by_value(state.x_adv + numbers["step_size"] * tf.sign(slope), 0.0, 1.0)
        return Walk(tf.where(numbers["inside"], moved, images.x), score)

    def look(self, network: Network, images: Images, state: Walk, numbers: Numbers) -> Walk:
        return state._replace(score=network.score(state.x_adv, images.y, self.targeted))

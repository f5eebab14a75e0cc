"""Spatial: the worst of a grid of rotations and translations. It sees the network's logits, never a gradient."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import ClassVar

import tensorflow as tf

from kerasrobust.attacks.algorithm import Images, Numbers
from kerasrobust.attacks.network import Network
from kerasrobust.attacks.random_search import Incumbent, RandomSearch, begun
from kerasrobust.errors import InputError
from kerasrobust.ops import balls


@dataclass(frozen=True, kw_only=True)
class Spatial(RandomSearch):
    """Turns and shifts the image, by the worst of a grid of angles and distances.

    An image is turned around its centre and then shifted, in one bilinear resampling; what comes in from outside is
    black. The grid holds every angle with every shift down and to the right, evenly from the one limit to the other.
    The result's `distance` is the number of values that change, which this threat doesn't limit.

    Attributes:
        degrees: the largest angle, to either side.
        shift: the largest shift, to each side, as a share of the height or width; rounded to whole pixels, so that it
            is 3 of 32.
        rotations: angles in the grid.
        translations: shifts in the grid, in each of the two directions.

    Example:
        >>> result = Spatial(degrees=30, shift=0.1)(model, x, y)
        >>> 1 - result.success.mean()

    Reference: Engstrom et al. 2019, section 3; limits and grid are those of its experiments on CIFAR-10.
    """

    name: ClassVar[str] = "spatial"
    first: ClassVar[int] = 0
    in_ball: ClassVar[bool] = False
    norms: ClassVar[tuple[balls.Norm, ...]] = ("l0",)

    norm: balls.Norm = "l0"
    degrees: float = 30.0
    shift: float = 0.1
    rotations: int = 31
    translations: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 <= self.degrees <= 180 and 0 <= self.shift <= 1):
            raise InputError(
                f"Expected degrees from 0 to 180 and a shift from 0 to 1. Received: {self.degrees} and {self.shift}. "
                "Try 30 and 0.1."
            )
        if self.rotations < 1 or self.translations < 1:
            raise InputError(
                f"Expected at least 1 rotation and 1 translation. Received: {self.rotations} and {self.translations}. "
                "Try 31 and 5."
            )

    def threat(self) -> str:
        return f"±{self.degrees:g}° and ±{100 * self.shift:g} %"

    def numbers(self) -> dict[str, float | int]:
        return {
            "degrees": float(self.degrees),
            "shift": float(self.shift),
            "rotations": self.rotations,
            "translations": self.translations,
        }

    def step_count(self) -> int:
        return self.rotations * self.translations**2

    def looks(self, randomized: bool) -> bool:
        return False

    def begin(self, network: Network, images: Images, numbers: Numbers) -> Incumbent:
        unknown = tf.fill(tf.shape(images.x)[:1], float("inf"))
        return begun(images.x, unknown, numbers)

    def candidate(self, images: Images, state: Incumbent, numbers: Numbers) -> tuple[tf.Tensor, tf.Tensor]:
        return warp(images.x, *_place_in_grid(state.age, images.x, numbers)), state.pixels


def warp(x: tf.Tensor, degrees: tf.Tensor, down: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """Returns images that are turned around their centre and then shifted, black where nothing comes in.

    Args:
        x: float32 (N, H, W, C).
        degrees: float32 (N,), counter-clockwise.
        down: float32 (N,), pixels.
        right: float32 (N,), pixels.

    Returns:
        float32 (N, H, W, C), interpolated bilinearly.
    """
    _, height, width, _ = x.shape
    middle_row, middle_column = (height - 1) / 2, (width - 1) / 2
    cosine, sine = tf.cos(degrees * pi / 180), tf.sin(degrees * pi / 180)
    row, column = middle_row + down, middle_column + right
    nothing = tf.zeros_like(degrees)
    # Where each pixel of the result comes from, (column, row) being (x, y).
    sources = [
        cosine, -sine, middle_column - cosine * column + sine * row,
        sine, cosine, middle_row - sine * column - cosine * row,
        nothing, nothing,
    ]  # fmt: skip
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=x, transforms=tf.stack(sources, axis=1), output_shape=[height, width], fill_value=0.0,
        interpolation="BILINEAR", fill_mode="CONSTANT",
    )  # fmt: skip


def _place_in_grid(age: tf.Tensor, x: tf.Tensor, numbers: Numbers) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the angle and the shifts of a place in the grid, (N,) each; the angle changes last."""
    _, height, width, _ = x.shape
    count = numbers["translations"]

    def value(place: tf.Tensor, count: tf.Tensor, limit: tf.Tensor) -> tf.Tensor:
        share = 2 * tf.cast(place, tf.float32) / tf.cast(tf.maximum(count - 1, 1), tf.float32) - 1
        return tf.where(count > 1, limit * share, 0.0)

    return (
        value(age // (count * count), numbers["rotations"], numbers["degrees"]),
        value(age // count % count, count, tf.round(numbers["shift"] * height)),
        value(age % count, count, tf.round(numbers["shift"] * width)),
    )

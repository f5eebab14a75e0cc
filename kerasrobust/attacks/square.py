"""Square: random search with windows of shrinking size. It sees the network's logits, never a gradient."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import tensorflow as tf

from kerasrobust.attacks.algorithm import Images, Numbers
from kerasrobust.attacks.network import Network
from kerasrobust.attacks.random_search import Incumbent, RandomSearch, begun
from kerasrobust.errors import InputError
from kerasrobust.ops import balls, draws
from kerasrobust.settings import read_epsilon
from kerasrobust.twins import Region, part_of

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries after which the share of pixels in a window is halved, of 10,000."""


@dataclass(frozen=True, kw_only=True)
class Square(RandomSearch):
    """Changes one window per query and keeps what lowers the margin.

    Linf: the image begins with vertical stripes of +-epsilon, and each window gets +-epsilon, one sign per channel. L2
    and L1: it begins with a grid of bumps, and each window takes over the budget of another one. Position and signs
    are drawn for each example on its own.

    Attributes:
        norm: "linf", "l2" or "l1".
        epsilon: radius of the ball, in units of an image in [0, 1].
        queries: how many.
        p_init: share of the pixels that the first windows cover.
        rescale: stretch the schedule, made for 10,000 queries, to `queries`; AutoAttack counts them as they are.
        restarts: how often the attack is run anew.

    Example:
        >>> result = Square(epsilon=8 / 255, queries=1_000)(model, x, y)

    Reference: Andriushchenko et al. 2020, algorithms 1 to 3; Croce and Hein 2021, appendix, for L1.
    """

    name: ClassVar[str] = "square"
    norms: ClassVar[tuple[balls.Norm, ...]] = ("linf", "l2", "l1")

    epsilon: float = 8 / 255
    queries: int = 5_000
    p_init: float = 0.8
    rescale: bool = False
    restarts: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        read_epsilon(self)
        if self.queries < 1 or self.restarts < 1:
            raise InputError(
                f"Expected at least 1 query and 1 restart. Received: {self.queries} and {self.restarts}. "
                "Try 5000 and 1."
            )
        if not 0 < self.p_init <= 1:
            raise InputError(f"Expected a share of pixels in (0, 1]. Received: p_init={self.p_init}. Try 0.8.")

    def numbers(self) -> dict[str, float | int]:
        stretch = 10_000 / self.queries if self.rescale else 1.0
        return {"epsilon": float(self.epsilon), "p_init": float(self.p_init), "stretch": stretch}

    def step_count(self) -> int:
        return self.queries

    def run_count(self) -> int:
        return self.restarts

    def radius(self) -> float | None:
        return self.epsilon

    def constants(self, images: Images, numbers: Numbers) -> Numbers:
        if self.norm != "linf":
            return {}
        low, high = balls.bounds(images.x, numbers["epsilon"])
        return {"low": low, "high": high}

    def begin(self, network: Network, images: Images, numbers: Numbers) -> Incumbent:
        x, y, keys = images
        local = self.norm == "linf" and not self.paired
        if self.norm == "linf":
            _, _, width, channels = x.shape
            # Single-precision signs: 0 is as good as impossible, and would only leave a stripe out.
            stripes = tf.sign(draws.uniform(keys, tf.stack([tf.shape(x)[0], 1, width, channels]), -1.0, 1.0))
            start = tf.clip_by_value(x + numbers["epsilon"] * stripes, 0.0, 1.0)
        else:
            start = _scaled(x, _grid(keys, x), numbers["epsilon"], self.norm)
        # In L2 and L1 all pixels of a candidate change with its length.
        ask = network.begun if local else replace(network, local=None).begun
        score, kept = ask(start, y, self.targeted)
        return begun(start, score, numbers)._replace(kept=kept)

    def step(self, network: Network, images: Images, state: Incumbent, numbers: Numbers) -> Incumbent:
        if not state.kept:
            return super().step(network, images, state, numbers)
        window, patch = self._patch(images, state, numbers)

        def accept(score: tf.Tensor) -> tf.Tensor:
            return self.better(state, score, state.score, numbers)

        best = state.best, state.kept
        score, moved, kept = network.changed(best, images.y, window, patch, accept, self.targeted)
        return self.after(state, moved, score, state.score, numbers)._replace(kept=kept)

    def lean(self, state: Incumbent) -> Incumbent:
        return state._replace(kept=()) if state.kept else state

    def complete(self, network: Network, images: Images, state: Incumbent) -> Incumbent:
        return state._replace(kept=network.begun(state.best, images.y, self.targeted)[1])

    def _patch(self, images: Images, state: Incumbent, numbers: Numbers) -> tuple[Region, tf.Tensor]:
        """Returns what `candidate` changes: a part of each image of the size of the largest window, and its pixels."""
        _, height, width, channels = images.x.shape
        chances, side = self._drawn(images, state, numbers)
        corners = tf.concat([_corner(chances[:, 0], side, height), _corner(chances[:, 1], side, width)], axis=1)
        largest = tf.reduce_max(side)
        begin = tf.minimum(corners, tf.constant([height, width]) - largest)
        places = begin[None] + tf.range(largest)[:, None, None]
        rows, columns = tf.unstack((places >= corners) & (places < corners + side[:, None]), axis=2)
        signs = tf.sign(chances[:, 5 : 5 + channels] - 0.5)
        change = tf.cast(rows[:, None] & columns[None], tf.float32)[..., None] * (2.0 * numbers["epsilon"] * signs)
        window = begin, (largest, largest)
        low, high = balls.bounds(part_of(images.x, window), numbers["epsilon"])
        return window, tf.clip_by_value(part_of(state.best, window) + change, low, high)

    def candidate(self, images: Images, state: Incumbent, numbers: Numbers) -> tuple[tf.Tensor, tf.Tensor]:
        x, best, epsilon = images.x, state.best, numbers["epsilon"]
        _, height, width, channels = x.shape
        chances, side = self._drawn(images, state, numbers)
        if self.norm != "linf":
            moved = _scaled(x, _moved(best - x, chances, side, epsilon, self.norm), epsilon, self.norm)
            return moved, state.pixels
        rows, columns = _rows(chances[:, 0], chances[:, 1], side, height, width)
        signs = tf.sign(chances[:, 5 : 5 + channels] - 0.5)
        # One product over rows and over columns with their channels: a window for each channel costs thrice that.
        across = tf.cast(columns, tf.float32)[:, :, None] * signs[:, None, :]
        across = tf.reshape(across, [-1, 1, width * channels])
        window = tf.reshape(tf.cast(rows, tf.float32)[:, :, None] * across, tf.shape(x))
        return tf.clip_by_value(best + 2.0 * epsilon * window, numbers["low"], numbers["high"]), state.pixels

    def _drawn(self, images: Images, state: Incumbent, numbers: Numbers) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the random numbers of this query, (N, 5 + C), and the side of each window, int32 (N,)."""
        _, height, width, channels = images.x.shape
        chances = draws.hashed_uniform(images.keys, state.age, 5 + channels)
        share = window_share(state.age, numbers["p_init"], numbers["stretch"])
        side = tf.cast(tf.round(tf.sqrt(share * height * width)), tf.int32)
        return chances, tf.clip_by_value(side, 1, min(height, width)) if self.norm == "linf" else side


def window_share(step: tf.Tensor, p_init: tf.Tensor | float, stretch: tf.Tensor | float) -> tf.Tensor:
    """Returns the share of pixels that the window of a query covers: `p_init`, halved as the queries go by.

    `step` is the number of the query, of any shape, and the share has that shape.
    """
    place = tf.floor(tf.cast(step, tf.float32) * stretch)
    halvings = tf.reduce_sum(tf.cast(place[..., None] > tf.constant(HALVINGS, tf.float32), tf.float32), axis=-1)
    return p_init / 2.0**halvings


def _corner(u: tf.Tensor, side: tf.Tensor, length: int) -> tf.Tensor:
    """Returns where a window of a side begins, int32 (N, 1), uniform over all places inside `length` pixels."""
    return tf.cast(u * tf.cast(length - side + 1, tf.float32), tf.int32)[:, None]


def _window(u: tf.Tensor, v: tf.Tensor, side: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Returns a square window per example as bool (N, H, W, 1); `side` is int32 (N,)."""
    rows, columns = _rows(u, v, side, height, width)
    return (rows[:, :, None] & columns[:, None, :])[..., None]


def _rows(u: tf.Tensor, v: tf.Tensor, side: tf.Tensor, height: int, width: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns which rows and columns are inside a window per example, bool (N, H) and (N, W)."""
    down, right = _places(u, v, side, height, width)
    return tuple((part >= 0) & (part < side[:, None]) for part in (down, right))


def _places(u: tf.Tensor, v: tf.Tensor, side: tf.Tensor, height: int, width: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns each row's and column's place within a window per example, int32 (N, H) and (N, W)."""
    return tf.range(height)[None] - _corner(u, side, height), tf.range(width)[None] - _corner(v, side, width)


def _bumps(down: tf.Tensor, right: tf.Tensor, side: tf.Tensor, largest: int) -> tf.Tensor:
    """Returns two bumps of opposite sign, side by side in a window, of L2 norm 1; 0 outside of it.

    A bump falls off like a sum of inverse squares with the distance from its centre (Andriushchenko et al. 2020,
    equation 3).

    Args:
        down: int32, each pixel's row within the window; any shape that broadcasts with `right`.
        right: its column.
        side: of the window, of the same rank or a scalar.
        largest: what `side` can be at most.
    """
    sums = tf.constant(np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, largest + 3) ** 2)]), tf.float32)
    half = side // 2
    upper = down < half
    rows = tf.where(upper, half, side - half)
    centre = tf.where(upper, 0, half) + rows // 2
    ring = tf.maximum(tf.abs(down - centre), tf.abs(right - half))
    inside = (down >= 0) & (down < side) & (right >= 0) & (right < side)
    height = tf.gather(sums, half + 1) - tf.gather(sums, tf.clip_by_value(ring, 0, half + 1))
    height = tf.where(inside, height, 0.0)

    def normed(part: tf.Tensor) -> tf.Tensor:
        return tf.math.divide_no_nan(part, tf.sqrt(2.0 * tf.reduce_sum(part**2, axis=[1, 2], keepdims=True)))

    return normed(tf.where(upper, height, 0.0)) - normed(tf.where(upper, 0.0, height))


def _grid(keys: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """Returns the perturbation that the search begins with, (N, H, W, C): bumps of random sign, five by five."""
    _, height, width, channels = x.shape
    side = max(min(height, width) // 5, 1)
    tall, wide = height // side, width // side
    signs = tf.sign(draws.uniform(keys, tf.stack([tf.shape(x)[0], tall, wide, channels]), -1.0, 1.0))
    spread = tf.repeat(tf.repeat(signs, side, axis=1), side, axis=2)
    places = tf.range(side)
    bump = _bumps(places[None, :, None], places[None, None, :], tf.constant(side), side)
    pattern = tf.tile(bump, [1, tall, wide])[..., None] * spread
    top, left = (height - tall * side) // 2, (width - wide * side) // 2
    rest = [[0, 0], [top, height - tall * side - top], [left, width - wide * side - left], [0, 0]]
    return tf.pad(pattern, rest)


def _moved(old: tf.Tensor, chances: tf.Tensor, side: tf.Tensor, epsilon: tf.Tensor, norm: balls.Norm) -> tf.Tensor:
    """Returns the perturbation after one window, (N, H, W, C), has taken over the budget of another."""
    _, height, width, channels = old.shape
    side = tf.maximum(side, 3)
    # Odd, so that the bumps have a middle.
    side = tf.minimum(side + 1 - side % 2, min(height, width))
    down, right = _places(chances[:, 0], chances[:, 1], side, height, width)
    here = _window(chances[:, 0], chances[:, 1], side, height, width)
    there = _window(chances[:, 2], chances[:, 3], side, height, width)
    turned = (chances[:, 4] < 0.5)[:, None, None]
    rows, columns = (tf.broadcast_to(part, tf.shape(here)[:3]) for part in (down[:, :, None], right[:, None, :]))
    across = tf.where(turned, columns, rows), tf.where(turned, rows, columns)
    bumps = _bumps(*across, side[:, None, None], max(height, width))
    signs = tf.sign(chances[:, 5 : 5 + channels] - 0.5)[:, None, None, :]
    # Sizes add up over windows and channels: squares in L2, absolute values in L1. Not by `**`, which takes far longer.
    square = norm == "l2"

    def size(part: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.square(part) if square else tf.abs(part), axis=[1, 2], keepdims=True)

    def length(size: tf.Tensor) -> tf.Tensor:
        return tf.sqrt(size) if square else size

    before = tf.where(here, old, 0.0)
    direction = bumps[..., None] * signs + tf.math.divide_no_nan(before, length(size(before)))
    freed = tf.reduce_sum(size(tf.where(here | there, old, 0.0)), axis=3, keepdims=True)
    whole = epsilon * epsilon if square else epsilon
    unused = tf.nn.relu(whole - tf.reduce_sum(size(old), axis=3, keepdims=True))
    new = direction * tf.math.divide_no_nan(length(unused / channels + freed), length(size(direction)))
    return tf.where(here, new, tf.where(there, 0.0, old))


def _scaled(x: tf.Tensor, perturbation: tf.Tensor, epsilon: tf.Tensor, norm: balls.Norm) -> tf.Tensor:
    """Returns the image with a perturbation of the whole radius, clipped to the box, which only shortens it."""
    length = balls.column(balls.distance(perturbation, norm))
    # Slightly less than the radius: sums of thousands of entries are right to some 1e-7 only, and each pixel is rounded
    # by up to 2**-25, which sums up in L1.
    size = float(np.prod(x.shape[1:]))
    radius = epsilon * (1 - 1e-6) - 2.0**-25 * (size if norm == "l1" else size**0.5)
    return tf.clip_by_value(x + tf.nn.relu(radius) * tf.math.divide_no_nan(perturbation, length), 0.0, 1.0)

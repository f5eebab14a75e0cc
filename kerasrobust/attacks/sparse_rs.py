"""Sparse-RS: random search over a few pixels. It sees the network's logits, never a gradient."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

import tensorflow as tf

from kerasrobust.attacks.algorithm import Images, Numbers
from kerasrobust.attacks.network import Network
from kerasrobust.attacks.random_search import Incumbent, RandomSearch, begun
from kerasrobust.errors import InputError
from kerasrobust.ops import balls, draws

DIVISORS = {1: 2, 51: 4, 201: 5, 501: 6, 1001: 8, 2001: 10, 4001: 12, 6001: 15, 8001: 20}
"""What the first share of exchanged pixels is divided by, from a query on, of 10,000."""


@dataclass(frozen=True, kw_only=True)
class SparseRS(RandomSearch):
    """Changes a few pixels to any colour: each query exchanges some of them for others.

    The colours are corners of the colour cube, each channel 0 or 1. Pixels and colours are drawn for each example on
    its own. The result's `distance` is the number of values that change, up to one for each channel of a pixel.

    Attributes:
        budget: how many pixels may change, at most half of the image's.
        queries: how many.
        p_init: share of the pixels that are exchanged at once in the beginning; a half of it after the first query.
        rescale: stretch the schedule, made for 10,000 queries, to `queries`.
        restarts: how often the attack is run anew.

    Example:
        >>> result = SparseRS(budget=24, queries=5_000)(model, x, y)
        >>> 1 - result.success.mean()

    Reference: Croce et al. 2022, algorithm 1 and section 4, for L0; the schedule is that of the authors' program.
    """

    name: ClassVar[str] = "sparse-rs"
    in_ball: ClassVar[bool] = False
    norms: ClassVar[tuple[balls.Norm, ...]] = ("l0",)

    norm: balls.Norm = "l0"
    budget: int = 24
    queries: int = 5_000
    p_init: float = 0.3
    rescale: bool = True
    restarts: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.budget, self.queries, self.restarts) < 1:
            raise InputError(
                "Expected a budget, queries and restarts of at least 1. "
                f"Received: {self.budget}, {self.queries} and {self.restarts}. Try 24, 5000 and 1."
            )
        if not 0 < self.p_init <= 1:
            raise InputError(f"Expected a share of pixels in (0, 1]. Received: p_init={self.p_init}. Try 0.3.")

    def threat(self) -> str:
        return "1 pixel" if self.budget == 1 else f"{self.budget} pixels"

    def structure(self) -> Hashable:
        return super().structure(), self.budget

    def numbers(self) -> dict[str, float | int]:
        stretch = 10_000 / self.queries if self.rescale else 1.0
        return {"p_init": float(self.p_init), "stretch": stretch}

    def step_count(self) -> int:
        return self.queries

    def run_count(self) -> int:
        return self.restarts

    def begin(self, network: Network, images: Images, numbers: Numbers) -> Incumbent:
        x, y, _ = images
        _, height, width, _ = x.shape
        if 2 * self.budget > height * width:
            raise InputError(
                f"Expected a budget of at most half the pixels of images of {height}x{width}. "
                f"Received: budget={self.budget}. Choose a smaller one, {height * width // 2} at most."
            )
        none = tf.zeros([tf.shape(y)[0], 0], tf.int32)
        pixels, _, colours = self._draw(images, tf.zeros_like(y, tf.int32), none)
        start = _with(x, pixels, colours)
        return begun(start, network.score(start, y, self.targeted), numbers, pixels)

    def candidate(self, images: Images, state: Incumbent, numbers: Numbers) -> tuple[tf.Tensor, tf.Tensor]:
        query = state.age + 1
        fresh, order, colours = self._draw(images, query, state.pixels)
        # Shuffled, so that the first ones are any of them.
        pixels = tf.gather(state.pixels, order, batch_dims=1)
        count = exchanged(query, self.budget, numbers["p_init"], numbers["stretch"])
        goes = tf.range(self.budget)[None] < count[:, None]
        given_back = tf.where(goes[..., None], _at(images.x, pixels), _at(state.best, pixels))
        taken = tf.where(goes[..., None], colours, _at(state.best, fresh))
        changed = _with(_with(state.best, pixels, given_back), fresh, taken)
        return changed, tf.where(goes, fresh, pixels)

    def _draw(self, images: Images, age: tf.Tensor, held: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns pixels but those held, an order of the budget, and colours for the pixels that aren't their own.

        Returns:
            int32 (N, B), int32 (N, B), float32 (N, B, C).
        """
        _, height, width, channels = images.x.shape
        size, budget = height * width, self.budget
        chances = draws.hashed_uniform(images.keys, age, size + budget * (1 + channels))
        places, order, colours = tf.split(chances, [size, budget, budget * channels], axis=1)
        flat = tf.reshape(places, [-1])
        flat = tf.tensor_scatter_nd_update(flat, _rows(held, size), tf.fill([tf.size(held)], -1.0))
        _, pixels = tf.math.top_k(tf.reshape(flat, tf.shape(places)), budget)
        colours = tf.round(tf.reshape(colours, [-1, budget, channels]))
        same = tf.reduce_all(tf.equal(colours, _at(images.x, pixels)), axis=2, keepdims=True)
        return pixels, tf.argsort(order, axis=1), tf.where(same, 1.0 - colours, colours)


def exchanged(query: tf.Tensor, budget: int, p_init: tf.Tensor | float, stretch: tf.Tensor | float) -> tf.Tensor:
    """Returns how many pixels a query exchanges, int32 (N,), from its number, int32 (N,): 1 at least."""
    place = tf.cast(tf.floor(tf.cast(query, tf.float32) * stretch), tf.int32)
    passed = tf.reduce_sum(tf.cast(place[..., None] >= tf.constant(list(DIVISORS)), tf.int32), axis=-1)
    divisor = tf.gather(tf.constant([1.0, *DIVISORS.values()]), passed)
    # A hair more, as 0.3 / 5 of 50 is 3, and just below it in single precision.
    return tf.maximum(tf.cast(p_init / divisor * budget + 1e-4, tf.int32), 1)


def _rows(pixels: tf.Tensor, size: int) -> tf.Tensor:
    """Returns the numbers of pixels (N, P) among the pixels of all images, int32 (N * P, 1)."""
    first = tf.range(tf.shape(pixels)[0])[:, None] * size
    return tf.reshape(pixels + first, [-1, 1])


def _at(x: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
    """Returns the colours of pixels (N, P) of images (N, H, W, C) as (N, P, C)."""
    _, height, width, channels = x.shape
    return tf.gather(tf.reshape(x, [-1, height * width, channels]), pixels, batch_dims=1)


def _with(x: tf.Tensor, pixels: tf.Tensor, colours: tf.Tensor) -> tf.Tensor:
    """Returns images (N, H, W, C) whose pixels (N, P) have the colours (N, P, C)."""
    _, height, width, channels = x.shape
    flat, colours = tf.reshape(x, [-1, channels]), tf.reshape(colours, [-1, channels])
    changed = tf.tensor_scatter_nd_update(flat, _rows(pixels, height * width), colours)
    return tf.reshape(changed, tf.shape(x))

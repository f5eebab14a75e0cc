"""MI-FGSM, and its variants whose examples transfer better to other networks: DI, TI and NI, alone or together."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import tensorflow as tf

from kerasrobust.attacks.algorithm import Images, Numbers
from kerasrobust.attacks.gradient import Iterative, Walk
from kerasrobust.attacks.network import Network
from kerasrobust.errors import InputError
from kerasrobust.ops import draws
from kerasrobust.settings import variants_of


@dataclass(frozen=True, kw_only=True)
class MIFGSM(Iterative):
    """Momentum iterative FGSM: steps along an accumulated, scale-free gradient.

        g_{t+1} = decay * g_t + grad J(x_t) / mean|grad J(x_t)|
        x_{t+1} = Proj(x_t + step_size * sign(g_{t+1}))

    Three variants keep the examples from fitting one network too closely, so that more of them transfer:

    - DI (diverse inputs): grad J(T(x_t)) instead, where T, with probability p, shrinks an image to a random size and
      pads it with zeros at a random place to its own size; else T(x) = x. Each example and step draws anew.
    - TI (translation-invariant): W * grad J instead, its convolution with a Gaussian kernel: the mean gradient of
      shifted images.
    - NI (Nesterov): the gradient is taken further on, at x_t + step_size * decay * g_t. (In L2 the step is along
      g_t / sqrt(values), whose length is about 1, too.)

    DI and NI take gradients elsewhere than where the image is, so that each step asks for its score as well, unless
    `keep_best` is off.

    Attributes:
        momentum_decay: how much of the accumulated gradient is kept from step to step.
        variants: none, or some of "di", "ti" and "ni" joined by "-", as in "di-ti-ni".
        diversity: DI's probability p.
        smallest: the smallest size that DI shrinks to, as a share of the image's.
        kernel_size: of TI, odd. Its deviation is a sixth of what lies between its ends.

    Example:
        >>> result = MIFGSM(epsilon=8 / 255, steps=10)(model, x, y)
        >>> result = MIFGSM(epsilon=8 / 255, steps=10, variants="di-ti")(model, x, y, surrogate=other)

    Reference: Dong et al. 2018, algorithm 1; DI: Xie et al. 2019; TI: Dong et al. 2019 (15x15, for images of 299x299);
    NI: Lin et al. 2020, whose TI has 7x7.
    """

    name: ClassVar[str] = "mifgsm"

    momentum_decay: float = 1.0
    variants: str = ""
    diversity: float = 0.5
    smallest: float = 0.9
    kernel_size: int = 7

    def __post_init__(self) -> None:
        super().__post_init__()
        variants_of(self.variants)
        for name in ("diversity", "smallest"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"Expected a share in [0, 1] for {name}. Received: {getattr(self, name)}.")
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise InputError(f"Expected an odd kernel size. Received: {self.kernel_size}. Try 7.")

    def _has(self, variant: str) -> bool:
        return variant in variants_of(self.variants)

    def structure(self) -> Hashable:
        own = frozenset(variants_of(self.variants)), self._has("ti") and self.kernel_size
        return super().structure(), own

    def numbers(self) -> dict[str, float | int]:
        own = {"decay": self.momentum_decay, "diversity": self.diversity, "smallest": self.smallest}
        return super().numbers() | {name: float(value) for name, value in own.items()}

    def begin(self, network: Network, images: Images, numbers: Numbers) -> Walk:
        age = tf.zeros(tf.shape(images.y)[:1], tf.int32) if self._has("di") else ()
        return super().begin(network, images, numbers)._replace(velocity=tf.zeros_like(images.x), age=age)

    def slope(self, network: Network, images: Images, state: Walk, numbers: Numbers) -> tuple[tf.Tensor, tf.Tensor]:
        place, asked = state.x_adv, network
        if self._has("ni"):
            # As long as a step in either norm: the entries of a velocity are about 1.
            scale = 1.0 if self.norm == "linf" else float(np.prod(images.x.shape[1:])) ** 0.5
            place += numbers["step_size"] * numbers["decay"] * state.velocity / scale
        if self._has("di"):
            rows, columns = shrinking(images, state.age, numbers)
            asked = replace(network, forward=lambda x, key: network.forward(shrunk(x, rows, columns), key))
        slope, _, score = asked.gradient(place, images.y, targeted=self.targeted)
        # Of several iterates one is chosen by its own score, not by that of where the gradient was taken.
        if self.keep_best and (self._has("di") or self._has("ni")):
            score = network.score(state.x_adv, images.y, self.targeted)
        return blurred(slope, self.kernel_size) if self._has("ti") else slope, score

    def direction(self, slope: tf.Tensor, state: Walk, numbers: Numbers) -> tuple[tf.Tensor, tf.Tensor]:
        # The mean absolute value, so that the decay weighs gradients of all scales alike (equation 6).
        size = tf.reduce_mean(tf.abs(slope), axis=[1, 2, 3], keepdims=True)
        velocity = numbers["decay"] * state.velocity + tf.math.divide_no_nan(slope, size)
        return velocity, velocity

    def step(self, network: Network, images: Images, state: Walk, numbers: Numbers) -> Walk:
        after = super().step(network, images, state, numbers)
        return after._replace(age=tf.add(state.age, 1)) if self._has("di") else after


def shrinking(images: Images, age: tf.Tensor, numbers: Numbers) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns what shrinks each image and puts it onto zeros, or leaves it as it is, as drawn for it and its step.

    Args:
        images: the examples.
        age: int32 (N,), the steps that each has taken.
        numbers: `diversity`, the probability, and `smallest`, the smallest size as a share.

    Returns:
        Matrices (N, H, H) and (N, W, W) that rows and columns are multiplied by.
    """
    chances = draws.hashed_uniform(images.keys, age, 4)
    plain = chances[:, :1, None] >= numbers["diversity"]

    def matrix(side: int, place: tf.Tensor) -> tf.Tensor:
        least = tf.minimum(tf.maximum(tf.round(numbers["smallest"] * side), 1.0), float(side))
        # The full size is never drawn, as in the paper, unless nothing else is left.
        size = least + tf.floor(chances[:, 1] * (side - least))
        first = tf.floor(place * (side - size + 1))
        return tf.where(plain, tf.eye(side), _interpolation(side, size, first))

    _, height, width, _ = images.x.shape
    return matrix(height, chances[:, 2]), matrix(width, chances[:, 3])


def _interpolation(side: int, size: tf.Tensor, first: tf.Tensor) -> tf.Tensor:
    """Returns bilinear weights, (N, side, side), of a row's pixels in one that has it shrunk, with zeros around it.

    Args:
        side: the row's length.
        size: float32 (N,), what it is shrunk to.
        first: float32 (N,), where that begins.
    """
    pixels = tf.range(side, dtype=tf.float32)
    within = pixels - first[:, None]
    source = (within + 0.5) * side / size[:, None] - 0.5
    weights = tf.nn.relu(1 - tf.abs(tf.clip_by_value(source, 0.0, side - 1.0)[:, :, None] - pixels))
    inside = (within >= 0) & (within < size[:, None])
    return tf.where(inside[:, :, None], weights, 0.0)


def shrunk(x: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Returns images as the matrices of `shrinking` make them.

    Args:
        x: float32 (k N, H, W, C): the images, perhaps several times below each other.
        rows: float32 (N, H, H).
        columns: float32 (N, W, W).
    """
    copies = tf.shape(x)[0] // tf.shape(rows)[0]
    rows, columns = (tf.tile(part, [copies, 1, 1]) for part in (rows, columns))
    return tf.ensure_shape(tf.einsum("nik,nklc,njl->nijc", rows, x, columns), x.shape)


def gaussian(size: int) -> np.ndarray:
    """Returns a Gaussian kernel, float32 (size, size), of sum 1: the density between -3 and 3 deviations."""
    line = np.exp(-(np.linspace(-3, 3, size) ** 2) / 2) if size > 1 else np.ones(1)
    return (np.outer(line, line) / line.sum() ** 2).astype(np.float32)


def blurred(slope: tf.Tensor, size: int) -> tf.Tensor:
    """Returns gradients (N, H, W, C), each channel convolved with a Gaussian kernel, with zeros beyond the edges."""
    kernel = tf.tile(tf.constant(gaussian(size))[:, :, None, None], [1, 1, slope.shape[-1], 1])
    return tf.nn.depthwise_conv2d(slope, kernel, strides=[1, 1, 1, 1], padding="SAME")

"""Noise layers that stay on at inference, and how their noise is controlled.

A randomized network draws new noise in every forward pass, also when it predicts. Attacks and verdicts need that noise
to be repeatable under a seed, fresh in each pass of an expectation over transformations (EOT; Athalye et al. 2018), and
sometimes switched off. `keyed_noise` and `noise_off` control it during a call or while a graph is traced; otherwise
each call draws anew.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf


class _Steering(threading.local):
    """How the noise layers that are called in this thread draw."""

    key: tf.Tensor | None = None
    draws: int = 0
    shared: bool = False
    off: bool = False


_steering = _Steering()


@contextlib.contextmanager
def keyed_noise(key: tf.Tensor, shared: bool = False) -> Iterator[None]:
    """Makes the noise layers called inside draw from `key`: equal keys, equal noise.

    Layers are distinguished by the order of their calls, not by their names, so a model that is built or loaded again
    draws the same noise.

    Args:
        key: int32 tensor of shape (2,), a stateless seed. A tensor, so one trace serves all keys.
        shared: draw once for all images of a batch instead of once for each: under a fixed key the network is then
            deterministic.

    Example:
        >>> with keyed_noise(tf.constant([0, 7])):
        ...     logits = model(x, training=False)
    """
    before = _steering.key, _steering.draws, _steering.shared
    _steering.key, _steering.draws, _steering.shared = key, 0, shared
    try:
        yield
    finally:
        _steering.key, _steering.draws, _steering.shared = before


@contextlib.contextmanager
def noise_off() -> Iterator[None]:
    """Makes the noise layers called inside pass their input through: the network without its noise."""
    before = _steering.off
    _steering.off = True
    try:
        yield
    finally:
        _steering.off = before


@keras.saving.register_keras_serializable(package="kerasrobust")
class RandomDropout(keras.layers.Layer):
    """Dropout whose noise is on in training and in inference.

    Each entry is set to 0 with probability `rate`, the others are scaled by `1 / (1 - rate)`, whatever `training` says.
    Without a `seed` the noise is fresh in every call and in every process that loads the layer, also where a global
    seed was set when it was exported. With a `seed` each process that loads it repeats the same sequence.

    Args:
        rate: float in [0, 1), the probability with which an entry is dropped.
        seed: integer, or None for noise that nobody can repeat.
        **kwargs: what every Keras layer takes (`name`, `dtype`).

    Call arguments:
        inputs: tensor of any rank and floating dtype; mixed precision keeps its compute dtype.

    Raises:
        ValueError: if `rate` is outside [0, 1).

    Example:
        >>> layer = RandomDropout(0.5)
        >>> bool(tf.reduce_all(layer(tf.ones((4, 8))) == layer(tf.ones((4, 8)))))
        False

    Reference: Srivastava et al. 2014 (dropout); kept on at inference as in Gal and Ghahramani 2016.
    """

    def __init__(self, rate: float = 0.1, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"Expected a dropout rate in [0, 1). Received: rate={rate}")
        self.rate = float(rate)
        self.seed = seed
        self.supports_masking = True
        # A seed generator's state is saved with the model, so its noise repeats: only wanted under a given seed.
        self.seed_generator = None if seed is None else keras.random.SeedGenerator(seed)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        if self.rate == 0 or _steering.off:
            return inputs
        outputs = inputs * self.mask(inputs)
        # One channel times one of a mask of unknown shape is unknown, and the next convolution needs to know it.
        outputs.set_shape(inputs.shape)
        return outputs

    def mask(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the factors of the entries: 0, or the scale of those that are kept."""
        shape = self.one_for_all(tf.shape(inputs), 0)
        if _steering.key is None or inputs.shape.rank != 4:
            return self.drawn(shape, inputs.dtype)
        # Images beside each other, as they lie in a network's twins (`twins.layouts`), which take most of the passes.
        return tf.transpose(self.drawn(tf.gather(shape, (1, 2, 0, 3)), inputs.dtype), (2, 0, 1, 3))

    def one_for_all(self, shape: tf.Tensor, axis: int) -> tf.Tensor:
        """Returns the shape of the mask for inputs of a shape, whose images are along an axis."""
        return tf.concat([shape[:axis], [1], shape[axis + 1 :]], axis=0) if _steering.shared else shape

    def drawn(self, shape: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
        """Returns a mask of a shape."""
        return tf.cast(self._kept(shape), dtype) * tf.cast(1 / (1 - self.rate), dtype)

    def _kept(self, shape: tf.Tensor) -> tf.Tensor:
        """Returns which entries are kept, bool of that shape, each drawn by itself."""
        if _steering.key is not None:
            _steering.draws += 1
            # Two entries from each 32 random bits, in half of the time: 16 bits resolve the rate to 0.00002.
            key = tf.random.experimental.stateless_fold_in(_steering.key, _steering.draws)
            count = tf.reduce_prod(shape)
            bits = tf.random.stateless_uniform([(count + 1) // 2], key, None, None, tf.int32)
            numbers = tf.reshape(tf.reshape(tf.bitcast(bits, tf.int16), [-1])[:count], shape)
            return numbers >= tf.constant(min(round(self.rate * 2**16) - 2**15, 2**15 - 1), tf.int16)
        # Floats of 32 bits also in mixed precision, as bfloat16 has too few values near 1.
        if self.seed_generator is not None:
            return tf.random.stateless_uniform(shape, self.seed_generator.next()) >= self.rate
        # The raw op with both seeds 0 ignores the global seed, which would otherwise be frozen into an exported graph.
        return tf.raw_ops.RandomUniform(shape=shape, dtype=tf.float32, seed=0, seed2=0) >= self.rate

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


def is_noisy(model: keras.Model) -> bool:
    """Returns whether a Keras model holds a `RandomDropout`, at any depth, with a rate above 0."""
    return any(isinstance(layer, RandomDropout) and layer.rate > 0 for layer in model._flatten_layers())

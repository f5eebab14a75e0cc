"""Random numbers from stateless keys: one key for a batch, or one for each example."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

_GOLDEN = 0x9E3779B9
"""2^32 over the golden ratio, which has hashes of 0 differ from 0."""

_UNIFORM, _LENGTH, _ANGLE = 0xF0000001, 0xF0000002, 0xF0000003
"""Uses of a key, apart from each other and from the small numbers by which callers fold it."""


def uniform(keys: tf.Tensor, shape: tf.Tensor, low: float = 0.0, high: float = 1.0) -> tf.Tensor:
    """Returns uniform noise of `shape`: from one key (2,) for the batch, or one key per example (N, 2).

    With a key per example the noise of an example doesn't depend on the others in its batch.
    """
    if keys.shape.rank == 1:
        return tf.random.stateless_uniform(shape, keys, low, high)
    return low + (high - low) * _chances(keys, shape, _UNIFORM)


def normal(keys: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """Returns standard normal noise of `shape`, keys as in `uniform`; from a key per example by Box and Muller 1958."""
    if keys.shape.rank == 1:
        return tf.random.stateless_normal(shape, keys)
    length = tf.sqrt(-2.0 * tf.math.log1p(-_chances(keys, shape, _LENGTH)))
    return length * tf.cos(2.0 * np.pi * _chances(keys, shape, _ANGLE))


def normal_pairs(keys: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """Returns standard normal noise of `shape` from a key per example, (N, 2), by Box and Muller's pairs.

    Other numbers than `normal` gives, in two thirds of its time: for where noise is drawn at each pass.
    """
    shape = tf.convert_to_tensor(shape)
    count = tf.reduce_prod(shape[1:])
    half = (count + 1) // 2
    chances = [hashed_uniform(fold(keys, use), tf.constant(0), half) for use in (_LENGTH, _ANGLE)]
    length, angle = tf.sqrt(-2.0 * tf.math.log1p(-chances[0])), 2.0 * np.pi * chances[1]
    return tf.reshape(tf.concat([length * tf.cos(angle), length * tf.sin(angle)], axis=1)[:, :count], shape)


def _chances(keys: tf.Tensor, shape: tf.Tensor, use: int) -> tf.Tensor:
    """Returns uniform numbers in [0, 1) of `shape`, from a key per example, for one of the uses above."""
    shape = tf.convert_to_tensor(shape)
    return tf.reshape(hashed_uniform(fold(keys, use), tf.constant(0), tf.reduce_prod(shape[1:])), shape)


def hashed_uniform(keys: tf.Tensor, step: tf.Tensor, count: int | tf.Tensor) -> tf.Tensor:
    """Returns uniform numbers in [0, 1), (N, count), from a key per example, (N, 2), and a step's number, () or (N,).

    A hash of key and counter instead of TensorFlow's generators, which take one key a call. A loop over the examples
    takes as long on a processor or longer (measured), and on a GPU each of its rounds waits for the one before.
    """
    hashed = _hashed(keys, tf.cast(step, tf.uint32), tf.cast(count, tf.int32))
    hashed.set_shape([keys.shape[0], tf.get_static_value(count)])
    return hashed


def fold(keys: tf.Tensor, number: int | tf.Tensor) -> tf.Tensor:
    """Returns new keys that depend on `keys`, (2,) or (N, 2), and a number: for another restart, step or use."""
    folded = (_folded_one if keys.shape.rank == 1 else _folded)(keys, tf.cast(number, tf.uint32))
    folded.set_shape(keys.shape)
    return folded


def _shared(*signature: tf.TensorSpec) -> Callable[[Callable[..., tf.Tensor]], Callable[..., tf.Tensor]]:
    """Returns a decorator: the graphs that call the function share the one graph made of it.

    Hashes were a third of the operations of all graphs of attacks. A call is one operation while a graph is made, in an
    eighth of the time (measured); before a graph runs, TensorFlow puts the operations in its place.
    """
    return lambda body: tf.function(body, input_signature=signature, autograph=False)


_KEYS, _NUMBER = tf.TensorSpec([None, 2], tf.int32), tf.TensorSpec(None, tf.uint32)


@_shared(_KEYS, _NUMBER, tf.TensorSpec([], tf.int32))
def _hashed(keys: tf.Tensor, step: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    number = step[..., None] * tf.cast(count, tf.uint32) + tf.cast(tf.range(count), tf.uint32)
    keys = tf.bitcast(keys, tf.uint32)
    example = _mixed(_mixed(keys[:, 0]) + keys[:, 1])
    mixed = _mixed(tf.bitwise.bitwise_xor(example[:, None], _mixed(number + tf.constant(_GOLDEN, tf.uint32))))
    # 24 bits are what a float32 holds.
    return tf.cast(tf.bitwise.right_shift(mixed, tf.constant(8, tf.uint32)), tf.float32) / 2.0**24


@_shared(_KEYS, _NUMBER)
def _folded(keys: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    first, second = tf.unstack(tf.bitcast(keys, tf.uint32), axis=1)
    first = _mixed(tf.bitwise.bitwise_xor(first, _mixed(number + tf.constant(_GOLDEN, tf.uint32))))
    return tf.bitcast(tf.stack([first, _mixed(first + second)], axis=1), tf.int32)


@_shared(tf.TensorSpec([2], tf.int32), _NUMBER)
def _folded_one(key: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    return _folded(key[None], number)[0]


def _mixed(value: tf.Tensor) -> tf.Tensor:
    """Returns uint32 whose bits depend on all bits of `value`: MurmurHash3's finaliser (Appleby 2011)."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        value = tf.bitwise.bitwise_xor(value, tf.bitwise.right_shift(value, tf.constant(shift, tf.uint32)))
        value *= tf.constant(factor, tf.uint32)
    return tf.bitwise.bitwise_xor(value, tf.bitwise.right_shift(value, tf.constant(16, tf.uint32)))

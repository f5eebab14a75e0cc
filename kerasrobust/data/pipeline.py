"""Batches for training: shuffled, augmented, prefetched."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kerasrobust.data.corruptions.corrupting import corrupt
from kerasrobust.data.dataset import Dataset
from kerasrobust.errors import InputError
from kerasrobust.names import SEVERITIES, uncorrupted

if TYPE_CHECKING:
    import tensorflow as tf

CROP_PADDING = 4  # Pixels a training image is moved by at most, as in He 2016 for CIFAR-10.

# A mirrored digit or letter isn't the same any more: these sets are cropped but never flipped.
UNFLIPPED = frozenset({"mnist", "emnist", "kmnist", "qmnist", "mnist_corrupted", "svhn_cropped", "omniglot"})


def train_pipeline(
    dataset: Dataset,
    batch_size: int,
    *,
    seed: int,
    augment: bool = True,
    corruptions: Sequence[str] = (),
    epoch: tf.Variable | None = None,
) -> tf.data.Dataset:
    """Returns the images in batches for `fit`: shuffled anew each epoch, augmented, prefetched.

    The images stay in memory as they are stored; shuffling moves indices only, and one gather per batch picks, moves
    and mirrors the images.

    Args:
        dataset: what to train on.
        batch_size: images per batch. The rest at the end of an epoch is dropped, so that all batches have one shape;
            after shuffling it is other images each epoch. A set smaller than one batch is one batch.
        seed: equal seeds give equal batches, epoch by epoch.
        epoch: int64 scalar with the number of the next epoch, which whoever sets it can begin anywhere; without it they
            are counted from the pipeline's creation.
        augment: as in He 2016: a flip with probability 1/2, but for digits and letters, and a crop from the image
            padded by 4 pixels (by reflection).
        corruptions: kinds of `names.CORRUPTIONS`: half of each batch is under one of them at one severity, both drawn
            for the batch.

    Returns:
        Pairs of images, float32 in [0, 1], (batch_size, H, W, C), and labels, int64, (batch_size,).

    Raises:
        InputError: for a batch size below 1.

    Example:
        >>> batches = train_pipeline(load_dataset("shapes", "train[:512]"), 128, seed=0)
        >>> model.fit(batches, epochs=3)
    """
    import tensorflow as tf

    if batch_size < 1:
        raise InputError(f"Expected a batch size of at least 1. Received: {batch_size}. Give for instance 128.")
    batch_size = min(batch_size, len(dataset))
    count, height, width, channels = dataset.images.shape
    with tf.device("CPU:0"):  # Otherwise the whole set would go into a GPU's memory.
        pixels = tf.constant(dataset.images.reshape(count * height * width, channels))
        labels = tf.constant(dataset.labels)
    flip = augment and uncorrupted(dataset.name).split("/")[0].split(":")[0] not in UNFLIPPED

    def batch(indices: tf.Tensor, noise: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        rows = tf.broadcast_to(tf.range(height, dtype=tf.int64), [batch_size, height])
        columns = tf.broadcast_to(tf.range(width, dtype=tf.int64), [batch_size, width])
        if augment:
            rows = _moved(rows, height, noise)
            columns = _moved(columns, width, noise + 1)
        if flip:
            mirrored = tf.random.stateless_uniform([batch_size, 1], noise + 2) < 0.5
            columns = tf.where(mirrored, columns[:, ::-1], columns)
        places = ((indices * height)[:, None] + rows)[:, :, None] * width + columns[:, None, :]
        images = tf.cast(tf.gather(pixels, places), tf.float32)
        if dataset.images.dtype == np.uint8:
            images /= 255.0
        if corruptions:
            images = _half_corrupted(images, noise, tuple(corruptions))
        return images, tf.gather(labels, indices)

    counted = epoch is None
    number = tf.Variable(0, dtype=tf.int64, trainable=False) if epoch is None else epoch

    def order(_: tf.Tensor) -> tf.data.Dataset:
        key = tf.stack([tf.constant(seed, tf.int64), number.read_value()])
        if counted:
            number.assign_add(1)
        shuffled = tf.argsort(tf.random.stateless_uniform([count], key, maxval=None, minval=None, dtype=tf.int64))
        whole = count // batch_size
        rows = tf.reshape(shuffled[: whole * batch_size], [whole, batch_size])
        # The noise of a batch comes from numbers that travel with it: repeatable however many are made at once.
        noise = tf.random.stateless_uniform([whole, 2], key + 1, maxval=None, minval=None, dtype=tf.int64)
        return tf.data.Dataset.from_tensor_slices((tf.cast(rows, tf.int64), noise))

    # Made anew at the beginning of each epoch, as that reads the number.
    batches = tf.data.Dataset.range(1).flat_map(order)
    batches = batches.apply(tf.data.experimental.assert_cardinality(count // batch_size))
    return unwatched(batches.map(batch, num_parallel_calls=os.cpu_count() or 1, deterministic=True).prefetch(4))


def unwatched(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Returns a pipeline without TensorFlow's autotuning.

    The tuning thread sleeps for 10 ms, 20 ms, 40 ms and so on, and sometimes isn't woken when the pipeline ends
    (TensorFlow 2.21): an epoch of 3 s then takes 5.1 s, one of 70 s takes 82 s.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.with_options(options)


def _half_corrupted(images: tf.Tensor, noise: tf.Tensor, kinds: Sequence[str]) -> tf.Tensor:
    """Returns a batch, float32 in [0, 1], with its first half, which shuffling has chosen, under a corruption."""
    import tensorflow as tf

    def drawn(images: np.ndarray, noise: np.ndarray) -> np.ndarray:
        draw = np.random.default_rng(noise.view(np.uint64).tolist())
        kind, severity, seed = kinds[int(draw.integers(len(kinds)))], draw.choice(SEVERITIES), draw.integers(2**31)
        half = len(images) // 2
        return np.concatenate([corrupt(images[:half], kind, int(severity), seed=int(seed)), images[half:]])

    return tf.ensure_shape(tf.numpy_function(drawn, [images, noise], tf.float32), images.shape)


def _moved(places: tf.Tensor, size: int, noise: tf.Tensor) -> tf.Tensor:
    """Returns `places` (batch, size) moved by one random distance per image, reflected at the borders."""
    import tensorflow as tf

    padding = min(CROP_PADDING, size - 1)
    distances = tf.random.stateless_uniform([places.shape[0], 1], noise, -padding, padding + 1, dtype=tf.int64)
    return (size - 1) - tf.abs((size - 1) - tf.abs(places + distances))

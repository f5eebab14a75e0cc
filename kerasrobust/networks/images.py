"""Images and labels as people have them, checked against a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
import psutil
import tensorflow as tf

from kerasrobust.errors import InputError
from kerasrobust.networks.classifier import Classifier
from kerasrobust.ops import stored

_ENDLESS = "Take a part of it: dataset.take(100) of a tf.data.Dataset, itertools.islice(batches, 100) of a generator."
_PAIRS = ([4, 1], [4, 2], [3, 1])
"""Dimensions of images and their labels."""


def check_fits(classifier: Classifier, shape: tuple[int, ...], y: np.ndarray) -> None:
    """Raises InputError for classes (N,) that a model doesn't have, and for images of another shape than its own."""
    if y.min() < 0 or y.max() >= classifier.classes:
        advice = "Choose the data that the model was trained on."
        if y.min() == 1 and y.max() == classifier.classes:
            advice = "Subtract 1."
        elif set(y.tolist()) == {-1, 1}:  # As the hinge loss takes them.
            advice = "Give (y + 1) // 2."
        raise InputError(
            f"Expected labels from 0 to {classifier.classes - 1}. Received: {y.min()} to {y.max()}. {advice}"
        )
    classifier.check_shape(shape)


def channels_of(classifier: Classifier, x: np.ndarray) -> np.ndarray:
    """Returns images (N, H, W, C) in the channels that a model sees: one, of three equal ones, if it takes one.

    As three they would be attacked in directions that the model doesn't see.
    """
    grey = classifier.adapter.channels == 1 and x.shape[3] == 3 and all((part == part[..., :1]).all() for part in x)
    return x[..., :1] if grey else x


def visible(classifier: Classifier, x: np.ndarray) -> np.ndarray:
    """Returns images, (..., H, W, C), without a fourth channel (alpha) that a model doesn't see."""
    return x[..., :3] if (classifier.adapter.channels, x.shape[-1]) == (3, 4) else x


def read_images(x: Any, y: Any = None, several: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Returns images and labels as float32 and int64 arrays.

    Args:
        x: (N, H, W, C), or (N, H, W) for grey ones: floating in [0, 1], or 8-bit, which is divided by 255; other dtypes
            as of `stored.unit_pixels`. Without `y` what gives both: a `tf.data.Dataset` of (image, label), batched or
            not, a `keras.utils.PyDataset`, any other iterable of batches, or what `load_dataset` returns.
        y: (N,), (N, 1) or one-hot, of any dtype that holds whole numbers; or 0 and 1, (N, L), for several labels an
            image, or none.
        several: whether each column is a label by itself even if each row has a single 1.

    Returns:
        float32 (N, H, W, C) in [0, 1], and int64 (N,) or, for several labels, (N, L).

    Raises:
        InputError: for another rank, dtype or length, other values, no images, and data without an end.
    """
    if y is None:
        # What `load_dataset` has read as such; other objects may keep one-hot rows under that name.
        several = several or (hasattr(x, "class_names") and np.ndim(getattr(x, "labels", 0)) == 2)
        x, y = collected(x)
    x, y = _array(x, "images of one size"), _array(y, "labels of one shape")
    if x.ndim == 3 and len(x) == len(np.atleast_1d(y)):
        x = x[..., None]
    if x.ndim != 4 or 0 in x.shape:
        raise InputError(
            f"Expected images of shape (N, height, width, channels), at least one. Received: shape {x.shape}. "
            f"{_shape_advice(x.shape)}"
        )
    x = stored.unit_pixels(x)
    y = stored.read_labels(y, len(x), several=several)
    return x / np.float32(255) if x.dtype == np.uint8 else x, y


def _array(values: Any, expected: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError as error:  # Of lists of several sizes.
        raise InputError(f"Expected {expected}. Received: several. Resize them, or give one array.") from error


def _shape_advice(shape: tuple[int, ...]) -> str:
    if 0 in shape:
        return "Ask for a larger split."
    if len(shape) == 3:
        return "Add a missing axis as in x[None]."
    return stored.reshaping(shape)


def collected(data: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images and labels that a data set or an iterable of batches gives, as they are stored there.

    Raises:
        InputError: for arrays without labels, what gives no pairs, and what has no end or doesn't fit into memory.

    Example:
        >>> images, labels = collected(tf.data.Dataset.from_tensor_slices((x, y)).batch(32))
    """
    if all(hasattr(data, name) for name in ("x", "y", "class_names")):  # What `load_dataset` returns.
        return data.x, data.y
    if isinstance(data, np.ndarray | tf.Tensor) or not isinstance(data, Iterable | keras.utils.PyDataset):
        raise InputError(
            f"Expected labels, or a data set that gives images and labels. Received: {type(data).__name__} alone. "
            "Give y as well."
        )
    if isinstance(data, tuple | list) and [len(getattr(part, "shape", ())) for part in data[:2]] in _PAIRS:
        raise InputError(
            f"Expected images and labels by themselves. Received: both in a {type(data).__name__}. Give x and y "
            "separately: evaluate(model, x, y)."
        )
    images: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    size, most = 0, psutil.virtual_memory().available // 2
    for item in _items(data):
        image, label = _pair(item)
        if not _is_batch(image, label):
            image, label = image[None], label[None]
        if images and image.shape[1:] != images[0].shape[1:]:
            raise InputError(
                f"Expected images of one size. Received: {images[0].shape[1:]} and {image.shape[1:]}. Resize them."
            )
        images.append(image)
        labels.append(label)
        size += image.nbytes
        if size > most:
            raise InputError(
                f"Expected a data set that ends, and fits into memory. Received: more than {most >> 20:,} MiB. "
                f"{_ENDLESS}"
            )
    if not images:
        raise InputError("Expected a data set with images. Received: none. Make it anew if it was used up.")
    return np.concatenate(images), np.concatenate(labels)


def _items(data: Any) -> Iterator[Any]:
    """Yields what a data set gives; raises InputError if that is known to have no end."""
    endless = False
    if isinstance(data, tf.data.Dataset):
        endless = int(data.cardinality()) == tf.data.INFINITE_CARDINALITY
    elif isinstance(data, keras.utils.PyDataset):
        endless = data.num_batches is None
    if endless:
        raise InputError(f"Expected a data set that ends. Received: an endless one. {_ENDLESS}")
    if isinstance(data, keras.utils.PyDataset):
        return (data[place] for place in range(data.num_batches))
    return iter(data)


def _pair(item: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns an image and a label, or a batch of them, as arrays; sample weights after them are left out."""
    if isinstance(item, dict) and {"image", "label"} <= set(item):  # As TFDS gives them.
        item = item["image"], item["label"]
    if isinstance(item, tuple | list) and len(item) in (2, 3):  # As a model of named inputs and outputs takes them.
        item = tuple(next(iter(part.values())) if isinstance(part, dict) and len(part) == 1 else part for part in item)
    if not isinstance(item, tuple | list) or len(item) not in (2, 3) or any(isinstance(part, dict) for part in item):
        got = f"{len(item)} parts" if isinstance(item, tuple | list | dict) else type(item).__name__
        raise InputError(f"Expected a data set of pairs (image, label). Received: {got}. {_map(item)}")
    return _array(item[0], "images of one size"), _array(item[1], "labels of one shape")


def _map(item: Any) -> str:
    """Returns how pairs are made of what a data set gives."""
    if isinstance(item, dict):
        return "Map it, as in dataset.map(lambda item: (item['image'], item['label']))."
    parts = item[:1] if isinstance(item, tuple | list) else ()
    names = [f"'{name}'" for part in parts if isinstance(part, dict) for name in part]
    if names:
        return f"Choose one of {', '.join(names)}: dataset.map(lambda x, y: (x[{names[0]}], y))."
    return "Map it to pairs, by dataset.map."


def _is_batch(image: np.ndarray, label: np.ndarray) -> bool:
    """Returns whether a pair is a batch: of grey images (N, H, W) where as many labels come with them."""
    if image.ndim == 3:
        one = label.ndim == 1 and image.shape[2] in (1, 3, 4) and len(set(label.tolist())) <= 2
        return label.ndim > 0 and len(label) == len(image) and not one
    return image.ndim > 3

"""Images with their classes, in memory as they were stored, and the checks that all sources share."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kerasrobust.errors import InputError
from kerasrobust.ops import stored

MOST_CLASSES = 65_536  # More than any image set has: labels above that aren't class indices.

KEYS = "Name the array of images first, that of labels second: --keys IMAGES,LABELS, or keys=."


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Images with their classes.

    Attributes:
        name: the name that it was loaded by.
        images: as they were stored: (N, H, W, C), uint8 or float32 in [0, 1].
        labels: (N,), int64, in 0 ... `classes` - 1, the order of `class_names`; or, where an image may have several
            classes or none, 0 and 1 for each of them, (N, `classes`).
        synthetic: whether a program drew the images; results on them say so.

    Example:
        >>> data = load_dataset("shapes", "test")
        >>> data[:64].x.shape, data[:64].y.shape
        ((64, 32, 32, 3), (64,))
    """

    name: str
    split: str
    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    synthetic: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, part: slice | np.ndarray) -> Dataset:
        """A part of the images: a slice, or an array of indices or of booleans; only that is converted by `x`."""
        if isinstance(part, slice) and part == slice(None):
            return self  # With the images that may be converted already.
        return dataclasses.replace(self, images=self.images[part], labels=self.labels[part])

    @property
    def classes(self) -> int:
        """How many classes there are, whether or not each has an image here."""
        return len(self.class_names)

    @functools.cached_property
    def x(self) -> np.ndarray:
        """The images as models take them: float32 in [0, 1], (N, H, W, C). Converted once, and kept."""
        if self.images.dtype == np.uint8:
            return self.images / np.float32(255)
        return self.images

    @property
    def y(self) -> np.ndarray:
        """The labels: int64, (N,) or (N, `classes`)."""
        return self.labels

    def of_patterns(self) -> Dataset:
        """Returns the same with a class for each pattern of several labels, named by those that are 1."""
        numbers = range(2**self.classes)
        names = (", ".join(name for j, name in enumerate(self.class_names) if number >> j & 1) for number in numbers)
        return dataclasses.replace(
            self, labels=stored.patterns(self.labels), class_names=tuple(name or "none" for name in names)
        )


def checked(name: str, images: np.ndarray, labels: np.ndarray, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns images as uint8 or float32, (N, H, W, C), and class indices as int64, or raises InputError."""
    return checked_images(name, images, first), checked_labels(name, labels, len(images))[0]


def checked_images(name: str, images: np.ndarray, first: int = 0) -> np.ndarray:
    """Returns images as uint8, or float32 in [0, 1], (N, H, W, C), or raises InputError; see `stored.unit_pixels`."""
    if images.dtype.kind in "SUO":
        raise InputError(
            f"Expected images as numbers. Received: strings or objects ({images.dtype}) of shape {images.shape} in "
            f"{name!r}. {KEYS}"
        )
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or not 1 <= images.shape[3] <= 4 or 0 in images.shape[1:]:
        if images.ndim < 2:
            advice = KEYS
        elif images.ndim == 2:
            advice = f"Rows of numbers aren't images. {stored.reshaping(images.shape)}"
        else:
            advice = stored.TRANSPOSE if stored.is_channels_first(images.shape) else "Put the channels last."
        raise InputError(
            f"Expected images of shape (N, height, width, channels), 1 to 4 channels. Received: {images.shape} "
            f"in {name!r}. {advice}"
        )
    return stored.unit_pixels(images, f" in {name!r}", first)


def checked_labels(name: str, labels: np.ndarray, count: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns `count` labels as int64, (N,), and the names of the classes; words are names in alphabetical order.

    Where an image has several labels or none, rows of 0 and 1, the labels are (N, L).

    Raises:
        InputError: for what `stored.read_labels` refuses, words apart, and for numbers that aren't class indices.

    Example:
        >>> checked_labels("pets", np.array(["dog", "cat"]), 2)
        (array([1, 0]), ('cat', 'dog'))
    """
    where = f" in {name!r}"
    if labels.dtype.kind in "SUO":
        words = [word.decode("utf-8", "replace") if isinstance(word, bytes) else str(word) for word in labels.flat]
        names, indices = np.unique(np.array(words, dtype=str), return_inverse=True)
        return stored.class_indices(indices.reshape(labels.shape), count, where), tuple(map(str, names))
    columns = labels.shape[1] if labels.ndim == 2 and labels.shape[1] > 1 else 0
    labels = stored.read_labels(labels, count, where)
    if labels.ndim == 2:
        return labels, tuple(map(str, range(columns)))
    if count and not 0 <= labels.min() <= labels.max() < MOST_CLASSES:
        raise InputError(
            f"Expected labels from 0 to the number of classes - 1. Received: {labels.min()} to {labels.max()} "
            f"in {name!r}. Number the classes from 0 on."
        )
    return labels, tuple(map(str, range(columns or labels.max(initial=-1) + 1)))


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message."""
    # Without the node names that TensorFlow adds to its messages.
    text = re.sub(r"\{\{.*?\}\}\s*|\s*\[Op:.*", "", str(error)).strip() or type(error).__name__
    return text.splitlines()[0][:200]


@dataclass(frozen=True)
class Source:
    """A kind of data set, for `names.SOURCES`.

    Attributes:
        takes: tells whether a name is for it.
        load: reads a split of what has that name; takes what `load.load_dataset` takes.
        options: the settings of `load.load_dataset` that are for it only.
    """

    takes: Callable[[str], bool]
    load: Callable[..., Dataset]
    options: tuple[str, ...] = ()

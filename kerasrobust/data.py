"""Labelled images: TFDS sets, files, image folders and the embedded set, checked, in memory as they were stored.

Models take float32 in [0, 1]; what is kept is mostly uint8, a quarter of the size. TensorFlow and TFDS are imported
only by the functions that need them.

Example:
    >>> x, y = load_data("shapes", split="test[:100]")
    >>> x.shape, str(x.dtype), str(y.dtype)
    ((100, 32, 32, 3), 'float32', 'int64')
"""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kerasrobust import shapes
from kerasrobust.errors import InputError, unknown_name
from kerasrobust.events import Emit

if TYPE_CHECKING:
    import tensorflow as tf

CROP_PADDING = 4  # Pixels a training image is moved by at most, as in He 2016 for CIFAR-10.

# A mirrored digit or letter is another one, or none: these sets are cropped but never flipped.
UNFLIPPED = frozenset({"mnist", "emnist", "kmnist", "qmnist", "mnist_corrupted", "svhn_cropped", "omniglot"})

SHAPES_SIZES = {"train": 10_000, "test": 2_000}  # Without a slice; a slice may go further.
ARRAY_FILES = (".npz", ".h5", ".hdf5")
IMAGE_FILES = (".png", ".jpg", ".jpeg", ".bmp", ".gif")
MOST_CLASSES = 65_536  # More than any image set has: labels above are something else than class indices.


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Images with their classes.

    Attributes:
        name: What it was asked for by.
        split: Which part of it this is.
        images: (N, H, W, C), uint8 or float32 in [0, 1].
        labels: (N,), int64, in 0 ... `classes` - 1.
        class_names: One name for each class, in the order of the labels.
        synthetic: Whether a program drew the images; what comes from them says so.
    """

    name: str
    split: str
    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    synthetic: bool = False

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.labels)

    @property
    def classes(self) -> int:
        """How many classes there are, whether or not each has an image here."""
        return len(self.class_names)

    @property
    def x(self) -> np.ndarray:
        """The images as models take them: float32 in [0, 1], (N, H, W, C)."""
        if self.images.dtype == np.uint8:
            return self.images.astype(np.float32) / np.float32(255)
        return self.images

    @property
    def y(self) -> np.ndarray:
        """The labels: int64, (N,)."""
        return self.labels


def load_dataset(
    name: str, split: str = "test", *, data_dir: str | Path | None = None, seed: int = 0, emit: Emit | None = None
) -> Dataset:
    """Reads a split of a data set, whatever kind it is of.

    Args:
        name: `shapes` (embedded, generated, synthetic); the path of an .npz or .h5 file with arrays `x`, uint8 or
            floating in [0, 1], (N, H, W, C) or (N, H, W), and `y`, integers, (N,); the path of a folder with one
            sub-folder of images for each class (`./mnist` is a folder, `mnist` the set of TFDS); or any
            image-classification set of TFDS (`cifar10`, `cifar10_corrupted/fog_3`), downloaded if not in `data_dir`.
        split: As in TFDS: `test`, `train[:90%]`, `test[-500:]+train[:500]`. Files and folders have one part, which goes
            by `train`, `test` and `all`; a folder's images are put into a fixed random order before a slice is taken.
            Slices of `shapes` may go past its usual 10,000 and 2,000 images: there are always more.
        data_dir: Where TFDS keeps its sets; None: TFDS's own folder, or what the variable TFDS_DATA_DIR says.
        seed: Of the pictures that are generated; what was stored is the same for every seed.
        emit: Told about a download's progress.

    Returns:
        The data set, checked: labels are class indices, images have one size and values in their range.

    Raises:
        InputError: The name, the split or what lies there can't be used, or a download isn't possible; says what to do.

    Example:
        >>> dataset = load_dataset("shapes", "train[:20%]")
        >>> len(dataset), dataset.classes, dataset.synthetic
        (2000, 10, True)
    """
    path = Path(name).expanduser()
    if name == "shapes":
        return _from_shapes(split, seed)
    if path.suffix.lower() in ARRAY_FILES:
        return _from_file(name, path, split)
    if path.is_dir() and "/" in name:  # Without a slash it is a name.
        return _from_folder(name, path, split)
    if name.startswith(("/", "~", "./", "../")):
        raise InputError(
            "Expected an .npz or .h5 file, or a folder with a sub-folder of images for each class. "
            f"Received: {name!r}, which is {'another kind of file' if path.exists() else 'not there'}. Check the path."
        )
    from kerasrobust import tfds_sets

    return tfds_sets.load(name, split, data_dir, emit)


def load_data(name: str, split: str = "test", *, data_dir: str | Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Returns images (float32 in [0, 1], (N, H, W, C)) and labels (int64, (N,)); arguments as of `load_dataset`.

    Raises:
        InputError: As `load_dataset`.

    Example:
        >>> x, y = load_data("cifar10", split="test[:1000]")
    """
    dataset = load_dataset(name, split, data_dir=data_dir)
    return dataset.x, dataset.y


def train_pipeline(dataset: Dataset, batch_size: int, *, seed: int, augment: bool = True) -> tf.data.Dataset:
    """Returns the images in batches for `fit`: shuffled anew each epoch, augmented, prefetched.

    The images stay in memory as they are stored (that is the cache); shuffling moves indices only, and one gather per
    batch picks, moves and mirrors the images. Augmentation is that of He 2016: a flip with probability 1/2 and a crop
    from the image padded by 4 pixels (by reflection). Flips are left out for digits and letters.

    Args:
        dataset: What to train on.
        batch_size: Images per batch. What is left over at the end of an epoch is dropped, so that all batches have one
            shape; shuffling makes it other images each epoch. A set smaller than one batch is one batch.
        seed: Equal seeds give equal batches, epoch by epoch, counted from the pipeline's creation.
        augment: Whether to flip and crop.

    Returns:
        Pairs of images, float32 in [0, 1], (batch_size, H, W, C), and labels, int64, (batch_size,).

    Raises:
        InputError: The batch size is below 1.

    Example:
        >>> batches = train_pipeline(load_dataset("shapes", "train[:512]"), 128, seed=0)
        >>> model.fit(batches, epochs=3)
    """
    import tensorflow as tf

    if batch_size < 1:
        raise InputError(f"Expected a batch size of at least 1. Received: {batch_size}. Give for instance 128.")
    batch_size = min(batch_size, len(dataset))
    count, height, width, channels = dataset.images.shape
    with tf.device("CPU:0"):  # Beside a GPU the whole set would go into its memory.
        pixels = tf.constant(dataset.images.reshape(count * height * width, channels))
        labels = tf.constant(dataset.labels)
    flip = augment and dataset.name.split("/")[0].split(":")[0] not in UNFLIPPED

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
        return images, tf.gather(labels, indices)

    indices = tf.data.Dataset.range(count).shuffle(count, seed=seed, reshuffle_each_iteration=True)
    # The noise of a batch comes from two numbers that travel with it: repeatable however many batches are made at once.
    noise = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).batch(2, drop_remainder=True)
    batches = tf.data.Dataset.zip(indices.batch(batch_size, drop_remainder=True), noise)
    return unwatched(batches.map(batch, num_parallel_calls=os.cpu_count() or 1, deterministic=True).prefetch(4))


def unwatched(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Returns a pipeline that TensorFlow doesn't tune while it runs.

    The thread that tunes sleeps for 10 ms, 20 ms, 40 ms and so on, and now and then isn't woken when the pipeline ends
    (TensorFlow 2.21): an epoch of 3 s then takes 5.1 s, one of 70 s takes 82 s.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.with_options(options)


def _moved(places: tf.Tensor, size: int, noise: tf.Tensor) -> tf.Tensor:
    """Returns `places` (batch, size) moved by one random distance per image, reflected at the borders."""
    import tensorflow as tf

    padding = min(CROP_PADDING, size - 1)
    distances = tf.random.stateless_uniform([places.shape[0], 1], noise, -padding, padding + 1, dtype=tf.int64)
    return (size - 1) - tf.abs((size - 1) - tf.abs(places + distances))


def parts_of(split: str, sizes: Mapping[str, int], *, endless: bool = False) -> list[tuple[str, int, int]]:
    """Reads a split in TFDS's notation.

    Args:
        split: For instance `train[10%:]`, `test[:100]+train[-50:]`; `[:100]` is `all[:100]`.
        sizes: How many examples each named part has; percentages are of these, rounded to the nearest example.
        endless: Whether a slice may go past its part's size.

    Returns:
        For each term the part's name, the first example, and the one after the last.

    Raises:
        InputError: The split is malformed or empty, goes past the end, or names an unknown part.

    Example:
        >>> parts_of("test[:25%]+train[-5:]", {"train": 100, "test": 80})
        [('test', 0, 20), ('train', 95, 100)]
    """
    parts = []
    for term in split.split("+"):
        match = re.fullmatch(r"\s*(\w*)\s*(?:\[\s*(-?\d+%?)?\s*:\s*(-?\d+%?)?\s*\])?\s*", term)
        if not match or not term.strip():
            raise InputError(
                f"Expected a split such as 'test', 'test[:1000]' or 'train[10%:]'. Received: {split!r}. "
                "Write a part's name, and a slice in examples or percent."
            )
        part = match[1] or "all"
        if part not in sizes:
            raise unknown_name("split", part, sizes)
        size = sizes[part]
        first = _place(match[2], size, 0)
        end = _place(match[3], size, size)
        if first < 0 or (end > size and not endless):
            raise InputError(
                f"Expected a slice within the {size} examples of {part!r}. Received: {split!r}. "
                f"Take a smaller one, or {part!r} for all of them."
            )
        if end <= first:
            raise empty_split(split)
        parts.append((part, first, end))
    return parts


def _place(text: str | None, size: int, default: int) -> int:
    if text is None:
        return default
    place = round(int(text[:-1]) * size / 100) if text.endswith("%") else int(text)
    return place + size if place < 0 else place


def empty_split(split: str) -> InputError:
    """Returns the error for a split without examples."""
    return InputError(f"Expected a split with at least one example. Received: {split!r}. Take a larger slice.")


def checked(name: str, images: np.ndarray, labels: np.ndarray, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns images as uint8 or float32, (N, H, W, C), and labels as int64, or says what is wrong with them."""
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or not 1 <= images.shape[3] <= 4 or 0 in images.shape[1:]:
        raise InputError(
            f"Expected images of shape (N, height, width, channels), 1 to 4 channels. Received: {images.shape} "
            f"in {name!r}. Put the channels last."
        )
    if images.dtype != np.uint8:
        if not np.issubdtype(images.dtype, np.floating):
            raise InputError(
                f"Expected images as uint8, or as floating numbers in [0, 1]. Received: {images.dtype} in {name!r}. "
                "Convert them."
            )
        images = images.astype(np.float32)
        bad = ~((images >= 0) & (images <= 1)).all(axis=(1, 2, 3))  # Also true of NaN.
        if bad.any():
            image = int(bad.argmax())
            raise InputError(
                f"Expected images in [0, 1]. Received: values from {images[image].min():g} to {images[image].max():g} "
                f"in image {first + image} of {name!r}. Divide by 255, or repair what made NaN."
            )
    return images, _checked_labels(name, labels, len(images))


def _checked_labels(name: str, labels: np.ndarray, count: int) -> np.ndarray:
    if labels.ndim == 2 and labels.shape[1] == 1:  # As Keras' own data sets have them.
        labels = labels[:, 0]
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"Expected labels as integers of shape (N,). Received: {labels.dtype}, {labels.shape}, in {name!r}. "
            "Store class indices (one-hot labels: argmax)."
        )
    if len(labels) != count:
        raise InputError(
            f"Expected a label for each of {count} images. Received: {len(labels)} in {name!r}. Add the rest."
        )
    if count and not 0 <= labels.min() <= labels.max() < MOST_CLASSES:
        raise InputError(
            f"Expected labels from 0 to the number of classes - 1. Received: {labels.min()} to {labels.max()} "
            f"in {name!r}. Number the classes from 0 on."
        )
    return labels.astype(np.int64)


def _from_shapes(split: str, seed: int) -> Dataset:
    # Two sequences of pictures for each seed, so that no part, however long, meets the other.
    sequences = {"train": 2 * seed, "test": 2 * seed + 1}
    drawn = [
        shapes.generate(end - first, sequences[part], start=first)
        for part, first, end in parts_of(split, SHAPES_SIZES, endless=True)
    ]
    return Dataset(
        name="shapes",
        split=split,
        images=np.concatenate([images for images, _ in drawn]),
        labels=np.concatenate([labels for _, labels in drawn]),
        class_names=shapes.CLASS_NAMES,
        synthetic=True,
    )


def _from_file(name: str, path: Path, split: str) -> Dataset:
    import h5py

    if not path.is_file():
        raise InputError(f"Expected a file with arrays x and y. Received: {name!r}, which isn't there. Check the path.")
    try:
        if path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return _from_arrays(name, arrays, split)
        with h5py.File(path, "r") as arrays:
            return _from_arrays(name, arrays, split)
    except InputError:
        raise
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"Expected a readable {path.suffix} file. Received: {name!r} ({first_line(error)}). "
            "Write it again (np.savez or h5py, no pickled objects)."
        ) from error


def _from_arrays(name: str, arrays: Any, split: str) -> Dataset:
    arrays_xy = [arrays[key] for key in ("x", "y") if key in arrays]
    if len(arrays_xy) < 2 or not all(hasattr(array, "ndim") for array in arrays_xy):  # A group of HDF5 has none.
        raise InputError(
            f"Expected arrays 'x' (images) and 'y' (labels). Received: {', '.join(sorted(arrays)) or 'none'} "
            f"in {name!r}. Rename or add them."
        )
    stored, labels = arrays_xy[0], arrays_xy[1][()]
    count = len(stored) if stored.ndim else 0
    labels = _checked_labels(name, labels, count)
    images = []
    parts = parts_of(split, dict.fromkeys(("all", "train", "test"), count))
    for _, first, end in parts:
        part, _ = checked(name, stored[first:end], labels[first:end], first)
        images.append(part)
    return Dataset(
        name=name,
        split=split,
        images=np.concatenate(images),
        labels=np.concatenate([labels[first:end] for _, first, end in parts]),
        class_names=tuple(str(label) for label in range(labels.max() + 1)),
    )


def _from_folder(name: str, folder: Path, split: str) -> Dataset:
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    files = [
        (file, label)
        for label, entry in enumerate(classes)
        for file in sorted(entry.iterdir())
        if file.suffix.lower() in IMAGE_FILES
    ]
    if not files:
        raise InputError(
            f"Expected a folder with a sub-folder of images ({', '.join(IMAGE_FILES)}) for each class. "
            f"Received: {name!r} with {len(classes)} sub-folders and no image. Give the folder above the classes."
        )
    # By class, a slice would hold one class only.
    files = [files[place] for place in np.random.default_rng(0).permutation(len(files))]
    parts = parts_of(split, dict.fromkeys(("all", "train", "test"), len(files)))
    chosen = [pair for _, first, end in parts for pair in files[first:end]]
    with ThreadPoolExecutor() as pool:  # TensorFlow's decoders let other threads run.
        images = list(pool.map(_decoded, (file for file, _ in chosen)))
    for (file, _), image in zip(chosen, images, strict=True):
        if image.shape != images[0].shape:
            raise InputError(
                f"Expected images of one size. Received: {images[0].shape[:2]} ({chosen[0][0]}) and {image.shape[:2]} "
                f"({file}). Resize them."
            )
    return Dataset(
        name=name,
        split=split,
        images=np.stack(images),
        labels=np.array([label for _, label in chosen], dtype=np.int64),
        class_names=tuple(entry.name for entry in classes),
    )


def _decoded(file: Path) -> np.ndarray:
    import tensorflow as tf

    try:
        return tf.io.decode_image(file.read_bytes(), channels=3, expand_animations=False).numpy()
    except (OSError, tf.errors.InvalidArgumentError) as error:
        raise InputError(
            f"Expected an image that can be decoded. Received: {str(file)!r} ({type(error).__name__}). "
            "Replace it or take it away."
        ) from error


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message."""
    # Without what TensorFlow puts around its messages.
    text = re.sub(r"\{\{.*?\}\}\s*|\s*\[Op:.*", "", str(error)).strip() or type(error).__name__
    return text.splitlines()[0][:200]

"""Data sets of one's own: .npz and .h5 files, and folders of images."""

from __future__ import annotations

import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from kerasrobust.data.dataset import Dataset, Source, checked, checked_labels, first_line
from kerasrobust.data.split import parts_of
from kerasrobust.errors import InputError

ARRAY_FILES = (".npz", ".h5", ".hdf5")
IMAGE_FILES = (".png", ".jpg", ".jpeg", ".bmp", ".gif")


def load_arrays(name: str, split: str, **unused: Any) -> Dataset:
    """Reads a split of an .npz or .h5 file; see `load.load_dataset`."""
    import h5py

    path = Path(name).expanduser()
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
    found = [arrays[key] for key in ("x", "y") if key in arrays]
    if len(found) < 2 or not all(hasattr(array, "ndim") for array in found):  # HDF5 groups have none.
        raise InputError(
            f"Expected arrays 'x' (images) and 'y' (labels). Received: {', '.join(sorted(arrays)) or 'none'} "
            f"in {name!r}. Rename or add them."
        )
    stored, labels = found[0], found[1][()]
    count = len(stored) if stored.ndim else 0
    labels = checked_labels(name, labels, count)
    parts = parts_of(split, dict.fromkeys(("all", "train", "test"), count))
    read = [checked(name, stored[first:end], labels[first:end], first) for _, first, end in parts]
    return Dataset(
        name=name,
        split=split,
        images=np.concatenate([images for images, _ in read]),
        labels=np.concatenate([labels for _, labels in read]),
        class_names=tuple(str(label) for label in range(labels.max() + 1)),
    )


def load_folder(name: str, split: str, **unused: Any) -> Dataset:
    """Reads a split of a folder of images; see `load.load_dataset`."""
    folder = Path(name).expanduser()
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    entries = [(file, label) for label, inside in enumerate(classes) for file in sorted(inside.iterdir())]
    files = [(file, label) for file, label in entries if file.suffix.lower() in IMAGE_FILES]
    if not files:
        raise InputError(
            f"Expected a folder with a sub-folder of images ({', '.join(IMAGE_FILES)}) for each class. "
            f"Received: {name!r} with {len(classes)} sub-folders and no image. Give the folder above the classes."
        )
    # In the order of the classes, a slice would hold one class only.
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


def _names_arrays(name: str) -> bool:
    return Path(name).suffix.lower() in ARRAY_FILES


ARRAYS = Source(_names_arrays, load_arrays)
# Without a slash it is the name of a set.
FOLDER = Source(
    lambda name: "/" in name and Path(name).expanduser().is_dir() and not _names_arrays(name), load_folder
)  # fmt: skip

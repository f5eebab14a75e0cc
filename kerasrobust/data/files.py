"""Data sets of one's own in .npz and .h5 files."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from kerasrobust.data.dataset import KEYS, Dataset, Source, checked_images, checked_labels, first_line
from kerasrobust.data.split import PARTS, default_split, parts_of
from kerasrobust.errors import InputError

ARRAY_FILES = (".npz", ".h5", ".hdf5")
NAMES = "classes"
"""The array of words that names the classes which labels count, or those that the columns of labels are of."""


def load_arrays(name: str, split: str | None, *, keys: str | None = None, most: int, **unused: Any) -> Dataset:
    """Reads a split of an .npz or .h5 file; see `load.load_dataset`."""
    import h5py

    path = Path(name).expanduser()
    if not path.is_file():
        raise InputError(f"Expected a file with arrays x and y. Received: {name!r}, which isn't there. Check the path.")
    try:
        if path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return _from_arrays(name, arrays, _pairs(name, list(arrays), keys), split, most)
        with h5py.File(path, "r") as arrays:
            found: list[str] = []
            arrays.visititems(lambda key, item: found.append(key) if hasattr(item, "ndim") else None)  # No groups.
            return _from_arrays(name, arrays, _pairs(name, found, keys), split, most)
    except InputError:
        raise
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"Expected a readable {path.suffix} file. Received: {name!r} ({first_line(error)}). "
            "Write it again (np.savez or h5py, no pickled objects)."
        ) from error


def _pairs(name: str, there: list[str], keys: str | None) -> dict[str, tuple[str, str]]:
    """Returns the names of images and labels in a file, for each of its parts, or for "all" where it has one."""
    words = [word.strip() for word in (keys or "x,y").split(",")]
    if len(words) != 2 or not all(words):
        raise InputError(
            f"Expected --keys as two names with a comma between: IMAGES,LABELS. Received: {keys!r}. "
            f"In {name!r} are {', '.join(sorted(there))}."
        )
    image, label = words
    if {image, label} <= set(there):
        return {"all": (image, label)}
    pairs = {}
    for part, spellings in PARTS.items():
        for word in spellings:
            for form in ("{1}_{0}", "{0}_{1}", "{0}/{1}"):
                pair = form.format(word, image), form.format(word, label)
                if set(pair) <= set(there):
                    pairs[part] = pair
    if not pairs:
        raise InputError(
            f"Expected arrays {image!r} (images) and {label!r} (labels), or the same with _train and _test. "
            f"Received: {', '.join(sorted(there)) or 'none'} in {name!r}. "
            "Say which they are: --keys IMAGES,LABELS, or keys=."
        )
    return pairs


def _from_arrays(name: str, arrays: Any, pairs: dict[str, tuple[str, str]], split: str | None, most: int) -> Dataset:
    stored = {part: _labels(name, label, arrays[label][()]) for part, (_, label) in pairs.items()}
    sizes = {part: len(labels) for part, labels in stored.items()}
    if "all" in sizes:
        sizes = dict.fromkeys(("all", "train", "test"), sizes["all"])
    split = default_split(sizes, most) if split is None else split
    parts = parts_of(split, sizes)
    # Of all parts, so that a class is the same number in each.
    merged = _merged(name, stored)
    labels, class_names = checked_labels(name, merged, len(merged))
    if merged.dtype.kind not in "SUO" and NAMES in arrays:
        class_names = _named(name, arrays[NAMES], class_names, exactly=labels.ndim == 2)
    ends = np.cumsum([len(own) for own in stored.values()])
    own = dict(zip(stored, np.split(labels, ends[:-1]), strict=True))
    images, chosen = [], []
    for part, first, end in parts:
        place = part if part in pairs else "all"
        found = arrays[pairs[place][0]]
        if (count := len(found) if found.ndim else 0) != len(own[place]):
            raise InputError(
                f"Expected a label for each of {count} images. Received: {len(own[place])} in {name!r}. Add the rest."
            )
        # Whether they are 8-bit, all of them tell.
        whole = found.dtype.kind in "iu" and found.dtype != np.uint8
        read = checked_images(name, found[()])[first:end] if whole else checked_images(name, found[first:end], first)
        images.append(read)
        chosen.append(own[place][first:end])
    return Dataset(
        name=name, split=split, images=np.concatenate(images), labels=np.concatenate(chosen), class_names=class_names
    )


def _labels(name: str, label: str, found: Any) -> np.ndarray:
    """Returns the labels of a part as they are stored, a column of them, (N, 1), as (N,)."""
    labels = np.atleast_1d(found)
    if labels.ndim > 2:
        raise InputError(
            f"Expected labels, one an image or a column for each class. Received: {labels.dtype} of shape "
            f"{labels.shape} as {label!r} in {name!r}. {KEYS}"
        )
    return labels[:, 0] if labels.shape[1:] == (1,) else labels


def _merged(name: str, stored: dict[str, np.ndarray]) -> np.ndarray:
    """Returns the labels of all parts in one array, of one form.

    Class indices beside one-hot labels become one-hot, as the columns of these say how many classes there are.

    Raises:
        InputError: for forms in which a class isn't surely the same in each part.
    """
    parts = {part: labels for part, labels in stored.items() if len(labels)} or stored
    if len({(labels.shape[1:], labels.dtype.kind in "SUO") for labels in parts.values()}) == 1:
        return np.concatenate(list(parts.values()))
    read = {part: checked_labels(name, labels, len(labels))[0] for part, labels in parts.items()}
    columns = {labels.shape[1] for labels in parts.values() if labels.ndim == 2}
    words = any(labels.dtype.kind in "SUO" for labels in parts.values())
    if words or len(columns) > 1 or any(indices.ndim == 2 for indices in read.values()):
        told = " beside ".join(f"{_form(labels, read[part])} in {part!r}" for part, labels in parts.items())
        raise InputError(
            f"Expected labels of one form in all parts, or class indices beside one-hot ones. Received: {told} of "
            f"{name!r}. Write all of them in one form, with the same columns."
        )
    (count,) = columns
    for part, indices in read.items():
        if indices.max() >= count:
            raise InputError(
                f"Expected class indices below {count}, as one-hot labels beside them have {count} columns. "
                f"Received: {indices.max()} in {part!r} of {name!r}. Add a column for each class, or correct them."
            )
    return np.concatenate([indices[:, None] == np.arange(count) for indices in read.values()])


def _form(labels: np.ndarray, read: np.ndarray) -> str:
    """Returns in words how labels are stored that have been read."""
    if labels.dtype.kind in "SUO":
        return "words"
    if read.ndim == 2:
        return f"several labels an image, or none ({read.shape[1]} columns)"
    return f"one-hot labels ({labels.shape[1]} columns)" if labels.ndim == 2 else "class indices"


def _named(name: str, found: Any, counted: tuple[str, ...], exactly: bool) -> tuple[str, ...]:
    """Returns the names that a file gives to classes that labels count; their numbers where it gives no words."""
    if getattr(found, "ndim", 0) != 1 or found.dtype.kind not in "SUO":
        return counted
    names = tuple(word.decode("utf-8", "replace") if isinstance(word, bytes) else str(word) for word in found[()])
    if len(names) < len(counted) or (exactly and len(names) > len(counted)):
        raise InputError(
            f"Expected a name for each of {len(counted)} classes. Received: {len(names)} in {NAMES!r} of {name!r}. "
            "Name all of them, or leave that array out."
        )
    return names


def names_arrays(name: str) -> bool:
    """Returns whether a name is that of an .npz or .h5 file."""
    return Path(name).suffix.lower() in ARRAY_FILES


ARRAYS = Source(names_arrays, load_arrays, options=("keys",))

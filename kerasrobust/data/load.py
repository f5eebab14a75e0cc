"""Labelled images: TFDS sets, files, image folders and the embedded set, checked, in memory as they were stored.

TensorFlow and TFDS are imported only by the functions that need them.

Example:
    >>> x, y = load_data("shapes", split="test[:100]")
    >>> x.shape, str(x.dtype), str(y.dtype)
    ((100, 32, 32, 3), 'float32', 'int64')
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kerasrobust.data import shapes
from kerasrobust.data.dataset import Dataset
from kerasrobust.data.files import ARRAY_FILES, from_file, from_folder
from kerasrobust.data.split import parts_of
from kerasrobust.errors import InputError
from kerasrobust.events import Emit

SHAPES_SIZES = {"train": 10_000, "test": 2_000}  # Without a slice; a slice may go further.


def load_dataset(
    name: str, split: str = "test", *, data_dir: str | Path | None = None, seed: int = 0, emit: Emit | None = None
) -> Dataset:
    """Reads a split of a data set of any kind.

    Args:
        name: `shapes` (embedded, generated, synthetic); the path of an .npz or .h5 file with arrays `x`, uint8 or
            floating in [0, 1], (N, H, W, C) or (N, H, W), and `y`, integers, (N,); the path of a folder with one
            sub-folder of images for each class (`./mnist` is a folder, `mnist` the set of TFDS); or any
            image-classification set of TFDS (`cifar10`, `cifar10_corrupted/fog_3`), downloaded if not in `data_dir`.
        split: As in TFDS: `test`, `train[:90%]`, `test[-500:]+train[:500]`. Files and folders have one part, which goes
            by `train`, `test` and `all`; a folder's images are put into a fixed random order before a slice is taken.
            Slices of `shapes` may go past its usual 10,000 and 2,000 images: there are always more.
        data_dir: Where TFDS keeps its sets; by default, the variable TFDS_DATA_DIR or TFDS's own folder.
        seed: Of generated pictures; stored ones are the same for every seed.
        emit: Gets a download's progress events.

    Returns:
        The data set, checked: labels are class indices, images have one size and values in their range.

    Raises:
        InputError: The name, the split or the stored data can't be used, or a download isn't possible.

    Example:
        >>> dataset = load_dataset("shapes", "train[:20%]")
        >>> len(dataset), dataset.classes, dataset.synthetic
        (2000, 10, True)
    """
    path = Path(name).expanduser()
    if name == "shapes":
        return _from_shapes(split, seed)
    if path.suffix.lower() in ARRAY_FILES:
        return from_file(name, path, split)
    if path.is_dir() and "/" in name:  # Without a slash it is a name.
        return from_folder(name, path, split)
    if name.startswith(("/", "~", "./", "../")):
        raise InputError(
            "Expected an .npz or .h5 file, or a folder with a sub-folder of images for each class. "
            f"Received: {name!r}, which is {'another kind of file' if path.exists() else 'not there'}. Check the path."
        )
    from kerasrobust.data import tfds  # Its imports take seconds.

    return tfds.load(name, split, data_dir, emit)


def load_data(name: str, split: str = "test", *, data_dir: str | Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Returns images (float32 in [0, 1], (N, H, W, C)) and labels (int64, (N,)); arguments as of `load_dataset`.

    Raises:
        InputError: As `load_dataset`.

    Example:
        >>> x, y = load_data("cifar10", split="test[:1000]")
    """
    dataset = load_dataset(name, split, data_dir=data_dir)
    return dataset.x, dataset.y


def _from_shapes(split: str, seed: int) -> Dataset:
    # Two sequences of pictures for each seed, so that the parts never overlap, however long.
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

"""Labelled images: TFDS sets, files, image folders and the embedded set, checked, in memory as they were stored.

TensorFlow and TFDS are imported only by the functions that need them.
"""

from __future__ import annotations

import pkgutil
from pathlib import Path
from typing import Any

import numpy as np

from kerasrobust.data.corruptions.corrupting import parted, under
from kerasrobust.data.dataset import Dataset
from kerasrobust.errors import InputError, folder_meant
from kerasrobust.events import Emit
from kerasrobust.names import SOURCES

OPTIONS = {"keys": "an .npz or .h5 file", "size": "a folder of images"}
"""The settings that are for one kind of data set, and which."""


def load_dataset(
    name: str,
    split: str | None = "test",
    *,
    data_dir: str | Path | None = None,
    seed: int = 0,
    keys: str | None = None,
    size: str | int | None = None,
    most: int = 1000,
    emit: Emit | None = None,
) -> Dataset:
    """Reads a split of a data set of any kind.

    Args:
        name: `shapes` (embedded, generated, synthetic); the path of an .npz or .h5 file with arrays `x`, images as
            `ops.stored.unit_pixels` takes them, (N, H, W, C) or (N, H, W), and `y`, class indices of any dtype, one-hot
            or words, or 0 and 1 for several labels an image, (N, L); or the same as `x_train`, `y_train`, `x_test` and
            `y_test`; the path of a folder with one sub-folder of images for each class (`./mnist` is a folder, `mnist`
            the set of TFDS); or any image-classification set of TFDS (`cifar10`, `cifar10_corrupted/fog_3`), downloaded
            if not in `data_dir`. Any of these with `+` and a corruption and its severity behind it, as `cifar10+fog:3`,
            is the same under that corruption (`data.corruptions`); several are applied in their order.
        split: as in TFDS: `test`, `train[:90%]`, `test[-500:]+train[:500]`. A file or folder without parts of its own
            goes by `train`, `test` and `all`, others by `train`, `validation` and `test`; a folder's images are put
            into a fixed random order before a slice is taken. Slices of `shapes` may go past its usual 10,000 and 2,000
            images: there are always more. None for all of a set of one part and the test part of others, up to `most`.
        data_dir: where TFDS keeps its sets; by default, the variable TFDS_DATA_DIR or TFDS's own folder.
        seed: of generated pictures, and of corruptions; stored ones are the same for every seed.
        keys: "IMAGES,LABELS", the names of the arrays in a file instead of `x` and `y`.
        size: N or "HEIGHTxWIDTH": the images of a folder are resized to cover that, and cropped at the centre; or
            "stretch:HEIGHTxWIDTH", which stretches them as `keras.utils.image_dataset_from_directory` does.
        most: images of the split that is taken where none is said.
        emit: gets the progress of a download, and the warnings about a folder, on what is left out and photographs that
            are marked as turned; without it, these are warnings of Python.

    Returns:
        The data set, checked: labels are class indices, or 0 and 1 for several labels an image; images have one size
        and values in their range.

    Raises:
        InputError: if the name, the split or the stored data can't be used, or a download isn't possible.

    Example:
        >>> dataset = load_dataset("shapes", "train[:20%]")
        >>> len(dataset), dataset.classes, dataset.synthetic
        (2000, 10, True)
    """
    if not Path(name).exists() and (said := parted(name)) is not None:
        base, kind, severity = said
        options: dict[str, Any] = {"data_dir": data_dir, "keys": keys, "size": size, "most": most, "emit": emit}
        return under(load_dataset(base, split, seed=seed, **options), kind, severity, seed=seed, emit=emit)
    sources = (pkgutil.resolve_name(known.home) for known in reversed(SOURCES.values()))
    source = next(source for source in sources if source.takes(name))
    given = {"keys": keys, "size": size}
    for option, value in given.items():
        if value is not None and option not in source.options:
            if "/" not in name and Path(name).is_dir():
                raise folder_meant(name)
            raise InputError(
                f"Expected --{option} with {OPTIONS[option]} only. Received: it with {name!r}. Leave it out."
            )
    dataset: Dataset = source.load(name, split, data_dir=data_dir, seed=seed, most=most, emit=emit, **given)
    return dataset


def load_data(name: str, split: str = "test", **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns images (float32 in [0, 1], (N, H, W, C)) and labels (int64, (N,) or, for several an image, (N, L)).

    All else is as of `load_dataset`, which takes the same options.

    Example:
        >>> x, y = load_data("cifar10", split="test[:1000]")
        >>> x, y = load_data("./pets", "all", size=48)
    """
    dataset = load_dataset(name, split, **options)
    return dataset.x, dataset.y

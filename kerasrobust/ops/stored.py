"""Images and labels as people store them, to what models take; what can't be told for sure is refused.

Files, folders and calls from Python share these rules and their sentences.
"""

from __future__ import annotations

import numpy as np

from kerasrobust.errors import InputError

ROUNDING = 1e-6
"""How far outside [0, 1] a pixel may be that was only rounded there."""

TWICE = 1.0001 / 255
"""The largest pixel of images that were divided by 255 twice: all are black to the eye."""

FEW_BITS = 2**14 - 1
"""The largest pixel up to which uint16 is taken to be of fewer bits: as 16 of them, all images would be dark."""
FEW_LEVELS = 16
"""Whole numbers up to this one aren't 8-bit pixels: binary pictures, or the digits of scikit-learn."""

FEW_IMAGES = 8
"""From this many images on, all so dark, uint8 numbers aren't taken for 8-bit pixels."""

TRANSPOSE = "Put the channels last: x.transpose(0, 2, 3, 1)."


def is_channels_first(shape: tuple[int, ...]) -> bool:
    """Returns whether images (N, ...) look as if their channels came before height and width.

    Example:
        >>> is_channels_first((100, 3, 32, 32)), is_channels_first((100, 32, 32, 3))
        (True, False)
    """
    return len(shape) == 4 and shape[1] in (1, 3, 4) and min(shape[2:]) > 4


def reshaping(shape: tuple[int, ...]) -> str:
    """Returns how arrays that lack the shape of images get it; rows whose length tells it, as square images.

    Example:
        >>> reshaping((50, 192)), reshaping((50, 50))
        ('Give x.reshape(-1, 8, 8, 3).', 'Reshape them with x.reshape(-1, height, width, channels).')
    """
    if len(shape) == 2 and shape[1]:
        side = round((shape[1] / (3 if shape[1] % 3 == 0 else 1)) ** 0.5)
        if side**2 in (shape[1], shape[1] / 3):
            return f"Give x.reshape(-1, {side}, {side}, {shape[1] // side**2})."
    return "Reshape them with x.reshape(-1, height, width, channels)."


def unit_pixels(x: np.ndarray, where: str = "", first: int = 0) -> np.ndarray:
    """Returns images as uint8 (0 to 255), or as float32 in [0, 1].

    Args:
        x: (N, ...): uint8, or other whole numbers from 0 to 255, which are taken as 8-bit, but for those up to 16 only;
            uint16 beyond that, which is divided by 65535, but for those of 14 bits or fewer; booleans; or floating
            numbers in [0, 1], clipped if outside by rounding alone.
        where: what the message says of where they are, as " in 'data.npz'".
        first: the number of the first image.

    Raises:
        InputError: for other values, with how to bring them to [0, 1].

    Example:
        >>> unit_pixels(np.array([[0, 255]], np.int64)), unit_pixels(np.array([[0.5, 1.0000002]]))
        (array([[  0, 255]], dtype=uint8), array([[0.5, 1. ]], dtype=float32))
    """
    if x.dtype == np.uint8:
        largest = int(x.max()) if len(x) >= FEW_IMAGES else 0
        if 0 < largest <= FEW_LEVELS:
            raise _outside("uint8", float(x.min()), float(largest), advice_for(0.0, float(largest), True), where)
        return x
    if x.dtype == bool:
        return x.astype(np.float32)
    if np.issubdtype(x.dtype, np.integer):
        low, high = (float(x.min()), float(x.max())) if x.size else (0.0, 255.0)
        if FEW_LEVELS < high <= 255 and low >= 0:
            return x.astype(np.uint8)
        if x.dtype == np.uint16 and high > 255:
            if high <= FEW_BITS and len(x) >= FEW_IMAGES:
                raise _outside("uint16", low, high, _few_bits(high), where)
            return x / np.float32(65535)
        raise _outside(x.dtype.name, low, high, advice_for(low, high, True), where)
    if not np.issubdtype(x.dtype, np.floating) and x.dtype.name != "bfloat16":  # NumPy knows that one by name only.
        raise InputError(
            f"Expected images as uint8, or as floating numbers in [0, 1]. Received: {x.dtype}{where}. "
            "Convert them to numbers."
        )
    x = x.astype(np.float32, copy=False)
    if x.size == 0:
        return x
    low, high = float(x.min()), float(x.max())
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):  # Written this way so that NaN fails as well.
        image = int(np.argmax(~((x >= -ROUNDING) & (x <= 1 + ROUNDING)).reshape(len(x), -1).all(axis=1)))
        whole = bool((x[image] == np.floor(x[image])).all())
        place = f", first in image {first + image}{where.replace(' in', ' of', 1)}"
        raise _outside("values", low, high, advice_for(low, high, whole), place)
    if 0 < high <= TWICE:
        raise InputError(
            f"Expected images in [0, 1]. Received: values up to {high:.4g}{where}, as if 8-bit pixels had been divided "
            "by 255 twice. Multiply them by 255."
        )
    return np.clip(x, 0, 1) if low < 0 or high > 1 else x


def _few_bits(high: float) -> str:
    """Returns how pixels up to `high` come to [0, 1], by the fewest bits that cameras and scanners have."""
    white = next(2**bits - 1 for bits in (10, 12, 14) if high < 2**bits)
    return f"Divide by {white} if that is their white, or by 65535 if they are 16-bit and dark."


def advice_for(low: float, high: float, whole: bool) -> str:
    """Returns how pixels from `low` to `high` come to [0, 1]; `whole` tells whether they are whole numbers.

    Example:
        >>> advice_for(-1.0, 1.0, False)
        'Give (x + 1) / 2 if they lie in [-1, 1].'
    """
    if not np.isfinite([low, high]).all():
        return "Repair what made NaN or infinity."
    if low < -ROUNDING:
        if low >= -1 - ROUNDING and high <= 1 + ROUNDING:
            return "Give (x + 1) / 2 if they lie in [-1, 1]."
        if whole:
            return "Choose a dtype without sign, and divide by its largest value."
        return (
            "Undo what was done to them (times the deviation, plus the mean); the model's own range is said by "
            "--input-range, or input_range=."
        )
    if high <= FEW_LEVELS:
        return f"Divide by {high:g}, their largest value." if whole else "Clip them, or divide by their largest value."
    return f"Divide by {255 if high <= 255 else 65535 if high <= 65535 else 'their largest value'}."


def _outside(what: str, low: float, high: float, advice: str, where: str) -> InputError:
    return InputError(
        f"Expected images in [0, 1] without NaN, or 8-bit ones. Received: {what} from {low:.6g} to {high:.6g}{where}. "
        f"{advice}"
    )


def read_labels(y: np.ndarray, count: int, where: str = "", several: bool = False) -> np.ndarray:
    """Returns class indices, int64 (N,), or, where an image may have several labels or none, 0 and 1, int64 (N, L).

    Args:
        y: as `class_indices` takes them; or a column of 0 and 1 for each label, (N, L).
        count: how many there have to be.
        where: as of `unit_pixels`.
        several: whether each column is a label by itself even if each row has a single 1.

    Raises:
        InputError: for what is neither.

    Example:
        >>> read_labels(np.array([[0, 1], [1, 1]]), 2)
        array([[0, 1],
               [1, 1]])
    """
    if not several:
        rows = y.ndim == 2 and y.shape[1] > 1 and _are_numbers(y) and bool(((y == 1) | (y == 0)).all())
        if not rows or ((y == 1).sum(axis=1) == 1).all():
            return class_indices(y, count, where)
    if y.ndim != 2 or len(y) != count or not _are_numbers(y) or not ((y == 1) | (y == 0)).all():
        other = " with other numbers" if y.shape[:1] == (count,) and y.ndim == 2 else ""
        raise InputError(
            f"Expected labels of 0 and 1, ({count}, L), with a column for each label. "
            f"Received: {y.dtype} of shape {y.shape}{other}{where}. Give one row an image, as (y > 0.5) of shares."
        )
    return y.astype(np.int64)


def patterns(rows: np.ndarray) -> np.ndarray:
    """Returns one number, int64 (N,), for each row of labels 0 and 1, (N, L): the sum of 2**j over the labels j.

    Example:
        >>> patterns(np.array([[0, 0], [1, 0], [1, 1]]))
        array([0, 1, 3])
    """
    return rows.astype(np.int64) @ (1 << np.arange(rows.shape[1]))


def _are_numbers(y: np.ndarray) -> bool:
    return y.dtype.kind in "biuf" or y.dtype.name == "bfloat16"  # NumPy knows that one by name only.


def class_indices(y: np.ndarray, count: int, where: str = "") -> np.ndarray:
    """Returns class indices, int64 (N,), of labels as people store them.

    Args:
        y: (N,) or (N, 1), integers of any kind, booleans or whole floating numbers; or one-hot, (N, K).
        count: how many there have to be.
        where: as of `unit_pixels`.

    Raises:
        InputError: for several labels an image, shares of classes, words, other shapes, and another number of them.

    Example:
        >>> class_indices(np.array([[0.0, 1.0], [1.0, 0.0]]), 2)
        array([1, 0])
    """
    if not _are_numbers(y):
        advice = "Number the classes: np.unique(y, return_inverse=True)[1]." if y.dtype.kind in "SUO" else _STORE
        raise InputError(f"Expected labels as class indices. Received: {y.dtype}, {y.shape}{where}. {advice}")
    if y.ndim == 2 and y.shape[1] == 1:  # As Keras' own data sets have them.
        y = y[:, 0]
    elif y.ndim == 2 and y.shape[1] > 1:
        y = _from_rows(y, where)
    if y.ndim != 1:
        raise InputError(
            f"Expected {count} integer labels, one an image, of shape ({count},), ({count}, 1) or one-hot. "
            f"Received: {y.dtype} of shape {y.shape}{where}. {_STORE}"
        )
    if len(y) != count:
        raise InputError(
            f"Expected {count} integer labels, a label for each of {count} images. Received: {len(y)}{where}. "
            "Give as many labels as images."
        )
    found = y.astype(np.int64)
    if y.dtype.kind not in "biu" and (found != y).any():
        raise InputError(
            f"Expected labels as class indices. Received: {y.dtype} labels that aren't whole numbers, such as "
            f"{y[found != y][0]:g}{where}. {_STORE}"
        )
    return found


_STORE = "Give one class index per image."


def _from_rows(y: np.ndarray, where: str) -> np.ndarray:
    ones, zeros = y == 1, y == 0
    if not (ones | zeros).all():
        shares = y.dtype.kind == "f" and (y >= 0).all() and (y <= 1).all()
        raise InputError(
            f"Expected one-hot labels, of 0 and 1. Received: {y.dtype} of shape {y.shape} with other numbers{where}. "
            f"{'Give the likeliest class: y.argmax(axis=1).' if shares else _STORE}"
        )
    if (ones.sum(axis=1) != 1).any():
        raise InputError(
            f"Expected one label an image. Received: several labels an image, or none (multi-hot, {y.shape[1]} "
            f"columns){where}. Keep the images with one label, or give one column as y[:, k]."
        )
    return ones.argmax(axis=1)

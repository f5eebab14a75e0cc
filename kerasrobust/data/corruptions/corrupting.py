"""Corrupted images: `corrupt`, the public way in, and the same for a data set that is in memory."""

from __future__ import annotations

import dataclasses
import pkgutil
import re
from collections.abc import Iterator

import numpy as np

from kerasrobust.data.corruptions.colours import Corruption
from kerasrobust.data.corruptions.draws import Draws
from kerasrobust.data.dataset import Dataset
from kerasrobust.errors import InputError, unknown_name
from kerasrobust.events import Emit
from kerasrobust.names import CORRUPTIONS, SEVERITIES
from kerasrobust.ops import stored
from kerasrobust.pace import Pace

AT_ONCE = 2**20
"""Values of images that are corrupted at once: 8 MiB in float64, and a few times that in between."""


def corrupt(x: np.ndarray, kind: str, severity: int = 3, *, seed: int = 0, first: int = 0) -> np.ndarray:
    """Returns images under one of the common corruptions, with the parameters of CIFAR-10-C.

    Lengths are in pixels, as they are for CIFAR-10-C's 32 x 32: large images need stronger blur than this for the same
    effect. `frost` is procedural, as the published one is cut out of photographs. Images are rounded to 8 bits before,
    and after it cut down to them, as the published ones are.

    Args:
        x: (N, H, W, C), or (N, H, W) for grey ones; C is 1 or 3. Floating in [0, 1], or 8-bit, which is divided by 255.
        kind: one of `names.CORRUPTIONS`: "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur",
            "motion_blur", "zoom_blur", "snow", "frost", "fog", "brightness", "contrast", "elastic_transform",
            "pixelate", "jpeg_compression", and for validation "speckle_noise", "gaussian_blur", "spatter", "saturate".
        severity: 1 to 5.
        seed: of everything random, at least 0. What happens to an image depends on this, the kind and the image's
            number, and not on the others.
        first: the number of the first image.

    Returns:
        float32 (N, H, W, C) in [0, 1], multiples of 1/255.

    Raises:
        InputError: for an unknown kind or severity, and for images that aren't such.

    Example:
        >>> foggy = corrupt(x, "fog", 3, seed=0)
        >>> batches.map(lambda x, y: (tf.numpy_function(lambda x: corrupt(x, "fog", 3), [x], tf.float32), y))

    Reference: Hendrycks and Dietterich 2019, "Benchmarking neural network robustness to common corruptions and
    perturbations".
    """
    x = np.asarray(x)
    if x.ndim == 3 and x.shape[-1] in (1, 3, 4):
        raise InputError(
            f"Expected images (N, H, W, C), or (N, H, W) for grey ones. Received: shape {x.shape}, as of one image. "
            "Give x[None]."
        )
    images = levels(x[..., None] if x.ndim == 3 else x)
    return corrupted(images, kind, severity, seed=seed, first=first) / np.float32(255)


def levels(images: np.ndarray) -> np.ndarray:
    """Returns images as uint8, (N, H, W, C), rounded.

    Raises:
        InputError: for what isn't images of 1 or 3 channels, as `stored.unit_pixels` refuses it, too.
    """
    if images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape[1:]:
        raise InputError(
            "Expected images of shape (N, height, width, channels), 1 or 3 channels. "
            f"Received: shape {images.shape}. Leave out other channels, and put them last."
        )
    pixels = stored.unit_pixels(images)
    return pixels if pixels.dtype == np.uint8 else np.rint(pixels * 255).astype(np.uint8)


def check(kind: str, severity: int) -> None:
    """Raises InputError for a corruption or severity that doesn't exist."""
    if kind not in CORRUPTIONS:
        raise unknown_name("corruption", kind, CORRUPTIONS)
    if severity not in SEVERITIES or not isinstance(severity, int | np.integer):
        raise InputError(
            f"Expected a severity from {SEVERITIES[0]} to {SEVERITIES[-1]}. Received: {severity}. Choose 3 for a "
            "medium one."
        )


def corrupted(images: np.ndarray, kind: str, severity: int, *, seed: int = 0, first: int = 0) -> np.ndarray:
    """Returns images, uint8 (N, H, W, C), under a corruption; arguments as of `corrupt`, in parts that fit memory."""
    return np.concatenate(list(_in_parts(images, kind, severity, seed, first))) if len(images) else images


def _in_parts(images: np.ndarray, kind: str, severity: int, seed: int, first: int) -> Iterator[np.ndarray]:
    check(kind, severity)
    if not (isinstance(seed, int | np.integer) and seed >= 0 and first >= 0):
        raise InputError(
            f"Expected a seed and a first number of at least 0. Received: {seed} and {first}. Try 0 for both."
        )
    corruption: Corruption = pkgutil.resolve_name(CORRUPTIONS[kind].home)
    size = max(AT_ONCE // images[0].size, 1)
    for start in range(0, len(images), size):
        part = images[start : start + size]
        out = corruption(part / 255.0, severity, Draws.of(kind, seed, first + start, len(part)))
        # Cut, not rounded, as the published programs do; those that round by themselves give uint8.
        yield out if out.dtype == np.uint8 else (np.clip(out, 0, 1) * 255).astype(np.uint8)


_WRITTEN = re.compile(r"(.+)\+([^+:/]+)(?::([^+:/]*))?")


def parted(name: str) -> tuple[str, str, int] | None:
    """Returns what a name such as `cifar10+fog:3` says: data, corruption and severity; None for another name.

    A `+` may stand in any name: only what follows the last one and is a corruption's name, or has its form, is one.

    Raises:
        InputError: for a corruption without a severity, or one that doesn't exist.

    Example:
        >>> parted("cifar10+fog:3"), parted("c+d.npz")
        (('cifar10', 'fog', 3), None)
    """
    match = _WRITTEN.fullmatch(name)
    if match is None or (match[3] is None and match[2] not in CORRUPTIONS):
        return None
    base, kind, written = match.groups()
    if kind not in CORRUPTIONS:
        raise unknown_name("corruption", kind, CORRUPTIONS)
    if written is None or not written.isdecimal():
        raise InputError(
            f"Expected a severity after {kind}, from {SEVERITIES[0]} to {SEVERITIES[-1]}. Received: {name!r}. "
            f"Write {base}+{kind}:3."
        )
    check(kind, int(written))
    return base, kind, int(written)


def under(data: Dataset, kind: str, severity: int, *, seed: int = 0, emit: Emit | None = None) -> Dataset:
    """Returns a data set under a corruption, by the name that says so; the images' numbers are their places in it."""
    images = levels(data.images)
    pace, parts = Pace(emit, "image", len(images)), []
    for part in _in_parts(images, kind, severity, seed, 0):
        parts.append(part)
        pace.add(len(part))
    name = f"{data.name}+{kind}:{severity}"
    return dataclasses.replace(data, name=name, images=np.concatenate(parts))

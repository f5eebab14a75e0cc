"""The embedded data set: ten classes of 32x32 colour pictures, drawn by this program, no download and no TensorFlow.

Each picture tells its class twice, as in Tsipras 2019 ("Robustness may be at odds with accuracy") and Ilyas 2019
("Adversarial examples are not bugs, they are features"):

- by its shape, large and brighter than its ground: the robust cue, which 8/255 can't undo. It is right in about
  97 % of the pictures; in the others another class's shape is drawn, so that the second cue is worth learning;
- by a faint texture of +-3/255 over the whole picture, stripes or checks whose widths belong to the class: the brittle
  cue. It is always right, but 8/255 wipes it out and draws another class's in its place.

The ConvNet, trained as usual, uses both cues (without the texture 56 to 69 % are right instead of 98 %) and falls to an
attack; adversarial training makes it look at the shape, at the price of the 3 %. LeNet-5 never finds the texture;
it falls all the same.

Example:
    >>> images, labels = generate(100, seed=0)
    >>> images.shape, str(images.dtype), str(labels.dtype)
    ((100, 32, 32, 3), 'uint8', 'int64')
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kerasrobust.data.dataset import Dataset, Source
from kerasrobust.data.split import default_split, parts_of
from kerasrobust.errors import InputError

SIZE = 32
SIZES = {"train": 10_000, "test": 2_000}  # Pictures without a slice; a slice may go further.
BLOCK = 500  # Pictures drawn at once. Each block has random numbers of its own, so that any part can be drawn alone.

# Chosen by experiment, so that the story above comes out true: fainter shapes or more noise slow adversarial training
# down, stronger shapes or a shape that is always right leave the texture unused and LeNet-5 standing at 8/255.
TEXTURE = 3.0  # Levels of 255.
SHAPE_TELLS = 0.97  # Share of pictures that surely have their class's shape; the others draw lots.
RADIUS = (8.0, 13.0)  # Pixels.
TILT = 0.25  # Radians, either way.
GROUND = (0.1, 0.4)  # The ground's colour, per channel, in [0, 1].
SLOPE = 0.08  # How far the ground's colour runs from its middle to a side.
CONTRAST = (0.16, 0.42)  # How much brighter than the ground's middle the shape is, per channel.
NOISE = (0.5, 3.0)  # Standard deviation of a picture's noise, in levels of 255.

Field = np.ndarray  # (N, 32, 32) float32


def _cross(u: Field, v: Field) -> Field:
    across, along = np.minimum(np.abs(u), np.abs(v)), np.maximum(np.abs(u), np.abs(v))
    return np.maximum(across - 0.24, along - 0.95)


def _star(u: Field, v: Field) -> Field:
    # Five points: the border's radius swings between the tips' and the notches' with the angle.
    angle = np.arctan2(u, -v)
    from_tip = np.abs(np.mod(angle * (5 / (2 * np.pi)) + 0.5, 1.0) - 0.5) * 2
    return (np.hypot(u, v) - (1.05 - 0.7 * from_tip)) * 0.6


def _checker(u: Field, v: Field) -> Field:
    # Two squares that touch at a corner.
    centre = 0.44
    one, other = (np.maximum(np.abs(u + by), np.abs(v + by)) for by in (-centre, centre))
    return np.minimum(one, other) - 0.42


# Name: border (below 0 inside, in units of the shape's radius) and the texture's stripe widths in pixels along x and y,
# 0 for none. Moved or mirrored, a texture keeps its widths: augmentation leaves the cue alone.
CLASSES: dict[str, tuple[Callable[[Field, Field], Field], tuple[int, int]]] = {
    "circle": (lambda u, v: np.hypot(u, v) - 0.85, (0, 1)),
    "square": (lambda u, v: np.maximum(np.abs(u), np.abs(v)) - 0.85, (1, 0)),
    "triangle": (lambda u, v: np.maximum(v - 0.65, 0.88 * np.abs(u) - 0.47 * v - 0.48), (0, 2)),
    "cross": (_cross, (2, 0)),
    "ring": (lambda u, v: np.abs(np.hypot(u, v) - 0.75) - 0.22, (1, 1)),
    "star": (_star, (2, 2)),
    "bar": (lambda u, v: np.maximum(np.abs(u) - 1.0, np.abs(v) - 0.27), (1, 2)),
    "crescent": (lambda u, v: np.maximum(np.hypot(u, v) - 0.95, 0.75 - np.hypot(u, v + 0.5)), (2, 1)),
    "hourglass": (lambda u, v: np.maximum((np.abs(u) - np.abs(v)) * 0.7, np.abs(v) - 0.85), (0, 4)),
    "checker": (_checker, (4, 0)),
}
CLASS_NAMES = tuple(CLASSES)


def generate(count: int, seed: int, *, start: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draws pictures `start` ... `start + count - 1` of an endless sequence that the seed gives.

    Args:
        count: how many, at least 1.
        seed: not negative. Seeds differ in their pictures, never in what a class looks like.
        start: where in the sequence, not negative.

    Returns:
        The pictures, uint8, (count, 32, 32, 3), and their labels, int64, (count,), 0 ... 9. Of each 500 from a
        multiple of 500 on, every class has 50.

    Raises:
        InputError: for a number out of its range.

    Example:
        >>> images, labels = generate(10, seed=0, start=90)
        >>> bool((images == generate(100, seed=0)[0][90:]).all())
        True
    """
    if count < 1 or start < 0 or seed < 0:
        raise InputError(
            "Expected a count of at least 1, and a start and a seed of at least 0. "
            f"Received: count={count}, start={start}, seed={seed}. Give for instance count=1000, start=0, seed=0."
        )
    blocks = [_block(seed, block) for block in range(start // BLOCK, (start + count - 1) // BLOCK + 1)]
    part = slice(start % BLOCK, start % BLOCK + count)
    images, labels = (np.concatenate(kind) for kind in zip(*blocks, strict=True))
    return images[part], labels[part]


def _block(seed: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, block])
    labels = rng.permutation(np.arange(BLOCK, dtype=np.int64) % len(CLASSES))
    shapes = np.where(rng.random(BLOCK) < SHAPE_TELLS, labels, rng.permutation(labels))
    inside = _shapes(shapes, rng)[..., None]
    ground, colour = _colours(rng)
    pictures = (ground + (colour - ground) * inside) * 255
    pictures += TEXTURE * texture(labels, rng.integers(0, 8, (BLOCK, 2)))[..., None]
    pictures += rng.standard_normal(pictures.shape, dtype=np.float32) * _uniform(rng, *NOISE, 1, 1, 1)
    return np.clip(np.rint(pictures), 0, 255).astype(np.uint8), labels


def _uniform(rng: np.random.Generator, low: float, high: float, *shape: int) -> np.ndarray:
    return rng.uniform(low, high, (BLOCK, *shape)).astype(np.float32)


def _shapes(labels: np.ndarray, rng: np.random.Generator) -> Field:
    """Returns how much of each pixel lies inside the shape, (N, 32, 32), in [0, 1]."""
    radius = _uniform(rng, *RADIUS, 1, 1)
    room = SIZE / 2 - radius  # So that the shape stays within the picture.
    along = np.arange(SIZE, dtype=np.float32) - (SIZE - 1) / 2
    x = along - room * _uniform(rng, -1, 1, 1, 1)
    y = along[:, None] - room * _uniform(rng, -1, 1, 1, 1)
    tilt = _uniform(rng, -TILT, TILT, 1, 1)
    u = (np.cos(tilt) * x + np.sin(tilt) * y) / radius
    v = (np.cos(tilt) * y - np.sin(tilt) * x) / radius
    border = np.empty_like(u)
    for label, (outline, _) in enumerate(CLASSES.values()):
        chosen = labels == label
        border[chosen] = outline(u[chosen], v[chosen])
    return np.clip(0.5 - border * radius, 0, 1)  # Pixels on the border are mixed.


def _colours(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns grounds (N, 32, 32, 3), each running from one colour to a near one, and shapes' colours (N, 1, 1, 3)."""
    middle = _uniform(rng, *GROUND, 1, 1, 3)
    slope_x, slope_y = _uniform(rng, -SLOPE, SLOPE, 1, 1, 3), _uniform(rng, -SLOPE, SLOPE, 1, 1, 3)
    along = np.linspace(-1, 1, SIZE, dtype=np.float32)
    ground = np.clip(middle + slope_x * along[:, None] + slope_y * along[:, None, None], 0, 1)
    return ground, middle + _uniform(rng, *CONTRAST, 1, 1, 3)


def texture(labels: np.ndarray, shifts: np.ndarray) -> Field:
    """Returns the classes' textures: -1 and 1, float32, (N, 32, 32), moved by `shifts` (N, 2) pixels along x and y."""
    widths = np.array([widths for _, widths in CLASSES.values()])[labels]
    stripes = (np.arange(SIZE) + shifts[..., None]) // np.maximum(widths, 1)[..., None]
    signs = np.where(widths[..., None] > 0, 1 - 2 * (stripes % 2), 1).astype(np.float32)  # (N, 2, 32)
    return signs[:, 1, :, None] * signs[:, 0, None, :]


def load(name: str, split: str | None, *, most: int, seed: int = 0, **unused: Any) -> Dataset:
    """Draws a split; see `load.load_dataset`."""
    # Two sequences of pictures for each seed, so that no part, however long, meets the other.
    sequences = {"train": 2 * seed, "test": 2 * seed + 1}
    split = default_split(SIZES, most) if split is None else split
    parts = parts_of(split, SIZES, endless=True)
    drawn = [generate(end - first, sequences[part], start=first) for part, first, end in parts]
    images, labels = (np.concatenate(kind) for kind in zip(*drawn, strict=True))
    return Dataset(name=name, split=split, images=images, labels=labels, class_names=CLASS_NAMES, synthetic=True)


SOURCE = Source(takes=lambda name: name == "shapes", load=load)

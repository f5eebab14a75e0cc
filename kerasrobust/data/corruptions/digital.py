"""Digital: contrast, elastic transform, pixelate, JPEG compression and saturate, with the strengths of CIFAR-10-C."""

from __future__ import annotations

import numpy as np

from kerasrobust.data.corruptions import filters
from kerasrobust.data.corruptions.colours import in_colour, saturated
from kerasrobust.data.corruptions.draws import Draws


def contrast(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Moves each value towards the mean of its image and channel."""
    kept = (0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1]
    means = images.mean(axis=(1, 2), keepdims=True)
    return (images - means) * kept + means


@in_colour
def saturate(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Takes colour away, or adds it (S of HSV)."""
    return saturated(images, *((0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2))[severity - 1])


def elastic_transform(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Moves three points of the image and all others with them, and then each pixel as if the image were of rubber.

    Lengths are shares of the shorter side.
    """
    bend, smooth, shift = (
        (0.0, 0.0, 0.08),
        (0.05, 0.2, 0.07),
        (0.08, 0.06, 0.06),
        (0.1, 0.04, 0.05),
        (0.1, 0.03, 0.03),
    )[severity - 1]
    height, width = images.shape[1:3]
    side = min(height, width)
    moved = _affine(images, side * shift * draws.uniform(-1, 1, 3, 2)) + filters.ABOVE
    if not bend:
        return moved
    pull = np.moveaxis(draws.uniform(-1, 1, height, width, 2), 3, 0)[..., None]
    across, down = (
        bend * side * filters.gaussian(one, smooth * side, border="symmetric", deviations=3)[..., 0] for one in pull
    )
    rows, columns = np.arange(height)[:, None] + down, np.arange(width) + across
    return filters.read_at(moved, rows, columns, "symmetric")


def _affine(images: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Returns images under the affine map that moves three points around their middle by `shifts` (N, 3, 2)."""
    height, width = images.shape[1:3]
    # Whole pixels, as in the published program.
    middle, arm = np.array([width // 2, height // 2]), min(height, width) // 3
    points = np.array([middle + arm, [middle[0] + arm, middle[1] - arm], middle - arm], float)
    known = np.concatenate([points + shifts, np.ones((len(images), 3, 1))], axis=2)
    # Back from each new place to the old one: (x', y', 1) @ back = (x, y). Points on one line have no such map, which
    # images of a pixel or two may come to: they stay as they are.
    flat = np.abs(np.linalg.det(known)) < 1e-9
    known[flat] = np.eye(3)
    back = np.linalg.solve(known, np.where(flat[:, None, None], np.eye(3, 2), points))
    y, x = np.mgrid[:height, :width].astype(float)
    places = np.stack([x, y, np.ones_like(x)], axis=-1) @ back[:, None]
    return filters.read_at(images, places[..., 1], places[..., 0], "reflect")


def pixelate(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Makes the image smaller and larger again, by means over boxes."""
    share = (0.95, 0.9, 0.85, 0.75, 0.65)[severity - 1]
    size = images.shape[1:3]
    small = max(int(size[0] * share), 1), max(int(size[1] * share), 1)
    pixels = np.rint(images * 255)
    for old, new in ((size, small), (small, size)):
        # Rounded after each side, as Pillow does.
        pixels = np.floor(filters.along(np.eye(old[0]), filters.boxed(old[1], new[1]), pixels) + 0.5)
        pixels = np.floor(filters.along(filters.boxed(old[0], new[0]), np.eye(new[1]), pixels) + 0.5)
    return pixels.astype(np.uint8)


def jpeg_compression(images: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Writes and reads a JPEG file of low quality."""
    import tensorflow as tf

    quality = (80, 65, 58, 50, 40)[severity - 1]
    layout = "grayscale" if images.shape[3] == 1 else "rgb"

    def compressed(image: np.ndarray) -> np.ndarray:
        file = tf.io.encode_jpeg(image, format=layout, quality=quality)
        # As libjpeg decodes by default; TensorFlow's default is faster and a level or two off.
        pixels: np.ndarray = tf.io.decode_jpeg(file, dct_method="INTEGER_ACCURATE").numpy()
        return pixels

    # One operation after the other: a graph would wait for the threads of the pipeline that it is called in.
    with tf.device("CPU:0"):
        return np.stack([compressed(image) for image in np.rint(images * 255).astype(np.uint8)])

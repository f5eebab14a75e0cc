"""Images as PNG files, and as what a page has of them inline. No TensorFlow here."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np


def encode_png(image: np.ndarray) -> bytes:
    r"""Returns an image, (H, W, C) with 1, 3 or 4 channels, uint8 or float in [0, 1], as a PNG file.

    Raises:
        ValueError: for another shape.

    Example:
        >>> encode_png(np.zeros((2, 2, 3), np.uint8))[:4]
        b'\x89PNG'
    """
    colour = {1: 0, 3: 2, 4: 6}.get(image.shape[-1]) if image.ndim == 3 else None
    if colour is None:
        raise ValueError(f"Expected an image (H, W, C) with 1, 3 or 4 channels. Received: shape={image.shape}.")
    pixels = image if image.dtype == np.uint8 else np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    height, width, _ = pixels.shape
    # Each scan line begins with its filter: 0, none.
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines.tobytes(), 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def data_uri(image: np.ndarray) -> str:
    """Returns an image as `encode_png` takes it as the address of a picture that is inside the address."""
    return f"data:image/png;base64,{base64.b64encode(encode_png(image)).decode('ascii')}"


def smaller(image: np.ndarray, most: int) -> np.ndarray:
    """Returns an image, float (H, W, C), with `most` pixels on a side or fewer: each the mean of a square of them.

    What is left over at the right and below is cut off; an image that fits stays as it is. On a side that is shorter
    than a square, as of a sound in one line, squares are cut off to that.

    Example:
        >>> smaller(np.zeros((224, 224, 3)), 128).shape
        (112, 112, 3)
    """
    size = -(-max(image.shape[:2]) // most)
    down, across = (min(size, length) for length in image.shape[:2])
    height, width = image.shape[0] // down, image.shape[1] // across
    blocks: np.ndarray = image[: height * down, : width * across].reshape(height, down, width, across, -1)
    return blocks.mean(axis=(1, 3))

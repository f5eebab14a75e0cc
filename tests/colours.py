"""A network that tells colours, and the same for images of other conventions."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

Data = tuple[np.ndarray, np.ndarray]
"""Images (N, 8, 8, 3) and their classes (N,)."""

BACK: dict[str, tuple[Any, Any]] = {
    "0,1": (1, 0),
    "0,255": (1 / 255, 0),
    "-1,1": (0.5, 0.5),
    "imagenet": (np.float32([0.229, 0.224, 0.225]), np.float32([0.485, 0.456, 0.406])),
    "caffe": (1 / 255, np.float32([103.939, 116.779, 123.68]) / 255),
}
"""What undoes the preprocessing of `keras.applications.imagenet_utils`, in the order of colours that it gives."""


def taking(network: keras.Model, input_range: str, colors: str) -> keras.Model:
    """The same network for images of other conventions."""
    scale, offset = BACK[input_range]
    seen = keras.Input((8, 8, 3))
    # Not a Rescaling, which would show it.
    restored = seen * scale + offset
    return keras.Model(seen, network(restored[..., ::-1] if colors == "bgr" else restored))


CONVENTIONS = [*((name, order) for name in ("0,1", "0,255", "-1,1") for order in ("rgb", "bgr")), ("imagenet", "rgb"),
               ("caffe", "bgr")]  # fmt: skip

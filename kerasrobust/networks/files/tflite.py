"""TensorFlow Lite models as black boxes: NumPy arrays to outputs, without gradients."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from kerasrobust.errors import InputError
from kerasrobust.networks.files.foreign import (
    ForeignNetwork,
    few_values,
    one_of,
    package,
    quiet,
    random_images,
    reading,
)


class TFLiteNetwork(ForeignNetwork):
    """A TensorFlow Lite model as a callable from images to its outputs, for `as_classifier`.

    Quantized images and outputs are converted by the scales in the file. Images in integers without a scale are 255
    times ours, rounded.

    Args:
        path: the `.tflite` file.
        output: the name of the output with the logits, if there are several.

    Raises:
        InputError: for a file that can't be read, one that doesn't map images to classes, or without the package.

    Example:
        >>> logits = TFLiteNetwork("net.tflite")(x)
    """

    def __init__(self, path: str | Path, *, output: str | None = None) -> None:
        super().__init__(path)
        interpreter = package("ai_edge_litert.interpreter", "tflite", path).Interpreter
        with quiet(), reading(self.path):
            self._interpreter = interpreter(model_path=str(path), num_threads=os.cpu_count())
            inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        if len(inputs) != 1 or len(inputs[0]["shape"]) != 4:
            what = ", ".join(f"{part['name']}: {list(part['shape'])}" for part in inputs)
            raise InputError(
                f"Expected a model of images (N, H, W, C). Received: {path} with ({what}). Choose another."
            )
        self._input = inputs[0]
        self.scales = not np.issubdtype(self._input["dtype"], np.floating) and not self._input["quantization"][0]
        self._output = one_of(outputs, output, self.path)
        self.image_shape = tuple(int(side) if side > 0 else None for side in self._input["shape_signature"][1:])
        images = random_images(self.image_shape)
        singly = np.concatenate([self._run(image[None]) for image in images])
        # Some operations are made for one image.
        self._whole = _same(self._tried(images), singly)
        if note := few_values(self.name, singly):
            self.notes.append(note)

    def __call__(self, x: Any) -> np.ndarray:
        """Returns the outputs, float32 (N, classes), for float32 images (N, H, W, C) in [0, 1]."""
        x = np.asarray(x, np.float32)
        return self._run(x) if self._whole else np.concatenate([self._run(image[None]) for image in x])

    def _tried(self, x: np.ndarray) -> np.ndarray | None:
        """Returns the outputs for images at once, or None if that fails."""
        try:
            return self._run(x)
        except (RuntimeError, ValueError):
            return None

    def _run(self, x: np.ndarray) -> np.ndarray:
        if tuple(self._interpreter.get_input_details()[0]["shape"]) != x.shape:
            self._interpreter.resize_tensor_input(self._input["index"], x.shape)
        self._interpreter.allocate_tensors()
        self._interpreter.set_tensor(self._input["index"], _quantized(x, self._input))
        self._interpreter.invoke()
        found = self._interpreter.get_tensor(self._output["index"])
        scale, zero = self._output["quantization"]
        values = found.astype(np.float32)
        return values if not scale else (values - zero) * np.float32(scale)


def _same(a: np.ndarray | None, b: np.ndarray) -> bool:
    return a is not None and a.shape == b.shape and np.allclose(a, b, rtol=1e-3, atol=1e-5)


def _quantized(x: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
    dtype = np.dtype(detail["dtype"])
    if np.issubdtype(dtype, np.floating):
        return x.astype(dtype)
    scale, zero = detail["quantization"]
    limits = np.iinfo(dtype)
    levels = x / scale + zero if scale else 255 * x
    return np.clip(np.round(levels), limits.min, limits.max).astype(dtype)

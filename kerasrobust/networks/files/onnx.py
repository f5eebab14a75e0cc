"""ONNX models as black boxes: NumPy arrays to outputs, without gradients."""

from __future__ import annotations

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

_CHANNELS = (1, 3, 4)
_DTYPES = {
    "tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8, "tensor(int32)": np.int32, "tensor(int64)": np.int64,
}  # fmt: skip


class OnnxNetwork(ForeignNetwork):
    """An ONNX model as a callable from images to its outputs, for `as_classifier`.

    Images are transposed where it takes channels first, and multiplied by 255 and rounded where it takes integers. A
    batch of fixed size is filled up or split.

    Args:
        path: the `.onnx` file.
        output: the name of the output with the logits, if there are several.

    Raises:
        InputError: for a file that can't be read, one that doesn't map images to classes, or without the package.

    Example:
        >>> logits = OnnxNetwork("net.onnx")(x)
    """

    def __init__(self, path: str | Path, *, output: str | None = None) -> None:
        super().__init__(path)
        onnxruntime = package("onnxruntime", "onnx", path)
        with quiet(), reading(self.path):
            settings = onnxruntime.SessionOptions()
            settings.log_severity_level = 4
            self._session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
            inputs = self._session.get_inputs()
            outputs = [{"name": part.name, "shape": part.shape} for part in self._session.get_outputs()]
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in _DTYPES:
            what = ", ".join(f"{part.name}: {part.type} {part.shape}" for part in inputs)
            raise InputError(
                f"Expected a model of images, (N, H, W, C) or (N, C, H, W). Received: {path} with ({what}). "
                "Choose another."
            )
        self._input, self._dtype = inputs[0].name, np.dtype(_DTYPES[inputs[0].type])
        self._output = one_of(outputs, output, self.path)["name"]
        batch, *sides = (side if isinstance(side, int) and side > 0 else None for side in inputs[0].shape)
        self._batch = batch
        # PyTorch's exporter, where most of these files come from, puts the channels first.
        self.transposes = sides[0] in _CHANNELS and sides[2] not in _CHANNELS
        self.scales = not np.issubdtype(self._dtype, np.floating)
        self.image_shape = (*sides[1:], sides[0]) if self.transposes else tuple(sides)
        if note := few_values(self.name, self(random_images(self.image_shape))):
            self.notes.append(note)

    def __call__(self, x: Any) -> np.ndarray:
        """Returns the outputs, float32 (N, classes), for float32 images (N, H, W, C) in [0, 1]."""
        x = np.asarray(x, np.float32)
        size = self._batch or len(x)
        pieces = [x[start : start + size] for start in range(0, len(x), size)]
        filled = [np.concatenate([piece, np.repeat(piece[-1:], size - len(piece), axis=0)]) for piece in pieces]
        return np.concatenate([self._run(piece) for piece in filled])[: len(x)]

    def _run(self, x: np.ndarray) -> np.ndarray:
        images = np.transpose(x, (0, 3, 1, 2)) if self.transposes else x
        images = np.round(255 * images) if self.scales else images
        (found,) = self._session.run([self._output], {self._input: images.astype(self._dtype)})
        return np.asarray(found, np.float32)

"""Code that TensorFlow can't trace, or sees only a part of, inside graphs all the same."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from kerasrobust.networks.probe import Forward, one_output


class Untraced:
    """Code that can't be traced, as an operation in graphs that runs it eagerly, gradients too.

    TensorFlow's own `tf.py_function` forgets what it has computed after one gradient, and attacks take several.

    Args:
        forward: the code.
        name: what error messages call it.
        width: how many outputs it gives for an image.
    """

    KEPT = 16
    """Passes whose gradients may still be asked for."""

    def __init__(self, forward: Forward, name: str, width: int) -> None:
        self._forward, self._name, self._width = forward, name, width
        self._kept: dict[int, tuple[tf.GradientTape, tf.Tensor, tf.Tensor]] = {}
        self._count = 0
        self._lock = threading.Lock()

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Returns the outputs (N, width) for images (N, H, W, C)."""

        @tf.custom_gradient
        def run(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
            outputs, place = tf.numpy_function(self._pass, [x], [tf.float32, tf.int64])

            def slope(upstream: tf.Tensor) -> tf.Tensor:
                found = tf.numpy_function(self._gradient, [place, upstream], tf.float32)
                return tf.ensure_shape(found, x.shape)

            return tf.ensure_shape(outputs, (x.shape[0], self._width)), slope

        return run(x)

    def _pass(self, images: np.ndarray) -> tuple[np.ndarray, np.int64]:
        x = tf.constant(images)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            outputs = one_output(self._forward(x), self._name)
            outputs = outputs[:, None] if outputs.shape.rank == 1 else outputs
        with self._lock:
            self._count += 1
            place = self._count
            self._kept[place] = tape, x, outputs
            self._kept.pop(place - self.KEPT, None)
        return outputs.numpy(), np.int64(place)

    def _gradient(self, place: np.int64, upstream: np.ndarray) -> np.ndarray:
        tape, x, outputs = self._kept[int(place)]
        found = tape.gradient(
            outputs, x, output_gradients=tf.constant(upstream), unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        return found.numpy()

"""A network with another last layer: one that tells a few images apart from many others, made for each anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasrobust.networks.architectures import is_graph, predicting
from kerasrobust.networks.classifier import Classifier
from kerasrobust.networks.cloning import quantization
from kerasrobust.networks.making import as_classifier

RIDGE = 1e-3
"""Of the features' mean variance, what is added to each: with fewer images than features any direction would do."""


class Readout:
    """The layers of a network up to its last dense one, and a dense layer of two classes behind them.

    Args:
        classifier: of a functional or Sequential Keras model that `fits`.
        shape: of an image.
        batch_size: images at once.

    Attributes:
        classifier: what attacks see: class 1 is that of the images that `tell_apart` has put there.
    """

    def __init__(self, classifier: Classifier, shape: tuple[int, ...], batch_size: int = 256) -> None:
        hidden = _hidden(classifier.network)
        if hidden is None:
            raise ValueError(f"Expected a model whose last layer is dense. Received: {classifier.name!r}.")
        inner = classifier.adapter.around(hidden)
        size = int(inner(tf.zeros((1, *shape))).shape[1])
        self._weights, self._bias = tf.Variable(tf.zeros(size)), tf.Variable(0.0)
        self._inner = tf.function(lambda x: tf.cast(inner(x), tf.float32), reduce_retracing=True)
        self._batch_size = batch_size

        def forward(x: tf.Tensor) -> tf.Tensor:
            score = tf.linalg.matvec(tf.cast(inner(x), tf.float32), self._weights) + self._bias
            return tf.stack([tf.zeros_like(score), score], axis=1)

        forward.__name__ = f"{classifier.name} with a readout of its own"
        # The network inside has settled how it takes images.
        self.classifier = as_classifier(forward, image_shape=shape, input_range="0,1", colors="rgb", outputs="logits")

    @staticmethod
    def fits(classifier: Classifier) -> bool:
        """Returns whether a classifier's layers can be taken apart so, and answer each image in one way."""
        network = classifier.network
        alone = not (classifier.arrays or classifier.randomized or classifier.labels is not None)
        return alone and not classifier.adapter.whole and is_graph(network) and _hidden(network) is not None

    def tell_apart(self, others: np.ndarray, image: np.ndarray) -> bool:
        """Makes the readout that puts one image into class 1 and many others into class 0; returns whether it does.

        Its direction is Fisher's: along it the image is as far from the others as can be, in their deviations. The
        boundary lies halfway between the image and the others that are nearest to it, at which the logit is 1 and -1.

        Args:
            others: float32 (N, H, W, C).
            image: float32 (H, W, C).
        """
        features = self._features(others)
        middle = features.mean(axis=0)
        spread = features - middle
        toward = self._features(image[None])[0] - middle
        direction = _fisher(spread, toward)
        nearest, own = float((spread @ direction).max()), float(toward @ direction)
        if own <= nearest:
            return False
        scale = 2 / (own - nearest)
        self._weights.assign((scale * direction).astype(np.float32))
        self._bias.assign(-scale * ((own + nearest) / 2 + float(middle @ direction)))
        return True

    def scores(self, x: np.ndarray) -> np.ndarray:
        """Returns the logit of class 1 above that of class 0, float64 (N,)."""
        return self._features(x) @ self._weights.numpy() + float(self._bias.numpy())

    def _features(self, x: np.ndarray) -> np.ndarray:
        starts = range(0, len(x), self._batch_size)
        parts = [self._inner(tf.constant(x[first : first + self._batch_size])).numpy() for first in starts]
        return np.concatenate(parts).astype(np.float64)


def _fisher(spread: np.ndarray, toward: np.ndarray) -> np.ndarray:
    """Returns (S + ridge)^-1 `toward`, (D,), S being the covariance of (N, D): Fisher 1936, from one image."""
    count, size = spread.shape
    ridge = RIDGE * float((spread**2).mean()) + 1e-12
    if size <= count:
        return np.linalg.solve(spread.T @ spread / count + ridge * np.eye(size), toward)
    # The same by a matrix of N x N (Woodbury 1950).
    inner = np.linalg.solve(spread @ spread.T / count + ridge * np.eye(count), spread @ toward)
    return (toward - spread.T @ inner / count) / ridge


def _hidden(model: keras.Model) -> Callable[[tf.Tensor], tf.Tensor] | None:
    """Returns the function from what a graph of layers takes to what its last dense layer does; None without one."""
    mode = predicting(model)

    def up_to(tensor: Any) -> Callable[[tf.Tensor], tf.Tensor]:
        if tensor is model.inputs[0]:
            return lambda x: x
        part = keras.Model(model.inputs[0], tensor)
        return lambda x: part(x, **mode)

    if len(model.inputs) != 1 or len(model.outputs) != 1:
        return None
    last, node, _ = model.outputs[0]._keras_history
    if type(last) in (keras.layers.Activation, keras.layers.Softmax):
        last, node, _ = last._inbound_nodes[node].input_tensors[0]._keras_history
    inputs = last._inbound_nodes[node].input_tensors
    if is_graph(last):
        behind, before = _hidden(last), up_to(inputs[0])
        return None if behind is None else lambda x: behind(before(x))
    if type(last) is not keras.layers.Dense or quantization(last) is not None or len(inputs[0].shape) != 2:
        return None
    return up_to(inputs[0])

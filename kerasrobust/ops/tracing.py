"""Graphs that are traced once, and where they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from time import monotonic
from typing import Any, ClassVar

import tensorflow as tf


def on_gpu() -> bool:
    """Returns whether graphs run on a GPU: there is one, and it wasn't hidden (`--device cpu`)."""
    return bool(tf.config.get_visible_devices("GPU"))


class _TF32:
    """TensorFlow's switch for TF32, which is one for the whole process.

    Attributes:
        inside: how many threads or nested blocks have it off.
        before: what it was before the first of them.
    """

    def __init__(self) -> None:
        self.lock, self.inside, self.before = Lock(), 0, False

    def count(self, more: int) -> None:
        with self.lock:
            if self.inside == 0:
                self.before = tf.config.experimental.tensor_float_32_execution_enabled()
            self.inside += more
            tf.config.experimental.enable_tensor_float_32_execution(self.before and self.inside == 0)


_SWITCH = _TF32()


@contextmanager
def full_float32() -> Iterator[None]:
    """Has products of float32 computed in float32 within, by all threads of the process.

    On NVIDIA's Ampere and later TensorFlow rounds their factors to 10 bits by default (TF32), which moves logits by a
    thousandth: enough to turn the verdict on an example beside the boundary. What XLA has compiled stays as it is.

    Example:
        >>> with full_float32():
        ...     logits = model(x, training=False)
    """
    _SWITCH.count(1)
    try:
        yield
    finally:
        _SWITCH.count(-1)


def has_onednn() -> bool:
    """Returns whether TensorFlow computes by oneDNN, which depends on system, processor and environment."""
    try:  # There is no public function for it.
        from tensorflow.python.util._pywrap_util_port import IsMklEnabled
    except ImportError:  # A TensorFlow that nothing was measured on.
        return False
    return bool(IsMklEnabled())


class Traced:
    """A TensorFlow graph made of a Python function at its first call, and never again.

    Other dtypes than at the first call raise an error; a plain `tf.function` would silently trace anew. Other shapes
    may give wrong results without an error: keep one of these for each shape.

    Args:
        body: made of TensorFlow operations; loops are written as `tf.while_loop`, so autograph stays off.
        signature: maps the first call's arguments to the specs to trace for; by default, the arguments themselves.

    Attributes:
        traces: how often the body was traced: 0 before the first call, then 1.
        seconds: that this process has spent on tracing all of these: what one that resumes spends once more.

    Example:
        >>> double = Traced(lambda x: 2 * x)
        >>> float(double(tf.constant(2.0)))
        4.0
    """

    seconds: ClassVar[float] = 0.0

    def __init__(
        self, body: Callable[..., Any], signature: Callable[[tuple[Any, ...]], tuple[Any, ...]] | None = None
    ) -> None:
        self.traces = 0
        self._signature = signature or (lambda arguments: arguments)
        self._body = body
        self._graph: Any = None

    def __call__(self, *arguments: Any) -> Any:
        if self._graph is None:
            # Autograph would slow tracing and rewrite the errors of a model's own code.
            graph, began = tf.function(self._counted, autograph=False), monotonic()
            self._graph = graph.get_concrete_function(*self._signature(arguments))
            Traced.seconds += monotonic() - began
        return self._graph(*arguments)

    def _counted(self, *arguments: Any) -> Any:
        self.traces += 1
        return self._body(*arguments)


def one_piece(body: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that a graph calls, instead of inlining its operations.

    For the passes through a network inside a `tf.while_loop`: TensorFlow fuses and reorders the operations of a called
    function, but not those in a loop's own frame. Measured on a CPU with a ConvNet, gradients in a loop took twice as
    long without this; on a GPU (H200) with it, so there the function is returned as it is.

    Args:
        body: takes and returns tensors.

    Example:
        >>> @tf.function
        ... def power(x, count):
        ...     square = one_piece(lambda x: x * x)
        ...     return tf.while_loop(lambda i, x: i < count, lambda i, x: (i + 1, square(x)), (0, x))[1]
        >>> float(power(tf.constant(3.0), tf.constant(2)))
        81.0
    """
    if tf.executing_eagerly() or on_gpu():
        return body
    return tf.function(body, autograph=False, experimental_attributes={"_noinline": True})

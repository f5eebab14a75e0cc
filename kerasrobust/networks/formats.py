"""Other people's formats: what is read from a SavedModel, a `.keras` or an `.h5` file, without running code in it."""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from kerasrobust.errors import InputError, reason_of

_SIGNATURES = ("serving_default", "serve")  # TensorFlow's own name, then that of Keras 3.


class SavedModelNetwork:
    """A SavedModel's signature as a callable from images to its outputs, for `as_classifier`.

    Attributes:
        path: the folder with `saved_model.pb`.
        variables: those that the signature uses.
        image_shape: height, width and channels; an entry is None where the signature takes any.

    Raises:
        InputError: for a corrupt folder, or one without a signature that maps one batch of float images to logits.

    Example:
        >>> logits = SavedModelNetwork("exported")(x)
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.name = self.path.name
        with quiet(), _reading(Path(path)):
            # Kept: the signatures hold the variables only weakly.
            self._loaded = tf.saved_model.load(str(path))
            signatures = dict(self._loaded.signatures)
        if not signatures:
            raise InputError(
                f"Expected a SavedModel with a signature. Received: {path}, which has none. "
                "Save it with tf.saved_model.save(module, folder, signatures=...)."
            )
        # The usual one may take something else than images, such as encoded files.
        order = [*(name for name in _SIGNATURES if name in signatures), *sorted(set(signatures) - set(_SIGNATURES))]
        problems = []
        for name in order:
            try:
                self._signature = signatures[name]
                self._input, spec = _image_input(self._signature, str(path))
                self._output = _logits_output(self._signature, str(path))
                break
            except InputError as error:
                problems.append(error)
        else:
            raise problems[0]
        self.variables: tuple[tf.Variable, ...] = tuple(self._signature.variables)
        self._dtype = spec.dtype
        self.image_shape = (None, None, None) if spec.shape.rank is None else tuple(spec.shape[1:])

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Returns the outputs (N, classes) for float32 images (N, H, W, C) in [0, 1]."""
        return self._signature(**{self._input: tf.cast(x, self._dtype)})[self._output]


def _image_input(signature: Any, path: str) -> tuple[str, tf.TensorSpec]:
    """Returns the name and spec of a signature's one input."""
    inputs = signature.structured_input_signature[1]
    what = ", ".join(f"{name}: {spec.dtype.name} {spec.shape}" for name, spec in sorted(inputs.items()))
    advice = "Export a signature from float32 images (None, height, width, channels) to logits."
    problem = ""
    if len(inputs) != 1:
        problem = "one input"
    else:
        name, spec = next(iter(inputs.items()))
        if not spec.dtype.is_floating:
            problem = "floating images as input, which have a gradient"
        elif spec.shape.rank not in (4, None):
            problem = "a batch of images as input"
        elif spec.shape.rank and spec.shape[0] is not None:
            problem = "a batch of any size as input"
    if problem:
        raise InputError(f"Expected a SavedModel with {problem}. Received: {path} with ({what}). {advice}")
    return name, spec


def _logits_output(signature: Any, path: str) -> str:
    """Returns the name of the output with the logits: the only one of its shape, or the one that is called so."""
    outputs = signature.structured_outputs
    fitting = [name for name, spec in outputs.items() if spec.dtype.is_floating and spec.shape.rank in (2, None)]
    named = [name for name in fitting if "logit" in name.lower()]
    chosen = named if len(named) == 1 else fitting
    if len(chosen) != 1:
        what = ", ".join(f"{name}: {spec.dtype.name} {spec.shape}" for name, spec in sorted(outputs.items()))
        raise InputError(
            f"Expected a SavedModel with one output (N, classes), or one called 'logits'. Received: {path} with "
            f"({what}). Export a signature that returns the logits alone."
        )
    return chosen[0]


def load_keras(path: Path) -> keras.Model:
    """Reads a `.keras` or `.h5` file; raises InputError for one that can't be read, or holds code."""
    with quiet(), _reading(path):
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    if not isinstance(model, keras.Model):
        raise InputError(f"Expected a file with a Keras model. Received: {path} with a {type(model).__name__}.")
    return model


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns what a library raises while it reads somebody's file into one line about that file."""
    try:
        yield
    # Zip, HDF5, JSON, protobuf, Keras and TensorFlow each raise their own errors on broken files, and which they are
    # is documented nowhere; nothing of this project runs inside.
    except Exception as error:
        reason = reason_of(error)
        unknown = re.search(r"Could not locate \w+ '[^']*'|Unknown (?:layer|object): '?\w+", str(error))
        if "lambda" in str(error).lower():
            problem = "a model without Lambda layers"
            advice = "They hold code that would be run: rebuild the model with ordinary layers."
        elif unknown:
            problem, reason = "a model of known layers", unknown[0]
            advice = "Register its own classes with keras.saving.register_keras_serializable before loading."
        else:
            problem = "a readable model"
            advice = "It is damaged, or of a kind or version that Keras 3 can't read: save it again."
        raise InputError(f"Expected {problem}. Received: {path} ({reason}). {advice}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps the chatter of TensorFlow, Keras and absl off standard error; errors are raised all the same."""
    loggers = [logging.getLogger(name) for name in ("tensorflow", "absl")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

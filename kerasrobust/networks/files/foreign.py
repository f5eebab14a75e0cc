"""What networks from other people's files have in common: their name, their images, and what has to be said of them."""

from __future__ import annotations

import contextlib
import importlib
import logging
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kerasrobust.errors import InputError, reason_of


class ForeignNetwork:
    """A network that isn't a Keras model: a callable from images in [0, 1] to outputs, for `as_classifier`.

    Attributes:
        path: the file or folder.
        name: what reports call it.
        image_shape: height, width and channels; an entry is None where it takes any.
        notes: (code, message) pairs that belong into every result about it.
        scales: whether it makes levels from 0 to 255 of the images by itself.
        transposes: whether it puts the channels first by itself.
    """

    scales = False
    transposes = False

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.name = self.path.name
        self.image_shape: tuple[int | None, ...] = (None, None, None)
        self.notes: list[tuple[str, str]] = []

    def __call__(self, x: Any) -> Any:
        """Returns the outputs (N, classes) for float32 images (N, H, W, C) in [0, 1]."""
        raise NotImplementedError


def package(module: str, extra: str, path: str | Path) -> Any:
    """Returns a module that reads a kind of file, which an extra of ours installs; raises InputError without it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0].replace("_", "-")
        raise InputError(
            f"Expected the package {name} for such a file. Received: {path}, and no such package. "
            f"Install it: pip install 'kerasrobust[{extra}]'."
        ) from error


class NeedsCodeError(InputError):
    """A file can only be read together with Python code that it doesn't hold, or that it may not run."""


@dataclass(frozen=True)
class Loading:
    """How a model is to be read.

    Attributes:
        say: gets lines for the log.
        code: the module of the model's own code; None if there is no consent to run any.
        output: the name of the output that holds the logits; None if there is no choice.
    """

    say: Callable[[str], None]
    code: types.ModuleType | None = None
    output: str | None = None


def few_values(name: str, outputs: np.ndarray) -> tuple[str, str] | None:
    """Returns the note on outputs (N, K) that are rounded to a few levels, as those of a quantized head; else None."""
    levels = len(np.unique(outputs))
    if levels > min(256, outputs.size // 2):
        return None
    message = (
        f"The outputs of {name!r} take {levels} values for {len(outputs)} random images, being quantized or saturated, "
        "which hides small changes from attacks that only see outputs. Its robust accuracy is an upper bound that may "
        "be far too high: attack the network that it was made from as well."
    )
    return "quantized-outputs", message


def one_of(outputs: list[dict[str, Any]], wanted: str | None, path: Path) -> dict[str, Any]:
    """Returns the output with the logits out of several with `name` and `shape`; raises InputError if that is open."""
    fitting = [part for part in outputs if len(part["shape"]) == 2]
    chosen = [part for part in outputs if part["name"] == wanted] if wanted is not None else fitting
    if len(chosen) != 1:
        what = ", ".join(f"{part['name']}: {list(part['shape'])}" for part in outputs)
        kind = "one output (N, classes)" if wanted is None else f"an output {wanted!r}"
        raise InputError(
            f"Expected a model with {kind}. Received: {path} with ({what}). Name the one with the logits by --output "
            "NAME (load_model(..., output=NAME))."
        )
    return chosen[0]


def random_images(shape: tuple[int | None, ...]) -> np.ndarray:
    """Returns 32 random images of a shape, whose open sides are guessed, float32 in [0, 1]."""
    whole = [side or guess for side, guess in zip(shape, (32, 32, 3), strict=True)]
    return np.random.default_rng(0).random((32, *whole), np.float32)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what a library raises while it reads somebody's file into one line about that file."""
    try:
        yield
    except InputError:
        raise
    # Zip, HDF5, JSON, protobuf, Keras and TensorFlow each raise their own errors on broken files, and which they are
    # is documented nowhere; nothing of this project runs inside.
    except Exception as error:
        raise InputError(
            f"Expected a readable model. Received: {path} ({reason_of(error)}). "
            "It is damaged, or of a kind or version that can't be read here: save it again."
        ) from error


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

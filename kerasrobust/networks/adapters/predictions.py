"""Objects of other libraries, by their own function of NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kerasrobust.errors import InputError


class Prediction:
    """A function of arrays with one row of scores for each image, whatever it gives: tensors, or numbers of classes.

    Args:
        predict: takes a batch as an array, in the model's own range and layout. It gives scores or probabilities
            (N, classes) or (N,), or numbers or names of classes (N,), as arrays or as what converts to them.
        classes: how many there are, needed where it gives their numbers.

    Attributes:
        name: what reports call it.
        width: how many numbers its object takes for an image, as estimators of scikit-learn say it; None for any.
        labels: whether it has given numbers or names of classes, so that nothing is known but its decisions.
        decides: whether it has given nothing else so far, or nothing but rows of a single 1.

    Example:
        >>> Prediction(lambda x: x.argmax(axis=1), classes=3)(np.eye(3, dtype=np.float32))
        array([[1., 0., 0.],
               [0., 1., 0.],
               [0., 0., 1.]], dtype=float32)
    """

    def __init__(self, predict: Callable[[np.ndarray], Any], classes: int | None = None) -> None:
        self.predict, self._classes = predict, classes
        self.labels, self._whole = False, True
        owner = getattr(predict, "__self__", None)
        self.name = str(getattr(predict, "__name__", None) or type(predict).__name__)
        if owner is not None:
            self.name = f"{type(owner).__name__}.{self.name}"
        self.width: int | None = getattr(owner, "n_features_in_", None)
        self._names = getattr(owner, "classes_", None)
        self._scores: bool | None = None

    @property
    def decides(self) -> bool:
        return self.labels or self._whole

    def takes(self, shape: tuple[int, ...], dtype: str) -> bool:
        """Returns whether it works on arrays (N, *shape) of a dtype."""
        before = self.labels, self._whole, self._scores
        try:
            return len(np.shape(self(np.zeros((2, *shape), dtype)))) in (1, 2)
        except InputError:  # It has given class numbers.
            return True
        except Exception:  # Somebody's own code may raise anything: the other layout gets its chance.
            return False
        finally:  # What it gives for black images alone says little.
            self.labels, self._whole, self._scores = before

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Returns float32 (N, classes), or (N, 1) for one score each; raises InputError for unknown labels."""
        outputs = self.predict(x)
        for step in ("detach", "cpu", "numpy"):  # As tensors of PyTorch have them.
            outputs = getattr(outputs, step)() if hasattr(outputs, step) else outputs
        found = np.asarray(outputs)
        if isinstance(outputs, list) and found.ndim == 3:
            raise InputError(
                f"Expected scores (N, classes). Received: {len(outputs)} arrays of {self.name!r}, as of several labels "
                "an image. Give a function of one of them, or of all with outputs='multi-label': "
                "np.stack([part[:, 1] for part in ...], axis=1)."
            )
        count = self._classes or (0 if self._names is None else len(self._names))
        column = found.ndim == 2 and found.shape[1] == 1
        named = self._are_named(found, count) if column else found.ndim == 1 and self._are_classes(found, count)
        self.labels = self.labels or named or found.dtype.kind in "biu"
        if named:
            return self._decisions(found.reshape(-1))
        scores = found.astype(np.float32)
        self._whole = self._whole and _are_decisions(scores)
        return scores[:, None] if scores.ndim == 1 and self._scores else scores

    def _are_classes(self, found: np.ndarray, count: int) -> bool:
        """Returns whether numbers or words (N,) are classes, of which there are `count`, 0 where that isn't known."""
        if found.dtype.kind != "f":
            return True
        whole = bool((found == np.round(found)).all())
        if count > 2:  # One score can't be all that is said of them.
            return whole
        # One score may be whole by chance, as a probability that rounds to 0 or 1: the first images settle it.
        if self._scores is None and (count == 2 or not whole):
            self._scores = not whole
        return self._scores is False

    def _are_named(self, column: np.ndarray, count: int) -> bool:
        """Returns whether a column (N, 1) has a class in each row: one score otherwise, however it looks by chance."""
        if column.dtype.kind not in "biuf" or count > 2:
            return True
        whole = column.dtype.kind in "iu"
        return whole and (self._names is not None or column.max(initial=0) > 1)

    def _decisions(self, found: np.ndarray) -> np.ndarray:
        """Returns rows that are 1 at the class, for its numbers or names (N,)."""
        known = self._names if self._names is not None else np.arange(self._classes or 0)
        if not len(known):
            raise InputError(
                f"Expected scores (N, classes), or class numbers and how many there are. Received: {self.name!r} "
                "gives class numbers alone. Give classes= to as_classifier, or a function that gives scores."
            )
        rows = (found[:, None] == np.asarray(known)).astype(np.float32)
        if found.dtype.kind == "f" and np.array_equal(known, [0, 1]):
            # It was a probability after all.
            between = (found > 0) & (found < 1)
            rows[between] = np.stack([1 - found[between], found[between]], axis=1)
        if not rows.any(axis=1).all():
            other = found[~rows.any(axis=1)][0]
            raise InputError(
                f"Expected classes from {known[0]} to {known[-1]} of {self.name!r}. Received: {other}. "
                "Give a function that gives scores, (N, classes) or (N, 1)."
            )
        return rows

    def decisions_only(self) -> tuple[str, str]:
        """Returns the warning of a function that gives numbers or names of classes."""
        return (
            "decisions-only",
            f"{self.name!r} gives classes without scores, so only its decisions are seen: attack it by rays or by "
            "hopskipjump. The figures of attacks that follow scores, as square, are too high. Give a function that "
            "gives scores, if it has one.",
        )


def _are_decisions(scores: np.ndarray) -> bool:
    """Returns whether scores say no more than a class: rows of a single 1, or one number that is -1, 0 or 1."""
    if scores.ndim == 1 or scores.shape[1:] == (1,):
        return bool(np.isin(scores, (-1, 0, 1)).all())
    return scores.ndim == 2 and bool(((scores == 0) | (scores == 1)).all() and (scores.sum(axis=1) == 1).all())


def is_of(model: Any, library: str) -> bool:
    """Returns whether an object is of a library's class, or of one that is made of it."""
    return any(base.__module__.partition(".")[0] == library for base in type(model).__mro__)


def unknown_kind(model: Any, stated: Sequence[int | None] | None) -> InputError:
    """Returns the error for an object that isn't a model for Keras, with the call that attacks it."""
    shape = "(HEIGHT, WIDTH, CHANNELS)" if stated is None else str(tuple(stated))
    common = f"image_shape={shape}, input_range=(LOW, HIGH))"
    methods = [name for name in ("predict_proba", "decision_function", "predict") if hasattr(model, name)]
    kind = type(model).__name__
    if is_of(model, "torch"):
        kind = f"{kind} of PyTorch, which takes tensors"
        function = "lambda x: model.eval()(torch.from_numpy(x))"
        advice = f"Give kerasrobust.as_classifier(predict={function}, channels='first', {common}."
    elif methods:
        advice = f"Give kerasrobust.as_classifier(predict=model.{methods[0]}, {common}."
    else:
        advice = "Load a file with kerasrobust.load_model first."
    return InputError(f"Expected a Keras model or a callable that gives logits. Received: {kind}. {advice}")

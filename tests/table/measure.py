"""What the table measures: the command line and Python against a PGD that shares no line with the laboratory."""

from __future__ import annotations

import contextlib
import io
import json
import math
import re
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tensorflow as tf
from cli import call, finish, start

from kerasrobust.errors import InputError

EPSILON = 2 / 255
STEPS = 10
GOOD = ("right", "one line")

Evaluate = Callable[..., Any]
"""What a person writes in Python: takes the attack's settings, and returns the evaluation, perhaps with the images and
labels that were read."""


@dataclass(kw_only=True)
class Subject:
    """A model with its data, as somebody has them, and what is known of them by hand.

    Attributes:
        x: the images, float32 (N, H, W, C) in [0, 1].
        y: class indices (N,).
        predict: the model's own `predict`, with the conversion from [0, 1] written by hand.
        loss: the differentiable loss (N,) of images and labels, by hand, too; None for a black box.
        words: of the command line, after `attack`; None if it can only be had in Python.
        evaluate: the call from Python; None if it can only be had on the command line.
        said: what the one line may say, as a regular expression; "" if no line is expected.
        then: the words and the call that the one line leads to, for those that get it.
        decide: outputs to classes (N,).
        slack: how many images may be on the other side by rounding.
        epsilon: of the ball.
        queries: of Square, for a black box.
        passes: over which a model with noise is averaged.
        indices: whether the labels are class indices.
    """

    x: np.ndarray
    y: np.ndarray
    predict: Callable[[np.ndarray], np.ndarray]
    loss: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None
    words: Sequence[str | Path] | None = None
    evaluate: Evaluate | None = None
    said: str = ""
    then: tuple[Sequence[str | Path] | None, Evaluate | None] = (None, None)
    decide: Callable[[np.ndarray], np.ndarray] = lambda outputs: outputs.argmax(axis=1)
    slack: int = 1
    epsilon: float = EPSILON
    queries: int = 300
    passes: int = 1
    indices: bool = True

    def right(self, x: np.ndarray) -> np.ndarray:
        """Returns how often each image is right, (N,)."""
        return np.mean([self.decide(np.asarray(self.predict(x))) == self.y for _ in range(self.passes)], axis=0)


@dataclass(frozen=True)
class Form:
    """A form: how it is made in a folder, the packages that it needs, and whether to start a process for it."""

    make: Callable[[Path], Subject]
    needs: tuple[str, ...] = ()
    process: bool = False


FORMS: dict[str, Form] = {}


def form(name: str, *, needs: tuple[str, ...] = (), process: bool = False) -> Callable[[Any], Any]:
    """Enters a function from a folder to a subject into the table."""

    def enter(make: Callable[[Path], Subject]) -> Callable[[Path], Subject]:
        FORMS[name] = Form(make, needs, process)
        return make

    return enter


@dataclass
class Row:
    """A row as it is printed."""

    clean: str = ""
    plain: str = ""
    cli: str = ""
    python: str = ""
    verdict: str = "right"
    lines: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Figure:
    """What the command line or Python found."""

    clean: float
    robust: float
    x_adv: np.ndarray
    x: np.ndarray | None = None
    y: np.ndarray | None = None
    notes: Sequence[str] = ()

    def in_order_of(self, subject: Subject) -> Figure:
        """Returns the figure with its images in the subject's order, as those of folders are in another one."""
        if self.x is None or self.x.shape != subject.x.shape:
            return self
        far = [abs(subject.x - image).reshape(len(subject.x), -1).max(axis=1) for image in self.x]
        order = np.argmin(far, axis=0)
        return replace(self, x=self.x[order], y=self.y[order], x_adv=self.x_adv[order])


def cross_entropy(
    forward: Callable[[tf.Tensor], tf.Tensor], logits: bool
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Returns the loss of a pass from images in [0, 1] to logits or probabilities."""
    return lambda x, y: tf.keras.losses.sparse_categorical_crossentropy(
        y, tf.cast(forward(x), tf.float32), from_logits=logits
    )


def plain_pgd(subject: Subject) -> np.ndarray:
    """Returns which images an independent PGD leaves right, or how often, (N,)."""
    draw = np.random.default_rng(0)
    x, radius = subject.x, np.float32(subject.epsilon)
    now = np.clip(x + draw.uniform(-radius, radius, x.shape), 0, 1).astype(np.float32)
    left = subject.right(x)
    for _ in range(STEPS):
        with tf.GradientTape() as tape:
            seen = tf.constant(now)
            tape.watch(seen)
            loss = tf.reduce_sum(subject.loss(seen, tf.constant(subject.y)))
        slope = tape.gradient(loss, seen).numpy()
        now = np.clip(now + 2.5 * radius / STEPS * np.sign(slope), x - radius, x + radius)
        now = np.clip(now, 0, 1).astype(np.float32)
        # Of noisy figures the least would be luck.
        left = subject.right(now) if subject.passes > 1 else np.minimum(left, subject.right(now))
    return left


def wilson(right: float, count: int) -> tuple[float, float]:
    """Returns the 95 % interval of a share."""
    z, share = 1.96, right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return middle - half, middle + half


def _attack(subject: Subject) -> tuple[list[str], dict[str, Any]]:
    """Returns the attack's settings, as words and for Python."""
    from kerasrobust.attacks import PGD, Square

    if subject.loss is None:
        words = ["--attack", "square", "--queries", str(subject.queries)]
        return words, {"attacks": Square(epsilon=subject.epsilon, queries=subject.queries)}
    return ["--attack", "pgd", "--steps", str(STEPS)], {"attacks": PGD(epsilon=subject.epsilon, steps=STEPS)}


class Refused(Exception):
    """One line said what is wrong."""


class Broken(Exception):
    """More than a line, or nothing that was to be expected."""


def _on_command_line(subject: Subject, words: Sequence[str | Path], folder: Path, process: bool) -> Figure:
    runs = folder / "runs"
    line = ["attack", *words, *_attack(subject)[0], "--epsilon", str(subject.epsilon), "--quiet", "--overwrite"]
    line += ["--runs-dir", runs, "--models-dir", folder / "saved_models", "--name", "run"]
    outcome = finish(start(*line), 400) if process else call(*line)
    if outcome.status == 2:
        try:
            raise Refused(outcome.message)
        except AssertionError as error:
            raise Broken(f"not one line: {outcome.err}") from error
    if outcome.status != 0:
        raise Broken(f"status {outcome.status}: {outcome.err}")
    result = json.loads((runs / "run" / "result.json").read_text())
    with h5py.File(runs / "run" / "examples.h5") as file:
        arrays = [file[name][:] for name in ("x_adv", "x", "y")]
    notes = [item["message"] for item in result["warnings"]]
    return Figure(result["clean_accuracy"], result["robust_accuracy"], *arrays, notes=notes)


def _in_python(subject: Subject, evaluate: Evaluate) -> Figure:
    try:
        found = evaluate(**_attack(subject)[1])
    except InputError as error:
        line = str(error)
        if "\n" in line or not line.startswith("Expected "):
            raise Broken(f"not one line: {line}") from error
        raise Refused(line) from error
    found, *images = found if isinstance(found, tuple) else (found,)
    notes = [message for _, message in found.warnings]
    return Figure(found.clean_accuracy, found.robust_accuracy, found.worst.x_adv, *images, notes=notes)


def _wrongs(subject: Subject, figure: Figure, left: np.ndarray) -> list[str]:
    """Returns what of a figure isn't so by the model's own `predict` and the plain PGD."""
    count, found = len(subject.x), []
    clean = subject.right(subject.x).sum()
    if abs(figure.clean * count - clean) > subject.slack + 1e-6:
        found.append(f"clean {figure.clean:.1%}, predict {clean / count:.1%}")
    adversarial = figure.x_adv
    if adversarial.shape != subject.x.shape:
        return [*found, f"images {adversarial.shape}, not {subject.x.shape}"]
    figure = figure.in_order_of(subject)
    adversarial = figure.x_adv
    x = subject.x if figure.x is None else figure.x
    if (apart := abs(x - subject.x).max()) > 1.01 / 255:
        found.append(f"images that differ from what is stored by {apart * 255:.2f}/255")
    if subject.indices and figure.y is not None and (figure.y != subject.y).any():
        found.append(f"{(figure.y != subject.y).sum()} other labels")
    size = abs(adversarial - x).max()
    if size > subject.epsilon + 1e-5 or adversarial.min() < 0 or adversarial.max() > 1:
        found.append(f"images outside the ball: {size * 255:.2f}/255")
    again = subject.right(adversarial).sum()
    if abs(figure.robust * count - again) > subject.slack + 1e-6:
        found.append(f"robust {figure.robust:.1%}, predict on the same images {again / count:.1%}")
    if subject.loss is not None:
        low, high = wilson(left.sum(), count)
        # Near 0 the interval of the plain PGD begins above it, and another start may break the last images.
        lowest, highest = wilson(figure.robust * count, count)
        if not low <= figure.robust <= high and not lowest <= left.mean() <= highest:
            found.append(f"robust {figure.robust:.1%} outside [{low:.1%}, {high:.1%}] of the plain PGD")
    elif not figure.robust < figure.clean:
        found.append("the attack found nothing")
    return found


def measured(form: Form, folder: Path, process: bool) -> Row:
    """Makes a form and measures it in all ways."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # Keras' own export tells what it wrote.
            subject = form.make(folder)
        left = subject.right(subject.x)
        clean = left.mean()
        if subject.loss is not None:
            left = plain_pgd(subject)
    except Exception:  # A fault of the table itself.
        return Row(verdict="NOT MADE", lines=traceback.format_exc().splitlines()[-8:])
    count, row = len(subject.x), Row(clean=f"{clean:.1%}")
    if subject.loss is not None:
        low, high = wilson(left.sum(), count)
        row.plain = f"{left.mean():.1%} [{100 * low:.0f}-{100 * high:.0f}]"
        if not 0 < left.sum() < clean * count:
            row.verdict = "SAYS NOTHING"
    else:
        row.plain = "black box"
    ways: dict[str, tuple[Any, Any]] = {}
    if subject.words is not None:
        ways["cli"] = (
            (lambda words: _on_command_line(subject, words, folder, process)),
            (subject.words, subject.then[0]),
        )
    if subject.evaluate is not None:
        ways["python"] = (lambda call: _in_python(subject, call)), (subject.evaluate, subject.then[1])
    for way, (ask, (first, second)) in ways.items():
        verdict, figure, lines = _asked(subject, folder, ask, first, second, left)
        row.lines += [f"{way}: {line}" for line in lines]
        setattr(row, way, f"{figure.robust:.1%}" if figure else "-")
        if verdict not in GOOD or (row.verdict in GOOD and verdict == "one line"):
            row.verdict = verdict
    return row


def _asked(
    subject: Subject, folder: Path, ask: Any, first: Any, second: Any, left: np.ndarray
) -> tuple[str, Figure | None, list[str]]:
    """Asks once, and once more as the one line says; returns the verdict, the figure and what there is to tell."""
    lines: list[str] = []
    for request in (first, second):
        try:
            figure = ask(request)
        except Refused as error:
            line = str(error)
            lines.append(line.replace(str(folder), "."))
            if request is second or second is None or not re.search(subject.said or "$^", line):
                return "REFUSED", None, [*lines, f"expected: {subject.said or 'the figure'}"]
            continue
        except Broken as error:
            return "TRACEBACK", None, [*lines, str(error)]
        except Exception:  # What anything of somebody else's raises is what the table looks for.
            return "TRACEBACK", None, [*lines, *traceback.format_exc().splitlines()]
        wrongs = _wrongs(subject, figure, left)
        told = [note for note in figure.notes if subject.said and re.search(subject.said, note)]
        if wrongs and told and request is first and second is not None:
            lines += told
            continue
        if wrongs:
            return "WRONG", figure, [*lines, *wrongs]
        return ("right" if request is first else "one line"), figure, lines
    raise AssertionError("unreachable")

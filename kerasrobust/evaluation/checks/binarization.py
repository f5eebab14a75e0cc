"""A check of the attack instead of the model: whether it finds an adversarial example that is known to be there."""

from __future__ import annotations

from typing import Any

import numpy as np

from kerasrobust.attacks import Attack
from kerasrobust.attacks.driver import drive, is_nearest
from kerasrobust.attacks.task import Task
from kerasrobust.attacks.universal import Universal
from kerasrobust.errors import Cancelled
from kerasrobust.evaluation.case import FEWEST, Case, finding, percent
from kerasrobust.events import Finding
from kerasrobust.networks.readout import Readout
from kerasrobust.pace import Pace
from kerasrobust.stats import wilson

INNER, NEAR = 499, 0.95
"""Points of one class around an image, and the share of the radius that they lie in; the other class has one point."""

DRAWN = 200
"""Points at random on the ball's surface, which say how hard it is to find one of the other class by chance."""

PASSED = 0.95
"""Of the images, on how many the attack has to succeed."""


def attack_of(case: Case) -> Attack[Any] | None:
    """Returns the first of the evaluation's attacks that follows the model's own gradients in a ball, image by image.

    None without one that two classes are enough for, and for a network whose layers can't be taken apart.
    """
    if case.straight is not None or not Readout.fits(case.classifier):
        return None
    attacks = [report.attack for report in case.found.reports]
    fitting = (item for item in attacks if item.in_ball and not item.gradient_free and not is_nearest(item))
    fitting = (item for item in fitting if item.fewest_classes <= 2 and not isinstance(item, Universal))
    return next((item for item in fitting if item.norm in ("linf", "l2") and item.radius()), None)


def left_of(case: Case) -> np.ndarray:
    """Returns the images that all attacks have left, int64 (M,)."""
    return np.flatnonzero(case.found.rates > 0.5)


def binarization(case: Case, attack: Attack[Any]) -> list[Finding] | None:
    """Whether an attack solves problems that have a solution, on images of which it has found none.

    For each, a new last layer tells one point on the ball's surface apart from the image and many points inside; the
    attack has to find that point, or another one of its class. None where too few could be told apart.

    Reference: Zimmermann et al. 2022, "Increasing Confidence in Adversarial Robustness Evaluations", section 3.
    """
    readout = Readout(case.classifier, case.x.shape[1:], case.task.batch_size)
    pace, radius = Pace(case.task.emit, "image", case.count), attack.radius() or 0.0
    draw = np.random.default_rng(case.task.seed)
    found, by_chance = [], []
    for image in case.x[left_of(case)[: case.count]]:
        if case.task.should_stop():
            raise Cancelled
        inner = _around(image, INNER, NEAR * radius, attack.norm, draw)
        goal = _around(image, 1, radius, attack.norm, draw, surface=True)[0]
        if readout.tell_apart(np.concatenate([image[None], inner]), goal):
            others = _around(image, DRAWN, radius, attack.norm, draw, surface=True)
            by_chance.append(float((readout.scores(others) > 0).mean()))
            found.append(_solved(readout, image, attack, case))
        pace.add(1)
    count, solved = len(found), sum(found)
    if count < FEWEST:
        return None
    passed = wilson(solved, count)[1] >= PASSED
    means = (
        "Nothing in that says that it is too weak for this model."
        if passed
        else "It may miss as many of the model's own: take more steps or AutoAttack, and look for what masks gradients."
    )
    return finding(
        "attack-tested" if passed else "attack-fails",
        f"{attack.name} finds {solved} of {count} adversarial examples that are known to be there, as a last layer was "
        f"made for each of these images ({percent(float(np.mean(by_chance)))} of points drawn at random are some). "
        f"{means}",
        "info" if passed else "error",
        solved=solved, images=count, random=float(np.mean(by_chance)),
    )  # fmt: skip


def untested(needed: str) -> list[Finding]:
    """Returns the note that no such test could be made, and what it would have needed."""
    return finding("attack-tested", f"The attack was not tested (binarization test). That needs {needed}.", "info")


def _solved(readout: Readout, image: np.ndarray, attack: Attack[Any], case: Case) -> bool:
    task = Task(
        classifier=readout.classifier,
        x=image[None],
        y=np.zeros(1, np.int64),
        precision="float32",
        seed=case.task.seed,
        batch_size=1,
        passes=1,
        should_stop=case.task.should_stop,
    )
    return bool(drive(attack, task).success[0])


def _around(
    image: np.ndarray, count: int, radius: float, norm: str, draw: np.random.Generator, surface: bool = False
) -> np.ndarray:
    """Returns points in the ball around an image, uniform in it or on its surface, cut off at 0 and 1."""
    shape = (count, *image.shape)
    if norm == "linf":
        steps = 2 * draw.random(shape, np.float32) - 1
        steps = np.sign(steps) if surface else steps
    else:
        steps = draw.standard_normal(shape, np.float32)
        steps /= np.linalg.norm(steps.reshape(count, -1), axis=1).reshape(-1, 1, 1, 1)
        if not surface:
            steps *= draw.random((count, 1, 1, 1), np.float32) ** (1 / image.size)
    return np.clip(image + np.float32(radius) * steps, 0, 1)

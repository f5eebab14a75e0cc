"""An attack that costs much, on the few images where it can find something.

What cheap attacks have left is attacked in groups: the images nearest to the decision boundary first, together with
some that are drawn at random. The next group, of twice the size, follows only if an image of the farther half of the
last one fell. On adversarially trained networks the margin under cheap attacks all but tells which images fall later:
of 116 images that 80 gradients each had left of 400, the full APGD-T, FAB-T and Square broke two, the two nearest ones.
Where gradients are masked, images fall in every group, and all are attacked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from kerasrobust.attacks import Attack, AttackResult
from kerasrobust.attacks.checkpoint import Checkpoints
from kerasrobust.attacks.driver import drive
from kerasrobust.attacks.task import Task
from kerasrobust.attacks.verdict import Verdict, predict
from kerasrobust.evaluation.combining import picked
from kerasrobust.evaluation.outcome import AttackReport, surviving
from kerasrobust.events import AttackProgress, Emit, Event

NEAR, DRAWN = 1 / 12, 1 / 24
"""Shares of the images that are left in the first group: of the nearest, and of those drawn at random."""
LEAST = 8
"""Images in the first group, at least."""


def nearness(task: Task, places: Sequence[np.ndarray], left: np.ndarray) -> np.ndarray:
    """Returns how little the label leads the next class at best in some places, float64 (N,), infinite where not asked.

    Args:
        task: the network and the labels.
        places: float32 (N, H, W, C) each, such as what attacks have found.
        left: bool (N,), which images are asked about.
    """
    found, y = np.full(len(left), np.inf), task.y[left]
    key = np.array([task.seed % 2**31, 7], np.int32) if task.classifier.seedable else None
    for images in places:
        logits = predict(task.classifier, images[left], task.batch_size, key).astype(np.float64)
        own = logits[np.arange(len(y)), y]
        logits[np.arange(len(y)), y] = -np.inf
        found[left] = np.minimum(found[left], own - logits.max(axis=1, initial=-np.inf))
    return found


def groups(margin: np.ndarray, left: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """Yields groups of images that together are all that are left, each of twice the size of the one before.

    Args:
        margin: float64 (N,), how near each image is to the boundary.
        left: bool (N,).
        seed: of the draw.

    Yields:
        int64, the indices of a group, the nearest image first.
    """
    order = np.flatnonzero(left)
    order = order[np.argsort(margin[order], kind="stable")]
    near = max(LEAST, round(NEAR * len(order)))
    rest = np.random.default_rng([seed % 2**32, len(order)]).permutation(order[near:])
    first = np.isin(order, rest[: round(DRAWN * len(order))])
    first[:near] = True
    begin, queue, size = 0, np.concatenate([order[first], order[~first]]), int(first.sum())
    while begin < len(queue):
        yield queue[begin : begin + size]
        begin, size = begin + size, 2 * size


def narrowed(
    attack: Attack[Any],
    task: Task,
    radius: float | None,
    clean: Verdict,
    left: np.ndarray,
    before: Sequence[AttackReport],
    checkpoints: Checkpoints,
) -> tuple[AttackResult, np.ndarray]:
    """Attacks images group by group, until none of the farther half of a group falls.

    Args:
        attack: what runs.
        task: on what.
        radius: inside which an image counts as fallen; None for an attack outside balls.
        clean: the verdict on the unchanged images.
        left: float64 (N,), the shares of passes that are right so far.
        before: what the attacks before it have found.
        checkpoints: where finished batches are saved.

    Returns:
        What was found, and which images were attacked, bool (N,).
    """
    attacked, results, which = np.zeros(len(left), bool), [], np.zeros(len(left), np.int64)
    places = [task.x, *(item.result.x_adv for item in before if not item.attack.minimum_norm)]
    rates, margin = left.copy(), nearness(task, places, left > 0)
    for number, group in enumerate(groups(margin, left > 0, task.seed)):
        only = np.zeros(len(left), bool)
        only[group] = True
        here = replace(task, emit=_beside(task.emit, rates, left, attacked, only, attack.run_count()))
        place = checkpoints.inside(f"group-{number}")
        results.append(drive(attack, here, clean=clean, only=only, checkpoints=place))
        attacked |= only
        which[group] = number
        rates[group] = surviving(attack, results[-1], radius)[group]
        farther = group[len(group) // 2 :]
        if not (rates < left)[farther].any():
            break
    if not results:  # Says in the usual form that nothing was attacked.
        here = replace(task, emit=_beside(task.emit, rates, left, attacked, attacked, attack.run_count()))
        results.append(drive(attack, here, clean=clean, only=attacked, checkpoints=checkpoints.inside("group-0")))
    found = picked(results, which)
    return replace(found, forwards=found.forwards + len(places) * int((left > 0).sum())), attacked


def _beside(
    emit: Emit | None, rates: np.ndarray, left: np.ndarray, attacked: np.ndarray, group: np.ndarray, runs: int
) -> Emit | None:
    """Returns what emits a group's progress as that of the whole attack.

    Args:
        emit: takes the events; None where nobody listens.
        rates: float64 (N,), the shares of passes that are right now.
        left: float64 (N,), the same before the attack.
        attacked: bool (N,), the images of earlier groups.
        group: bool (N,).
        runs: how often the attack is run.
    """
    if emit is None:
        return None
    survivors, size, total = int((rates > 0.5)[~group].sum()), int(group.sum()), len(left)
    before = int((left <= 0).sum()) + int(attacked.sum())
    # An attack counts the images that it isn't given as done.
    low = (total - size) / (total * runs)

    def of_all(event: Event) -> None:
        if isinstance(event, AttackProgress):
            share = (event.done / total - low) / (1 - low) if low < 1 else 1.0
            event = replace(event, survivors=event.survivors + survivors, done=before + round(size * max(0.0, share)))
        emit(event)

    return of_all

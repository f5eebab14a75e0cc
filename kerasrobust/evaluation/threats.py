"""The parts of an assessment: what each measures on a block of images. What is made of it stands in `assess`."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np

from kerasrobust.attacks import FMN, PGD, Attack, Patch, Spatial
from kerasrobust.attacks.task import Task
from kerasrobust.data.corruptions.corrupting import corrupted, levels
from kerasrobust.errors import Cancelled, InputError
from kerasrobust.evaluation.autoattack import EOT, AutoAttack
from kerasrobust.evaluation.budget import Block, Part
from kerasrobust.evaluation.corruptions import FIFTEEN, PART, judged
from kerasrobust.evaluation.evaluate import Evaluation, evaluate
from kerasrobust.evaluation.smoothing import certify, check_alone
from kerasrobust.events import Emit
from kerasrobust.names import SEVERITIES, Version
from kerasrobust.networks.classifier import has_gradient
from kerasrobust.networks.images import visible
from kerasrobust.settings import radius
from kerasrobust.show.figures import format_budget
from kerasrobust.show.pairs import NORMS
from kerasrobust.stats import shared_error

CLEAN, CORRUPTED, CERTIFIED = "clean", "corruptions", "certified"
PASSES_OF_AUTOATTACK = {"adaptive": 400, "standard": 3_500, "plus": 6_000, "rand": 10_000}
"""Forward passes that a version takes about for an image, a gradient counting as three.

Of `convnet-pgd` in Linf they were 270 and 3,400. Of a randomized network each gradient is a mean over passes.
"""
PASSES_OF_AUDIT = {False: 300, True: 1_500}
"""Those of the audit, by whether the network is randomized: then PGD's gradients are means over passes, too."""
OF_BLOCKS = "adaptive-version", "few-examples", "at-chance", "classes-missing", "class-order"
"""Findings of a block that are said of the whole: what was left out, what chance would do; or that intervals say."""
AUDITED = 256
"""Images that the audit looks at, at most."""
CELLS = tuple((kind, severity) for kind in FIFTEEN for severity in SEVERITIES)
"""What an assessment looks at of corruptions."""
SAMPLES, SELECTION, ALPHA = 10_000, 100, 0.001
"""Of an assessment's certificates: a tenth of what `certify` takes, so the largest radius is 3.2 sigma, not 3.8."""
OF_CERTIFICATE = "prediction", "radius", "right", "counted"
"""The arrays of one."""


def threats(task: Task) -> dict[str, Attack[Any]]:
    """Returns the attacks outside balls, by name."""
    return {"spatial": Spatial(), "patch": Patch(size=max(1, min(task.x.shape[1:3]) // 4))}


def parts_of(task: Task, version: Version, sigma: float | None) -> tuple[list[Part], list[str]]:
    """Returns what is looked at, in its order, and what isn't, with the reason."""
    found = [_of_attacks(task, version), _of_corruptions(task), _of_certificates(task, sigma)]
    return [part for parts, _ in found for part in parts], [reason for _, reasons in found for reason in reasons]


def _of_attacks(task: Task, version: Version) -> tuple[list[Part], list[str]]:
    chosen: Version = version if version != "auto" else "rand" if task.classifier.randomized else "adaptive"
    parts = []
    for norm in NORMS:
        attack = AutoAttack(norm=norm, epsilon=radius(None, norm), version=chosen)
        title = f"AutoAttack ({chosen}), {format_budget(attack.epsilon, norm)}"
        measure = partial(_attacked, task, norm, attack)
        parts.append(Part(name=norm, title=title, share=20, passes=PASSES_OF_AUTOATTACK[chosen], measure=measure))
    audit, cost = partial(_audited, task), PASSES_OF_AUDIT[task.classifier.randomized]
    parts.append(
        Part(name="audit", title="Reasons to doubt", share=10, passes=cost, measure=audit, most=AUDITED, resumes=False)
    )
    blind = not has_gradient(task.classifier, task.x[:1])
    left_out = []
    if chosen == "adaptive":
        left_out.append("The rest of AutoAttack's version standard: --version standard (version=) runs it.")
    if blind:
        left_out.append("Accuracy over epsilon: it is found by gradients, and there are none.")
    else:
        nearest = partial(_nearest, task)
        parts.append(Part(name="nearest", title="Accuracy over epsilon", share=20, passes=1_000, measure=nearest))
    for name, threat in threats(task).items():
        title = f"{name.capitalize()}: {threat.threat()}"
        if blind and not threat.gradient_free:
            left_out.append(f"{title}: it is made by gradients, and there are none.")
        else:
            measure = partial(_attacked, task, name, threat)
            parts.append(Part(name=name, title=title, share=10, passes=500, measure=measure))
    return parts, left_out


def _of_corruptions(task: Task) -> tuple[list[Part], list[str]]:
    try:
        pixels = levels(visible(task.classifier, task.x))
    except InputError:
        return [], [f"Common corruptions: images have {task.x.shape[3]} channels, and they are made of 1 or 3."]
    title = f"Common corruptions: {len(FIFTEEN)} kinds, severities {SEVERITIES[0]} to {SEVERITIES[-1]}"
    measure = partial(_corrupted, task, pixels)
    return [Part(name=CORRUPTED, title=title, share=10, passes=3 * len(CELLS), measure=measure)], []


def _of_certificates(task: Task, sigma: float | None) -> tuple[list[Part], list[str]]:
    if sigma is None:
        return [], ["Certificates: no noise is known that it was trained under: --sigma 0.25 (sigma=) says one."]
    if task.classifier.adapter.whole:
        return [], ["Certificates: it takes whole numbers, which have no room for noise."]
    try:
        check_alone(task)
    except InputError:
        return [], ["Certificates: answers depend on the other images of a batch, so that a vote is no answer."]
    title = f"Certificates by gaussian noise of sigma {sigma:g}"
    return [Part(name=CERTIFIED, title=title, share=20, passes=SAMPLES, measure=partial(_certified, task, sigma))], []


def _attacked(task: Task, name: str, attack: Attack[Any] | AutoAttack, block: Block) -> dict[str, np.ndarray]:
    """Returns the rates of a block under an attack, and the error by noise that its images share."""
    found = _evaluated(task, block, attack)
    right = found.worst.passes == task.y[block.rows]
    return {
        name: found.per_example,
        f"{name} shared": np.full(len(found.per_example), found.worst.shared),
        f"{name} halves": np.stack(
            [half.mean(axis=0) for half in (right[::2], right[1::2] if len(right) > 1 else right)], 1
        ),
    }


def _evaluated(task: Task, block: Block, attack: Attack[Any] | AutoAttack, **settings: Any) -> Evaluation:
    """Returns the evaluation of a block; what it has done is kept under the attack's name and norm."""
    within = block.checkpoints.inside(f"{attack.name}-{attack.norm}")

    given: dict[str, Any] = {"audit": False} | settings
    return evaluate(
        task.classifier,
        task.x[block.rows],
        task.y[block.rows],
        attacks=attack,
        seed=task.seed,
        precision=task.precision,
        batch_size=task.batch_size,
        passes=task.passes,
        resume_dir=within.folder,
        emit=_heard(block),
        should_stop=block.should_stop,
        **given,
    )


def _heard(block: Block) -> Emit:
    """Returns where to emit what is said of a block, but for what is said of the whole."""
    return lambda event: None if getattr(event, "code", "") in OF_BLOCKS else block.emit(event)


def _audited(task: Task, block: Block) -> dict[str, np.ndarray]:
    # As that of the figures, AutoAttack's `rand`: else the audit would doubt its own attack.
    attack = PGD(eot=EOT if task.classifier.randomized else 1)
    return {"pgd": _evaluated(task, block, attack, audit=True, thorough=True).per_example}


def _nearest(task: Task, block: Block) -> dict[str, np.ndarray]:
    """Returns how far the nearest adversarial example is in each norm, and the rates before and behind it."""
    arrays: dict[str, np.ndarray] = {}
    for norm in NORMS:
        found = _evaluated(task, block, FMN(norm=norm)).worst
        arrays |= {
            f"{norm} distance": found.distance, f"{norm} before": found.clean_rate, f"{norm} behind": found.correct_rate
        }  # fmt: skip
    return arrays


def _corrupted(task: Task, pixels: np.ndarray, block: Block) -> dict[str, np.ndarray]:
    """Returns the rates of a block, (N, 75), under each corruption, the error by shared noise, and the seconds."""
    count = block.rows.stop - block.rows.start
    found: dict[str, np.ndarray] = {name: np.zeros((count, len(CELLS))) for name in ("rates", "shared", "of cells")}
    for number, (kind, severity) in enumerate(CELLS):
        name = f"{kind}-{severity}"
        kept = block.checkpoints.get(name)
        if kept is None:
            kept = _under(task, pixels, block, kind, severity)
            block.checkpoints.put(name, kept)
        for entry, values in kept.items():
            found[entry][:, number] = values
    return found


def _under(task: Task, pixels: np.ndarray, block: Block, kind: str, severity: int) -> dict[str, np.ndarray]:
    """Returns the same, (N,) each, under one corruption."""
    rows, began = block.rows, time.monotonic()
    count = rows.stop - rows.start
    rates, shared = np.zeros(count), np.zeros(count)
    for first in range(rows.start, rows.stop, PART):
        if block.should_stop():
            raise Cancelled
        part = slice(first, min(first + PART, rows.stop))
        images = corrupted(pixels[part], kind, severity, seed=task.seed, first=first) / np.float32(255)
        right = judged(task, images, part, kind, severity).passes == task.y[part]
        place = slice(part.start - rows.start, part.stop - rows.start)
        rates[place] = right.mean(axis=0)
        shared[place] = shared_error(right)
    return {"rates": rates, "shared": shared, "of cells": np.full(count, (time.monotonic() - began) / count)}


def _certified(task: Task, sigma: float, block: Block) -> dict[str, np.ndarray]:
    """Returns what smoothing certifies of a block."""
    found = certify(
        task.classifier,
        task.x[block.rows],
        task.y[block.rows],
        sigma=sigma,
        samples=SAMPLES,
        selection=SELECTION,
        alpha=ALPHA,
        # The noise of a sample depends on the image's place in the block.
        seed=task.seed + block.rows.start,
        batch_size=task.batch_size,
        resume_dir=block.checkpoints.folder,
        emit=_heard(block),
        should_stop=block.should_stop,
    )
    return {name: getattr(found, name) for name in OF_CERTIFICATE}

"""Checks of the images: how many there are, and whether the adversarial ones can be stored."""

from __future__ import annotations

import numpy as np

from kerasrobust.attacks.verdict import judge
from kerasrobust.evaluation.case import FEWEST, FORWARD_IMAGES, Case, finding, percent
from kerasrobust.events import Finding
from kerasrobust.stats import accuracy_interval

WIDE = 0.2
"""How wide an interval is that is worth a word."""


def few_examples(case: Case) -> list[Finding]:
    """Whether there are enough images for the differences that one would like to claim."""
    low, high = accuracy_interval(case.found.rates, case.classifier.randomized, case.found.worst.shared)
    if high - low <= WIDE:
        return []
    wanted = int(np.ceil(len(case.y) * ((high - low) / 0.06) ** 2 / 100) * 100)
    return finding(
        "few-examples",
        f"With {len(case.y)} images the robust accuracy is known to {100 * (high - low):.0f} points only "
        f"({100 * low:.1f}-{100 * high:.1f} %): no difference smaller than that can be claimed. About {wanted:,} "
        "images give three points either way.",
        "info",
        examples=len(case.y), low=low, high=high,
    )  # fmt: skip


def rounding(case: Case) -> list[Finding]:
    """Whether the examples survive being stored as 8-bit images."""
    moved = np.flatnonzero(
        (case.found.rates < 0.5) & (case.found.clean.correct_rate > 0.5) & (case.found.worst.correct_rate < 0.5)
    )
    moved = moved[:FORWARD_IMAGES]
    if len(moved) < FEWEST:
        return []
    rounded = np.round(case.found.worst.x_adv[moved] * 255) / np.float32(255)
    verdict = judge(
        case.classifier, rounded.astype(np.float32), case.y[moved], passes=len(case.found.worst.passes),
        seed=[case.task.seed, 4], batch_size=min(case.task.batch_size, len(case.x)),
    )  # fmt: skip
    undone = float((~verdict.wrong).mean())
    expected = float((case.found.worst.correct_rate[moved] > 0.5).mean())
    if undone - expected <= 0.05 or (undone - expected) * len(moved) < 4:
        return []
    return finding(
        "rounding",
        f"Rounded to 8 bits, {percent(undone)} of {len(moved)} adversarial examples are classified correctly again: "
        "they don't exist as image files. Minimum-norm attacks stop that close to the boundary; report distances "
        "with that in mind, or attack with a larger epsilon.",
        "info" if all(report.attack.minimum_norm for report in case.found.reports) else "warning",
        undone=undone, examples=len(moved),
    )  # fmt: skip

"""A check by attacks that see predictions only."""

from __future__ import annotations

import numpy as np

from kerasrobust.attacks import Square, make_attack
from kerasrobust.attacks.universal import Universal
from kerasrobust.evaluation.case import FEWEST, MANY, Case, finding
from kerasrobust.events import Finding

QUERIES, RESTARTS = 300, 30
"""Of Square: as it looks whether it finds more, and once it has, on what is left (`audit --thorough`)."""


def black_box(case: Case) -> list[Finding]:
    """Whether attacks that see only predictions break what those with gradients have left."""
    # A patch or a rotation breaks what no ball allows, whatever its gradients are worth.
    alike = [report for report in case.found.reports if report.attack.in_ball]
    # Nor does one perturbation for all images tell what gradients could do to each.
    alike = [report for report in alike if not isinstance(report.attack, Universal)]
    blind = [report for report in alike if report.attack.gradient_free]
    seeing = [report for report in alike if not report.attack.gradient_free]
    if not seeing:
        return []
    if blind:
        before = np.min([report.rates for report in seeing], axis=0) > 0.5
        broken = before & (np.min([report.rates for report in blind], axis=0) <= 0.5)
        name, total, least = blind[0].attack.name, len(case.y), max(3, 0.01 * len(case.y))
        left = case.chosen[(before & ~broken)[case.chosen]]
    elif case.thorough and len(case.right) >= FEWEST and case.norm in Square.norms:
        square = make_attack("square", norm=case.norm, epsilon=case.epsilon, queries=QUERIES)
        result = case.attack(square)
        before = np.min([report.rates for report in seeing], axis=0)[case.chosen] > 0.5
        broken = before & result.success
        name, total, least = f"Square with {QUERIES} queries", case.count, max(3, 0.05 * case.count)
        left = case.chosen[before & ~broken]
    else:
        return []
    if broken.sum() < least:
        return []
    if max(report.attack.step_count() for report in seeing) < MANY:
        return finding(
            "black-box-wins",
            f"{name} breaks {int(broken.sum())} of {total} images that the attacks with gradients had left. These "
            f"took fewer than {MANY} steps: they were too weak, or their gradients are masked. Use AutoAttack.",
            broken=broken.sum(), left_before=before.sum(),
        )  # fmt: skip
    further, evidence = _restarted(case, left)
    return finding(
        "black-box-wins",
        f"{name} breaks {int(broken.sum())} of {total} images that the attacks with gradients had left "
        f"({int(before.sum())} were left). A black box should find nothing more: gradients are masked. {further}Report "
        "the lower figure, and look for what hides them.",
        "error",
        broken=broken.sum(), left_before=before.sum(), **evidence,
    )  # fmt: skip


def _restarted(case: Case, left: np.ndarray) -> tuple[str, dict[str, float]]:
    """Returns what many restarts of Square break of the images left, in words and figures; nothing if it wasn't asked.

    Entries of RobustBench with masked gradients had to be corrected by such runs.
    """
    if not case.thorough or case.norm not in Square.norms or not len(left):
        return "", {}
    square = make_attack("square", norm=case.norm, epsilon=case.epsilon, queries=QUERIES, restarts=RESTARTS)
    # On other random numbers: one of the restarts would be the run that has left them.
    broken = int(case.attack(square, images=left, early_stop=True, seed=1).success.sum())
    words = (
        f"Of {len(left)} of those that are left then, {RESTARTS} restarts of Square with {QUERIES} queries break "
        f"{broken}: attack by square with --restarts {RESTARTS}. "
    )
    return words, {"restarts_broken": broken, "restarts_left": len(left)}

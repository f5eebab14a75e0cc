"""An evaluation as the audit sees it, and what its checks share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from kerasrobust.attacks import PGD, Attack, AttackResult
from kerasrobust.attacks.driver import drive
from kerasrobust.attacks.task import Task
from kerasrobust.evaluation.chain import Chained
from kerasrobust.events import Finding, Severity
from kerasrobust.networks.classifier import Classifier
from kerasrobust.settings import radius

SHARE = 0.1
"""Gradient evaluations of the audit, as a share of those of the attacks."""
FORWARD_IMAGES = 256
"""Images that checks with predictions only look at, at most."""
FEWEST = 8
"""Images below which a check says nothing."""
MANY, FEW = 10, 3
"""PGD steps of the checks that compare numbers of steps."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """An evaluation as the audit sees it.

    Attributes:
        task: what was attacked.
        found: what the attacks found.
        early: what there was to say before they began.
        thorough: whether to spend what every check needs, whatever the attacks have spent.
        test_attack: whether to test an attack on problems that are known to have a solution, too.
        straight: the network whose gradients the attacks took, as the model's own reach no image.
        count: images that a check with gradients may look at.
    """

    task: Task
    found: Chained
    early: list[Finding] = field(default_factory=list)
    thorough: bool = False
    test_attack: bool = False
    straight: Classifier | None = None
    count: int = 0

    @property
    def classifier(self) -> Classifier:
        return self.task.classifier

    @property
    def x(self) -> np.ndarray:
        return self.task.x

    @property
    def y(self) -> np.ndarray:
        return self.task.y

    @property
    def norm(self) -> str:
        return self.found.reports[0].attack.norm if self.found.reports else "linf"

    @property
    def white_norm(self) -> Any:
        """The norm of the checks' own attacks on gradients: the evaluation's, where they have it."""
        return self.norm if self.norm in PGD.norms else "linf"

    @property
    def white_epsilon(self) -> float:
        """Their radius: the evaluation's, or the usual one of their own norm."""
        return self.epsilon if self.norm == self.white_norm else radius(None, self.white_norm)

    @property
    def epsilon(self) -> float:
        """Its radius, or the usual one in Linf where it had none."""
        found = self.found.reports[0].epsilon if self.found.reports else None
        return 8 / 255 if found is None else found

    @property
    def budget(self) -> int:
        """Gradient evaluations that the audit may spend."""
        return int(SHARE * sum(report.result.gradients for report in self.found.reports))

    @cached_property
    def right(self) -> np.ndarray:
        """Which images the model has right, int64 (R,)."""
        return np.flatnonzero(self.found.clean.correct_rate > 0.5)

    @property
    def chosen(self) -> np.ndarray:
        """The first `count` of them."""
        return self.right[: self.count]

    def attack(
        self,
        attack: Attack[Any],
        surrogate: Classifier | None = None,
        *,
        images: np.ndarray | None = None,
        early_stop: bool = False,
        seed: int = 0,
    ) -> AttackResult:
        """Attacks images, the chosen ones without any, along the gradients of a surrogate if there is one.

        By default every one is attacked to the end, on the evaluation's own random numbers (`seed` 0).
        """
        places = self.chosen if images is None else images
        task = Task(
            classifier=self.classifier,
            x=self.x[places],
            y=self.y[places],
            precision="float32",
            seed=self.task.seed + seed,
            batch_size=self.task.batch_size,
            passes=5 if self.classifier.randomized else 1,
            surrogate=None if attack.gradient_free else surrogate or self.straight,
            should_stop=self.task.should_stop,
        )
        return drive(attack, task, early_stop=early_stop)

    def pgd(self, epsilon: float, steps: int) -> AttackResult:
        """Attacks with PGD to its last iterate, whose loss says more than that of the best one."""
        return self.attack(PGD(norm=self.white_norm, epsilon=epsilon, steps=steps, keep_best=False))


@dataclass(frozen=True)
class Check:
    """A check of the audit.

    Attributes:
        codes: of the findings that it may return.
        cost: gradient evaluations that it spends per image.
        look: what looks.
    """

    codes: tuple[str, ...]
    cost: int
    look: Callable[[Case], list[Finding]]


def finding(code: str, message: str, severity: Severity = "warning", **evidence: float) -> list[Finding]:
    """Returns one finding, as a list."""
    figures = {name: float(value) for name, value in evidence.items()}
    return [Finding(code=code, message=message, severity=severity, evidence=figures)]


def percent(share: float) -> str:
    """Returns a share as a percentage, as in "12.5 %"."""
    return f"{100 * share:.1f} %"

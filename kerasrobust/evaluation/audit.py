"""Can this number be trusted? Checks that may cast doubt on it, each with a stable code.

They run with every evaluation, on a few of its images, and spend at most a tenth of its gradient evaluations; what
would cost more is left out and named. Most follow Athalye et al. 2018 (section 3.1), Carlini et al. 2019 ("On
Evaluating Adversarial Robustness", section 3) and Pintor et al. 2022 ("Indicators of Attack Failure").
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial

from kerasrobust.errors import Cancelled, InputError
from kerasrobust.evaluation.case import FEW, FEWEST, MANY, Case, Check
from kerasrobust.evaluation.checks import binarization, black_box, gradients, images, model
from kerasrobust.evaluation.steered import can_be_steered, steered
from kerasrobust.events import Finding
from kerasrobust.networks.straight import straightened

IMAGES = 64
"""Images that checks with gradients look at, at most."""

CHECKS = (
    Check(("softmax-output",), 0, model.ends_in_softmax),
    Check(("input-range", "input-layout"), 0, model.input_conventions),
    Check(("at-chance", "class-order"), 0, lambda case: case.early),
    Check(("nan-logits",), 0, model.nan_logits),
    Check(("infinite-logits",), 0, model.infinite_logits),
    Check(("batch-dependence",), 0, model.batch_dependence),
    Check(("randomized",), 0, model.randomized),
    Check(("shared-noise",), 0, model.shared_noise),
    Check(("few-examples",), 0, images.few_examples),
    Check(("rounding",), 0, images.rounding),
    Check(("black-box-wins",), 0, black_box.black_box),
    Check(("zero-gradient", "nan-gradient", "saturated-loss"), 2, gradients.gradients),
    Check(("wrong-gradient",), 1, gradients.differences),
    Check(("one-step-wins", "loss-falls"), 1 + FEW + MANY, gradients.steps),
    Check(("radius-not-fatal",), MANY, gradients.large_radius),
)

FURTHER = ("masked-layers", "noise-free-wins", "attack-fails")
"""Codes of the checks that aren't made of every model."""


@dataclass
class Audit:
    """What the audit looked at.

    Attributes:
        findings: reasons to doubt the figures.
        checked: codes of the checks that ran.
        left_out: codes of those that would have cost too much, or had too few images.
        gradients: gradient evaluations spent.
    """

    findings: list[Finding] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    gradients: int = 0


def run_audit(case: Case) -> Audit:
    """Runs the checks that the budget allows.

    Raises:
        Cancelled: when `should_stop` says so.

    Example:
        >>> evaluation = evaluate(model, x, y)
        >>> [finding.code for finding in evaluation.audit.findings]
    """
    audit = Audit()
    checks = [*CHECKS]
    try:
        if case.straight is None and (straight := straightened(case.classifier, case.x, custom=True)) is not None:
            look = partial(gradients.masked_layers, straight=straight)
            checks.append(Check(("masked-layers",), 2 * MANY, look))
    except InputError:  # Its layers can't be taken apart.
        audit.left_out.append("masked-layers")
    if can_be_steered(case.classifier):
        quiet = steered(case.classifier, "off", case.x.shape[1:])
        checks.append(Check(("noise-free-wins",), MANY, partial(gradients.noise_free, quiet=quiet)))
    most = min(IMAGES, len(case.right))
    budget = case.budget
    # As many images for each check as all together can pay for; where that is too few, the cheap ones first.
    fair = budget // sum(check.cost for check in checks)
    for check in checks:
        if case.task.should_stop():
            raise Cancelled
        count = most
        if check.cost and not case.thorough:
            count = min(most, max(fair, FEWEST), (budget - audit.gradients) // check.cost)
        if check.cost and count < FEWEST:
            audit.left_out += check.codes
            continue
        audit.findings += check.look(replace(case, count=count))
        audit.checked += check.codes
        audit.gradients += check.cost * count
    if case.test_attack:
        _test_attack(case, audit)
    return audit


def _test_attack(case: Case, audit: Audit) -> None:
    """Adds what comes of the binarization test, where it can be done."""
    attack, left = binarization.attack_of(case), len(binarization.left_of(case))
    # It was asked for, so that it is told why there is none.
    if attack is None:
        audit.left_out.append("attack-fails")
        audit.findings += binarization.untested("an attack in a ball that follows the model's own gradients")
        return
    if left < FEWEST:
        audit.left_out.append("attack-fails")
        audit.findings += binarization.untested(f"{FEWEST} images that the attacks left, and {left} are: take more")
        return
    count = min(IMAGES, left)
    found = binarization.binarization(replace(case, count=count), attack)
    (audit.left_out if found is None else audit.checked).append("attack-fails")
    audit.findings += binarization.untested("points that a last layer can tell apart") if found is None else found
    audit.gradients += count * attack.step_count() * attack.run_count()

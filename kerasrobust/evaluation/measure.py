"""One classifier measured: attacks one after another, what there is to say of it, and the audit."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from kerasrobust.attacks import Attack, AttackResult
from kerasrobust.attacks.checkpoint import Checkpoints
from kerasrobust.attacks.task import Task
from kerasrobust.attacks.verdict import Verdict
from kerasrobust.errors import InputError
from kerasrobust.evaluation.audit import Audit, Case, run_audit
from kerasrobust.evaluation.autoattack import AutoAttack
from kerasrobust.evaluation.begun import ANEW, mark_of, marks_of
from kerasrobust.evaluation.chain import Chained, Part, part_of, run_chain, without_gradients
from kerasrobust.evaluation.checks.labels import at_chance, classes_missing
from kerasrobust.events import AttackProgress, Emit, Finding
from kerasrobust.networks.classifier import Classifier
from kerasrobust.runs import read_json, write_json
from kerasrobust.settings import radius

FORMAT = 7
"""Of the files of an unfinished evaluation."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a classifier is measured; the attributes are the arguments of `evaluate.evaluate`, the attacks made."""

    attacks: Sequence[Attack[Any] | AutoAttack]
    epsilon: float | str | None
    precision: str
    passes: int
    audit: bool
    thorough: bool
    test_attack: bool
    progress: Callable[[Attack[Any], AttackProgress], None] | None


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was found of a classifier, and what there is to say of that.

    Attributes:
        audit: what was looked at for the findings; None where it wasn't asked for.
    """

    found: Chained
    findings: list[Finding]
    audit: Audit | None


@dataclass(frozen=True)
class Measurement:
    """A classifier that is about to be measured.

    Attributes:
        task: what is attacked, in the arithmetic that was chosen.
        plan: how.
        parts: the attacks that can run.
        findings: what there is to say of them.
        checkpoints: where an unfinished measurement is kept.
        clean: the verdict on the unchanged images, once they have been judged.
        early: what that is enough to say.
    """

    task: Task
    plan: Plan
    parts: list[Part]
    findings: list[Finding]
    checkpoints: Checkpoints
    clean: Verdict | None = None
    early: list[Finding] = field(default_factory=list)

    @staticmethod
    def prepared(task: Task, plan: Plan, checkpoints: Checkpoints) -> Measurement:
        """Returns the measurement of a task.

        Raises:
            InputError: where the folder of checkpoints holds another one.
        """
        parts, blind = without_gradients(_parts(plan, task.classifier), task)
        versions = [item for item in plan.attacks if isinstance(item, AutoAttack)]
        findings = [note for item in versions for note in _about_version(task.classifier, item)] + blind
        task = task.settled([part.attack for part in parts])
        task = replace(task, precision=_agreed(checkpoints, task, parts, plan))
        return Measurement(task, plan, parts, findings, checkpoints)

    def begun(self, emit: Emit | None = None) -> Measurement:
        """Judges the unchanged images, and emits what that is enough to say: that a model is right by chance alone.

        Raises:
            Cancelled: when the task's `should_stop` says so.
        """
        clean = self.task.judge(self.task.x, 1)
        early = at_chance(self.task, clean) + classes_missing(self.task) if self.plan.audit else []
        if emit is not None:
            for finding in early:
                emit(finding)
        return replace(self, clean=clean, early=early)

    def run(self, known: Mapping[Attack[Any] | None, AttackResult] | None = None) -> Measured:
        """Runs the attacks and the audit; `known` is that of `run_chain`.

        Raises:
            Cancelled: when the task's `should_stop` says so.
        """
        task, plan = self.task, self.plan
        with task.classifier.unchanged():
            now = self if self.clean is not None else self.begun()
            found = run_chain(
                self.parts, task, clean=now.clean, checkpoints=self.checkpoints, progress=plan.progress, known=known
            )
            straight = next((part.straight for part in self.parts if part.straight is not None), None)
            case = Case(
                task=task, found=found, early=now.early, thorough=plan.thorough,
                test_attack=plan.test_attack, straight=straight,
            )  # fmt: skip
            # Its checks compare with what untargeted attacks on the model's own gradients find.
            plain = task.target is None and task.surrogate is None
            audit = run_audit(case) if plan.audit and plain else None
        unconfirmed = any(
            isinstance(item, AutoAttack) and item.version == "adaptive" and not item.confirm for item in plan.attacks
        )
        findings = (
            self.findings
            + (_left_out(self.parts, found) if unconfirmed else [])
            + _confirmed(self.parts, found)
            + (audit.findings if audit else now.early)
        )
        return Measured(found=found, findings=findings, audit=audit)


def _parts(plan: Plan, classifier: Classifier) -> list[Part]:
    """Returns the attacks that were asked for."""
    parts: list[Part] = []
    for item in plan.attacks:
        if isinstance(item, AutoAttack):
            parts += item.parts_of_chain(classifier)
        else:
            parts.append(part_of(item, radius(plan.epsilon, item.norm)))
    return parts


def _about_version(classifier: Classifier, attack: AutoAttack) -> list[Finding]:
    """Returns what there is to say about AutoAttack's version on a classifier."""
    found = []
    if classifier.randomized and not attack.attacks and attack.chosen(classifier) != "rand":
        found.append(
            Finding(
                code="standard-on-randomized",
                message=(
                    f"{classifier.name!r} answers differently from pass to pass, and the version {attack.version!r} is "
                    "for networks that don't: noise in its gradients may look like robustness. Use version 'rand'."
                ),
                severity="warning",
            )
        )
    # The version for randomized networks has no targeted loss.
    if not attack.attacks and classifier.classes <= (2 if attack.chosen(classifier) == "rand" else 3):
        which = "the targeted loss DLR" if classifier.classes == 3 else "the loss DLR"
        found.append(
            Finding(
                code="dlr-undefined",
                message=(
                    f"With {classifier.classes} classes {which} is undefined: APGD on the margin took its place. "
                    "Figures of other programs for so few classes may come from other losses."
                ),
                severity="info",
            )
        )
    return found


def _left_out(parts: Sequence[Part], found: Chained) -> list[Finding]:
    """Returns a finding of the images that the adaptive version has left out; none where it left none."""
    said, before = [], found.clean.correct_rate
    for part, report in zip(parts, found.reports, strict=True):
        left, count = int((before > 0).sum()), int(report.attacked.sum())
        if part.narrowed and count < left:
            queries = getattr(part.attack, "queries", None)
            label = part.attack.name + (f" with {queries:,} queries" if queries else "")
            said.append(f"{label} {count or 'none'} of {left}")
        before = report.rates
    if not said:
        return []
    return [
        Finding(
            code="adaptive-version",
            message=(
                f"This is AutoAttack's version 'adaptive', not 'standard'. Images attacked of those left: "
                f"{', '.join(said)}: the nearest to the boundary and some at random, and more until none fell, or none "
                "where fewer queries broke none. "
                "--confirm (in Python confirm=True) runs the whole of 'standard' on what is left."
            ),
            severity="info",
        )
    ]


def _confirmed(parts: Sequence[Part], found: Chained) -> list[Finding]:
    """Returns a finding of what the whole of `standard` found after the adaptive version; none where it didn't run."""
    if not any(part.confirming for part in parts):
        return []
    left, fallen = np.zeros(len(found.rates), bool), np.zeros(len(found.rates), bool)
    before = found.clean.correct_rate
    for part, report in zip(parts, found.reports, strict=True):
        if part.confirming:
            left |= before > 0
            fallen |= report.rates < before
        before = report.rates
    # A mean over passes is lower than another one by chance, too.
    counted = "" if len(found.clean.passes) > 1 else f", and broke {int(fallen.sum()) or 'no'} more"
    images = f"{left.sum()} image{'' if left.sum() == 1 else 's'}"
    said = f"The whole of 'standard' ran on the {images} that 'adaptive' had left{counted}."
    nothing = "The version 'adaptive' left no image, so that 'standard' had none to run on."
    return [Finding(code="adaptive-confirmed", message=said if left.any() else nothing, severity="info")]


def _agreed(checkpoints: Checkpoints, task: Task, parts: Sequence[Part], plan: Plan) -> str:
    """Returns the precision of the evaluation: that of its first start, where it is resumed and "auto" was asked for.

    Raises:
        InputError: where the folder holds batches of another model, other data, other settings or an older format.
    """
    if checkpoints.folder is None:
        return task.precision
    now = {
        "format": FORMAT,
        "seed": task.seed,
        "batch_size": task.batch_size,
        "passes": plan.passes,
        "attacks": [f"{part.attack.name} {part.attack.settings()}" for part in parts],
        "chain": [[part.chained, part.narrowed, part.radius] for part in parts],
        **marks_of(task),
    }
    if task.target is not None:
        now["target"] = zlib.crc32(task.target.tobytes())
    if task.surrogate is not None:
        now["surrogate"] = mark_of(task.surrogate, task)
    path = checkpoints.folder / "evaluation.json"
    before = read_json(path)
    if before is None:
        checkpoints.folder.mkdir(parents=True, exist_ok=True)
        write_json(path, now | {"precision": task.precision})
        return task.precision
    if before.get("format") != FORMAT:
        raise InputError(
            f"Expected an unfinished evaluation of this version in {checkpoints.folder}. Received: one that another "
            f"version of kerasrobust has begun. Finish it with that version, or {ANEW}"
        )
    chosen = str(before.get("precision", task.precision))
    # What only one of them has, as a target, is another one, too.
    other = [name for name in {**now, **before} if name != "precision" and before.get(name) != now.get(name)]
    other += ["precision"] if plan.precision not in ("auto", chosen) else []
    if other:
        raise InputError(
            f"Expected the evaluation that {checkpoints.folder} was begun with. Received: another in "
            f"{', '.join(other)}. Resume the same, or {ANEW}"
        )
    return chosen

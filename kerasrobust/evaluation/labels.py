"""Several labels an image: each attacked alone, and what that says of all of them together.

An image is right where all of its labels are. So whatever flips one label is an adversarial example for all together,
and the figure of these takes in what was found against each alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tensorflow as tf

from kerasrobust.attacks import Attack, AttackResult
from kerasrobust.attacks.driver import is_nearest
from kerasrobust.evaluation.audit import CHECKS, FURTHER, Audit
from kerasrobust.evaluation.chain import Chained, Part
from kerasrobust.evaluation.combining import combine, strongest
from kerasrobust.evaluation.measure import Measured, Measurement
from kerasrobust.events import Emit, Finding, LabelFinished, staged
from kerasrobust.networks.making import of_one_label
from kerasrobust.stats import accuracy_interval


@dataclass(frozen=True, kw_only=True)
class LabelReport:
    """What was found of one of several labels, attacked alone: a problem of two classes, no and yes.

    Attributes:
        name: the name of its class, or its number.
        share: of the images that have it: who always says the commoner is right as often as that.
        clean_accuracy: share of images for which it is right.
        clean_interval: its 95 % interval.
        robust_accuracy: the same under all attacks on this label.
        interval: its 95 % interval.
        per_example: float64 (N,), per example the share of fresh passes that are right under the worst attack.
        attacks: each attack's entry in `result.json`.
    """

    name: str
    share: float
    clean_accuracy: float
    clean_interval: tuple[float, float]
    robust_accuracy: float
    interval: tuple[float, float]
    per_example: np.ndarray
    attacks: list[dict[str, Any]]

    def entry(self) -> dict[str, Any]:
        """Returns the label's entry in `result.json`."""
        found = {name: value for name, value in vars(self).items() if name != "per_example"}
        return found | {"clean_interval": list(self.clean_interval), "interval": list(self.interval)}


@dataclass
class OfLabels:
    """What was found of the labels, one after another.

    Attributes:
        reports: one for each label.
        known: what each attack has found against any label, for `run_chain`.
        findings: by the label's name, what there is to say of it.
        audits: one for each label; none where it wasn't asked for.
    """

    reports: list[LabelReport] = field(default_factory=list)
    known: dict[Attack[Any] | None, AttackResult] = field(default_factory=dict)
    findings: dict[str, list[Finding]] = field(default_factory=dict)
    audits: list[Audit] = field(default_factory=list)

    def together(self, whole: Measurement) -> Measured:
        """Runs the measurement of all labels together, in a stage of its own; as it is where there are none.

        Returns:
            What was found, with the audits of all labels.
        """
        if not self.reports:
            return whole.run()
        task = whole.task
        with _stage(task.emit, "attack-all labels", f"Attacking all {len(self.reports)} labels together") as emit:
            measured = replace(whole, task=replace(task, emit=emit)).run(self.known)
        more, own = self._merged(measured.findings), measured.audit
        if own is None:
            return replace(measured, findings=measured.findings + more)
        looked = set.intersection(*(set(audit.checked) for audit in self.audits)) - set(own.checked)
        known = {code for check in CHECKS for code in check.codes} | set(FURTHER)
        audit = Audit(
            findings=own.findings + [finding for finding in more if finding.code in known],
            checked=own.checked + [code for code in own.left_out if code in looked],
            left_out=[code for code in own.left_out if code not in looked],
            gradients=own.gradients + sum(audit.gradients for audit in self.audits),
        )
        return replace(measured, findings=measured.findings + more, audit=audit)

    def _merged(self, said: Sequence[Finding]) -> list[Finding]:
        """Returns one finding for each code that isn't among those `said` of all labels together."""
        by_code: dict[str, dict[str, Finding]] = {}
        for name, found in self.findings.items():
            for finding in found:
                by_code.setdefault(finding.code, {}).setdefault(name, finding)
        merged = []
        for code, of in by_code.items():
            if code not in {finding.code for finding in said}:
                first, *more = of
                whose = f"Labels {', '.join(of)} (figures of {first})" if more else f"Label {first}"
                merged.append(replace(of[first], message=f"{whose}: {of[first].message}"))
        return merged


def measure_labels(whole: Measurement, names: Sequence[str]) -> OfLabels:
    """Attacks each label alone, in stages of their own, and emits what was found of it.

    Args:
        whole: the measurement of all labels together, whose arithmetic and settings are taken.
        names: of the labels.

    Raises:
        InputError: where a folder of checkpoints holds another measurement.
        Cancelled: when the task's `should_stop` says so.
    """
    task = whole.task
    # One classifier for all, whose graphs follow the variable: tracing takes longer than a short attack.
    chosen = tf.Variable(0, trainable=False, dtype=tf.int32)
    alone = of_one_label(task.classifier, chosen)
    found = OfLabels()
    for number, name in enumerate(names):
        chosen.assign(number)
        y = task.y >> number & 1
        title = f"Attacking label {name} alone ({number + 1} of {len(names)})"
        with _stage(task.emit, f"attack-label {name}", title) as emit:
            own = replace(task, classifier=alone, y=y, emit=emit)
            place = whole.checkpoints.inside(f"label-{number}")
            measurement = Measurement.prepared(own, whole.plan, place)
            measured = measurement.run()
            report = _report(name, y, measured, alone.randomized)
            if emit is not None:
                emit(LabelFinished(**{key: value for key, value in report.entry().items() if key != "attacks"}))
        found.reports.append(report)
        # With two classes another loss is a matter of course.
        found.findings[name] = [item for item in measured.findings if item.code != "dlr-undefined"]
        found.audits += [] if measured.audit is None else [measured.audit]
        for attack, result in _by_attack(measurement.parts, measured.found, task.x).items():
            before = found.known.get(attack)
            nearest = attack is not None and is_nearest(attack)
            found.known[attack] = result if before is None else strongest([before, result], nearest)
    return found


def _stage(emit: Emit | None, name: str, title: str) -> contextlib.AbstractContextManager[Emit | None]:
    """Returns the stage of a part of an evaluation; nothing where nobody listens."""
    return contextlib.nullcontext() if emit is None else staged(emit, name, title)


def _report(name: str, y: np.ndarray, measured: Measured, randomized: bool) -> LabelReport:
    found = measured.found
    return LabelReport(
        name=name,
        share=float(y.mean()),
        clean_accuracy=found.clean.accuracy,
        clean_interval=accuracy_interval(found.clean.correct_rate, randomized, found.clean.shared),
        robust_accuracy=float(found.rates.mean()),
        interval=accuracy_interval(found.rates, randomized, found.worst.shared),
        per_example=found.rates,
        attacks=[item.entry() for item in found.reports],
    )


def _by_attack(parts: Sequence[Part], found: Chained, x: np.ndarray) -> dict[Attack[Any] | None, AttackResult]:
    """Returns what each attack has found that ran by itself, and, with the key None, what the chained ones have."""
    single: dict[Attack[Any] | None, AttackResult] = {
        part.attack: item.result for part, item in zip(parts, found.reports, strict=True) if not part.chained
    }
    chained = [item for part, item in zip(parts, found.reports, strict=True) if part.chained]
    return single | ({None: combine(chained, x)[0]} if chained else {})

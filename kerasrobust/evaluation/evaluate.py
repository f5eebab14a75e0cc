"""Clean and robust accuracy with 95 % intervals, from attacks whose results were re-predicted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kerasrobust.attacks import Attack, AttackResult
from kerasrobust.attacks.checkpoint import Checkpoints
from kerasrobust.attacks.targets import aimed
from kerasrobust.attacks.task import PASSES, Task
from kerasrobust.evaluation import shown
from kerasrobust.evaluation.about import about_models
from kerasrobust.evaluation.asked import Radii, asked_for, one_radius
from kerasrobust.evaluation.audit import Audit
from kerasrobust.evaluation.autoattack import AutoAttack
from kerasrobust.evaluation.bars import Bars, is_watched
from kerasrobust.evaluation.chain import Chained
from kerasrobust.evaluation.labels import LabelReport, OfLabels, measure_labels
from kerasrobust.evaluation.measure import Measurement, Plan
from kerasrobust.evaluation.outcome import AttackReport, CurvePoint, Share
from kerasrobust.events import AttackProgress, Emit, Evaluated, Event, Finding, Log, as_doubt
from kerasrobust.networks.classifier import Classifier
from kerasrobust.show.figures import format_accuracy, format_count, format_interval
from kerasrobust.stats import accuracy_interval, pass_error
from kerasrobust.twins import meaning_of


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        clean_accuracy: share of images that are right (mean over fresh passes for a randomized network).
        clean_interval: its 95 % interval.
        robust_accuracy: the same under all attacks together: per example the attack that did worst to the model counts.
        interval: its 95 % interval.
        majority: the share of examples that most fresh passes get right under attack; the same as `robust_accuracy`
            where nothing is random, as is the next one.
        worst_case: the share of examples that every fresh pass gets right.
        per_example: float64 (N,), per example the share of fresh passes that are right under the worst attack; 0 or 1
            where nothing is random.
        worst: per example what the worst attack found; its examples, `worst.x_adv`, are those that were judged.
        by_attack: str (N,), the name of that attack.
        attacks: each attack's own report.
        randomized: whether the network's answers differ from pass to pass.
        precision: that of the gradients, "float32", "folded" or "bfloat16" (`twins.precision`); joined by commas where
            the attacks' differ.
        conventions: what was said or found out of the model, as `as_classifier` takes it; empty for one that takes
            images in [0, 1].
        findings: reasons to doubt the figures, each with a stable code, a sentence and figures (`evaluation.audit`).
        audit: what was looked at for that, and what it cost; None where it wasn't asked for.
        labels: where an image has several labels, or none: what was found of each alone. All else is of all labels
            together, where an image is right if all of them are.
        nearest: of several attacks for the nearest example in one norm, a report on the nearest example of each image
            that any of them has found: `outcome.curve(nearest[0].result)` is accuracy over epsilon.
        within: where there were several radii, the accuracy at 0 and within each, with intervals; `robust_accuracy` is
            that within the largest.
    """

    clean_accuracy: float
    clean_interval: tuple[float, float]
    robust_accuracy: float
    interval: tuple[float, float]
    majority: Share
    worst_case: Share
    per_example: np.ndarray
    worst: AttackResult
    by_attack: np.ndarray
    attacks: list[AttackReport]
    randomized: bool
    precision: str
    conventions: dict[str, Any]
    findings: list[Finding]
    audit: Audit | None
    labels: list[LabelReport] = field(default_factory=list)
    nearest: list[AttackReport] = field(default_factory=list)
    within: list[CurvePoint] = field(default_factory=list)

    def __repr__(self) -> str:
        """Returns the figures; the arrays would fill screens."""

        def share(accuracy: float, interval: tuple[float, float]) -> str:
            return f"{format_accuracy(accuracy)} ({format_interval(interval)} %)"

        parts = [
            f"clean accuracy {share(self.clean_accuracy, self.clean_interval)}",
            f"robust accuracy {share(self.robust_accuracy, self.interval)}",
            f"attacks {', '.join(dict.fromkeys(item.attack.name for item in self.attacks))}",
            f"examples {len(self.per_example)}",
            f"findings {', '.join(dict.fromkeys(finding.code for finding in self.findings)) or 'none'}",
        ]
        return f"Evaluation({'; '.join(parts)})"

    def _repr_html_(self) -> str:
        return shown.html(self.entry())

    def entry(self) -> dict[str, Any]:
        """Returns the figures and findings as `result.json` has them."""
        return {
            "precision": self.precision,
            "randomized": self.randomized,
            "conventions": self.conventions,
            "clean_accuracy": self.clean_accuracy,
            "clean_interval": list(self.clean_interval),
            "attacks": [item.entry() for item in self.attacks],
            **({"curves": curves} if (curves := self._curves()) else {}),
            "robust_accuracy": self.robust_accuracy,
            "interval": list(self.interval),
            "verdicts": self._verdicts(),
            **({"labels": [label.entry() for label in self.labels]} if self.labels else {}),
            "warnings": [as_doubt(finding) for finding in self.findings],
            "audit": self.audit and {name: getattr(self.audit, name) for name in ("checked", "left_out", "gradients")},
        }

    def _curves(self) -> list[dict[str, Any]]:
        """Returns the entries of what is a curve over the radius and no attack by itself."""
        curves = [item.entry() for item in self.nearest]
        if self.within:
            names = ", ".join(dict.fromkeys(item.attack.name for item in self.attacks))
            points = [list(point) for point in self.within]
            curves.append({"name": names, "norm": self.attacks[0].attack.threat(), "within": True, "curve": points})
        return curves

    def _verdicts(self) -> dict[str, Any] | None:
        """Returns the three verdicts on a randomized network; None for a deterministic one, where they are equal."""
        if not self.randomized:
            return None
        mean = Share(self.robust_accuracy, self.interval)
        shares = {"mean": mean, "majority": self.majority, "worst_case": self.worst_case}
        return {"passes": len(self.worst.passes)} | {
            name: {"accuracy": share.accuracy, "interval": list(share.interval)} for name, share in shares.items()
        }

    def to_pandas(self) -> Any:
        """Returns the figures as a table of pandas: a line without an attack, one for each, and one for all together.

        Returns:
            A `pandas.DataFrame` with the columns `attack`, `norm`, `epsilon`, `eot`, `accuracy`, `low`, `high`,
            `median_distance`, `gradients` and `forwards`; accuracies are shares in [0, 1].

        Raises:
            InputError: where pandas isn't installed.

        Example:
            >>> evaluate(model, x, y, attacks="autoattack").to_pandas()  # doctest: +SKIP
        """
        return shown.frame(self.entry())

    def plot(self) -> shown.Drawing:
        """Returns the accuracy over epsilon, or over queries, as a drawing that notebooks show; `save(path)` keeps it.

        Raises:
            InputError: where no attack looked for the nearest example or counted queries, so that there is no curve.

        Example:
            >>> evaluate(model, x, y, attacks="fmn").plot().save("curve.svg")  # doctest: +SKIP
        """
        return shown.drawing(self.entry())

    @property
    def warnings(self) -> list[tuple[str, str]]:
        """The findings as (code, message) pairs."""
        return [(finding.code, finding.message) for finding in self.findings]


def evaluate(
    model: Any,
    x: Any,
    y: Any = None,
    *,
    attacks: str | Attack[Any] | AutoAttack | Iterable[str | Attack[Any] | AutoAttack] = "pgd",
    norm: str | None = None,
    epsilon: Radii = None,
    eot: int | None = None,
    target: str | int | np.ndarray | None = None,
    surrogate: Any = None,
    seed: int = 0,
    precision: str = "auto",
    batch_size: int = 256,
    passes: int = PASSES,
    audit: bool = True,
    thorough: bool = False,
    test_attack: bool = False,
    resume_dir: Path | str | None = None,
    emit: Emit | None = None,
    progress: Callable[[Attack[Any], AttackProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    verbose: bool | None = None,
) -> Evaluation:
    """Measures clean accuracy, and robust accuracy under one attack or several.

    Against a model whose gradients don't reach the images only black-box attacks run: those that were asked for, or
    else Square and HopSkipJump. A finding says so.

    Args:
        model: Keras model, SavedModel network, callable giving logits (traced anew in each call), or the `Classifier`
            that `as_classifier` makes of one, whose graphs are used again.
        x: images (N, H, W, C), or (N, H, W) for grey ones: floating in [0, 1], or 8-bit, which is divided by 255; or,
            without `y`, what gives images with labels: a `tf.data.Dataset` of (image, label), batched or not, a
            `keras.utils.PyDataset`, another iterable of batches, or what `load_dataset` returns.
        y: class indices, (N,) or (N, 1), or one-hot, of any dtype that holds whole numbers; or 0 and 1 for several
            labels an image, (N, L), for a network of L sigmoids: each label is attacked alone, and all together.
        attacks: registered names or "autoattack", or attacks with settings of their own. Each runs on all examples; the
            parts of AutoAttack run on what is left by the part before.
        norm: of attacks that are given by name; without it Linf, or L2 for those that have no other. Attacks that no
            ball holds, as patches, take neither this nor `epsilon`.
        epsilon: of attacks that are given by name, a number or a text such as "8/255"; the radius at which minimum-norm
            attacks are read off. Without it the usual one of the norm: 8/255 in Linf, 0.5 in L2, 12 in L1, 24 values in
            L0. Or several radii: all attacks run within the smallest, then within the next on what is left, and so on
            (`AutoAttack.epsilons`), and `within` has the accuracy at each.
        eot: of attacks that are given by name; without it 1, and 20 for AutoAttack's version for randomized networks.
        target: makes the attacks targeted: the class that images are driven to instead of away from their own: "next"
            (the number after their own), "random" (any other), "least-likely" (of the lowest logit), a class for all
            but its own images, or one for each, integers (N,). `attacks[0].reached` says how many got there; there is
            no audit.
        surrogate: a model of the same images and classes whose gradients the attacks take instead of the model's own
            (transfer). The verdicts are the model's, which may then be one without gradients. There is no audit.
        seed: of everything random; equal seeds give equal results.
        precision: of the attacks' gradients.
        batch_size: images at once.
        passes: fresh passes that judge each example of a randomized network.
        audit: look for reasons to doubt the figures, at a tenth of the attacks' gradient evaluations at most.
        thorough: let the audit spend what each of its checks needs instead.
        test_attack: let the audit also test the first attack that follows gradients on images that it has left: for
            each the last layer is made anew, so that an adversarial example is known to be there (binarization test). A
            second an image, of 64 at most.
        resume_dir: a folder where finished batches are saved: an evaluation that was killed and is called again with
            the same arguments resumes where it was, and ends with the same result. One evaluation at a time.
        emit: takes events: whether the model is right by chance alone; each attack's start, progress and result; then
            the other findings, and what there is to say of them.
        progress: called with the attack and an `AttackProgress` a few times a second.
        should_stop: asked about every half second.
        verbose: print a bar for each attack, and the reasons for doubt; without it where somebody sees that, in a
            terminal or a notebook, and neither `emit` nor `progress` is given.

    Raises:
        InputError: for images, labels or settings that don't fit, a surrogate of other images or classes or of attacks
            that take no gradients, or a folder of another evaluation.
        Cancelled: when `should_stop` says so.

    Example:
        >>> evaluation = evaluate(model, x, y, attacks="autoattack", epsilon=8 / 255)
        >>> evaluation.robust_accuracy, evaluation.interval, evaluation.warnings
        >>> evaluate(model, tf.data.Dataset.from_tensor_slices((x, y))).clean_accuracy
    """
    emit = _shown(emit, progress, verbose)
    task = aimed(Task.checked(
        model, x, y, precision=precision, seed=seed, batch_size=batch_size, passes=passes,
        surrogate=surrogate, emit=emit, should_stop=should_stop,
    ), target)  # fmt: skip
    classifier, randomized = task.classifier, task.classifier.randomized
    plan = Plan(
        attacks=asked_for(attacks, norm, epsilon, eot, target is not None), epsilon=one_radius(epsilon),
        precision=precision, passes=passes, audit=audit, thorough=thorough, test_attack=test_attack, progress=progress,
    )  # fmt: skip
    checkpoints = Checkpoints(None if resume_dir is None else Path(resume_dir))
    with checkpoints.held():
        whole = Measurement.prepared(task, plan, checkpoints).begun(emit)
        labels = OfLabels() if classifier.labels is None else measure_labels(whole, _names(x, classifier.labels.count))
        measured = labels.together(whole)
    found = measured.found
    findings = about_models(task) + measured.findings
    evaluation = Evaluation(
        clean_accuracy=found.clean.accuracy,
        clean_interval=accuracy_interval(found.clean.correct_rate, randomized, found.clean.shared),
        robust_accuracy=float(found.rates.mean()),
        interval=accuracy_interval(found.rates, randomized, found.worst.shared),
        majority=_share(found, task.y, lambda rates: rates > 0.5, randomized),
        worst_case=_share(found, task.y, lambda rates: rates == 1, randomized),
        per_example=found.rates,
        worst=found.worst,
        by_attack=found.by_attack,
        attacks=found.reports,
        randomized=randomized,
        precision=", ".join(dict.fromkeys(item.result.precision for item in found.reports)),
        conventions=classifier.conventions.said() | ({"outputs": "multi-label"} if classifier.labels else {}),
        findings=findings,
        audit=measured.audit, labels=labels.reports, nearest=found.nearest, within=found.within,
    )  # fmt: skip
    _conclude(emit, task.source, evaluation, [item for item in findings if item not in whole.early])
    return evaluation


def _shown(emit: Emit | None, progress: Any, verbose: bool | None) -> Emit | None:
    """Returns what takes the events: who asked for them, or bars, or both."""
    if not (verbose or (verbose is None and emit is None and progress is None and is_watched())):
        return emit
    bars = Bars()

    def both(event: Event) -> None:
        bars(event)
        if emit is not None:
            emit(event)

    return both


def _names(data: Any, count: int) -> list[str]:
    """Returns the names of labels: those of the classes of a `Dataset`, where that was given, or else their numbers."""
    names = list(getattr(data, "class_names", ()))
    return names if len(names) == count else [str(number) for number in range(count)]


def _share(found: Chained, y: np.ndarray, deciding: Callable[[np.ndarray], np.ndarray], randomized: bool) -> Share:
    """Returns the share of examples that a verdict over passes, `deciding`, calls right."""
    rates = deciding(found.rates).astype(np.float64)
    shared = 0.0
    if found.worst.shared:
        # An example further away than the radius is judged by the passes over the unchanged image.
        inside = found.worst.correct_rate == found.rates
        shared = pass_error(np.where(inside, found.worst.passes, found.clean.passes) == y, deciding)
    return Share(float(rates.mean()), accuracy_interval(rates, randomized, shared))


def _conclude(emit: Emit | None, classifier: Classifier, found: Evaluation, findings: Sequence[Finding]) -> None:
    """Emits the accuracies, in which arithmetic gradients were computed, the findings, and what the audit has looked
    at; nothing where nobody listens.
    """
    if emit is None:
        return
    reports, audit = found.attacks, found.audit
    emit(Evaluated(
        clean_accuracy=found.clean_accuracy, clean_interval=list(found.clean_interval),
        robust_accuracy=found.robust_accuracy, interval=list(found.interval),
    ))  # fmt: skip
    if any(report.result.gradients for report in reports):
        for word in dict.fromkeys(report.result.precision for report in reports):
            own = [report.attack.name for report in reports if report.result.precision == word]
            names = ", ".join(dict.fromkeys(own))
            whose = "The attacks' gradients" if len(own) == len(reports) else f"The gradients of {names}"
            emit(Log(level="info", message=f"{whose} were computed {meaning_of(word, classifier)}."))
    for finding in findings:
        emit(finding)
    if audit is not None:
        some = f"{len(audit.findings)} found" if audit.findings else "nothing found"
        left = ", ".join(audit.left_out)
        rest = f"; not looked for: {left}" if left else ""
        message = f"Audit: {format_count(len(audit.checked), 'reason')} for doubt looked for, {some}{rest}."
        emit(Log(level="info", message=message))

"""Clean and robust accuracy with 95 % intervals, from attacks whose results were re-predicted."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from kerasrobust.attacks import ATTACKS, Attack, AttackResult, Step, make_attack
from kerasrobust.attacks.base import PASSES
from kerasrobust.attacks.checkpoint import Memory
from kerasrobust.attacks.verdict import Verdict, check_sizes, judge, predict
from kerasrobust.errors import InputError
from kerasrobust.evaluation.audit import Audit, Case, run_audit
from kerasrobust.evaluation.autoattack import AutoAttack
from kerasrobust.evaluation.outcome import AttackReport, Share, combine, judged, report
from kerasrobust.events import Finding
from kerasrobust.networks.classifier import Classifier, check_images, classifier_of, has_gradient
from kerasrobust.runs import read_json, write_json
from kerasrobust.stats import accuracy_interval
from kerasrobust.twins import chosen_precision

PROBES = 16
"""Images on which it is tried whether gradients reach them."""


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
        findings: reasons to doubt the figures, each with a stable code, a sentence and figures (`evaluation.audit`).
        audit: what was looked at for that, and what it cost; None where it wasn't asked for.
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
    findings: list[Finding]
    audit: Audit | None

    @property
    def warnings(self) -> list[tuple[str, str]]:
        """The findings as (code, message) pairs."""
        return [(finding.code, finding.message) for finding in self.findings]


def evaluate(
    model: Any,
    x: np.ndarray,
    y: np.ndarray,
    *,
    attacks: str | Attack | AutoAttack | Iterable[str | Attack | AutoAttack] = "pgd",
    norm: str = "linf",
    epsilon: float = 8 / 255,
    eot: int | None = None,
    seed: int = 0,
    precision: str = "auto",
    batch_size: int = 256,
    passes: int = PASSES,
    audit: bool = True,
    thorough: bool = False,
    resume_dir: Path | str | None = None,
    started: Callable[[Attack], None] | None = None,
    progress: Callable[[Attack, Step], None] | None = None,
    finished: Callable[[AttackReport], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Evaluation:
    """Measures clean accuracy, and robust accuracy under one attack or several.

    Against a model whose gradients don't reach the images only black-box attacks run: those that were asked for, or
    else Square and HopSkipJump. A finding says so.

    Args:
        model: Keras model, SavedModel network, callable giving logits (traced anew in each call), or the `Classifier`
            that `as_classifier` makes of one, whose graphs are used again.
        x: float32 (N, H, W, C) in [0, 1].
        y: integers (N,).
        attacks: registered names or "autoattack", or attacks with settings of their own. Each runs on all examples; the
            parts of AutoAttack run on what is left by the part before.
        norm: of attacks that are given by name.
        epsilon: of attacks that are given by name; the radius at which minimum-norm attacks are read off.
        eot: of attacks that are given by name; without it 1, and 20 for AutoAttack's version for randomized networks.
        seed: of everything random; equal seeds give equal results.
        precision: of the attacks' gradients.
        batch_size: images at once.
        passes: fresh passes that judge each example of a randomized network.
        audit: look for reasons to doubt the figures, at a tenth of the attacks' gradient evaluations at most.
        thorough: let the audit spend what each of its checks needs instead.
        resume_dir: a folder where finished batches are kept: an evaluation that was killed and is called again with the
            same arguments goes on where it was, and ends with the same result.
        started: called with each attack before it runs.
        progress: called with the attack and a `Step` about every half second.
        finished: called with each attack's report.
        should_stop: asked about every half second.

    Raises:
        InputError: for images, labels or settings that don't fit, or a folder of another evaluation.
        Cancelled: when `should_stop` says so.

    Example:
        >>> evaluation = evaluate(model, x, y, attacks="autoattack", epsilon=8 / 255)
        >>> evaluation.robust_accuracy, evaluation.interval, evaluation.warnings
    """
    classifier = classifier_of(model, image_shape=np.shape(x)[1:] if np.ndim(x) == 4 else None)
    x, y = check_images(classifier, x, y)
    check_sizes(batch_size, passes)
    chosen = [attacks] if isinstance(attacks, str | Attack | AutoAttack) else list(attacks)
    if not chosen:
        raise InputError("Expected at least one attack. Received: none. Try 'pgd'.")
    made = [_made(item, norm, epsilon, eot) for item in chosen]
    findings = [Finding(code=code, message=text, severity="warning") for code, text in classifier.warnings]
    plan = _plan(classifier, x, made, epsilon, findings)
    memory = Memory(None if resume_dir is None else Path(resume_dir))
    settings = {"seed": seed, "batch_size": batch_size, "passes": passes}
    precision = _agreed(memory, classifier, x, y, [part.attack for part in plan], settings, precision)
    stop = should_stop or (lambda: False)

    def verdict(images: np.ndarray, use: int) -> Verdict:
        count = passes if classifier.randomized else 1
        return judge(
            classifier, images, y, passes=count, seed=[seed, use], batch_size=batch_size, should_stop=stop
        )  # fmt: skip

    clean = verdict(x, 1)
    reports: list[AttackReport] = []
    left = clean.correct_rate
    for number, (attack, chained, radius) in enumerate(plan):
        if started:
            started(attack)
        only = left > 0 if chained else np.ones(len(x), bool)
        result = attack(
            classifier,
            x,
            y,
            seed=seed,
            precision=precision,
            batch_size=batch_size,
            progress=None if progress is None else partial(progress, attack),
            should_stop=should_stop,
            passes=passes,
            clean=clean,
            only=only,
            memory=memory.inside(f"{number}-{attack.name}"),
        )
        found = report(attack, result, radius, classifier.randomized, only, left)
        left = np.minimum(left, found.rates) if chained else left
        reports.append(found)
        if finished:
            finished(found)
    worst, names = combine(reports, x)
    if classifier.randomized and len(reports) > 1:
        # The lowest of several noisy rates is biased low, so the worst example of each is judged on fresh passes.
        worst = judged(worst, verdict(worst.x_adv, 3))
        rates = worst.correct_rate
    else:
        rates = np.min([item.rates for item in reports], axis=0)
    audited = None
    if audit:
        case = Case(
            classifier=classifier, x=x, y=y, clean=clean, reports=reports, worst=worst, rates=rates, seed=seed,
            batch_size=batch_size, should_stop=stop, thorough=thorough,
        )  # fmt: skip
        audited = run_audit(case)
        findings += audited.findings
    return Evaluation(
        clean_accuracy=clean.accuracy,
        clean_interval=accuracy_interval(clean.correct_rate, classifier.randomized),
        robust_accuracy=float(rates.mean()),
        interval=accuracy_interval(rates, classifier.randomized),
        majority=_share(rates > 0.5, classifier.randomized),
        worst_case=_share(rates == 1, classifier.randomized),
        per_example=rates,
        worst=worst,
        by_attack=names,
        attacks=reports,
        randomized=classifier.randomized,
        precision=", ".join(dict.fromkeys(item.result.precision for item in reports)),
        findings=findings,
        audit=audited,
    )


class Part(NamedTuple):
    """An attack of an evaluation.

    Attributes:
        attack: what runs.
        chained: whether it runs only on what those before it have left.
        radius: at which robust accuracy is read off.
    """

    attack: Attack
    chained: bool
    radius: float


def _share(right: np.ndarray, randomized: bool) -> Share:
    rates = right.astype(np.float64)
    return Share(float(rates.mean()), accuracy_interval(rates, randomized))


def _made(item: str | Attack | AutoAttack, norm: str, epsilon: float, eot: int | None) -> Attack | AutoAttack:
    if not isinstance(item, str):
        return item
    if item == AutoAttack.name:
        return AutoAttack(norm=norm, epsilon=epsilon, eot=eot)  # type: ignore[arg-type]
    return make_attack(item, epsilon=epsilon, norm=norm, eot=eot or 1)


def _plan(
    classifier: Classifier,
    x: np.ndarray,
    made: Sequence[Attack | AutoAttack],
    epsilon: float,
    findings: list[Finding],
) -> list[Part]:
    """Returns the attacks that run."""
    plan: list[Part] = []

    def add(attack: Attack, chained: bool, epsilon: float) -> None:
        radius = attack.radius()
        plan.append(Part(attack, chained, epsilon if radius is None else radius))

    for item in made:
        if isinstance(item, AutoAttack):
            for attack in item.parts(classifier):
                add(attack, True, item.epsilon)
            findings += _about_version(classifier, item)
        else:
            add(item, False, epsilon)
    some = x[:PROBES]
    if all(part.attack.gradient_free for part in plan) or has_gradient(classifier, some):
        return plan
    logits = predict(classifier, some)
    # Equal rows of a product may differ by rounding, as cores share them out by who is free.
    if len(some) > 1 and np.ptp(logits, axis=0).max() <= 1e-6 * max(1.0, np.abs(logits).max()):
        # A network that says the same of every image hides no gradient: it has none, and no attack can change its mind.
        return plan
    blind = [part for part in plan if not part.attack.gradient_free]
    plan = [part for part in plan if part.attack.gradient_free]
    there, norm, radius = [part.attack.name for part in plan], blind[0].attack.norm, blind[0].radius
    for name in ("square", "hopskipjump"):
        if name not in there and norm in ATTACKS[name].norms:
            add(make_attack(name, norm=norm, epsilon=radius, eot=blind[0].attack.eot), True, radius)
    names = ", ".join(part.attack.name for part in plan)
    findings.append(
        Finding(
            code="black-box-only",
            message=(
                f"No gradient of {classifier.name!r} reaches the images, so only black-box attacks ran ({names}). "
                "Attacks on the gradients would find more: take the robust accuracy as a bound from above."
            ),
            severity="warning",
        )
    )
    return plan


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
    if classifier.classes <= 3 and not attack.attacks:
        found.append(
            Finding(
                code="dlr-undefined",
                message=(
                    f"With {classifier.classes} classes the loss DLR is undefined: APGD on the margin took its place. "
                    "Figures of other programs for so few classes may come from other losses."
                ),
                severity="info",
            )
        )
    return found


def _agreed(
    memory: Memory,
    classifier: Classifier,
    x: np.ndarray,
    y: np.ndarray,
    attacks: Sequence[Attack],
    settings: dict[str, Any],
    precision: str,
) -> str:
    """Returns the precision of the evaluation: that of its first start, where it goes on.

    Raises:
        InputError: where the folder holds batches of another model, other data or other settings.
    """
    precision = chosen_precision(classifier, precision, x)
    if memory.folder is None:
        return precision
    # Not Keras' `variables`, among which are the states of random generators.
    variables = getattr(classifier.model, "weights", getattr(classifier.model, "variables", ()))
    parts = [np.asarray(variable) for variable in variables]
    if classifier.repeats:  # A function's only mark is what it says.
        key = tf.constant([0, 6]) if classifier.seedable else None
        parts.append(predict(classifier, x[:PROBES], batch_size=settings["batch_size"], key=key))
    now = settings | {
        "attacks": [f"{attack.name} {attack.settings()}" for attack in attacks],
        "model": zlib.crc32(b"".join(part.tobytes() for part in parts)),
        "data": zlib.crc32(y.tobytes(), zlib.crc32(x.tobytes())),
    }
    path = memory.folder / "evaluation.json"
    before = read_json(path)
    if before is None:
        memory.folder.mkdir(parents=True, exist_ok=True)
        write_json(path, now | {"precision": precision})
        return precision
    other = [name for name in now if before.get(name) != now[name]]
    if other:
        raise InputError(
            f"Expected the evaluation that {memory.folder} was begun with. Received: another in {', '.join(other)}. "
            "Go on with the same, or begin anew: by another --name, by --overwrite, or in an empty folder."
        )
    return str(before.get("precision", precision))

"""Is this number to be believed? The checks that say no, each with a stable code.

They run with every evaluation, on a few of its images, and spend at most a tenth of its gradient evaluations; what
would cost more is left out and named. Most follow Athalye et al. 2018 (section 3.1), Carlini et al. 2019 ("On
Evaluating Adversarial Robustness", section 3) and Pintor et al. 2022 ("Indicators of Attack Failure").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import keras
import numpy as np
import tensorflow as tf

from kerasrobust.attacks import FGSM, PGD, Attack, AttackResult, make_attack
from kerasrobust.attacks.verdict import Verdict, judge, predict
from kerasrobust.errors import Cancelled
from kerasrobust.evaluation.outcome import AttackReport
from kerasrobust.events import Finding, Severity
from kerasrobust.networks.classifier import Classifier
from kerasrobust.ops import losses
from kerasrobust.ops.tracing import Traced
from kerasrobust.stats import mcnemar

SHARE = 0.1
"""Gradient evaluations of the audit, as a share of those of the attacks."""
IMAGES = 64
"""Images that checks with gradients look at, at most."""
FORWARD_IMAGES = 256
"""The same for checks with predictions only."""
FEWEST = 8
"""Images below which a check says nothing."""
MANY, FEW = 10, 3
"""PGD steps of the checks that compare numbers of steps."""
QUERIES = 300


@dataclass(frozen=True, kw_only=True)
class Case:
    """An evaluation as the audit sees it.

    Attributes:
        classifier: the model.
        x: float32 (N, H, W, C) in [0, 1].
        y: int64 (N,).
        clean: the verdict on the unchanged images.
        reports: of the attacks that ran.
        worst: per example what they found.
        rates: float64 (N,), per example the share of passes that are right under attack.
        seed: of the checks' own attacks.
        batch_size: images at once.
        should_stop: asked between checks; where it says True, `Cancelled` is raised.
        thorough: whether to spend what every check needs, whatever the attacks have spent.
    """

    classifier: Classifier
    x: np.ndarray
    y: np.ndarray
    clean: Verdict
    reports: list[AttackReport]
    worst: AttackResult
    rates: np.ndarray
    seed: int = 0
    batch_size: int = 256
    should_stop: Callable[[], bool] = lambda: False
    thorough: bool = False

    @property
    def norm(self) -> str:
        return self.reports[0].attack.norm if self.reports else "linf"

    @property
    def epsilon(self) -> float:
        return self.reports[0].epsilon if self.reports else 8 / 255

    @property
    def budget(self) -> int:
        """Gradient evaluations that the audit may spend."""
        return int(SHARE * sum(report.result.gradients for report in self.reports))

    @cached_property
    def right(self) -> np.ndarray:
        """Which images the model has right, int64 (R,)."""
        return np.flatnonzero(self.clean.correct_rate > 0.5)

    def attack(self, attack: Attack, count: int) -> AttackResult:
        """Attacks the first images that the model has right, every one to the end."""
        chosen = self.right[:count]
        return attack(
            self.classifier,
            self.x[chosen],
            self.y[chosen],
            seed=self.seed,
            precision="float32",
            batch_size=self.batch_size,
            passes=5,
            early_stop=False,
            should_stop=self.should_stop,
        )

    def pgd(self, epsilon: float, steps: int, count: int) -> AttackResult:
        """Attacks with PGD to its last iterate, whose loss tells more than the best one's."""
        norm = self.norm if self.norm in PGD.norms else "linf"
        return self.attack(PGD(norm=norm, epsilon=epsilon, steps=steps, keep_best=False), count)


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


@dataclass(frozen=True)
class Check:
    """A check: the codes it may find, gradient evaluations per image, and what does it (on so many images)."""

    codes: tuple[str, ...]
    cost: int
    run: Callable[[Case, int], list[Finding]]


def run_audit(case: Case) -> Audit:
    """Runs the checks that the budget allows.

    Raises:
        Cancelled: when `should_stop` says so.

    Example:
        >>> evaluation = evaluate(model, x, y)
        >>> [finding.code for finding in evaluation.audit.findings]
    """
    audit = Audit()
    most = min(IMAGES, len(case.right))
    budget = case.budget
    # As many images for each check as all together can pay for; where that is too few, the cheap ones first.
    fair = budget // sum(check.cost for check in CHECKS)
    for check in CHECKS:
        if case.should_stop():
            raise Cancelled
        count = most
        if check.cost and not case.thorough:
            count = min(most, max(fair, FEWEST), (budget - audit.gradients) // check.cost)
        if check.cost and count < FEWEST:
            audit.left_out += check.codes
            continue
        audit.findings += check.run(case, count)
        audit.checked += check.codes
        audit.gradients += check.cost * count
    return audit


def _finding(code: str, message: str, severity: Severity = "warning", **evidence: float) -> list[Finding]:
    figures = {name: float(value) for name, value in evidence.items()}
    return [Finding(code=code, message=message, severity=severity, evidence=figures)]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _softmax(case: Case, count: int) -> list[Finding]:
    """A Keras model that ends in softmax is attacked before it; others were found by the classifier's probe."""
    model = case.classifier.model
    if not isinstance(model, keras.Model) or any(code == "softmax-output" for code, _ in case.classifier.warnings):
        return []
    outputs = tf.nest.flatten(model(case.x[:FEWEST], training=False))[0].numpy()
    if (outputs < 0).any() or (abs(outputs.sum(axis=-1) - 1) > 1e-3).any():
        return []
    return _finding(
        "softmax-output",
        f"{case.classifier.name!r} gives probabilities. It was attacked through the logits before its softmax; other "
        "programs may not see those, and find it stronger than it is. Return logits.",
        "info",
    )


def _input(case: Case, count: int) -> list[Finding]:
    """Whether the model does much better on the same images in another range or layout."""
    x, y = case.x[:FORWARD_IMAGES], case.y[:FORWARD_IMAGES]
    channels = x.shape[-1]
    mean, spread = x.mean(axis=(0, 1, 2)), x.std(axis=(0, 1, 2)) + 1e-6
    others = {
        "input-range": {"[0, 255]": x * 255, "[-1, 1]": 2 * x - 1, "standardised channels": (x - mean) / spread},
        "input-layout": {"the order of channels reversed": x[..., ::-1]} if channels == 3 else {},
    }
    if x.shape[1] == x.shape[2]:
        others["input-layout"]["height and width exchanged"] = x.transpose(0, 2, 1, 3)
    right = _right(case, x, y)
    found = []
    for code, transforms in others.items():
        scores = {name: _right(case, changed, y) for name, changed in transforms.items()}
        if not scores:
            continue
        name = max(scores, key=lambda name: scores[name].mean())
        better = scores[name]
        gain = better.mean() - right.mean()
        if gain > 0.1 and mcnemar(int((better & ~right).sum()), int((right & ~better).sum())) < 1e-3:
            found += _finding(
                code,
                f"The model is right on {_percent(better.mean())} of {len(y)} images with {name}, and on "
                f"{_percent(right.mean())} as they are, in [0, 1]: it was probably trained on the former. Put the "
                "conversion into the model, as its first layer.",
                "error",
                accuracy=right.mean(), accuracy_otherwise=better.mean(),
            )  # fmt: skip
    return found


def _right(case: Case, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    try:
        logits = predict(case.classifier, x.astype(np.float32), batch_size=min(case.batch_size, len(case.x)))
    except tf.errors.OpError:  # A model may refuse such values, and then it wasn't trained on them.
        return np.zeros(len(y), bool)
    return logits.argmax(axis=1) == y


def _batch(case: Case, count: int) -> list[Finding]:
    """Whether an image's logits depend on the other images of its batch, as with BatchNorm in training mode."""
    classifier = case.classifier
    if len(case.x) < 2 or not classifier.repeats:
        return []
    half = FEWEST // 2
    first = np.resize(np.arange(len(case.x)), FEWEST)
    second = np.concatenate([first[:half], np.resize(np.arange(len(case.x))[::-1], half)])
    key = tf.constant([0, 1]) if classifier.randomized else None
    together, apart = (classifier.run(case.x[places], key)[:half] for places in (first, second))
    gap = float(abs(together - apart).max())
    if gap <= 1e-3 * max(1.0, float(abs(together).max())):
        return []
    return _finding(
        "batch-dependence",
        f"The logits of an image change by up to {gap:.3g} with the other images of its batch: BatchNormalization in "
        "training mode, or something like it. Predictions then depend on what is attacked beside them. Call the model "
        "with training=False.",
        "error",
        change=gap,
    )


def _randomized(case: Case, count: int) -> list[Finding]:
    if not case.classifier.randomized:
        return []
    wrong = [report.attack.name for report in case.reports if report.attack.eot == 1]
    advice = (
        f"The gradients of {', '.join(wrong)} were not averaged: give eot=20, or AutoAttack's version 'rand'."
        if wrong
        else "The figure is a mean over fresh passes; the command 'randomness' tells whether noise defends anything."
    )
    share = float((case.clean.passes != case.clean.passes[0]).any(axis=0).mean())
    return _finding(
        "randomized",
        f"Answers differ from pass to pass: on {_percent(share)} of the unchanged images the class does. {advice}",
        "warning" if wrong else "info",
        images_that_differ=share, passes=len(case.clean.passes),
    )  # fmt: skip


def _few(case: Case, count: int) -> list[Finding]:
    from kerasrobust.stats import accuracy_interval

    low, high = accuracy_interval(case.rates, case.classifier.randomized)
    if high - low <= 0.2:
        return []
    wanted = int(np.ceil(len(case.y) * ((high - low) / 0.06) ** 2 / 100) * 100)
    return _finding(
        "few-examples",
        f"With {len(case.y)} images the robust accuracy is known to {100 * (high - low):.0f} points only "
        f"({100 * low:.1f}-{100 * high:.1f} %): no difference smaller than that can be claimed. About {wanted:,} "
        "images give three points either way.",
        "info",
        examples=len(case.y), low=low, high=high,
    )  # fmt: skip


def _rounding(case: Case, count: int) -> list[Finding]:
    """Whether the examples survive being stored as 8-bit images."""
    moved = np.flatnonzero((case.rates < 0.5) & (case.clean.correct_rate > 0.5) & (case.worst.correct_rate < 0.5))
    moved = moved[:FORWARD_IMAGES]
    if len(moved) < FEWEST:
        return []
    rounded = np.round(case.worst.x_adv[moved] * 255) / np.float32(255)
    verdict = judge(
        case.classifier, rounded.astype(np.float32), case.y[moved], passes=len(case.worst.passes),
        seed=[case.seed, 4], batch_size=min(case.batch_size, len(case.x)),
    )  # fmt: skip
    undone = float((~verdict.wrong).mean())
    expected = float((case.worst.correct_rate[moved] > 0.5).mean())
    if undone - expected <= 0.05 or (undone - expected) * len(moved) < 4:
        return []
    return _finding(
        "rounding",
        f"Rounded to 8 bits, {_percent(undone)} of {len(moved)} adversarial examples are classified correctly again: "
        "they don't exist as image files. Minimum-norm attacks stop that close to the boundary; report distances "
        "with that in mind, or attack with a larger epsilon.",
        "info" if all(report.attack.minimum_norm for report in case.reports) else "warning",
        undone=undone, examples=len(moved),
    )  # fmt: skip


def _gradients(case: Case, count: int) -> list[Finding]:
    """Whether gradients are there: of the loss, and of the margin, which can't saturate."""
    classifier, chosen = case.classifier, case.right[:count]
    x, y = tf.constant(case.x[chosen]), tf.constant(case.y[chosen])
    key = tf.constant([0, 3]) if classifier.seedable else None

    def slopes(x: tf.Tensor, y: tf.Tensor) -> list[tf.Tensor]:
        found = []
        for loss in (losses.cross_entropy, losses.margin):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(x)
                total = tf.reduce_sum(loss(classifier(x, key), y))
            found.append(tape.gradient(total, x, unconnected_gradients=tf.UnconnectedGradients.ZERO))
        return found

    try:
        slope, plain = (found.numpy().reshape(count, -1) for found in Traced(slopes)(x, y))
    except LookupError:  # TensorFlow's answer where an operation has no gradient registered.
        slope = plain = np.zeros((count, 1), np.float32)
    bad = float((~np.isfinite(slope)).any(axis=1).mean())
    sizes, plain_sizes = (np.abs(np.nan_to_num(found)).max(axis=1) for found in (slope, plain))
    flat = float((plain_sizes == 0).mean())
    saturated = float(((plain_sizes > 0) & (sizes <= 1e-10 * plain_sizes)).mean())
    found = []
    if bad > 0:
        found += _finding(
            "nan-gradient",
            f"Gradients hold NaN or infinities for {_percent(bad)} of {count} images. Attacks take them as 0 there and "
            "go blind. Look for square roots and divisions at 0 in the model.",
            share=bad,
        )
    if flat > 0.1:
        found += _finding(
            "zero-gradient",
            f"For {_percent(flat)} of {count} images the gradient is exactly 0: something in the model (rounding, "
            "thresholds, a stopped gradient) hides it, and gradient attacks are blind. Replace its gradient by the "
            "identity (BPDA), or trust black-box attacks only.",
            "error",
            share=flat,
        )
    if saturated > 0.1:
        found += _finding(
            "saturated-loss",
            f"For {_percent(saturated)} of {count} images the cross-entropy has no gradient, though the logits have: "
            "they are so large that softmax rounds to 0 and 1. Attack with a loss that scaling doesn't change: "
            "AutoAttack, or apgd-t.",
            "error",
            share=saturated,
        )
    return found


def _steps(case: Case, count: int) -> list[Finding]:
    """One step against many; the loss after few steps and after many."""
    one = case.attack(FGSM(norm=_white(case), epsilon=case.epsilon), count)  # type: ignore[arg-type]
    few, many = (case.pgd(case.epsilon, steps, count) for steps in (FEW, MANY))
    found = []
    only_one, only_many = int((one.success & ~many.success).sum()), int((many.success & ~one.success).sum())
    if only_one - only_many >= 3 and mcnemar(only_one, only_many) < 0.01:
        found += _finding(
            "one-step-wins",
            f"Of {count} images FGSM breaks {_percent(one.success.mean())} and PGD with {MANY} steps "
            f"{_percent(many.success.mean())}. Many steps should never do worse than one: gradients are masked. "
            "Attack with AutoAttack, whose Square doesn't need them.",
            "error",
            one_step=one.success.mean(), many_steps=many.success.mean(),
        )  # fmt: skip
    chosen = case.right[:count]
    late = _loss(case, many.x_adv, case.y[chosen])
    for steps, x in ((0, case.x[chosen]), (FEW, few.x_adv)):
        early = _loss(case, x, case.y[chosen])
        gaps = late - early
        if gaps.mean() < -3 * gaps.std() / np.sqrt(count) and gaps.mean() < -0.01 * abs(early).mean():
            found += _finding(
                "loss-falls",
                f"The mean loss of {count} images is {early.mean():.3g} after {steps} steps of PGD and "
                f"{late.mean():.3g} after {MANY}: its steps don't climb. The gradients point elsewhere than where the "
                "loss grows.",
                steps=steps, before=early.mean(), after=late.mean(),
            )  # fmt: skip
            break
    return found


def _white(case: Case) -> str:
    return case.norm if case.norm in PGD.norms else "linf"


def _loss(case: Case, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    logits = predict(case.classifier, x, batch_size=len(x), key=_key(case)).astype(np.float64)
    top = logits.max(axis=1)
    return np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top - logits[np.arange(len(y)), y]


def _key(case: Case) -> tf.Tensor | None:
    return tf.constant([case.seed % 2**31, 5]) if case.classifier.seedable else None


def _large_radius(case: Case, count: int) -> list[Finding]:
    """At epsilon 0.5 every image can be turned grey, so that nothing can be left."""
    pixels = int(np.prod(case.x.shape[1:]))
    radius = 0.5 if _white(case) == "linf" else 0.5 * float(np.sqrt(pixels))
    left = case.pgd(radius, MANY, count).correct_rate
    if left.mean() <= 0.05 or (left > 0.5).sum() < 2:
        return []
    return _finding(
        "radius-not-fatal",
        f"At epsilon {radius:.3g}, where every image can be made grey, PGD with {MANY} steps leaves "
        f"{_percent(left.mean())} of {count} images right. It should leave none: the attack fails, the model doesn't "
        "defend. Use AutoAttack.",
        "error",
        accuracy=left.mean(), epsilon=radius,
    )  # fmt: skip


def _black_box(case: Case, count: int) -> list[Finding]:
    """Whether attacks that see only predictions break what those with gradients have left."""
    blind = [report for report in case.reports if report.attack.gradient_free]
    seeing = [report for report in case.reports if not report.attack.gradient_free]
    if not seeing:
        return []
    if blind:
        before = np.min([report.rates for report in seeing], axis=0) > 0.5
        broken = before & (np.min([report.rates for report in blind], axis=0) <= 0.5)
        name, total, least = blind[0].attack.name, len(case.y), max(3, 0.01 * len(case.y))
    elif case.thorough and len(case.right) >= FEWEST:
        square = make_attack("square", norm=case.norm, epsilon=case.epsilon, queries=QUERIES)
        result = case.attack(square, count)
        before = np.min([report.rates for report in seeing], axis=0)[case.right[:count]] > 0.5
        broken = before & result.success
        name, total, least = f"Square with {QUERIES} queries", count, max(3, 0.05 * count)
    else:
        return []
    if broken.sum() < least:
        return []
    if max(report.attack.step_count() for report in seeing) < MANY:
        return _finding(
            "black-box-wins",
            f"{name} breaks {int(broken.sum())} of {total} images that the attacks with gradients had left. These "
            f"took fewer than {MANY} steps: they were too weak, or their gradients are masked. Use AutoAttack.",
            broken=broken.sum(), left_before=before.sum(),
        )  # fmt: skip
    return _finding(
        "black-box-wins",
        f"{name} breaks {int(broken.sum())} of {total} images that the attacks with gradients had left "
        f"({int(before.sum())} were left). A black box should find nothing more: gradients are masked. Report the "
        "lower figure, and look for what hides them.",
        "error",
        broken=broken.sum(), left_before=before.sum(),
    )  # fmt: skip


CHECKS = (
    Check(("softmax-output",), 0, _softmax),
    Check(("input-range", "input-layout"), 0, _input),
    Check(("batch-dependence",), 0, _batch),
    Check(("randomized",), 0, _randomized),
    Check(("few-examples",), 0, _few),
    Check(("rounding",), 0, _rounding),
    Check(("black-box-wins",), 0, _black_box),
    Check(("zero-gradient", "nan-gradient", "saturated-loss"), 2, _gradients),
    Check(("one-step-wins", "loss-falls"), 1 + FEW + MANY, _steps),
    Check(("radius-not-fatal",), MANY, _large_radius),
)

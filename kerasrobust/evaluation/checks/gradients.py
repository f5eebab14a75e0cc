"""Checks of the gradients: whether they are there, and whether following them helps."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from kerasrobust.attacks import FGSM, PGD
from kerasrobust.attacks.verdict import predict
from kerasrobust.evaluation.case import FEW, MANY, Case, finding, percent
from kerasrobust.events import Finding
from kerasrobust.networks.classifier import Classifier
from kerasrobust.ops import losses
from kerasrobust.ops.tracing import Traced
from kerasrobust.stats import mcnemar

LENGTHS = (0.5 / 255, 2 / 255, 8 / 255)
"""Linf lengths of the steps along a gradient that differences are taken over."""
AROUND = 8 / 255
"""How much of an image is noise where differences are taken. On images of one value the values that a pooling layer
compares are the same, its gradient is that of one of them, and each step makes another the largest."""
AGREEMENT = 0.15
"""Share of what a gradient says that has to be seen at the best of them, and that it has to say of what is seen."""


def gradients(case: Case) -> list[Finding]:
    """Whether gradients are there: of the loss, and of the margin, which can't saturate."""
    classifier, chosen = case.classifier, case.chosen
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
        slope, plain = (found.numpy().reshape(case.count, -1) for found in Traced(slopes)(x, y))
    except LookupError:  # TensorFlow's answer where an operation has no gradient registered.
        slope = plain = np.zeros((case.count, 1), np.float32)
    bad = float((~np.isfinite(slope)).any(axis=1).mean())
    sizes, plain_sizes = (np.abs(np.nan_to_num(found)).max(axis=1) for found in (slope, plain))
    flat = float((plain_sizes == 0).mean())
    saturated = float(((plain_sizes > 0) & (sizes <= 1e-10 * plain_sizes)).mean())
    found = []
    if bad > 0:
        found += finding(
            "nan-gradient",
            f"Gradients hold NaN or infinities for {percent(bad)} of {case.count} images. Attacks take them as 0 there "
            "and go blind. Look for square roots and divisions at 0 in the model.",
            share=bad,
        )
    if flat > 0.1:
        advice = "Replace its gradient by the identity (BPDA), or trust black-box attacks only."
        if case.straight is not None:
            advice = f"The attacks followed those of {case.straight.name}."
        found += finding(
            "zero-gradient",
            f"For {percent(flat)} of {case.count} images the gradient is exactly 0: something in the model (rounding, "
            f"thresholds, a stopped gradient) hides it, and gradient attacks are blind. {advice}",
            "error",
            share=flat,
        )
    if saturated > 0.1:
        found += finding(
            "saturated-loss",
            f"For {percent(saturated)} of {case.count} images the cross-entropy has no gradient, though the logits "
            "have: they are so large that softmax rounds to 0 and 1. Attack with a loss that scaling doesn't change: "
            "AutoAttack, or apgd-t. Or the pixels that it gets are far larger than those that it was trained on: check "
            "the range.",
            "error",
            share=saturated,
        )
    return found


def masked_layers(case: Case, straight: Classifier) -> list[Finding]:
    """Whether PGD breaks more along gradients that go straight through layers that block them, or custom ones."""
    attack = PGD(norm=case.white_norm, epsilon=case.white_epsilon, steps=MANY)
    own, past = case.attack(attack).success, case.attack(attack, straight).success
    more, fewer = int((past & ~own).sum()), int((own & ~past).sum())
    if more - fewer < 3 or mcnemar(fewer, more) >= 0.01:
        return []
    alike = [report.rates for report in case.found.reports if report.attack.norm == case.white_norm]
    left = np.min(alike, axis=0)[case.chosen] > 0.5 if alike else np.ones(case.count, bool)
    return finding(
        "masked-layers",
        f"PGD with {MANY} steps breaks {int(own.sum())} of {case.count} images, and {int(past.sum())} along the "
        f"gradients of {straight.name}: gradients are masked there. Of these images the attacks had left "
        f"{int(left.sum())}, and it breaks {int((left & past).sum())} of them. Attack the model by "
        "surrogate=kerasrobust.straightened(model, x, custom=True) in Python, and report the lower figure.",
        "error",
        own=own.sum(), straight=past.sum(), left_before=left.sum(), broken=(left & past).sum(),
    )  # fmt: skip


def noise_free(case: Case, quiet: Classifier) -> list[Finding]:
    """Whether PGD on a randomized network without its noise breaks more than as many steps through the noise did."""
    alike = [
        report.rates
        for report in case.found.reports
        # What takes fewer steps, or none along gradients, breaks less whatever the noise does.
        if report.attack.norm == case.white_norm and report.attack.in_ball and report.attack.step_count() >= MANY
        and not report.attack.gradient_free and not report.attack.minimum_norm
    ]  # fmt: skip
    if not alike:
        return []
    past = case.attack(PGD(norm=case.white_norm, epsilon=case.white_epsilon, steps=MANY), quiet).success
    own = np.min(alike, axis=0)[case.chosen] <= 0.5
    more, fewer = int((past & ~own).sum()), int((own & ~past).sum())
    if more - fewer < 3 or mcnemar(fewer, more) >= 0.01:
        return []
    return finding(
        "noise-free-wins",
        f"The attacks break {int(own.sum())} of {case.count} images. What PGD with {MANY} steps makes of the network "
        f"without its noise breaks {int(past.sum())}, of which the attacks had left {more}. Gradients drown in the "
        "noise: take them of more passes (EOT), or of the network that it was made of (surrogate), and report the "
        "lower figure.",
        "error",
        own=own.sum(), noise_free=past.sum(), broken=more,
    )  # fmt: skip


def differences(case: Case) -> list[Finding]:
    """Whether the margin falls along its gradient by what the gradient says, for the best of several step lengths.

    It is taken near the images (`AROUND`). Rounding inside a model whose gradient is passed on as if it weren't there
    shows at longer steps only. A gradient in float8 is cut off at the largest one of the training, and far too small.
    """
    classifier, chosen = case.classifier, case.chosen
    if not classifier.repeats:
        return []
    noise = np.random.default_rng(case.task.seed).random(case.x[chosen].shape, np.float32)
    x, y = case.x[chosen] + np.float32(AROUND) * (noise - case.x[chosen]), tf.constant(case.y[chosen])
    key = tf.constant([0, 3]) if classifier.seedable else None

    def slope(x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            total = tf.reduce_sum(losses.margin(classifier(x, key), y))
        return tape.gradient(total, x, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    try:
        found = np.nan_to_num(Traced(slope)(tf.constant(x), y).numpy())
    except LookupError:  # No gradient at all: another check says so.
        return []
    steep = np.abs(found).reshape(len(x), -1).sum(axis=1)
    if (steep == 0).mean() > 0.5:
        return []
    shares = []
    for length in LENGTHS:
        margins = []
        for sign in (1, -1):
            logits = predict(classifier, x + np.float32(sign * length) * np.sign(found), batch_size=len(x), key=key)
            margins.append(losses.margin(tf.constant(logits), y).numpy())
        with np.errstate(invalid="ignore"):
            shares.append((margins[0] - margins[1])[steep > 0] / (2 * length * steep[steep > 0]))
    medians = [float(np.nanmedian(share)) for share in shares if not np.isnan(share).all()]
    agreement = max(medians, key=lambda share: min(share, 1 / share) if share > 0 else share, default=1.0)
    if AGREEMENT <= agreement <= 1 / AGREEMENT:
        return []
    changes = f"by {percent(max(0.0, agreement))} of what" if agreement < 1 else f"{agreement:.0f} times as much as"
    blind = "that follow them" if agreement < 1 else "that estimate distances from them, such as DeepFool and FAB,"
    return finding(
        "wrong-gradient",
        f"Along its gradient the margin changes {changes} the gradient says, for the median of {len(x)} images: "
        f"the gradients are none of this model. Attacks {blind} are blind; trust black-box attacks, or attack the "
        "model before it was quantized and transfer.",
        "error",
        agreement=agreement,
    )


def steps(case: Case) -> list[Finding]:
    """One step against many; the loss after few steps and after many."""
    one = case.attack(FGSM(norm=case.white_norm, epsilon=case.white_epsilon))
    few, many = (case.pgd(case.white_epsilon, steps) for steps in (FEW, MANY))
    found = []
    only_one, only_many = int((one.success & ~many.success).sum()), int((many.success & ~one.success).sum())
    if only_one - only_many >= 3 and mcnemar(only_one, only_many) < 0.01:
        found += finding(
            "one-step-wins",
            f"Of {case.count} images FGSM breaks {percent(one.success.mean())} and PGD with {MANY} steps "
            f"{percent(many.success.mean())}. Many steps should never do worse than one: gradients are masked. "
            "Attack with AutoAttack, whose Square doesn't need them.",
            "error",
            one_step=one.success.mean(), many_steps=many.success.mean(),
        )  # fmt: skip
    chosen = case.chosen
    late = _loss(case, many.x_adv, case.y[chosen])
    for steps, x in ((0, case.x[chosen]), (FEW, few.x_adv)):
        early = _loss(case, x, case.y[chosen])
        gaps = late - early
        if gaps.mean() < -3 * gaps.std() / np.sqrt(case.count) and gaps.mean() < -0.01 * abs(early).mean():
            found += finding(
                "loss-falls",
                f"The mean loss of {case.count} images is {early.mean():.3g} after {steps} steps of PGD and "
                f"{late.mean():.3g} after {MANY}: its steps don't climb. The gradients point elsewhere than where the "
                "loss grows.",
                steps=steps, before=early.mean(), after=late.mean(),
            )  # fmt: skip
            break
    return found


def _loss(case: Case, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    logits = predict(case.classifier, x, batch_size=len(x), key=_key(case)).astype(np.float64)
    top = logits.max(axis=1)
    return np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top - logits[np.arange(len(y)), y]


def _key(case: Case) -> tf.Tensor | None:
    return tf.constant([case.task.seed % 2**31, 5]) if case.classifier.seedable else None


def large_radius(case: Case) -> list[Finding]:
    """At epsilon 0.5 every image can be turned grey, so that nothing can be left."""
    pixels = int(np.prod(case.x.shape[1:]))
    radius = 0.5 if case.white_norm == "linf" else 0.5 * float(np.sqrt(pixels))
    left = case.pgd(radius, MANY).correct_rate
    if left.mean() <= 0.05 or (left > 0.5).sum() < 2:
        return []
    return finding(
        "radius-not-fatal",
        f"At epsilon {radius:.3g}, where every image can be made grey, PGD with {MANY} steps leaves "
        f"{percent(left.mean())} of {case.count} images right. It should leave none: the attack fails, the model "
        "doesn't defend. Use AutoAttack, and check the range of pixels that the model takes.",
        "error",
        accuracy=left.mean(), epsilon=radius,
    )  # fmt: skip

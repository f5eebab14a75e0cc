"""Checks of the model itself: its outputs, its inputs, its batches, its noise."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from kerasrobust.attacks.decision import DecisionBased
from kerasrobust.attacks.verdict import NO_CLASS, predict
from kerasrobust.evaluation.case import FEWEST, FORWARD_IMAGES, Case, finding, percent
from kerasrobust.events import Finding
from kerasrobust.networks.adapters.adapter import candidates, converted, range_words, undone
from kerasrobust.networks.adapters.trials import as_taken, calibrated_loss, numbers_of
from kerasrobust.networks.architectures import predicting
from kerasrobust.networks.classifier import Classifier
from kerasrobust.networks.probe import apart
from kerasrobust.stats import mcnemar, wilson

AS_GIVEN = ""
"""The images as they were given to the model, beside other ways to give them."""

DEPENDS = 1e-3
"""The share of the largest logit up to which batches may change others: convolutions add up in another order."""

SAME = 0.9
"""The share of images with the same answer above which a model wasn't trained on a range."""


def ends_in_softmax(case: Case) -> list[Finding]:
    """A Keras model that ends in softmax is attacked before it; others were found by the classifier's probe."""
    network = case.classifier.network
    if not isinstance(network, keras.Model) or any(code == "softmax-output" for code, _ in case.classifier.warnings):
        return []
    run = case.classifier.adapter.around(lambda x: network(x, **predicting(network)))
    run = case.classifier.probed.as_predicted(run)
    outputs = tf.nest.flatten(run(tf.constant(case.x[:FEWEST])))[0].numpy()
    if (outputs < 0).any() or (abs(outputs.sum(axis=-1) - 1) > 1e-3).any():
        return []
    return finding(
        "softmax-output",
        f"{case.classifier.name!r} gives probabilities. It was attacked through the logits before its softmax; other "
        "programs may not see those, and find it stronger than it is. Return logits.",
        "info",
    )


def input_conventions(case: Case) -> list[Finding]:
    """Whether the model does much better on the same images in another range or layout than those that were said."""
    y, adapter, said = case.y[:FORWARD_IMAGES], case.classifier.adapter, case.classifier.conventions
    x = as_taken(case.classifier, case.x[:FORWARD_IMAGES])
    others: dict[str, dict[str, np.ndarray]] = {"input-range": {}, "input-layout": {}}
    if said.input_range != "auto" and not adapter.whole:
        for (name, order), other in candidates(x.shape[-1]).items():
            # Where the order alone wasn't said, it was found out.
            open_order = said.fixed or (other.scale, other.offset) != (adapter.scale, adapter.offset)
            if open_order and (other.scale, other.offset, other.bgr) != (adapter.scale, adapter.offset, adapter.bgr):
                others["input-range"][f"{range_words(name)}, {order.upper()}"] = undone(adapter, converted(other, x))
    if x.shape[1] == x.shape[2]:
        others["input-layout"]["height and width exchanged"] = x.transpose(0, 2, 1, 3)
    findings = []
    for code, transforms in others.items():
        tried = numbers_of({name: _logits(case, changed) for name, changed in {AS_GIVEN: x, **transforms}.items()})
        plain = tried.pop(AS_GIVEN, None)
        right = np.zeros(len(y), bool) if plain is None else plain.argmax(axis=1) == y
        scores = {name: logits for name, logits in tried.items() if _tells(logits, y)}
        if not scores:
            continue
        # Several may be right as often, of which the one that the model was trained on has the lowest losses.
        losses = {name: calibrated_loss(score, y)[0].mean() for name, score in scores.items()}
        name = min(losses, key=losses.__getitem__)
        better = scores[name].argmax(axis=1) == y
        gain = better.mean() - right.mean()
        if gain > 0.1 and mcnemar(int((better & ~right).sum()), int((right & ~better).sum())) < 1e-3:
            findings += finding(
                code,
                f"The model is right on {percent(better.mean())} of {len(y)} images with {name}, and on "
                f"{percent(right.mean())} as they were given to it: it was probably trained on the former. Say so, or "
                "leave it to be found out.",
                "error",
                accuracy=right.mean(), accuracy_otherwise=better.mean(),
            )  # fmt: skip
    return findings


def _logits(case: Case, x: np.ndarray) -> np.ndarray | None:
    """Returns the logits of images, (N, K); None where the model takes no such values."""
    try:
        return predict(case.classifier, x.astype(np.float32), batch_size=min(case.task.batch_size, len(case.x)))
    except tf.errors.OpError:  # A model may refuse such values, and then it wasn't trained on them.
        return None


def _tells(logits: np.ndarray, y: np.ndarray) -> bool:
    """Returns whether logits tell images apart: they don't say the same of nearly all, and more than guessing is right.

    Who guesses is right on one class of them, or who always says the commonest on its share.
    """
    found = logits.argmax(axis=1)
    said, commonest = (int(np.bincount(numbers).max()) for numbers in (found, y))
    guessed = max(1 / logits.shape[1], commonest / len(y))
    return said <= max(SAME * len(y), commonest) and wilson(float((found == y).sum()), len(y))[0] > guessed


def batch_change(classifier: Classifier, x: np.ndarray) -> float:
    """Returns how much images' logits change where others stand beside them, as a share of the largest.

    0 where there is one image only, or the network says something else each time.
    """
    if len(x) < 2 or not classifier.repeats:
        return 0.0
    half = FEWEST // 2
    first = np.resize(np.arange(len(x)), FEWEST)
    # Others beside the first half; where there are no others, copies of one of it.
    beside = np.arange(len(x))[::-1] if len(x) > FEWEST else np.zeros(1, np.int64)
    second = np.concatenate([first[:half], np.resize(beside, half)])
    key = tf.constant([0, 1]) if classifier.randomized else None
    return float(apart(*(classifier.run(x[places], key)[:half] for places in (first, second))))


def batch_dependence(case: Case) -> list[Finding]:
    """Whether an image's logits depend on the other images of its batch, as with BatchNorm in training mode.

    Attacked images are looked at, too: a model that rounds may say the same of all others. ONNX's
    DynamicQuantizeLinear, which onnxruntime 1.32's `quantize_dynamic` makes, takes one scale for a batch.
    """
    change = max(batch_change(case.classifier, x) for x in (case.x, case.found.worst.x_adv))
    if change <= DEPENDS:
        return []
    return finding(
        "batch-dependence",
        f"The logits of an image change with the other images of its batch, by up to {percent(change)} of the "
        "largest. Predictions then depend on what is attacked beside them. BatchNormalization does so in training "
        "mode: call the model with training=False. So do numbers quantized as the model runs, with one scale for the "
        "batch: quantize it with scales found beforehand, or make it a model of one image at a time.",
        "error",
        change=change,
    )


def randomized(case: Case) -> list[Finding]:
    """Whether answers differ from pass to pass, and the attacks knew it."""
    if not case.classifier.randomized:
        return []
    # Attacks that hear only a class ask again by themselves.
    wrong = dict.fromkeys(
        report.attack.name
        for report in case.found.reports
        if report.attack.eot == 1 and not isinstance(report.attack, DecisionBased)
    )
    advice = (
        f"The gradients of {', '.join(wrong)} were not averaged: give eot=20, or AutoAttack's version 'rand'."
        if wrong
        else "The figure is a mean over fresh passes; the command 'randomness' shows whether noise defends anything."
    )
    share = float((case.found.clean.passes != case.found.clean.passes[0]).any(axis=0).mean())
    return finding(
        "randomized",
        f"Answers differ from pass to pass: on {percent(share)} of the unchanged images the class does. {advice}",
        "warning" if wrong else "info",
        images_that_differ=share, passes=len(case.found.clean.passes),
    )  # fmt: skip


def nan_logits(case: Case) -> list[Finding]:
    """Whether logits hold NaN, on the images or on what the attacks made of them."""
    clean, worst = ((passes == NO_CLASS).any(axis=0) for passes in (case.found.clean.passes, case.found.worst.passes))
    share = float((clean | worst).mean())
    if share == 0:
        return []
    return finding(
        "nan-logits",
        f"The logits hold NaN for {percent(float(clean.mean()))} of the images, and for {percent(share)} with what the "
        "attacks made of them. That is no prediction, and counts as wrong. Look for logarithms, roots and divisions "
        "in the model.",
        "error",
        clean=float(clean.mean()), share=share,
    )  # fmt: skip


def infinite_logits(case: Case) -> list[Finding]:
    """Whether logits are infinite, where losses and their gradients are no numbers."""
    logits = _logits(case, case.x[:FORWARD_IMAGES])
    share = 0.0 if logits is None else float(np.isposinf(logits).any(axis=1).mean())
    if share == 0:
        return []
    return finding(
        "infinite-logits",
        f"The logits of {percent(share)} of the images hold infinity. Losses are no numbers there, so attacks follow "
        "no gradient, and the network may be weaker than they say. Compute in float32, or divide the logits.",
        "error",
        share=share,
    )


def shared_noise(case: Case) -> list[Finding]:
    """Whether whole passes differ by more than noise of each image's own explains: then the intervals are wider."""
    errors = case.found.clean.shared, case.found.worst.shared
    if not any(errors):
        return []
    passes = case.found.clean.passes
    spread = float((passes == case.y).mean(axis=1).std(ddof=1))
    return finding(
        "shared-noise",
        f"Images share their noise, as where it is drawn once per batch: the accuracy of {len(passes)} passes over the "
        f"unchanged images varies by {percent(spread)} (standard deviation). The intervals are wider for it; a larger "
        "number of passes narrows them.",
        "info",
        spread=spread, clean=errors[0], robust=errors[1],
    )  # fmt: skip

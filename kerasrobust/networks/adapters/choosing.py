"""The rule that chooses between conversions of images, from the logits that a model gives for each.

What counts is the loss of the labels at the best scale of the logits, as a model that is given pixels of another scale
gives logits of another scale. Between conversions that are equal so, as they are for a network without biases, the one
counts whose logits have the scale of a trained network. How sure of itself a network is tells no more than that: one
that overfits may even be a bit better in a range that isn't its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from kerasrobust.networks.adapters.trials import calibrated_loss, clearly_lower, clearly_more
from kerasrobust.stats import wilson

COUNTS = (100, 300, 1000)
"""Images that are tried, the more the longer it stays open."""

GAIN = 0.03
"""Nats by which it has to be lower, too. So little may come from the scale alone, or by chance of training: networks
that overfit were seen to be better by 0.013 with less contrast than they were trained on."""

CHANCE = 0.3
"""The share of the lowest loss by which others may differ by chance of training, where that is less than `GAIN`. Of
networks that are hardly ever wrong all losses are small, and so is what they differ by."""

ROUNDING = 1e-4
"""Nats by which mean losses differ where the logits are the same but for their rounding."""

FEWEST = 50
"""Images below which more of them have to be right by clearly more than chance."""

ODD = 5.0
"""How large the best scale of the logits may be. Networks that were trained are too sure of themselves, not five times
too unsure: logits that have to grow so much are those of pixels that are too small."""

USUAL = (0.25, 1.1)
"""The best scales of the logits of trained networks, none more likely than another: those that were trained for long
on few images are too sure of themselves. 84 of 105 small ones lay within, and all from 0.05 to 1.20."""

UNSURE = 4.0
"""How much more a factor above these scales says than one below. Training hardly ever leaves a network unsure of
itself, as pixels that are too small make it. Too large ones make it as sure as overfitting may, or surer."""

LEAD = 2.5
"""Nats of evidence, odds of 12 to 1, by which a conversion has to lead the next one, and by as many more as its own
scale is odd. That counts twice, and is meant to: an odd scale makes a range less likely, and where none that is tried
is the right one, it is one of an odd scale that may lead."""

PLAIN = ("0,1", "rgb")


@dataclass(frozen=True)
class Choice:
    """What images with labels show of a model.

    Attributes:
        best: range and order of colours that fit best.
        rivals: those that fit as well, as far as these images can tell.
        accuracy: the share of images that are right with `best`, or `other`, and without a conversion.
        clear: whether more images would hardly change it.
        other: what fits better than the default, which was kept as too little speaks against it.
    """

    best: tuple[str, str]
    rivals: tuple[tuple[str, str], ...] = ()
    accuracy: tuple[float, float] = (0.0, 0.0)
    clear: bool = True
    other: tuple[str, str] | None = None


def choice_of(
    logits: dict[tuple[str, str], np.ndarray],
    y: np.ndarray,
    default: tuple[str, str] = PLAIN,
    plain: tuple[str, str] = PLAIN,
) -> Choice:
    """Returns which conversion fits best, from the logits (N, K) of each, finite, and labels (N,).

    Between equals the default comes first, and RGB before BGR. The second accuracy is that of `plain`.
    """
    if not logits:
        return Choice(default)
    calibrated, scales = {}, {}
    for name, found in logits.items():
        calibrated[name], scales[name] = calibrated_loss(found, y)
    best = min(calibrated, key=lambda name: calibrated[name].mean() - (ROUNDING if name == default else 0))
    classes = next(iter(logits.values())).shape[1]
    guessing = np.full(len(y), np.log(classes))
    lowest, hits = best, {name: logits[name].argmax(axis=1) == y for name in logits}
    learned = clearly_lower(calibrated[best], guessing) or clearly_more(hits[best], y == np.bincount(y).argmax())
    if not learned:  # Even the best conversion shows nothing by which ranges are told apart.
        # Another one is told where the default is right more often than by guessing, as `at-chance` counts that: it
        # says so of the rest.
        some = default in hits and wilson(float(hits[default].sum()), len(y))[0] > 1 / classes
        return _kept(default, lowest if some else default, plain, hits)
    near = [name for name in logits if not clearly_lower(calibrated[best], calibrated[name], GAIN)]
    noise = min(GAIN, CHANCE * calibrated[best].mean())
    likely = {name: _evidence(calibrated[name] - calibrated[best], scales[name], noise) for name in logits}
    more = clearly_more(hits[best], hits[default]) if default in logits else True
    if default in near and scales[default] <= ODD and not more:
        # Of the first images, which are few, it has to lead clearly.
        led = len(y) > COUNTS[0] or all(name[0] == default[0] for name in near)
        clear, best, near = max(likely, key=likely.__getitem__)[0] == default[0] and led, default, []
    elif default in logits and len(y) < FEWEST and not more:
        clear, best, near = False, default, []
    elif default in logits and hits[best].sum() <= hits[default].sum():  # Surer, but no more often right.
        odd = {name: _odd(scales[name]) for name in near}
        others = [name for name in near if name[0] != default[0] and odd[name] < odd.get(default, 0.0)]
        clear, best, near = False, default, []
        if others and default == plain:  # Its logits are far too small, as if the pixels were.
            best, near = min(others, key=odd.__getitem__), [default]
    else:
        left = [name for name in logits if name != default or (name in near and not more)]
        best = max(left, key=likely.__getitem__)
        ahead = LEAD + _odd(scales[best])
        # None is clear that is right clearly less often than another.
        near = [name for name in left if likely[name] > likely[best] - ahead or clearly_more(hits[name], hits[best])]
        clear = all(name[0] == best[0] for name in near)
    rgb = best[0], "rgb"
    if best != rgb and (rgb in near or (rgb in logits and not _better(best, rgb, calibrated, hits))):
        clear, best = clear and rgb in near, rgb
    if best == default and not clear:
        return _kept(default, lowest, plain, hits)
    rivals = tuple(name for name in near if name[0] != best[0])
    return Choice(best, rivals, (_share(hits, best), _share(hits, plain)), clear)


def _kept(
    default: tuple[str, str], lowest: tuple[str, str], plain: tuple[str, str], hits: dict[tuple[str, str], np.ndarray]
) -> Choice:
    """Returns the default as the choice, though it isn't clear, and what has the lowest losses, if that is another."""
    other = lowest if lowest[0] != default[0] else None
    return Choice(default, (), (_share(hits, other or default), _share(hits, plain)), clear=False, other=other)


def _better(
    name: tuple[str, str],
    other: tuple[str, str],
    losses: dict[tuple[str, str], np.ndarray],
    hits: dict[tuple[str, str], np.ndarray],
) -> bool:
    return clearly_lower(losses[name], losses[other]) or clearly_more(hits[name], hits[other])


def _share(hits: dict[tuple[str, str], np.ndarray], name: tuple[str, str]) -> float:
    return float(hits[name].mean()) if name in hits else 0.0


def _evidence(gaps: np.ndarray, scale: float, noise: float) -> float:
    """Returns how likely a conversion is, in nats, by how far its losses are above the lowest ones and by its scale.

    The former are the odds that it is the noise of these images, or of the training, that makes them higher.
    """
    far = gaps.mean() / math.sqrt(gaps.var() / len(gaps) + noise**2)
    lower = math.erfc(min(far, 30) / math.sqrt(2)) / 2
    return math.log(lower / (1 - lower)) - _odd(scale)


def _odd(scale: float) -> float:
    """Returns how many nats the best scale of its logits says against a conversion."""
    return max(math.log(USUAL[0] / scale), UNSURE * math.log(scale / USUAL[1]), 0.0)

"""What stands around the pictures of an example."""

from __future__ import annotations

import math

from textual.content import Content

from kerasrobust.show.examples import Index
from kerasrobust.show.figures import (
    attack_name,
    format_accuracy,
    format_budget,
    format_change,
    format_distance,
    format_norm,
    is_no_ball,
)
from tui.read.examples import Setting, Source


def what(source: Source, place: int) -> str:
    """Returns which attack the example is of, and on what."""
    return f"{attack(source.setting(place), source.index.norm)} on {source.network}"


def attack(setting: Setting, norm: str) -> str:
    """Returns an attack with its budget and EOT passes."""
    budget = format_budget(setting.epsilon, norm) or format_norm(norm)
    eot = f"EOT {setting.eot}" if setting.eot > 1 else ""
    return " ".join(word for word in (attack_name(setting.attack), budget, eot) if word)


def caption(title: str, sign: str, rest: str) -> Content:
    """Returns two lines: a title, and a coloured sign with words after it."""
    style = {"✓": "$text-success", "✗": "$text-error"}.get(sign[:1], "")
    return Content.assemble((title, "bold"), "\n", (sign, style), rest)


def verdict(index: Index, place: int, *, adversarial: bool = False) -> tuple[str, str]:
    """Returns whether the model is right, and which class it predicts, with its confidence."""
    # For a randomized network the majority of its passes counts, which `success` holds.
    right = not index.success[place] if adversarial else index.correct[place]
    predicted = index.prediction_adv if adversarial else index.prediction
    confidence = float((index.confidence_adv if adversarial else index.confidence)[place])
    sure = "" if math.isnan(confidence) else f" {format_accuracy(confidence)}"
    return "✓ right" if right else "✗ wrong", f": {index.class_name(int(predicted[place]))}{sure}"


def distance(source: Source, place: int) -> str:
    """Returns how far the attacked image is from the original, and how far it may be, or how much of it has changed."""
    found, setting, norm = float(source.index.distance[place]), source.setting(place), source.index.norm
    if math.isnan(found):
        return "distance unknown"
    if is_no_ball(norm):
        return format_change(found, norm)
    limit = f"of {format_budget(setting.epsilon, norm)}" if setting.epsilon is not None else format_norm(norm)
    return f"distance {format_distance(found, norm)} {limit}".strip()


def rate(source: Source, place: int, *, brief: bool) -> str:
    """Returns how often a randomized network is right; nothing for others, which always predict the same."""
    share = float(source.index.correct_rate[place])
    if math.isnan(share) or (share in (0.0, 1.0) and source.setting(place).eot == 1):
        return "" if brief else " image"
    return f", right in {100 * share:.0f} %{'' if brief else ' of passes'}"

"""How figures are written and told: numbers, and a result's story in a few sentences.

The console and the report share these, so that a figure reads the same in both. No TensorFlow and no NumPy here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kerasrobust.names import ATTACKS

Record = Mapping[str, Any]
"""One row of a study: the fields of `events.Row`, as in `result.json`."""

_NORMS = {"linf": "L∞", "l2": "L2", "l1": "L1", "l0": "L0"}
_ATTACKS = {
    **{name: known.title for name, known in ATTACKS.items()},
    "pgd-frozen": "PGD, noise frozen", "pgd-transfer": "PGD, transferred",
    **{f"pgd-eot-{passes}": f"PGD, EOT {passes}" for passes in (1, 5, 20, 50)},
}  # fmt: skip


def format_accuracy(value: float | None) -> str:
    """Returns a share in [0, 1] as a percentage with one decimal; nothing for None.

    Example:
        >>> format_accuracy(0.278)
        '27.8 %'
    """
    return "" if value is None else f"{100 * value:.1f} %"


def format_published(value: float | None) -> str:
    """Returns a share in [0, 1] with the digits that it was printed with, which are four at most.

    Example:
        >>> format_published(0.1157), format_published(0.4)
        ('11.57 %', '40 %')
    """
    return "" if value is None else f"{100 * value:.4g} %"


def format_interval(interval: Sequence[float] | None) -> str:
    """Returns an interval [low, high] of shares in per cent, without the sign.

    Example:
        >>> format_interval([0.2412, 0.3189])
        '24.1-31.9'
    """
    if not interval or len(interval) != 2 or any(bound is None for bound in interval):
        return ""
    low, high = interval
    return f"{100 * low:.1f}-{100 * high:.1f}"


def format_epsilon(value: float | None) -> str:
    """Returns an epsilon as people write it: in 1/255 where it is a multiple of that, else as a decimal.

    Example:
        >>> format_epsilon(8 / 255), format_epsilon(0.5), format_epsilon(None)
        ('8/255', '0.5', '')
    """
    if value is None:
        return ""
    short = f"{value:.2g}"
    steps = round(value * 255, 1)
    # 0.2 is 51/255 as well, but nobody means that; and the value may have passed through float32.
    if not math.isclose(float(short), value, rel_tol=1e-6) and math.isclose(steps, value * 255, rel_tol=1e-6):
        return f"{steps:g}/255"
    return f"{value:.4g}"


def format_distance(value: float | None, norm: str | None = None) -> str:
    """Returns a distance with three digits, and an Linf one of whole grey levels in 1/255.

    Example:
        >>> format_distance(0.21349, "l2"), format_distance(8 / 255, "linf"), format_distance(math.inf)
        ('0.213', '8/255', 'infinite')
    """
    if value is None:
        return ""
    if math.isinf(value):
        return "infinite"
    written = format_epsilon(value)
    return written if norm == "linf" and written.endswith("/255") else f"{value:.3g}"


def format_seconds(seconds: float) -> str:
    """Returns a duration: seconds under two minutes, clock notation above.

    Example:
        >>> format_seconds(0.43), format_seconds(75), format_seconds(3723)
        ('0.4 s', '75 s', '1:02:03')
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def attack_name(attack: str) -> str:
    """Returns an attack's name as the field writes it, and one that isn't known as it is."""
    return _ATTACKS.get(attack, attack)


def format_budget(epsilon: float | None, norm: str | None) -> str:
    """Returns an epsilon with its norm (`8/255 L∞`); nothing for None."""
    written = format_epsilon(epsilon)
    return f"{written} {format_norm(norm)}".strip() if written else ""


def format_norm(norm: str | None) -> str:
    """Returns a norm's name as the field writes it; nothing for None."""
    return _NORMS.get(norm or "", norm or "")


def format_images(result: Mapping[str, Any]) -> str:
    """Returns on what the result was measured, such as `1,000 images of cifar10 test[:1000]`."""
    data = result.get("data") or {}
    count = f"{data['examples']:,} images" if data.get("examples") else "images"
    source = " ".join(str(data[key]) for key in ("name", "split") if data.get(key))
    return f"{count} of {source}" if source else count


def network(row: Record) -> str:
    """Returns the name of the row's network, spelled as the models that come with the project are.

    Example:
        >>> network({"model": "convnet", "training": "pgd", "randomized": True})
        'convnet-random-pgd'
    """
    training = row.get("training")
    parts = [str(row["model"])]
    if row.get("randomized"):
        parts.append("random")
    if training and training != "standard":
        parts.append(str(training))
    return "-".join(parts)


def by_network(rows: Iterable[Record]) -> dict[str, list[Record]]:
    """Returns the rows of each network, in the order of first appearance, the clean row first in each."""
    groups: dict[str, list[Record]] = {}
    for row in rows:
        groups.setdefault(network(row), []).append(row)
    return {name: sorted(group, key=lambda row: row.get("attack") is not None) for name, group in groups.items()}


def summary(result: Mapping[str, Any]) -> str:
    """Returns the run's story in a few sentences, each computed from the result."""
    if result.get("rows"):
        return " ".join(_study_summary(result))
    attacks = result.get("attacks") or []
    model = result.get("model")
    sentences = [f"{model or 'The model'} was measured on {format_images(result)}."]
    if result.get("clean_accuracy") is not None:
        sentences.append(f"It is right on {format_accuracy(result['clean_accuracy'])} of them as they are.")
    if result.get("verdict"):
        return " ".join([*sentences, f"Is its randomness real? {result['verdict']}"])
    if attacks:
        sentences += _attack_summary(result, attacks)
    verdicts = result.get("verdicts")
    if verdicts:
        majority, worst_case = (verdicts[name] for name in ("majority", "worst_case"))
        sentences.append(
            f"That is the mean over {verdicts['passes']} fresh passes; by majority "
            f"{format_accuracy(majority['accuracy'])} ({format_interval(majority['interval'])} %) are left, in the "
            f"worst of the passes {format_accuracy(worst_case['accuracy'])} "
            f"({format_interval(worst_case['interval'])} %)."
        )
    return " ".join(sentences)


def _attack_summary(result: Mapping[str, Any], attacks: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """Yields what one run's attacks have left."""
    worst = min(attacks, key=lambda attack: attack["robust_accuracy"])
    budget = format_budget(worst.get("epsilon"), worst.get("norm"))
    at = f" at {budget}" if budget else ""

    def left(figures: Mapping[str, Any]) -> str:
        interval = format_interval(figures.get("interval"))
        return f"{format_accuracy(figures['robust_accuracy'])} are left{f' ({interval} %)' if interval else ''}."

    if len(attacks) == 1:
        yield f"Under {attack_name(worst['name'])}{at} {left(worst)}"
        return
    ensemble = str(result.get("attack") or ",")
    under = "all of its attacks together" if "," in ensemble else attack_name(ensemble)
    parts = ", ".join(f"{attack_name(item['name'])} {format_accuracy(item['robust_accuracy'])}" for item in attacks)
    yield f"Under {under}{at} {left(result)} One after the other left: {parts}."


def _study_summary(result: Mapping[str, Any]) -> Iterable[str]:
    rows: Sequence[Record] = result["rows"]
    groups = by_network(rows)
    attacks = list(dict.fromkeys(attack_name(row["attack"]) for row in rows if row.get("attack")))
    count = f"{len(groups)} networks" if len(groups) > 1 else next(iter(groups))
    yield (
        f"{count[0].upper() + count[1:]} on {format_images(result)}: clean"
        f"{', and under ' + _list(attacks) if attacks else ''}."
    )
    epsilon = reference_epsilon(rows)
    if epsilon is None:
        return
    worst: dict[str, Record] = {}
    for name, group in groups.items():
        attacked = [row for row in group if row.get("norm") == "linf" and row.get("epsilon") == epsilon]
        if attacked:
            worst[name] = min(attacked, key=lambda row: row["accuracy"])
    clean = {name: group[0]["accuracy"] for name, group in groups.items() if group[0].get("attack") is None}

    def told(name: str) -> str:
        before = f"from {format_accuracy(clean[name])} " if name in clean else ""
        return f"{name} {before}to {format_accuracy(worst[name]['accuracy'])} ({attack_name(worst[name]['attack'])})"

    undefended = [name for name in worst if not _defended(groups[name][0])]
    budget = format_budget(epsilon, "linf")
    if undefended:
        yield f"At {budget} the strongest attack takes undefended {_list([told(name) for name in undefended])}."
    elif len(worst) == 1:
        yield f"At {budget} the strongest attack takes {told(next(iter(worst)))}."
    if len(worst) > 1:
        best = max(worst, key=lambda name: worst[name]["accuracy"])
        row = worst[best]
        before = f", at {format_accuracy(clean[best])} clean" if best in clean else ""
        yield (
            f"{best} keeps the most at {budget}: {format_accuracy(row['accuracy'])} "
            f"({format_interval(row.get('interval'))} %){before}."
        )
    for name, group in groups.items():
        by_eot = {
            row.get("eot") or 1: row["accuracy"]
            for row in group
            if row.get("attack") == "pgd" and row.get("norm") == "linf" and row.get("epsilon") == epsilon
        }
        if group[0].get("randomized") and len(by_eot) > 1:
            yield (
                f"Averaging gradients over {max(by_eot)} noise draws (EOT) takes PGD on {name} "
                f"from {format_accuracy(by_eot[min(by_eot)])} to {format_accuracy(by_eot[max(by_eot)])}."
            )


def _defended(row: Record) -> bool:
    return bool(row.get("randomized")) or row.get("training") not in (None, "standard")


def reference_epsilon(rows: Iterable[Record]) -> float | None:
    """Returns 8/255, the field's usual Linf budget, where it was measured, else the largest that was."""
    measured = {row["epsilon"] for row in rows if row.get("norm") == "linf" and row.get("epsilon") is not None}
    usual = [epsilon for epsilon in measured if format_epsilon(epsilon) == "8/255"]
    return usual[0] if usual else max(measured, default=None)


def _list(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"

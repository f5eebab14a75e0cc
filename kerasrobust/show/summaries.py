"""The summary of a result in a few sentences, each computed from its figures. No TensorFlow and no NumPy here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kerasrobust.entries import AttackEntry, CertificateEntry, Row
from kerasrobust.records import Result
from kerasrobust.show.audited import audit_of
from kerasrobust.show.corrupted import CorruptionMap, title_of
from kerasrobust.show.figures import (
    attack_name,
    by_network,
    format_accuracy,
    format_budget,
    format_confidence,
    format_count,
    format_distance,
    format_epsilon,
    format_images,
    format_interval,
    format_norm,
    made_on,
    noise_words,
)


def summary(result: Mapping[str, Any]) -> str:
    """Returns what came out of a run in a few sentences, from what its `result.json` holds."""
    return summarize(Result.parse(result))


def summarize(result: Result) -> str:
    """Returns what came out of a run in a few sentences, each computed from the result."""
    if result.rows and result.rows[-1].examples is not None:
        groups, own = by_network(result.rows), dict(result.models)
        return " ".join(
            sentence for name, rows in groups.items() for sentence in _threat_summary(own.get(name, result), rows)
        )
    if result.rows:
        return " ".join(_study_summary(result, result.rows))
    sentences = [f"{result.model or 'The model'} was measured on {format_images(result)}."]
    if result.clean_accuracy is not None:
        all_labels = f" (all {len(result.labels)} labels right)" if result.labels else ""
        sentences.append(f"Clean accuracy{all_labels}: {format_accuracy(result.clean_accuracy)}.")
    if result.verdict:
        return " ".join([*sentences, f"Is its randomness real? {result.verdict}"])
    if result.certificate is not None:
        return " ".join([sentences[0], *_certified(result, result.certificate)])
    if (corruptions := CorruptionMap.parse(result.corruptions)) is not None:
        return " ".join([*sentences, *_corruption_summary(corruptions)])
    measured = [entry for entry in result.attacks if entry.robust_accuracy is not None]
    if measured:
        sentences += _attack_summary(result, measured)
    alone = [label for label in result.labels if label.robust_accuracy is not None]
    if alone:
        weakest = min(alone, key=lambda label: label.robust_accuracy or 0.0)
        found = _with_interval(weakest.robust_accuracy, weakest.interval)
        sentences.append(f"Of {len(alone)} labels, each attacked alone, label {weakest.name} keeps the least: {found}.")
    if result.kind == "audit" and result.audit:
        sentences.append(audit_of(result).verdict)
    if result.verdicts is not None:
        passes, majority, worst_case = result.verdicts
        sentences.append(
            f"That is the mean over {passes} fresh passes; by majority it is {_with_interval(*majority)}, in the "
            f"worst of the passes {_with_interval(*worst_case)}."
        )
    return " ".join(sentences)


def _certified(result: Result, found: CertificateEntry) -> Iterable[str]:
    """Yields what was certified, and with which confidence."""
    clean = _with_interval(result.clean_accuracy, result.clean_interval)
    abstained = format_accuracy(found.abstained)
    yield f"Smoothed by {noise_words(found)}, it is right on {clean}, and abstains on {abstained}."
    if len(found.points) > 1:
        certain = [
            f"{format_accuracy(accuracy)} within {radius:.3g}" for radius, accuracy, *_ in found.points if radius > 0
        ]
        yield f"Certified accuracy in {format_norm(found.norm)}: {_list(certain)}."
    yield (
        f"Each image's certificate holds with confidence {format_confidence(found.confidence)} by itself, and is one "
        "of the vote under noise, not of the network without it."
    )


def _corruption_summary(found: CorruptionMap) -> Iterable[str]:
    """Yields the mean accuracy under corruptions, the weakest point, and the errors beside those of a reference."""
    count = len(found.counted)
    over = f"{count} corruptions" if count > 1 else title_of(next(iter(found.counted), found.weakest))
    severities = ", ".join(map(str, found.severities))
    mean = _with_interval(found.mean_accuracy, found.interval)
    yield f"Mean accuracy under {over} at severity {severities}: {mean}."
    if len(found.kinds) > 1:
        weakest = found.weakest
        yield f"It falls most under {title_of(weakest)}, to {format_accuracy(found.mean_of(weakest))}."
    if not found.reference:
        yield "No reference network was named, so that errors are not normalised and there is no mCE."
    elif found.mce is None:
        yield f"There is no mCE, as {found.reference} makes no error under one of them."
    else:
        own, relative = _with_interval(found.mce, found.mce_interval), ""
        if found.relative_mce is not None:
            relative = f", relative mCE {_with_interval(found.relative_mce, found.relative_mce_interval)}"
        before = f" ({format_accuracy(found.reference_clean)} clean)" if found.reference_clean is not None else ""
        yield f"In relation to {found.reference}{before}: mCE {own}{relative}."


def _with_interval(accuracy: float | None, interval: Sequence[float] | None) -> str:
    bounds = format_interval(interval)
    return f"{format_accuracy(accuracy)}{f' ({bounds} %)' if bounds else ''}"


def _attack_summary(result: Result, attacks: Sequence[AttackEntry]) -> Iterable[str]:
    """Yields the robust accuracy under one run's attacks."""
    worst = min(attacks, key=lambda attack: attack.robust_accuracy or 0.0)
    budgets = [words for item in attacks if (words := format_budget(item.epsilon, item.norm))]
    within = [item for item in result.curves if item.within]
    # Within several radii the whole is that of the largest, which came last.
    at = f" at {budgets[-1] if within else ' or '.join(dict.fromkeys(budgets))}" if budgets else ""
    if len(attacks) == 1:
        found = _with_interval(worst.robust_accuracy, worst.interval)
        yield f"Robust accuracy under {made_on(attack_name(worst.name) + at, worst.surrogate)}: {found}."
        if worst.reached is not None:
            target = f" ({result.target})" if result.target else ""
            yield f"Taken for their target{target}: {_with_interval(worst.reached, worst.reached_interval)}."
        return
    ensemble = result.attack or ","
    under = "all of its attacks together" if "," in ensemble else attack_name(ensemble)
    under = made_on(under + at, worst.surrogate)
    yield f"Robust accuracy under {under}: {_with_interval(result.robust_accuracy, result.robust_interval)}."
    for item in within:
        shares = [
            f"{format_accuracy(accuracy)} at {format_epsilon(epsilon)}"
            for epsilon, accuracy, *_ in item.curve
            if epsilon
        ]
        yield f"By radius: {_list(shares)}."
        return
    parts = ", ".join(f"{attack_name(item.name)} {format_accuracy(item.robust_accuracy)}" for item in attacks)
    alone = result.curves and all(item.attacked is None for item in attacks)
    yield f"{'Each by itself' if alone else 'After each attack in turn'}: {parts}."
    for nearest in result.curves:
        distance = format_distance(nearest.median_distance, nearest.norm) or "infinite"
        yield f"The nearest examples that any of them found: median distance {distance} in {format_norm(nearest.norm)}."


def _threat_summary(result: Result, rows: Sequence[Row]) -> Iterable[str]:
    """Yields what is left of one model under several threats; of that model is the result, too."""
    clean, threats = rows[0], rows[1:]
    images = format_images(result, clean.examples)
    yield f"{clean.network} is right on {_with_interval(clean.accuracy, clean.interval)} of {images}."
    attacks = [row for row in threats if row.attack not in ("union", "corruptions", "certified")]
    # No attack makes a model better: these are fewer images, which happen to be easier.
    easier = [row for row in attacks if (row.accuracy or 0.0) > (clean.accuracy or 0.0)]
    higher = [_under(row) for row in easier if (row.examples or 0) < (clean.examples or 0)]
    if kept := [words for row in attacks if (words := _under(row)) not in higher]:
        yield f"It keeps {_list(kept)}."
    if higher:
        yield f"Of fewer images, easier ones, it is right on {_list(higher)}."
    yield from (
        f"Under the worst of {row.norm} on each image it is right on {_with_interval(row.accuracy, row.interval)} of "
        f"{format_count(row.examples or 0, 'image')}."
        for row in threats
        if row.attack == "union"
    )
    found = CorruptionMap.parse(result.corruptions)
    yield from (
        _corrupted(row, None if found is None else found.clean) for row in threats if row.attack == "corruptions"
    )
    yield from (
        f"Smoothed by noise, it is certified at {format_budget(row.epsilon, row.norm)} on "
        f"{_with_interval(row.accuracy, row.interval)} of {format_count(row.examples or 0, 'image')}."
        for row in threats
        if row.attack == "certified"
    )


def _under(row: Row) -> str:
    return (
        f"{_with_interval(row.accuracy, row.interval)} under {attack_name(row.attack or '')}"
        f" ({format_budget(row.epsilon, row.norm)}, {format_count(row.examples or 0, 'image')})"
    )


def _corrupted(row: Row, clean: float | None) -> str:
    """Returns what is left under corruptions, beside the accuracy on the same images without any, where it is known.

    They are fewer than those of the clean accuracy, which may be lower.
    """
    mean, images = _with_interval(row.accuracy, row.interval), f"{format_count(row.examples or 0, 'image')}"
    under = f"under {attack_name(row.attack or '')} ({format_budget(row.epsilon, row.norm)})"
    if clean is None:
        return f"Of {images} it is right on {mean} {under}."
    keeps = "keeps" if (row.accuracy or 0.0) < clean else "is right on"
    return f"Of {images} it is right on {format_accuracy(clean)} as they are, and {keeps} {mean} {under}."


def _study_summary(result: Result, rows: Sequence[Row]) -> Iterable[str]:
    known = by_network(row for row in rows if row.accuracy is not None)
    groups = {name: own for name, group in known.items() if (own := [row for row in group if row.noise == "on"])}
    attacks = list(dict.fromkeys(attack_name(row.attack) for row in rows if row.attack))
    if not groups:
        return
    count = f"{len(groups)} networks" if len(groups) > 1 else next(iter(groups))
    under = f", and under {_list(attacks)}" if attacks else ""
    yield f"{count[:1].upper() + count[1:]} on {format_images(result)}: clean{under}."
    epsilon = reference_epsilon(rows)
    if epsilon is not None:
        yield from _at_radius(groups, epsilon)
        yield from _effect_of_eot(groups, epsilon)
        yield from _effect_of_noise(known, epsilon)
    if result.verdict:
        yield f"Does randomness help? {result.verdict}"


def _at_radius(groups: Mapping[str, Sequence[Row]], epsilon: float) -> Iterable[str]:
    """Yields what the strongest Linf attack does to undefended networks, and which network is the most robust."""
    worst: dict[str, Row] = {}
    for name, group in groups.items():
        attacked = [row for row in group if row.norm == "linf" and row.epsilon == epsilon]
        if attacked:
            worst[name] = min(attacked, key=_accuracy)
    clean = {name: group[0].accuracy for name, group in groups.items() if group[0].attack is None}

    def fall(name: str) -> str:
        before = f"from {format_accuracy(clean[name])} " if name in clean else ""
        return f"{name} {before}to {format_accuracy(worst[name].accuracy)} ({attack_name(worst[name].attack or '')})"

    undefended = [name for name in worst if not _defended(groups[name][0])]
    budget = format_budget(epsilon, "linf")
    if undefended:
        yield f"At {budget} the strongest attack takes undefended {_list([fall(name) for name in undefended])}."
    elif len(worst) == 1:
        yield f"At {budget} the strongest attack takes {fall(next(iter(worst)))}."
    if len(worst) > 1:
        best = max(worst, key=lambda name: _accuracy(worst[name]))
        row = worst[best]
        before = f", at {format_accuracy(clean[best])} clean" if best in clean else ""
        yield f"{best} keeps the most at {budget}: {_with_interval(row.accuracy, row.interval)}{before}."


def _effect_of_eot(groups: Mapping[str, Sequence[Row]], epsilon: float) -> Iterable[str]:
    """Yields for each randomized network what averaging gradients over its noise adds to PGD."""
    for name, group in groups.items():
        by_eot = {
            row.eot or 1: row.accuracy
            for row in group
            if (row.attack, row.norm, row.epsilon) == ("pgd", "linf", epsilon)
        }
        if group[0].randomized and len(by_eot) > 1:
            yield (
                f"Averaging gradients over {max(by_eot)} noise draws (EOT) takes PGD on {name} "
                f"from {format_accuracy(by_eot[min(by_eot)])} to {format_accuracy(by_eot[max(by_eot)])}."
            )


def _effect_of_noise(groups: Mapping[str, Sequence[Row]], epsilon: float) -> Iterable[str]:
    """Yields for each randomized network what PGD leaves of it with its noise on, off and frozen."""
    for name, group in groups.items():
        under = {
            row.noise: row
            for row in group
            if (row.attack, row.norm, row.epsilon) == ("pgd", "linf", epsilon) and (row.eot or 1) == 1
        }
        clean = {row.noise: row for row in group if row.attack is None}
        if len(under) > 1:
            parts = [
                f"{_with_interval(row.accuracy, row.interval)} with its noise {noise}"
                + (f" (clean {format_accuracy(clean[noise].accuracy)})" if noise in clean else "")
                for noise, row in under.items()
            ]
            yield f"The same weights of {name} keep under PGD {_list(parts)}."


def _accuracy(row: Row) -> float:
    return row.accuracy or 0.0


def _defended(row: Row) -> bool:
    return row.randomized or row.training not in (None, "standard")


def reference_epsilon(rows: Iterable[Row]) -> float | None:
    """Returns 8/255, the field's usual Linf budget, if it was measured, else the largest that was."""
    measured = {row.epsilon for row in rows if row.norm == "linf" and row.epsilon is not None}
    usual = [epsilon for epsilon in measured if format_epsilon(epsilon) == "8/255"]
    return usual[0] if usual else max(measured, default=None)


def _list(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"

"""A section for a model card, in Markdown: threat model, attacks, intervals, doubts, and how to repeat it.

Reference: Mitchell et al. 2019, "Model Cards for Model Reporting": what was measured, on which data, how, and with
which uncertainty.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table

from kerasrobust.entries import AttackEntry, Doubt
from kerasrobust.names import ATTACKS, registered_name
from kerasrobust.records import Result
from kerasrobust.show.export.sheets import Drawn, sheets
from kerasrobust.show.export.subject import Part, Subject
from kerasrobust.show.figures import (
    attack_name,
    format_accuracy,
    format_budget,
    format_count,
    format_epsilon,
    format_interval,
    format_norm,
    is_no_ball,
    noise_words,
)
from kerasrobust.show.summaries import summarize
from kerasrobust.show.tables import SYNTHETIC


def section_parts(subject: Subject) -> list[Part]:
    """Returns a Markdown file, where anything was measured."""
    card = subject.card
    if card.clean_accuracy is None and not card.entries and not (isinstance(card, Result) and card.rows):
        return []
    return [Part.of_text("model-card.md", "a section for a model card", section(subject))]


def section(subject: Subject) -> str:
    """Returns the section. All figures in it are those of the result."""
    card = subject.card
    parts = ["## Adversarial robustness", *_measured(subject)]
    if card.data.synthetic:
        parts.append(f"> {SYNTHETIC}")
    parts += ["### Threat model", "\n".join(f"- {_plain(line)}" for line in threats(subject))]
    figures = [(sheet.title, sheet.table) for sheet in sheets(subject) if sheet.name != "findings"]
    parts += [f"### {title}\n\n{to_markdown(table)}" for title, table in figures if table is not None]
    parts += ["### Reasons for doubt", "\n".join(_doubts(subject))]
    notes = [doubt for doubt in card.doubts if doubt.severity == "info"]
    if notes:
        parts.append("### Notes\n\n" + "\n".join(map(_finding, notes)))
    if isinstance(card, Result) and card.left_out:
        parts.append("### Not looked at\n\n" + "\n".join(f"- {_plain(reason)}" for reason in card.left_out))
    proof = "An attack is no proof: a robust accuracy is an upper bound on what a better attack would leave. "
    attacked = bool(card.entries) or (isinstance(card, Result) and bool(card.rows))
    parts.append(f"{proof if attacked else ''}Intervals are at 95 %.")
    if subject.command:
        made = "This made the model:" if subject.is_model else "This repeats the run:"
        parts.append(f"### Reproduce\n\n{made}\n\n{_fenced(subject.command)}")
    return "\n\n".join(parts) + "\n"


def _measured(subject: Subject) -> Iterator[str]:
    """Yields what came out, and with which versions."""
    card = subject.card
    if isinstance(card, Result):
        yield _plain(summarize(card))
        if card.calibration_error is not None:
            share = _share(card.calibration_error, card.calibration_interval)
            yield _plain(f"Expected calibration error on unchanged images: {share}.")
    else:
        count = format_count(card.data.examples, "image") if card.data.examples else "images"
        where = " ".join(filter(None, (card.data.name, card.data.measured)))
        words = [f"{subject.name} was measured on {count} of {where}." if where else f"{subject.name} was measured."]
        if card.clean_accuracy is not None:
            words.append(f"Clean accuracy: {_share(card.clean_accuracy, card.clean_interval)}.")
        words += [
            f"Robust accuracy under {_attack(entry)}: {_share(entry.robust_accuracy, entry.interval)}."
            for entry in card.entries
            if entry.robust_accuracy is not None
        ]
        yield _plain(" ".join(words))
    versions = ", ".join(f"{name} {version}" for name, version in card.versions.items())
    if versions:
        yield _plain(f"Versions: {versions}.{f' Seed: {card.seed}.' if card.seed else ''}")


def _share(accuracy: float | None, interval: tuple[float, float] | None) -> str:
    bounds = format_interval(interval)
    return format_accuracy(accuracy) + (f" ({bounds} %)" if bounds else "")


def _attack(entry: AttackEntry) -> str:
    budget = format_budget(entry.epsilon, entry.norm)
    return " ".join(filter(None, (attack_name(entry.name), entry.version, f"at {budget}" if budget else "")))


def threats(subject: Subject) -> Iterator[str]:
    """Yields what the attacker may do, knows and wants, in one sentence each."""
    card = subject.card
    rows = card.rows or () if isinstance(card, Result) else ()
    attacked = [(item.name, item.norm, item.epsilon) for item in card.entries]
    attacked += [(row.attack, row.norm or "", row.epsilon) for row in rows if row.attack in ATTACKS]
    measured = [one for _, one in card.models] if isinstance(card, Result) else []
    certificates = [one.certificate for one in measured if one.certificate is not None]
    if any(one.corruptions for one in measured):
        yield "Common corruptions are nobody's attack: they know nothing of the model."
    for words in dict.fromkeys(map(noise_words, certificates)):
        yield (
            f"Certificates are of the vote under {words}: within its radius nothing that an attacker does to an image "
            "changes it."
        )
    if not attacked:
        if not certificates and not any(one.corruptions for one in measured):
            yield "None was measured: the figures are those of unchanged images."
        return
    yield f"The attacker {' or '.join(_powers(attacked))}; images are in [0, 1] and stay there."
    surrogates = dict.fromkeys(entry.surrogate for entry in card.entries if entry.surrogate)
    known = [ATTACKS.get(registered_name(name or "")) for name, *_ in attacked]
    if surrogates:
        yield f"Examples were made on {', '.join(surrogates)}; the model itself was asked for its verdicts alone."
    elif all(found is not None and found.gradient_free for found in known):
        yield "It asks for the model's predictions, and knows nothing else of it (black box)."
    else:
        yield "It knows the model with its weights, and follows its gradients (white box)."
    if card.target:
        yield f"It wants each image taken for one class: {card.target}."
    else:
        yield "It wants each image taken for any class but its own."
    if isinstance(card, Result) and card.attack == "autoattack" and card.version:
        yield f"AutoAttack, version {card.version}."


def _powers(attacked: Sequence[tuple[str, str, float | None]]) -> Iterator[str]:
    """Yields what attacks may do, from their names, norms and radii."""
    radii: dict[str, set[float]] = {}
    for _, norm, epsilon in attacked:
        radii.setdefault(norm, set()).update(() if epsilon is None else (epsilon,))
    for norm, found in radii.items():
        if is_no_ball(norm):
            names = dict.fromkeys(attack_name(name) for name, of, _ in attacked if of == norm)
            yield f"may use {_list(list(names))} ({norm})"
        elif found:
            most = _list([format_epsilon(epsilon) for epsilon in sorted(found)])
            yield f"may change an image by at most {most} in {format_norm(norm)}"
        else:
            yield f"looks for the smallest change in {format_norm(norm)}"


def _list(words: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _doubts(subject: Subject) -> Iterator[str]:
    doubts = [doubt for doubt in subject.card.doubts if doubt.severity != "info"]
    yield from map(_finding, doubts)
    audit = subject.raw.get("audit")
    checked = audit.get("checked") if isinstance(audit, dict) else None
    if not doubts:
        yield "None were found." if isinstance(checked, list) else "None are recorded."
    if isinstance(checked, list) and checked:
        yield ("\n" if doubts else "") + f"Looked for: {', '.join(_plain(str(code)) for code in checked)}."


def _finding(doubt: Doubt) -> str:
    return f"- {_plain(doubt.message)} (`{_plain(doubt.code)}`)"


def to_markdown(table: Table) -> str:
    """Returns a table as GitHub and the Hugging Face Hub draw it; intervals and figures as on the console."""
    drawn = Drawn.of(table)
    rules = ["---:" if right else "---" for right in drawn.right]
    lines = [list(map(_cell, line)) for line in (drawn.heads, *drawn.rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rules, *lines[1:]))


def _cell(words: str) -> str:
    return _plain(words).replace("|", r"\|")


def _plain(words: str) -> str:
    """Returns text in one line that Markdown shows as it is: no emphasis, links or HTML from somebody's names."""
    line = " ".join(words.split())
    for mark in "\\`*_":
        line = line.replace(mark, f"\\{mark}")
    return line.replace("<", "&lt;").replace("](", "]\\(")


def _fenced(words: str) -> str:
    """Returns text as a block of code, whatever it holds."""
    fence = "```"
    while fence in words:
        fence += "`"
    return f"{fence}bash\n{words}\n{fence}"

"""Writes `RESULTS.md`: a table for each task, and what a reader needs to weigh it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from measuring import BRIEF, Outcome
from tasks import Contender, Target, Task

COLUMNS = {
    "robust": ("robust accuracy", "{:.1%}"),
    "median_distance": ("median L2 distance", "{:.4f}"),
    "failed": ("failures", "{:.0f}"),
    "outside": ("outside the ball", "{:.0f}"),
    "memory": ("memory, GiB", "{:.2f}"),
    "images_per_second": ("images/s", "{:.0f}"),
    "clean": ("accuracy", "{:.1%}"),
    "loss": ("loss", "{:.3f}"),
}
"""Titles and forms of the figures beside time, by name."""

HIDDEN = {"l2": {"robust", "clean", "outside"}, "linf": {"median_distance", "failed", "clean"}}
"""Figures that say nothing where distances are of a norm."""


@dataclass(frozen=True)
class Section:
    """A task that was run."""

    task: Task
    outcomes: Sequence[Outcome]
    rounds: int
    ended: str


def document(facts: Mapping[str, str], sections: Sequence[Section], before: str = "") -> str:
    """Returns the text of the file: what was measured now, and of an earlier file the sections that were not."""
    parts = {part.split("\n", 1)[0]: part.rstrip() for part in before.split("\n## ")[1:]}
    for section in sections:
        title, *lines = _section(section)
        measured = f"- Measured {section.ended} on commit {facts['commit']}, {facts['CPU']}."
        parts[title] = "\n".join([title, *lines]).rstrip() + "\n" + measured
    return "\n".join(_head(facts)) + "".join(f"\n## {part}\n" for part in parts.values())


def _head(facts: Mapping[str, str]) -> list[str]:
    return [
        "# The project beside its peers",
        "",
        "Written by `benchmarks/peers.py`; not by hand.",
        "",
        *(f"- {name}: {value}" for name, value in facts.items()),
        "",
        "Each contender is a process that has loaded model and images and has run once before. They take",
        f"turns, round by round, so that a machine that slows down disfavours none; what takes less than {BRIEF:g} s",
        "also runs once, unmeasured, right before each measurement. Seconds are medians over the",
        "rounds, with the least and the most in brackets. A ratio is a contender's seconds over the first row's of the",
        "same round; its median and spread stand here, and the median is held against the target. Every image is",
        "judged by one referee, our Keras model in float32, whoever made it; one that was wrong before the attack",
        "counts as fallen. Where there are several modes and batch sizes, each ran in what was fastest for it in a",
        "trial before the rounds. The facts above are of the last run; each section says when and where.",
        "",
    ]


def spread(values: Sequence[float], digits: str) -> str:
    """Returns the median of some values, with the least and the most where there are several."""
    middle = format(statistics.median(values), digits)
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):{digits}}–{max(values):{digits}})"


def _section(section: Section) -> list[str]:
    """Returns the lines of a section, its title first."""
    task, outcomes = section.task, section.outcomes
    base = outcomes[0]
    fastest = _fastest(task, outcomes)
    columns = _columns(task, outcomes)
    aims = task.seconds or task.memory or fastest or any(outcome.contender.target for outcome in outcomes)
    names = [
        "",
        "seconds",
        "ratio",
        *(["ratio by work"] if task.by_work else []),
        *columns,
        *(["target", "met"] if aims else []),
        "run with",
    ]
    rows = [names, ["---"] * len(names)]
    for outcome in outcomes:
        cells = [outcome.contender.label]
        if not outcome.seconds:
            rows.append([*cells, "failed", *[""] * (len(names) - 3), ""])
            continue
        compared = base.seconds and outcome is not base
        ratios = outcome.ratios(base, task.by_work) if compared else []
        plain = outcome.ratios(base, False) if compared else []
        cells += [spread(outcome.seconds, ".2f" if statistics.median(outcome.seconds) > 2 else ".3f")]
        cells += [spread(plain, ".2f") if plain else "1" if outcome is base else ""]
        cells += [(spread(ratios, ".2f") if ratios else "1")] if task.by_work else []
        cells += [columns[name][id(outcome)] for name in columns]
        if aims and outcome is base:
            figures = [figures["memory"] for figures in outcome.figures] if task.memory else outcome.seconds
            cells += _verdict(task.memory or task.seconds, figures)
        elif aims:
            cells += _verdict(task.fastest if outcome is fastest else outcome.contender.target, ratios)
        rows.append([*cells, _settings(outcome)])
    lines = [task.title, "", task.text, "", *(f"| {' | '.join(row)} |" for row in rows), ""]
    notes = _notes(section, base)
    return [*lines, *notes, *([""] if notes else [])]


def _verdict(target: Target | None, figures: Sequence[float]) -> list[str]:
    if target is None or not figures:
        return ["", ""]
    few = "" if len(figures) >= 5 else f" ({len(figures)} round{'s'[: len(figures) - 1]})"
    return [str(target), ("yes" if target.met(statistics.median(figures)) else "**no**") + few]


def _fastest(task: Task, outcomes: Sequence[Outcome]) -> Outcome | None:
    """Returns the fastest contender beside the base, for a target that is about it."""
    others = [outcome for outcome in outcomes[1:] if outcome.seconds]
    if task.fastest is None or not others:
        return None
    return min(others, key=lambda outcome: statistics.median(outcome.seconds))


def _columns(task: Task, outcomes: Sequence[Outcome]) -> dict[str, dict[int, str]]:
    """Returns the figures beside time that a task's contenders have, by column and contender."""
    hidden = HIDDEN.get(task.norm or "", set())
    columns: dict[str, dict[int, str]] = {}
    for name, (title, form) in COLUMNS.items():
        last = task.norm is None and name in ("robust", "clean", "loss")  # Of what has been learned by then.
        values = {
            id(outcome): (outcome.figures[-1].get(name) if last and outcome.figures else outcome.median(name))
            for outcome in outcomes
        }
        worth = (
            any(value for value in values.values())
            if name == "outside"
            else any(value is not None for value in values.values())
        )
        if name not in hidden and worth:
            columns[title] = {key: "" if value is None else form.format(value) for key, value in values.items()}
    return columns


def _settings(outcome: Outcome) -> str:
    """Returns how a contender was run, in words."""
    contender: Contender = outcome.contender
    settings = {key: value for key, value in (contender.arguments | outcome.chosen).items() if key in ("mode",)}
    words = [str(value) for value in settings.values()]
    size = (contender.arguments | outcome.chosen).get("batch_size")
    words += [f"batch {size}"] if size else []
    words += sorted({figures["precision"] for figures in outcome.figures if "precision" in figures})
    if outcome.scale > 1:
        words.append(f"on {outcome.chosen['count']} images, seconds x {outcome.scale:g}")
    return ", ".join(words)


def _notes(section: Section, base: Outcome) -> list[str]:
    """Returns what stands below a table."""
    notes = []
    for outcome in section.outcomes:
        label = outcome.contender.label
        notes += [f"- {label}, what failed: {_inline(error)}" for error in outcome.errors]
        if outcome.tried:
            tried = ", ".join(
                f"{' '.join(str(value) for value in option.values())}: {'failed' if time is None else f'{time:.2f} s'}"
                for option, time in outcome.tried
            )
            what = "PGD-20, " if outcome.contender.trial else ""
            notes.append(f"- {label}, trials before the rounds ({what}mode and batch size): {tried}.")
        parts = [figures["parts"] for figures in outcome.figures if "parts" in figures]
        if parts:
            words = ", ".join(f"{name} {statistics.median(p[name] for p in parts):.1f} s" for name in parts[0])
            notes.append(f"- {label}, its parts: {words}.")
        if section.task.differ and outcome is not base:
            for number, (one, other) in enumerate(zip(base.broken, outcome.broken, strict=False), 1):
                notes.append(
                    f"- Round {number}: the verdicts of {base.contender.label} and {label} differ on "
                    f"{int(np.sum(one != other))} of {len(one)} images: {int(np.sum(one & ~other))} fell to the first "
                    f"alone, {int(np.sum(other & ~one))} to the second alone."
                )
    repeated = sum(outcome.repeated for outcome in section.outcomes)
    others = [share for outcome in section.outcomes for share in outcome.others]
    notes.append(f"- Rounds: {section.rounds}.")
    if others:
        notes[-1] += (
            f" Other processes took {statistics.median(others):.0%} of the machine during a measurement in the median, "
            f"{max(others):.0%} at most; measurements that they disturbed and that were made again: {repeated}."
        )
    return notes


def _inline(error: str) -> str:
    """Returns an error on one line, not longer than a reader wants."""
    words = " ".join(error.split())
    return f"`{words[:600]}{'…' if len(words) > 600 else ''}`"

"""The commands `compare` and `models`: what is known of runs and saved models, side by side. No TensorFlow here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from kerasrobust.config import CompareConfig, ModelsConfig
from kerasrobust.entries import Data, Row, text
from kerasrobust.errors import InputError
from kerasrobust.events import finite
from kerasrobust.records import Card, Result
from kerasrobust.runs import find, list_models, read_card, read_json
from kerasrobust.settings import EPSILON, CommandConfig
from kerasrobust.show.corrupted import CorruptionMap
from kerasrobust.show.figures import (
    format_accuracy,
    format_epsilon,
    format_interval,
    format_noise,
    made_on,
    with_noise,
)
from kerasrobust.show.fitting import make_console, print_words
from kerasrobust.show.pairs import pairs, sentence
from kerasrobust.show.published import published_table
from kerasrobust.show.tables import make_table

Figures = dict[str, Any]
"""One line of a comparison: name, network, model, training, data, examples, attack, clean and robust figures."""


def compare(config: CompareConfig) -> int:
    """Prints runs and models side by side; returns the exit status.

    Raises:
        InputError: where a run or model isn't there, or has no result yet.
    """
    if not config.subjects:
        raise InputError("Expected runs or models to compare. Received: none. Name at least one.")
    folders = [find(subject, config) for subject in config.subjects]
    return _print(config, "Clean and robust accuracy", folders)


def models(config: ModelsConfig) -> int:
    """Prints the saved models, and what others have published beside AutoAttack figures; returns the exit status."""
    return _print(config, f"Models in {config.models_dir}", list_models(config.models_dir), tests=False, others=True)


def _print(config: CommandConfig, title: str, folders: Sequence[Path], tests: bool = True, others: bool = False) -> int:
    known = [list(figures(folder)) for folder in folders]
    lines = [line for own in known for line in own]
    if config.json:
        print(json.dumps(finite(lines), ensure_ascii=False))
    elif not lines:
        print(f"No models in {config.models_dir}. Train one: kerasrobust train --help")
    else:
        console = make_console()
        console.print(figures_table(title, lines))
        if others and any(map(_comparable, lines)):
            console.print()
            console.print(published_table())
        for words in _sentences(folders, known) if tests else ():
            print_words(console, Text(words))
    return 0


def _sentences(folders: Sequence[Path], known: Sequence[Sequence[Figures]]) -> Iterator[str]:
    """Yields how each run differs from the first on the same images, and which weren't measured on these."""
    first, (images, *others) = folders[0], [_images(lines) for lines in known]
    other: dict[str, list[str]] = {"are not": [], "may not be": []}
    for folder, own in zip(folders[1:], others, strict=True):
        found = pairs(first, folder)
        yield from (sentence(first.name, folder.name, pair) for pair in found)
        if found or images is None or own is None:
            continue
        if own[0] != images[0]:
            other["are not"].append(f"{folder.name} ({' '.join(own).strip()})")
        # One split can be written in several ways, and one that isn't known may be any.
        elif all((*own, *images)) and own != images:
            other["may not be"].append(f"{folder.name} ({' '.join(own)})")
    for verb, named in other.items():
        if named and images is not None:
            yield (
                f"The figures of {', '.join(named)} {verb} of the same images as those of {first.name} "
                f"({' '.join(images).strip()}), so they can't be compared image by image."
            )


def _images(lines: Sequence[Figures]) -> tuple[str, str] | None:
    """Returns the data and the split, empty if unknown, that figures are of; None where the data aren't known."""
    return (lines[0]["data"], lines[0]["split"] or "") if lines and lines[0]["data"] else None


def figures(folder: Path) -> Iterator[Figures]:
    """Yields what is known of a run or a saved model: one line an attack, or one a network for a study.

    Raises:
        InputError: for a run that hasn't finished.
    """
    raw = read_card(folder)
    if raw is not None:
        yield from _of_card(folder.name, Card.parse(raw))
        return
    raw = read_json(folder / "result.json")
    if raw is None:
        raise InputError(
            f"Expected a finished run. Received: {folder}, which has no result yet. Wait for it, or start it again."
        )
    result = Result.parse(raw)
    if result.rows is not None:
        clean = None
        for row in result.rows:
            if row.attack is None:
                clean = row
            else:
                line = _line(folder.name, result.data, row.model, row.training, row.randomized, clean, row)
                yield line | {"network": row.name, "examples": row.examples or line["examples"]}
    elif result.has_card:
        yield from _of_card(folder.name, result)
    else:
        clean, *attacked = [*result.table(""), None]
        if attacked[0] is not None and result.version is not None:  # One figure, not those of its parts.
            whole = replace(
                attacked[0], attack=result.attack, accuracy=result.robust_accuracy, interval=result.robust_interval
            )
            line = _line(folder.name, result.data, result.model, None, result.randomized, clean, whole)
            yield line | {"version": result.version}
            return
        rows: list[Row | None] = [*filter(None, attacked), *_unattacked(result)]
        for one in rows or [None]:  # What isn't attacked has its clean accuracy.
            yield _line(folder.name, result.data, result.model, None, result.randomized, clean, one)


def _unattacked(result: Result) -> Iterator[Row]:
    """Yields what was measured without an attack, as an assessment has it: under corruptions, and certified."""
    found, certificate = CorruptionMap.parse(result.corruptions), result.certificate
    if found is not None:
        kinds, severities = len(found.counted) or len(found.kinds), found.severities
        many = f"severities {severities[0]} to {severities[-1]}" if len(severities) > 1 else f"severity {severities[0]}"
        words = f"{kinds} kind{'' if kinds == 1 else 's'}, {many}"
        yield Row(
            model=result.model, attack="corruptions", norm=words, accuracy=found.mean_accuracy, interval=found.interval
        )
    if certificate is None:
        return
    for at, accuracy, low, high in certificate.points:
        if at > 0:  # The accuracy without a radius is the clean one.
            known: dict[str, Any] = {"norm": certificate.norm, "epsilon": at}
            yield Row(model=result.model, attack="certified", accuracy=accuracy, interval=(low, high), **known)


def _of_card(name: str, card: Card) -> Iterator[Figures]:
    clean, *rows = card.table("")
    model, training = card.architecture or None, text(card.training.get("training")) or None
    for row, entry in zip(rows, card.figures, strict=True):
        line = _line(name, card.data, model, training, card.randomized is True, clean, row)
        # What was measured by itself may be of other images than the clean accuracy.
        yield line | {"version": entry.version, "examples": entry.examples or line["examples"]}
    if not rows:
        yield _line(name, card.data, model, training, card.randomized is True, clean, None)


def _line(
    name: str, data: Data, model: str | None, training: str | None, randomized: bool | None, clean: Row | None,
    attacked: Row | None,
) -> Figures:  # fmt: skip
    return {
        "name": name,
        "network": None,
        "model": model,
        "training": training,
        "randomized": randomized,
        "data": data.name or None,
        "split": data.measured or None,
        "examples": data.examples,
        "synthetic": data.synthetic,
        "clean_accuracy": clean and clean.accuracy,
        "clean_interval": clean and clean.interval,
        "attack": attacked and attacked.attack,
        "version": None,
        "target": attacked and attacked.target,
        "surrogate": attacked and attacked.surrogate,
        "noise": (attacked and format_noise(attacked)) or None,
        "norm": attacked and attacked.norm,
        "epsilon": attacked and attacked.epsilon,
        "robust_accuracy": attacked and attacked.accuracy,
        "interval": attacked and attacked.interval,
    }


def _comparable(line: Figures) -> bool:
    """Returns whether a figure is what others publish: AutoAttack's `adaptive` leaves something out."""
    kind = line["data"], line["attack"], line["norm"], line["epsilon"]
    return kind == ("cifar10", "autoattack", "linf", EPSILON) and line["version"] != "adaptive"


def _attack(line: Figures) -> str:
    target = f"to {line['target']}" if line["target"] else ""
    return made_on(" ".join(filter(None, (line["attack"], line["version"], target))), line["surrogate"])


def figures_table(title: str, lines: Sequence[Figures]) -> Table:
    """Returns the table of what `figures` yields."""
    table = make_table(synthetic=any(line["synthetic"] for line in lines))
    table.title = title
    for heading in ("name", "model", "training", "data", "clean", "attack", "epsilon", "images", "robust", "95 %"):
        right = heading in ("images", "clean", "robust", "95 %")
        table.add_column(heading, justify="right" if right else "left", overflow="fold", no_wrap=right)
    before: tuple[Any, ...] = ()
    for line in lines:
        shown = (
            str(line["name"]),
            f"{line['network'] or line['model'] or ''}{' (random)' if line['randomized'] else ''}".strip(),
            line["training"] or "",
            line["data"] or "",
            format_accuracy(line["clean_accuracy"]),
        )
        # What stays the same from line to line is printed once.
        table.add_row(
            *(shown if shown != before else ("",) * len(shown)),
            with_noise(_attack(line), line["noise"] or "on"),
            f"{format_epsilon(line['epsilon'])} {line['norm'] or ''}".strip(),
            str(line["examples"] or ""),
            format_accuracy(line["robust_accuracy"]),
            format_interval(line["interval"]),
        )
        before = shown
    return table

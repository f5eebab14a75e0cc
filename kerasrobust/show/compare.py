"""The commands `compare` and `models`: what is known of runs and saved models, side by side. No TensorFlow here."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from kerasrobust.config import CompareConfig, ModelsConfig
from kerasrobust.entries import Data, Row, text
from kerasrobust.errors import InputError
from kerasrobust.events import finite
from kerasrobust.records import Card, Result
from kerasrobust.runs import find, list_models, read_card, read_json
from kerasrobust.settings import EPSILON, RunConfig
from kerasrobust.show.examples import read_index, same_images
from kerasrobust.show.figures import (
    format_accuracy,
    format_epsilon,
    format_interval,
    format_noise,
    is_no_ball,
    made_on,
    with_noise,
)
from kerasrobust.show.published import published_table
from kerasrobust.show.tables import make_table
from kerasrobust.stats import mcnemar

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
    return _print(config, f"Models in {config.models_dir}", list_models(config.models_dir), pairs=False, others=True)


def _print(config: RunConfig, title: str, folders: Sequence[Path], pairs: bool = True, others: bool = False) -> int:
    lines = [line for folder in folders for line in figures(folder)]
    if config.json:
        print(json.dumps(finite(lines), ensure_ascii=False))
    elif not lines:
        print(f"No models in {config.models_dir}. Train one: kerasrobust train --help")
    else:
        console = Console(highlight=False)
        console.print(figures_table(title, lines))
        if others and any(map(_comparable, lines)):
            console.print()
            console.print(published_table())
        for folder in folders[1:] if pairs else ():
            if (pair := paired(folders[0], folder)) is not None:
                console.print(sentence(folders[0].name, folder.name, pair), markup=False)
    return 0


@dataclass(frozen=True, kw_only=True)
class Paired:
    """How two runs differ on the same images, under the attack of each.

    Attributes:
        examples: how many images both attacked.
        only_first: those that only the first run's model gets wrong under attack; `only_second` likewise.
        p_value: of McNemar's exact test, two-sided: how probable counts as unequal as these are where both models are
            equally robust.
        difference: robust accuracy of the first minus that of the second, on these images.
    """

    examples: int
    only_first: int
    only_second: int
    p_value: float
    difference: float


def paired(first: Path, second: Path) -> Paired | None:
    """Compares two runs of attacks or trainings image by image; None if their `examples.h5` lack or hold others.

    Raises:
        InputError: for a damaged file.

    Reference: McNemar 1947; the exact form is a sign test on the examples that differ (Fagerland et al. 2013).
    """
    files = first / "examples.h5", second / "examples.h5"
    if not all(path.is_file() for path in files) or not same_images(*files):
        return None
    if _target(first) != _target(second):  # Another question.
        return None
    (wrong, rates), (other_wrong, other_rates) = (_under_attack(path) for path in files)
    only_first, only_second = int((wrong & ~other_wrong).sum()), int((other_wrong & ~wrong).sum())
    return Paired(
        examples=len(wrong),
        only_first=only_first,
        only_second=only_second,
        p_value=mcnemar(only_first, only_second),
        difference=float(rates.mean() - other_rates.mean()),
    )


def _target(folder: Path) -> str:
    return Result.parse(read_json(folder / "result.json") or {}).target


def _under_attack(path: Path) -> tuple[Any, Any]:
    """Returns per example whether the model is wrong under attack, bool (N,), and the share of right passes."""
    import numpy as np

    index = read_index(path)
    # A minimum-norm attack has one distance per example: one further away than the radius counts as it was before.
    attacks = Result.parse(read_json(path.with_name("result.json")) or {}).attacks
    # Above what float32 makes of a distance that is the radius itself: older files don't tell the two kinds apart.
    radius = ((attacks[0].epsilon if attacks else None) or 0.0) * (1 + 1e-5)
    outside = np.isnan(index.epsilon) & (index.distance > radius) & (not is_no_ball(index.norm))
    return np.where(outside, ~index.correct, index.success), np.where(outside, index.correct, index.correct_rate)


def sentence(first: str, second: str, pair: Paired) -> str:
    """Returns how two runs of these names differ on the same images, as a sentence."""
    return (
        f"{first} and {second} on the same {pair.examples:,} images under attack: {pair.only_first:,} only {first} "
        f"gets wrong, {pair.only_second:,} only {second} (McNemar's exact test: p {format_probability(pair.p_value)}); "
        # Not -0.0.
        f"robust accuracy differs by {0.0 + 100 * pair.difference:+.1f} points."
    ) + _too_few(pair)


def _too_few(pair: Paired) -> str:
    """Returns what there is to say where the examples can't bear out the difference.

    How many would: where the shares of examples that differ either way stay what they are, McNemar's statistic
    (b - c)^2 / (b + c) grows with their number, and 3.84 is its 95 % quantile.
    """
    gap, differing = abs(pair.only_first - pair.only_second), pair.only_first + pair.only_second
    if pair.p_value < 0.05 or not gap:
        return ""
    wanted = math.ceil(pair.examples * 3.84 * differing / gap**2 / 100) * 100
    more = f"; about {wanted:,} would" if wanted > pair.examples else ""
    return f" So few examples don't bear out a difference{more} (few-examples)."


def format_probability(value: float) -> str:
    """Returns a p-value with its sign, as `= 0.031` or `< 0.001`."""
    return "< 0.001" if value < 0.001 else f"= {value:.2g}" if value < 0.1 else f"= {value:.2f}"


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
                yield line | {"network": row.name}
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
        rows: list[Row | None] = [*filter(None, attacked)]
        for one in rows or [None]:  # What isn't attacked has its clean accuracy.
            yield _line(folder.name, result.data, result.model, None, result.randomized, clean, one)


def _of_card(name: str, card: Card) -> Iterator[Figures]:
    clean, *rows = card.table("")
    model, training = card.architecture or None, text(card.training.get("training")) or None
    for row, entry in zip(rows, card.entries, strict=True):
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

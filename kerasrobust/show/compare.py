"""The commands `compare` and `models`: what is known of runs and saved models, side by side. No TensorFlow here."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from kerasrobust.config import CompareConfig, ModelsConfig, RunConfig
from kerasrobust.errors import InputError
from kerasrobust.events import finite
from kerasrobust.runs import find, list_models, read_card, read_json
from kerasrobust.show.console import make_table
from kerasrobust.show.examples import read_index, same_images
from kerasrobust.show.figures import format_accuracy, format_epsilon, format_interval
from kerasrobust.stats import mcnemar

Figures = dict[str, Any]
"""One line of a comparison: name, model, training, data, examples, attack, clean and robust figures."""


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
    """Prints the saved models; returns the exit status."""
    return _print(config, f"Models in {config.models_dir}", list_models(config.models_dir), pairs=False)


def _print(config: RunConfig, title: str, folders: Sequence[Path], pairs: bool = True) -> int:
    lines = [line for folder in folders for line in figures(folder)]
    if config.json:
        print(json.dumps(finite(lines), ensure_ascii=False))
    elif not lines:
        print(f"No models in {config.models_dir}. Train one: kerasrobust train --help")
    else:
        console = Console(highlight=False)
        console.print(_table(title, lines))
        for folder in folders[1:] if pairs else ():
            if (pair := paired(folders[0], folder)) is not None:
                console.print(sentence(folders[0].name, folder.name, pair), markup=False)
    return 0


@dataclass(frozen=True, kw_only=True)
class Paired:
    """How two runs differ on the same images, under the attack of each.

    Attributes:
        examples: how many images both attacked.
        only_first: those that only the first run's model gets wrong under attack.
        only_second: those that only the second's does.
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
    """Compares two runs image by image; None where their `examples.h5` hold others, or one has none.

    Args:
        first: folder of an attack's or a training's run.
        second: likewise.

    Raises:
        InputError: for a damaged file.

    Reference: McNemar 1947; the exact form is a sign test on the examples that differ (Fagerland et al. 2013).
    """
    files = first / "examples.h5", second / "examples.h5"
    if not all(path.is_file() for path in files) or not same_images(*files):
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


def _under_attack(path: Path) -> tuple[Any, Any]:
    """Returns per example whether the model is wrong under attack, bool (N,), and the share of right passes."""
    import numpy as np

    index = read_index(path)
    # A minimum-norm attack has one distance per example: one further away than the radius counts as it was before.
    entry = ((read_json(path.with_name("result.json")) or {}).get("attacks") or [{}])[0]
    # Above what float32 makes of a distance that is the radius itself, in older files, which don't tell the two kinds.
    radius = (entry.get("epsilon") or 0.0) * (1 + 1e-5)
    outside = np.isnan(index.epsilon) & (index.distance > radius)
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
    card = read_card(folder)
    if card is not None:
        yield from _of_card(folder.name, card)
        return
    result = read_json(folder / "result.json")
    if result is None:
        raise InputError(
            f"Expected a finished run. Received: {folder}, which has no result yet. Wait for it, or start it again."
        )
    if result.get("kind") in ("train", "import"):
        yield from _of_card(folder.name, result)
    elif "rows" in result:
        yield from _of_study(folder.name, result)
    else:
        data = result.get("data", {})
        for attack in result.get("attacks", []):
            yield _line(folder.name, result.get("model"), None, result.get("randomized"), data, result, attack)


def _line(
    name: str, model: Any, training: Any, randomized: Any, data: dict[str, Any], clean: dict[str, Any],
    attack: dict[str, Any],
) -> Figures:  # fmt: skip
    return {
        "name": name,
        "model": model,
        "training": training,
        "randomized": randomized,
        "data": data.get("name"),
        "split": data.get("test_split", data.get("split")),
        "examples": data.get("examples"),
        "synthetic": data.get("synthetic", False),
        "clean_accuracy": clean.get("clean_accuracy"),
        "clean_interval": clean.get("clean_interval"),
        "attack": attack.get("name"),
        "norm": attack.get("norm"),
        "epsilon": attack.get("epsilon"),
        "robust_accuracy": attack.get("robust_accuracy"),
        "interval": attack.get("interval"),
    }


def _of_card(name: str, card: dict[str, Any]) -> Iterator[Figures]:
    # Anybody may write a card: what isn't in our form is left blank.
    training, data = _part(card, "training"), _part(card, "data")
    # What was built to be random, and what was found to be where it came from elsewhere.
    randomized = training.get("randomize") is not None or card.get("randomized") is True
    attacks = card.get("attacks")
    for attack in attacks if isinstance(attacks, list) and attacks else [{}]:
        yield _line(
            name, training.get("model"), training.get("training"), randomized,
            data, card, attack if isinstance(attack, dict) else {},
        )  # fmt: skip


def _part(card: dict[str, Any], key: str) -> dict[str, Any]:
    value = card.get(key)
    return value if isinstance(value, dict) else {}


def _of_study(name: str, result: dict[str, Any]) -> Iterator[Figures]:
    clean: dict[str, Any] = {}
    for row in result["rows"]:
        if row["attack"] is None:
            clean = {"clean_accuracy": row["accuracy"], "clean_interval": row["interval"]}
        else:
            attack = row | {"name": row["attack"], "robust_accuracy": row["accuracy"]}
            yield _line(
                name, row["model"], row["training"], row["randomized"], result.get("data", {}), clean, attack
            )  # fmt: skip


def _table(title: str, lines: Sequence[Figures]) -> Table:
    table = make_table(synthetic=any(line["synthetic"] for line in lines))
    table.title = title
    for heading in ("name", "model", "training", "data", "images", "clean", "attack", "epsilon", "robust", "95 %"):
        table.add_column(heading, justify="right" if heading in ("images", "clean", "robust", "95 %") else "left")
    before: tuple[Any, ...] = ()
    for line in lines:
        shown = (
            str(line["name"]),
            f"{line['model'] or ''}{' (random)' if line['randomized'] else ''}".strip(),
            line["training"] or "",
            f"{line['data'] or ''}",
            f"{line['examples'] or '':}",
            format_accuracy(line["clean_accuracy"]) if line["clean_accuracy"] is not None else "",
        )
        # What stays the same from line to line is said once.
        table.add_row(
            *(shown if shown != before else ("",) * len(shown)),
            line["attack"] or "",
            f"{format_epsilon(line['epsilon'])} {line['norm'] or ''}".strip(),
            format_accuracy(line["robust_accuracy"]) if line["robust_accuracy"] is not None else "",
            format_interval(line["interval"]) if line["interval"] else "",
        )
        before = shown
    return table

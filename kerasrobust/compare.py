"""The commands `compare` and `models`: what is known of runs and saved models, side by side. No TensorFlow here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from kerasrobust.config import CompareConfig, ModelsConfig, RunConfig
from kerasrobust.console import make_table
from kerasrobust.errors import InputError
from kerasrobust.events import finite
from kerasrobust.figures import format_accuracy, format_epsilon, format_interval
from kerasrobust.runs import find, list_models, read_card, read_json

Figures = dict[str, Any]
"""One line of a comparison: name, model, training, data, examples, attack, clean and robust figures."""


def run(config: RunConfig) -> int:
    """Prints the comparison or the list of models; returns the exit status.

    Raises:
        InputError: where a run or model isn't there, or has no result yet.
    """
    if isinstance(config, CompareConfig):
        if not config.subjects:
            raise InputError("Expected runs or models to compare. Received: none. Name at least one.")
        lines = [line for subject in config.subjects for line in figures(find(subject, config))]
        title = "Clean and robust accuracy"
    elif isinstance(config, ModelsConfig):
        lines = [line for folder in list_models(config.models_dir) for line in figures(folder)]
        title = f"Models in {config.models_dir}"
    else:
        raise TypeError(f"No comparison for {type(config).__name__}")
    if config.json:
        print(json.dumps(finite(lines), ensure_ascii=False))
    elif not lines:
        print(f"No models in {config.models_dir}. Train one: kerasrobust train --help")
    else:
        Console(highlight=False).print(_table(title, lines))
    return 0


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
    if result.get("kind") == "train":
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
    attacks = card.get("attacks")
    for attack in attacks if isinstance(attacks, list) and attacks else [{}]:
        yield _line(
            name, training.get("model"), training.get("training"), training.get("randomize") is not None,
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
            f"{line['model'] or ''}{' (random)' if line['randomized'] else ''}",
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

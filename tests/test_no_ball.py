"""Attacks that no ball holds: what is written of them says what they may do, and tells no epsilon and no norm."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from cli import call
from conftest import images, labels_of

from kerasrobust.attacks import PGD, Attack, Patch, Spatial, Square
from kerasrobust.attacks.task import Task
from kerasrobust.entries import Row
from kerasrobust.evaluation.autoattack import AutoAttack
from kerasrobust.evaluation.case import Case
from kerasrobust.evaluation.chain import part_of, run_chain
from kerasrobust.evaluation.checks.black_box import black_box
from kerasrobust.evaluation.evaluate import evaluate
from kerasrobust.evaluation.outcome import report
from kerasrobust.show.examples import read_index
from kerasrobust.show.figures import format_budget, format_change, is_no_ball
from kerasrobust.show.pairs import pairs
from kerasrobust.show.report import _budgets
from kerasrobust.show.tables import epsilon_text

pytest_plugins = ["cli_fixtures"]

WORDS = {"patch": "8x8 pixels", "universal-patch": "8x8 pixels", "sparse-rs": "24 pixels", "spatial": "±30° and ±10 %"}
TITLES = {"patch": "Patch", "universal-patch": "Universal patch", "sparse-rs": "Sparse-RS", "spatial": "Spatial"}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def attack(places: list[str], agreed: Path, *words: str) -> Any:
    return call("attack", "--model", "tiny", "--data", agreed, "--split", "all[:24]", *words, *places)


@pytest.mark.parametrize("name", WORDS)
def test_what_a_run_writes(name: str, places: list[str], agreed: Path, runs: Path) -> None:
    done = attack(places, agreed, "--attack", name, "--name", "a")
    assert done.status == 0, done.err
    result = json.loads((runs / "a/result.json").read_text())
    entry = result["attacks"][0]
    assert (entry["norm"], entry["epsilon"], entry["median_distance"]) == (WORDS[name], None, None)
    assert "curve" not in entry
    assert entry["robust_accuracy"] == result["robust_accuracy"] < result["clean_accuracy"] == 1
    written = done.out + done.err
    assert f"{name} {WORDS[name]}: robust accuracy {100 * entry['robust_accuracy']:.1f} %" in written
    assert re.search(rf"^{name} +{re.escape(WORDS[name])}  ", done.out, flags=re.MULTILINE)  # In the table, whole.
    assert f"Robust accuracy under {TITLES[name]} at {WORDS[name]}: " in written.replace("\n", " ")
    page = re.sub(
        r"<style>.*?</style>|data:image/png;base64,[^\"]*", "", (runs / "a/report.html").read_text(), flags=re.S
    )
    assert f"{TITLES[name]}, {WORDS[name]}" in page
    assert "values changed" in page
    for text in (written, page):
        assert not re.search(r"/255|\bl0\b|L∞|\blinf\b|median distance \S|distance 0", text, flags=re.I)
    index = read_index(runs / "a/examples.h5")
    assert index.norm == WORDS[name]
    assert np.isnan(index.epsilon).all()
    # Another run that leaves all images as they are: each success of this one counts, whatever its distance.
    done = attack(places, agreed, "--attack", "fgsm", "--epsilon", "0", "--name", "b")
    assert done.status == 0, done.err
    (pair,) = pairs(runs / "a", runs / "b")
    assert pair is not None
    assert (pair.only_first, pair.only_second) == (index.success.sum(), 0)


def test_both_in_one_run(places: list[str], agreed: Path, runs: Path) -> None:
    done = attack(places, agreed, "--attack", "patch,spatial", "--name", "a")
    assert done.status == 0, done.err
    assert "at 8x8 pixels or ±30° and ±10 %: " in done.out.replace("\n", " ")
    assert read_index(runs / "a/examples.h5").norm == "8x8 pixels or ±30° and ±10 %"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["patch", "--epsilon", "8/255"], "Expected no --epsilon with patch"),
        (["spatial", "--epsilon", "2"], "Expected no --epsilon with spatial"),
        (["patch", "--norm", "l0"], "Expected no --norm with patch"),
        (["patch,spatial", "--norm", "linf"], "Expected no --norm with patch,spatial"),
        (["sparse-rs", "--epsilon", "24"], "Expected no --epsilon with sparse-rs"),
        (["pgd", "--budget", "24"], "settings that 'pgd' has. Received: --budget"),
        (["pgd,patch"], "of which patch has no ball"),
        (["spatial", "--steps", "3"], "settings that 'spatial' has. Received: --steps"),
    ],
)
def test_what_they_have_not_is_refused(words: list[str], line: str, places: list[str], agreed: Path) -> None:
    assert line in attack(places, agreed, "--attack", *words).message


def test_in_python(small: keras.Model) -> None:
    x = images(10)
    y = labels_of(small, x, 1)
    attacks: list[Attack] = [Patch(size=3, steps=5), Spatial(rotations=3, translations=2), PGD(steps=2)]
    found = evaluate(small, x, y, attacks=attacks, audit=False)
    assert [item.epsilon for item in found.attacks] == [None, None, 8 / 255]
    assert [item.entry()["norm"] for item in found.attacks] == ["3x3 pixels", WORDS["spatial"], "linf"]
    assert found.robust_accuracy == np.min([item.rates for item in found.attacks], axis=0).mean()
    by_name = evaluate(small, x, y, attacks=["spatial"], audit=False)
    assert by_name.attacks[0].result.success.sum() >= found.attacks[1].result.success.sum()
    both = evaluate(small, x, y, attacks=["pgd", "spatial"], epsilon=0.01, audit=False).attacks
    assert [(item.entry()["norm"], item.epsilon) for item in both] == [("linf", 0.01), (WORDS["spatial"], None)]
    together = AutoAttack(attacks=attacks[:2])(small, x, y)
    assert together.success.sum() >= found.attacks[0].result.success.sum()


def test_a_turn_that_beats_gradients_is_no_sign_of_masked_ones(small: keras.Model) -> None:
    """What no ball allows says nothing about gradients; a black box in the ball that does the same would."""
    x = images(20)
    y = labels_of(small, x, 0)
    task = Task.checked(small, x, y)
    parts = [part_of(item, 8 / 255) for item in (PGD(epsilon=1e-4, steps=20), Spatial(rotations=5, translations=3))]
    found = run_chain(parts, task)
    assert found.reports[1].rates.sum() <= found.reports[0].rates.sum() - 3
    assert black_box(Case(task=task, found=found)) == []
    square = report(Square(), found.reports[1].result, 8 / 255, False)
    alike = replace(found, reports=[found.reports[0], square])
    assert [item.code for item in black_box(Case(task=task, found=alike))] == ["black-box-wins"]


def test_words_for_what_is_no_ball() -> None:
    assert not any(is_no_ball(norm) for norm in ("linf", "l2", "l1", "l0", "", None))
    assert all(is_no_ball(words) for words in WORDS.values())
    assert format_budget(None, "8x8 pixels") == epsilon_text(None, "8x8 pixels") == "8x8 pixels"
    assert format_budget(None, "l2") == ""
    assert format_change(1536.0, "8x8 pixels") == "1,536 values changed"
    assert format_change(8 / 255, "linf") == "L∞ distance 8/255"
    rows = [Row(model="m", attack="patch", norm="8x8 pixels", steps=50), Row(model="m", attack="deepfool", norm="l2")]
    assert _budgets(rows) == [("Patch", "8x8 pixels, 50 steps"), ("DeepFool", "L2, no budget")]

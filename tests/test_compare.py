"""Two runs on the same images: McNemar's exact test against values worked out by hand."""

from __future__ import annotations

import json
from fractions import Fraction
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli import call
from hypothesis import given
from hypothesis import strategies as st
from schemas import faults

from kerasrobust.errors import InputError
from kerasrobust.show.compare import figures
from kerasrobust.show.examples import write_examples
from kerasrobust.show.pairs import format_probability, pairs
from kerasrobust.show.summaries import summary
from kerasrobust.stats import mcnemar

pytest_plugins = ["cli_fixtures"]

X = np.random.default_rng(0).random((10, 4, 4, 1), np.float32)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (0, 0, 1.0),  # Nothing differs.
        (3, 3, 1.0),
        (0, 1, 1.0),  # 2 / 2
        (0, 5, 2 / 32),
        (1, 5, 2 * (1 + 6) / 64),
        (10, 2, 2 * (1 + 12 + 66) / 4096),
        (5, 15, 2 * (1 + 20 + 190 + 1140 + 4845 + 15504) / 2**20),  # 0.0414, as tables of the sign test have it.
        (0, 2000, 0.0),  # Less than a float can say.
    ],
)
def test_mcnemar_by_hand(first: int, second: int, expected: float) -> None:
    assert mcnemar(first, second) == mcnemar(second, first) == pytest.approx(expected, abs=1e-300)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_twice_the_smaller_tail_of_a_fair_coin(first: int, second: int) -> None:
    count, low = first + second, min(first, second)
    tail = sum(Fraction(comb(count, heads), 2**count) for heads in range(low + 1))
    assert mcnemar(first, second) == float(min(Fraction(1), 2 * tail))


def test_many_examples_take_no_time() -> None:
    assert mcnemar(30_000, 30_000) == 1.0


@pytest.mark.parametrize(("value", "text"), [(1.0, "= 1.00"), (0.25, "= 0.25"), (0.0414, "= 0.041"), (1e-9, "< 0.001")])
def test_probabilities_are_written(value: float, text: str) -> None:
    assert format_probability(value) == text


def run_folder(folder: Path, wrong: list[int], kind: str = "attack", **columns: Any) -> Path:
    """Makes a run whose model is right on all ten images, and under attack wrong on those that are named."""
    folder.mkdir(parents=True)
    y = np.arange(10) % 3
    success = np.isin(np.arange(10), wrong)
    part: dict[str, Any] = {
        "x": X, "x_adv": X, "y": y, "prediction": y, "prediction_adv": (y + success) % 3, "success": success,
        "correct_rate": 1.0 - success, "distance": np.full(10, 8 / 255, np.float32),
        "confidence": np.ones(10, np.float32), "confidence_adv": np.ones(10, np.float32),
        "attack": "pgd", "epsilon": 8 / 255, "eot": 1,
    }  # fmt: skip
    part |= columns
    write_examples(folder / "examples.h5", [part], model="net", norm="linf", class_names=["a", "b", "c"])
    entry = {"name": part["attack"], "norm": "linf", "epsilon": 8 / 255, "interval": [0.2, 0.9]}
    robust = 1 - len(wrong) / 10
    result = {
        "schema": 1, "kind": kind, "model": "net", "data": {"name": "shapes", "split": "test", "examples": 10},
        "clean_accuracy": 1.0, "attacks": [entry | {"robust_accuracy": robust}], "robust_accuracy": robust,
    }  # fmt: skip
    (folder / "config.json").write_text("{}")
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def test_a_pair_of_runs(tmp_path: Path) -> None:
    one, two = run_folder(tmp_path / "one", [0, 1, 2, 3, 4, 5]), run_folder(tmp_path / "two", [5, 6], kind="train")
    (pair,) = pairs(one, two)
    assert pair is not None
    # Only the first: 0 to 4; only the second: 6.
    assert (pair.examples, pair.only_first, pair.only_second) == (10, 5, 1)
    assert pair.p_value == 2 * (1 + 6) / 64
    assert pair.difference == pytest.approx(0.4 - 0.8)
    (same,) = pairs(one, one)
    assert same is not None and (same.only_first, same.only_second, same.p_value, same.difference) == (0, 0, 1, 0)


def test_a_minimum_norm_attack_counts_at_the_radius(tmp_path: Path) -> None:
    far = np.array([1, 1, 9, 9, 9, 1, 1, 1, 1, 1], np.float32) / 255
    y = np.arange(10) % 3
    before = y.copy()
    before[[3, 9]] += 1  # Wrong from the start; number 3 is also wrong where it wasn't attacked.
    columns = {"attack": "deepfool", "epsilon": None, "distance": far, "prediction": before}
    one = run_folder(tmp_path / "one", list(range(10)), **columns)
    (pair,) = pairs(one, run_folder(tmp_path / "two", []))
    assert pair is not None and (pair.only_first, pair.only_second) == (8, 0)
    assert pair.difference == pytest.approx(-0.8)


def test_the_rate_of_a_randomized_network_counts(tmp_path: Path) -> None:
    rates = np.full(10, 0.75)
    rates[0] = 0.25
    (pair,) = pairs(run_folder(tmp_path / "one", [0], correct_rate=rates), run_folder(tmp_path / "two", []))
    assert pair is not None and (pair.only_first, pair.only_second) == (1, 0)
    assert pair.difference == pytest.approx(0.7 - 1)


PGD = {"name": "pgd", "norm": "linf", "epsilon": 8 / 255, "robust_accuracy": 0.338, "interval": [0.329, 0.348]}
AUTO = {
    "name": "autoattack", "version": "rand", "norm": "linf", "epsilon": 8 / 255, "examples": 2000,
    "robust_accuracy": 0.278, "interval": [0.259, 0.298],
}  # fmt: skip


def card(folder: Path, **more: Any) -> None:
    folder.mkdir(parents=True)
    known: dict[str, Any] = {
        "data": {"name": "cifar10", "test_split": "test", "examples": 10000}, "attacks": [PGD],
        "training": {"model": "convnet", "training": "pgd"}, "clean_accuracy": 0.562,
    }  # fmt: skip
    (folder / "card.json").write_text(json.dumps(known | more))
    (folder / "saved_model.pb").write_bytes(b"0")


def test_models_show_their_autoattack_figures_beside_published_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    card(tmp_path / "old")
    card(tmp_path / "net", measured=[AUTO])
    (tmp_path / "bad").mkdir()
    outcome = call("models", "--models-dir", tmp_path)
    lines = [line.split() for line in outcome.out.splitlines()]
    assert outcome.status == 0
    first = ["net", "convnet", "pgd", "cifar10", "56.2", "%", "pgd", "8/255", "linf", "10000", "33.8", "%", "32.9-34.8"]
    assert first in lines and ["old", *first[1:]] in lines
    assert ["autoattack", "rand", "8/255", "linf", "2000", "27.8", "%", "25.9-29.8"] in lines
    # As their authors print them; in the repositories that the table names.
    words = " ".join(outcome.out.split())
    for part in ("39.68 %", "44.89 %", "42.72 %", "1.15", "0.46", "2.3", "76.3 %", "77.1 %", "13 x",
                 "MTandHJ/PyTorch-Robust", "7i10/ard_codex_bootstrap", "PyTorch on GPUs"):  # fmt: skip
        assert part in words
    listed = json.loads(call("models", "--models-dir", tmp_path, "--json").out)
    assert [(line["name"], line["attack"], line["version"], line["examples"]) for line in listed] == [
        ("net", "pgd", None, 10000), ("net", "autoattack", "rand", 2000), ("old", "pgd", None, 10000),
    ]  # fmt: skip


def test_a_run_of_autoattack_is_one_figure_with_its_version(tmp_path: Path, places: list[str], agreed: Path) -> None:
    words = ["--model", "tiny", "--data", agreed, "--split", "all[:6]", "--attack", "autoattack", "--epsilon", "1/255"]
    for version in ("standard", "adaptive"):
        done = call("attack", *words, "--version", version, "--name", version, *places)
        assert done.status == 0, done.err
    results = [json.loads((tmp_path / "runs" / name / "result.json").read_text()) for name in ("standard", "adaptive")]
    lines = json.loads(call("compare", "standard", "adaptive", "--json", *places).out)
    assert [(line["name"], line["attack"], line["version"], line["robust_accuracy"]) for line in lines] == [
        (name, "autoattack", name, result["robust_accuracy"])
        for name, result in zip(("standard", "adaptive"), results, strict=True)
    ]


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"measured": [AUTO | {"version": "adaptive"}]},
        {"measured": [AUTO], "data": {"name": "shapes", "examples": 400}},
        {"measured": [AUTO | {"norm": "l2", "epsilon": 0.5}]},
        {"measured": "nonsense"},
    ],
)
def test_published_figures_stand_only_beside_what_they_can_be_compared_with(
    more: dict[str, Any], tmp_path: Path
) -> None:
    card(tmp_path / "net", **more)
    outcome = call("models", "--models-dir", tmp_path)
    assert outcome.status == 0 and "convnet" in outcome.out and "Published" not in outcome.out


def test_studies_are_compared_by_network_and_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    noisy = {"name": "convnet-random-pgd", "model": "convnet", "training": "pgd", "randomized": True}
    matched = {"name": "convnet-matched", "model": "convnet", "training": "pgd", "randomized": False}
    under = {"attack": "pgd", "norm": "linf", "epsilon": 8 / 255}
    rows = [
        noisy | {"accuracy": 0.6}, noisy | under | {"accuracy": 0.3, "noise": "on"},
        noisy | {"accuracy": 0.7, "noise": "off"}, noisy | under | {"accuracy": 0.2, "noise": "off"},
        matched | {"accuracy": 0.65}, matched | under | {"accuracy": 0.25},
    ]  # fmt: skip
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "result.json").write_text(json.dumps({"schema": 1, "kind": "study", "rows": rows}))
    listed = json.loads(call("compare", "one", "--runs-dir", tmp_path, "--json").out)
    keys = ("network", "noise", "clean_accuracy", "robust_accuracy")
    assert [tuple(line[key] for key in keys) for line in listed] == [
        ("convnet-random-pgd", "on", 0.6, 0.3), ("convnet-random-pgd", "off", 0.7, 0.2),
        ("convnet-matched", None, 0.65, 0.25),
    ]  # fmt: skip
    shown = call("compare", "one", "--runs-dir", tmp_path).out
    assert "convnet-random-pgd (random)" in shown and "convnet-matched" in shown and "pgd, noise off" in shown


def test_a_pipe_has_each_line_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    name, path = "a-run-of-a-long-name-that-fills-the-line", "/data/pictures/of/many/other/things/wide.keras"
    for run in (name, "other"):
        folder = run_folder(tmp_path / run, [0, 1])
        result = json.loads((folder / "result.json").read_text()) | {"model": path}
        (folder / "result.json").write_text(json.dumps(result))
    lines = call("compare", name, "other", "--runs-dir", tmp_path).out.splitlines()
    assert len(lines) == 7  # A title, headings, a rule, two runs, what the data are and a sentence.
    row = [path, "shapes", "100.0", "%", "pgd", "8/255", "linf", "10", "80.0", "%", "20.0-90.0"]
    assert [line.split() for line in lines[3:5]] == [[name, *row], ["other", *row]]
    assert lines[6].startswith(f"{name} and other on the same 10 images") and lines[6].endswith("points.")
    assert "training" not in lines[1]  # As no line has one.


def test_runs_that_are_no_pair(tmp_path: Path) -> None:
    one = run_folder(tmp_path / "one", [0])
    other = run_folder(tmp_path / "other", [0], x=X[::-1])
    bare = run_folder(tmp_path / "bare", [0])
    (bare / "examples.h5").unlink()
    assert pairs(one, other) == pairs(one, bare) == pairs(bare, one) == []
    (bare / "examples.h5").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"Received: .*examples\.h5"):
        pairs(one, bare)


def test_the_command_says_a_sentence_a_pair(tmp_path: Path) -> None:
    run_folder(tmp_path / "one", [0, 1, 2, 3, 4, 5])
    run_folder(tmp_path / "two", [5, 6])
    run_folder(tmp_path / "other", [0], x=X[::-1])
    run_folder(tmp_path / "three", [])
    outcome = call("compare", "one", "two", "other", "three", "--runs-dir", tmp_path)
    text = " ".join(outcome.out.split())
    assert outcome.status == 0 and text.count("McNemar") == 2
    assert "5 only one gets wrong, 1 only two (McNemar's exact test: p = 0.22)" in text
    assert "robust accuracy differs by -40.0 points" in text
    # 10 * 3.84 * 6 / 4^2 = 14.4, rounded up to hundreds.
    assert text.count("(few-examples)") == 1 and "about 100 would (few-examples)" in text
    assert "6 only one gets wrong, 0 only three (McNemar's exact test: p = 0.031)" in text
    assert "McNemar" not in call("compare", "one", "other", "--runs-dir", tmp_path).out
    listed = json.loads(call("compare", "one", "two", "--runs-dir", tmp_path, "--json").out)
    assert [line["name"] for line in listed] == ["one", "two"]


def test_figures_of_other_images_are_said_to_be_some(tmp_path: Path) -> None:
    data_of = {"one": {}, "two": {"split": "test[:5]"}, "three": {"name": "cifar10"}, "four": {}, "five": {}}
    for name, data in data_of.items():
        folder = run_folder(tmp_path / name, [0], x=X[::-1])
        result = json.loads((folder / "result.json").read_text())
        (folder / "result.json").write_text(json.dumps(result | {"data": result["data"] | data}))
        if name != "four":
            (folder / "examples.h5").unlink()
    (tmp_path / "five" / "result.json").write_text(json.dumps({"schema": 1, "kind": "attack", "clean_accuracy": 0.5}))
    words = (
        "The figures of three (cifar10 test) are not of the same images as those of one (shapes test)",
        "The figures of two (shapes test[:5]) may not be of the same images as those of one (shapes test)",
    )
    text = " ".join(call("compare", "one", "two", "three", "four", "five", "--runs-dir", tmp_path).out.split())
    assert all(text.count(sentence) == 1 for sentence in words)
    # Same data, or none that is known: nothing to say.
    assert "of the same images" not in call("compare", "one", "four", "five", "--runs-dir", tmp_path).out
    assert "of the same images" not in call("models", "--models-dir", tmp_path).out


def test_what_no_attack_measured_has_its_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    cells = [{"kind": kind, "severity": 3, "accuracy": 0.5} for kind in ("fog", "snow", "spatter")]
    corruptions = {"cells": cells, "counted": ["fog", "snow"], "mean_accuracy": 0.55, "interval": [0.5, 0.6]}
    points = [[0.0, 0.8, 0.7, 0.9], [0.25, 0.6, 0.5, 0.7], [0.5, 0.4, 0.3, 0.5]]
    for name, more in (
        ("corrupted", {"kind": "corruptions", "corruptions": corruptions}),
        ("certain", {"kind": "certify", "certificate": {"noise": "gaussian", "norm": "l2", "points": points}}),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        known = {"schema": 1, "model": "net", "data": {"name": "mine", "examples": 300}, "clean_accuracy": 0.8}
        (tmp_path / name / "result.json").write_text(json.dumps(known | more))
    listed = json.loads(call("compare", "corrupted", "certain", "--runs-dir", tmp_path, "--json").out)
    keys = ("name", "clean_accuracy", "attack", "norm", "epsilon", "examples", "robust_accuracy", "interval")
    assert [tuple(line[key] for key in keys) for line in listed] == [
        ("corrupted", 0.8, "corruptions", "2 kinds, severity 3", None, 300, 0.55, [0.5, 0.6]),
        ("certain", 0.8, "certified", "l2", 0.25, 300, 0.6, [0.5, 0.7]),
        ("certain", 0.8, "certified", "l2", 0.5, 300, 0.4, [0.3, 0.5]),
    ]
    assert faults("figures", listed) == []
    shown = [line.split() for line in call("compare", "corrupted", "--runs-dir", tmp_path).out.splitlines()]
    row = ["corruptions", "2", "kinds,", "severity", "3", "300", "55.0", "%", "50.0-60.0"]
    assert ["corrupted", "net", "mine", "80.0", "%", *row] in shown


def test_each_threat_of_an_assessment_has_its_own_number_of_images(tmp_path: Path) -> None:
    row = {"model": "net", "name": "net", "training": "", "randomized": False, "interval": [0.0, 0.5]}
    rows = [row | {"accuracy": 0.4, "examples": 300}]
    rows.append(row | {"attack": "autoattack", "norm": "l1", "epsilon": 12.0, "accuracy": 0.0, "examples": 8})
    (tmp_path / "result.json").write_text(
        json.dumps(
            {"schema": 1, "kind": "assess", "model": "net", "data": {"name": "mine.npz", "examples": 300}, "rows": rows}
        )
    )
    (line,) = figures(tmp_path)
    assert (line["attack"], line["examples"], line["clean_accuracy"]) == ("autoattack", 8, 0.4)
    said = summary(json.loads((tmp_path / "result.json").read_text()))
    assert "net is right on 40.0 % (0.0-50.0 %) of 300 images" in said

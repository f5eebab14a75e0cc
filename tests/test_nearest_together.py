"""Several attacks for the nearest example in one call: of each image the nearest that any of them has found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from cli import call
from conftest import images, labels_of
from schemas import faults_of_run

from kerasrobust.attacks import APGDCE, DDN, FMN, Attack, AttackResult
from kerasrobust.evaluation.autoattack import AutoAttack
from kerasrobust.evaluation.evaluate import evaluate
from kerasrobust.evaluation.outcome import curve
from kerasrobust.show.charts import curve_panels
from kerasrobust.show.report import Result

pytest_plugins = ["cli_fixtures"]

X = images(20)
PAIR: list[Attack[Any]] = [FMN(norm="l2", steps=8), DDN(steps=8)]


def distances_of(*found: AttackResult) -> np.ndarray:
    """Returns how far each success is, (attacks, N), infinite for a failure."""
    return np.array([np.where(item.success, item.distance, np.inf) for item in found])


def test_accuracy_over_epsilon_is_that_of_the_nearest_example_of_each_image(small: keras.Model) -> None:
    y = labels_of(small, X, 3)
    found = evaluate(small, X, y, attacks=PAIR, audit=False, epsilon=0.05)
    alone = [attack(small, X, y) for attack in PAIR]
    distances = distances_of(*alone)
    nearest = distances.min(axis=0)
    # Neither is the nearer everywhere, so that both count.
    assert set(distances.argmin(axis=0)[3:]) == {0, 1}
    [together] = found.nearest
    np.testing.assert_array_equal(together.result.distance, np.where(np.isfinite(nearest), nearest, 0))
    for epsilon, accuracy, *_ in curve(together.result):
        assert accuracy == (nearest > epsilon).mean()
    entry = together.entry()
    assert entry["name"] == "nearest of fmn, ddn"
    assert entry["median_distance"] == pytest.approx(np.median(nearest[3:]))
    assert entry["gradients"] == sum(item.gradients for item in alone)
    # The evaluation as a whole keeps the nearest examples, too, also of those beyond the radius.
    assert found.robust_accuracy == together.robust_accuracy == (nearest > 0.05).mean()
    np.testing.assert_array_equal(found.worst.x_adv, together.result.x_adv)
    np.testing.assert_array_equal(found.by_attack[3:], np.array(["fmn", "ddn"])[distances.argmin(axis=0)[3:]])


def test_in_a_list_they_run_on_all_images_and_others_on_what_is_left(small: keras.Model) -> None:
    y = labels_of(small, X, 3)
    listed = AutoAttack(norm="l2", epsilon=0.05, attacks=[APGDCE(norm="l2", epsilon=0.05, steps=3), *PAIR])
    found = evaluate(small, X, y, attacks=listed, audit=False)
    assert [item.attacked.all() for item in found.attacks] == [False, True, True]
    [together] = found.nearest
    both = distances_of(*(item.result for item in found.attacks[1:])).min(axis=0)
    np.testing.assert_array_equal(distances_of(together.result)[0], both)
    # One such attack runs as any other does.
    single = AutoAttack(norm="l2", epsilon=0.05, attacks=[APGDCE(norm="l2", epsilon=0.05, steps=3), PAIR[0]])
    alone = evaluate(small, X, y, attacks=single, audit=False)
    assert not alone.nearest and not alone.attacks[1].attacked.all()


def test_each_norm_has_its_own(small: keras.Model) -> None:
    y = labels_of(small, X, 0)
    other: list[Attack[Any]] = [FMN(steps=4), FMN(steps=6)]
    found = evaluate(small, X, y, attacks=[*PAIR, *other], audit=False)
    assert [item.attack.norm for item in found.nearest] == ["l2", "linf"]
    for item, reports in zip(found.nearest, (found.attacks[:2], found.attacks[2:]), strict=True):
        both = distances_of(*(report.result for report in reports)).min(axis=0)
        np.testing.assert_array_equal(distances_of(item.result)[0], both)


def test_what_reached_no_target_is_never_the_nearest(small: keras.Model) -> None:
    y = (labels_of(small, X, 0) + 1) % 4  # All wrong: an attack that fails leaves them at distance 0.
    target = (y + 1) % 4
    weak, strong = FMN(norm="l2", steps=1, targeted=True), DDN(steps=60, targeted=True)
    found = evaluate(small, X, y, attacks=[weak, strong], audit=False, target=target)
    [together] = found.nearest
    reached = found.attacks[1].result.success
    assert reached.sum() > found.attacks[0].result.success.sum()
    assert together.result.success[reached].all()
    assert (together.result.distance[reached] > 0).sum() >= (reached & (found.attacks[1].result.distance > 0)).sum()


def test_of_a_randomized_network_they_are_judged_by_fresh_passes(randomized: keras.Model) -> None:
    y = labels_of(randomized, X, 0)
    found = evaluate(randomized, X, y, attacks=PAIR, audit=False, epsilon=0.05, passes=10)
    [together] = found.nearest
    rates = np.where(together.result.distance > 0.05, together.result.clean_rate, together.result.correct_rate)
    assert found.robust_accuracy == together.robust_accuracy == rates.mean()
    assert together.result.passes.shape == (10, 20)


def test_of_a_randomized_network_only_the_target_is_a_success(randomized: keras.Model) -> None:
    y = (labels_of(randomized, X, 0) + 1) % 4  # All wrong, so that any error would be a success.
    target = (y + 1) % 4
    pair: list[Attack[Any]] = [FMN(norm="l2", steps=2, targeted=True), DDN(steps=2, targeted=True)]
    found = evaluate(randomized, X, y, attacks=pair, audit=False, target=target, passes=10)
    for result in (found.nearest[0].result, found.worst):
        np.testing.assert_array_equal(result.success, result.prediction_adv == target)
        assert ((result.prediction_adv != y) & ~result.success).any()


def test_one_command_tells_it_in_result_table_chart_and_report(
    places: list[str], agreed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--split", "all[:30]", "--norm", "l2", "--steps", "6", "--epsilon", "0.1", "--name", "a"]
    done = call("attack", "--model", "tiny", "--data", agreed, "--attack", "fmn,ddn", *words, *places)
    assert done.status == 0, done.err
    folder = tmp_path / "runs/a"
    assert faults_of_run(folder) == []
    found = json.loads((folder / "result.json").read_text())
    [together] = found["curves"]
    assert len(together["curve"]) == 25
    assert together["robust_accuracy"] == found["robust_accuracy"]
    assert together["median_distance"] <= min(item["median_distance"] for item in found["attacks"])
    assert together["gradients"] == sum(item["gradients"] for item in found["attacks"])
    assert all(item["curve"] and "attacked" not in item for item in found["attacks"])
    assert "nearest of fmn, ddn" in " ".join(done.out.split())
    assert f"median distance {together['median_distance']:.3g} in L2" in done.out.replace("\n", " ")
    result = Result.parse(found)
    [panel] = curve_panels((*result.attacks, *result.curves))
    assert [line.label for line in panel.lines] == ["FMN", "DDN", "nearest of fmn, ddn"]
    assert "nearest of fmn, ddn" in (folder / "report.html").read_text()
    # It is the figure to quote, so that no table goes without it.
    compared = json.loads(call("compare", "a", "--json", *places).out)
    assert [line["attack"] for line in compared] == ["fmn", "ddn", "nearest of fmn, ddn"]
    assert (compared[2]["robust_accuracy"], compared[2]["interval"]) == (found["robust_accuracy"], found["interval"])
    monkeypatch.setenv("COLUMNS", "160")
    assert "nearest of fmn, ddn" in call("compare", "a", *places).out
    for kind, names in (("csv", ("attacks.csv", "results.csv")), ("latex", ("attacks.tex", "results.tex"))):
        assert call("export", "a", "--format", kind, *places[:2]).status == 0
        for name in names:
            assert "nearest of fmn, ddn" in next(folder.rglob(name)).read_text(), name

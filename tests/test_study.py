"""The study from one end to the other: one table, that it repeats, and that it is taken up."""

from __future__ import annotations

import dataclasses
import html
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli import events
from schemas import faults_of_run
from whole_runs import ROW, nothing_half_written, share, stages_of, unheard

from kerasrobust import presets, runs
from kerasrobust.config import DemoConfig, StudyConfig, TrainConfig
from kerasrobust.data.load import load_dataset
from kerasrobust.errors import Cancelled
from kerasrobust.events import (
    AttackStarted,
    Event,
    ExamplesSaved,
    Log,
    Metrics,
    Row,
    RunFinished,
    StageStarted,
    as_dict,
)
from kerasrobust.fields import Epsilon
from kerasrobust.jobs import engine, study
from kerasrobust.networks.noise import noise_off
from kerasrobust.networks.saving import load_model
from kerasrobust.show.examples import list_examples, read_index, read_pair

pytest_plugins = ["cli_fixtures"]


def demo_config(folder: Path, **settings: Any) -> DemoConfig:
    small: dict[str, Any] = {"split": "train[:300]", "test_split": "test[:40]", "epochs": 1, "steps": 2, "eot": 2}
    radii = Epsilon("4/255"), Epsilon("8/255")
    return DemoConfig(**small, epsilons=radii, name="demo", runs_dir=folder, models_dir=folder / "models", **settings)


@pytest.fixture(scope="module")
def recipes() -> Iterator[None]:
    """The recipes for networks of one small block each; what they hold is in test_presets."""

    def small(made: Callable[[], TrainConfig]) -> Callable[[], TrainConfig]:
        return lambda: dataclasses.replace(made(), widths=(8,))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(presets, "PRESETS", {name: small(made) for name, made in presets.PRESETS.items()})
        yield


@pytest.fixture(scope="module")
def demo(recipes: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A demo that was never interrupted, and its result."""
    folder = tmp_path_factory.mktemp("demo")
    result = engine.run(demo_config(folder), unheard)
    return folder / "demo", result


def rows_in(log: list[Event]) -> list[Row]:
    return [event for event in log if isinstance(event, Row)]


NETWORKS = ["lenet", "convnet", "convnet-pgd", "convnet-random", "convnet-random-pgd"]
STAGES = [
    stage
    for name in NETWORKS
    for stage in (f"train-{name}", f"attack-{name}", f"attack-{name}-off", f"attack-{name}-frozen")
    if "random" in name or not stage.endswith(("-off", "-frozen"))
]


def test_a_study_is_one_table(demo: tuple[Path, dict[str, Any]]) -> None:
    folder, result = demo
    assert json.loads((folder / "result.json").read_text()) == json.loads(json.dumps(result))
    assert (result["schema"], result["kind"]) == (1, "demo") and faults_of_run(folder) == []
    rows = result["rows"]
    assert all(row.keys() == ROW for row in rows)
    assert all(share(row["interval"][0], row["accuracy"], row["interval"][1]) for row in rows)
    log = [{key: value for key, value in as_dict(event).items() if key in ROW} for event in rows_in(events(folder))]
    assert log == rows
    networks = [("lenet", "standard", False), ("convnet", "standard", False), ("convnet", "pgd", False),
                ("convnet", "standard", True), ("convnet", "pgd", True)]  # fmt: skip
    assert list(dict.fromkeys((row["model"], row["training"], row["randomized"]) for row in rows)) == networks
    radii = [4 / 255, 8 / 255]
    for network in networks:
        mine = [row for row in rows if (row["model"], row["training"], row["randomized"]) == network]
        steered = [row for row in mine if row["noise"] != "on"]
        assert [(row["noise"], row["attack"], row["epsilon"], row["steps"], row["eot"]) for row in steered] == [
            (noise, *attack)
            for noise in ("off", "frozen")
            for attack in [(None, None, None, None), ("pgd", 8 / 255, 2, None)]
            if network[2]
        ]
        mine = [row for row in mine if row["noise"] == "on"]
        cells = [(row["attack"], row["epsilon"], row["eot"]) for row in mine]
        assert cells[0] == (None, None, None) and mine[0]["norm"] is None and mine[0]["steps"] is None
        eot = 1 if network[2] else None
        expected = [(attack, radius, eot) for attack in ("fgsm", "pgd") for radius in radii]
        expected += [("pgd", 8 / 255, 2)] if network[2] else [("deepfool", radius, None) for radius in radii]
        assert sorted(cells[1:], key=str) == sorted(expected, key=str)
        clean, by_radius = mine[0]["accuracy"], [row for row in mine if row["attack"] == "deepfool"]
        # Only a minimum-norm attack has distances of its own, and its curve falls.
        assert [row["accuracy"] for row in by_radius] == sorted((row["accuracy"] for row in by_radius), reverse=True)
        assert all(row["accuracy"] <= clean for row in by_radius)
        assert all((row["median_distance"] is None) or row["attack"] == "deepfool" for row in mine)
    assert result["data"]["synthetic"] is True
    assert len(result["precisions"]) == len(networks)
    assert set(result["precisions"].values()) <= {"float32", "folded", "bfloat16"}


def test_a_study_keeps_examples_of_each_attack_at_the_reference_radius(demo: tuple[Path, dict[str, Any]]) -> None:
    folder, result = demo
    assert [path.stem for path in list_examples(folder)] == sorted(NETWORKS)
    log = [event for event in events(folder) if isinstance(event, ExamplesSaved)]
    first = load_dataset("shapes", "test[:40]").x[0]
    for name in NETWORKS:
        path = folder / "examples" / f"{name}.h5"
        index, random = read_index(path), "random" in name
        assert index.model == name and len(index.class_names) == 10
        at = 8 / 255
        last = ("pgd", at, 2) if random else ("deepfool", None, 1)
        blocks = index.blocks()
        assert [block[1:] for block in blocks] == [("fgsm", at, 1), ("pgd", at, 1), last]
        mine = [event for event in log if event.path == f"examples/{name}.h5"]
        assert [(event.attack, event.count) for event in mine] == [(block.attack, 40) for block in blocks]
        for block in blocks:
            np.testing.assert_array_equal(read_pair(path, block.examples[0])[0], first)
        rows = [row for row in result["rows"] if (row["attack"], row["epsilon"], row["eot"]) == ("pgd", at, None)]
        if name == "lenet":
            (row,) = [row for row in rows if row["model"] == "lenet"]
            assert row["accuracy"] == index.correct_rate[list(blocks[1].examples)].mean()


def test_beside_the_rows_stand_the_figures_of_the_original_study(demo: tuple[Path, dict[str, Any]]) -> None:
    published = {
        (row["model"], row["training"], row["randomized"], row["attack"], row["epsilon"], row["eot"]): row["published"]
        for row in demo[1]["rows"]
        if row["published"] is not None and row["noise"] == "on"
    }
    assert not any(row["published"] for row in demo[1]["rows"] if row["noise"] != "on")
    assert published == {
        ("lenet", "standard", False, None, None, None): 0.40,
        ("convnet", "standard", False, None, None, None): 0.69,
        ("convnet", "standard", True, "pgd", 8 / 255, 1): 0.1157,
        ("convnet", "pgd", True, "pgd", 8 / 255, 1): 0.2507,
    }


def test_a_study_keeps_its_models_and_a_report_in_one_file(demo: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = demo
    assert sorted(path.name for path in (folder / "models").iterdir()) == sorted(NETWORKS)
    for name in NETWORKS:
        card = runs.read_card(folder / "models" / name)
        assert card is not None and 0 <= card["robust_accuracy"] <= card["clean_accuracy"] + 0.1
        assert (folder / "models" / name / "saved_model.pb").is_file()
    report = (folder / "report.html").read_text()
    assert "synthetic" in report.lower()
    for figure in ("40", "69", "11.57", "25.07"):
        assert figure in report
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", report), "nothing comes from elsewhere"
    done = stages_of(events(folder))
    assert [done[name] for name in STAGES] == ["done"] * len(STAGES)
    assert nothing_half_written(folder)


def test_noise_off_and_frozen_are_the_same_weights(demo: tuple[Path, dict[str, Any]]) -> None:
    folder, result = demo
    data = load_dataset("shapes", "test[:40]")
    for name in ("convnet-random", "convnet-random-pgd"):
        network = load_model(folder / "models" / name)
        with noise_off():
            logits = network.predict(data.x, verbose=0)
        clean = {row["noise"]: row for row in result["rows"] if row["name"] == name and row["attack"] is None}
        assert clean["off"]["accuracy"] == (logits.argmax(-1) == data.y).mean()
        # One draw for all images: a right answer more or less is 1/40, and 20 passes are no whole number of those.
        assert (clean["frozen"]["accuracy"] * 40) % 1 == pytest.approx(0)
        # Wilson's, as of any deterministic network: z^2 / (N + z^2) where nothing is right.
        for noise in ("off", "frozen"):
            share, spread = clean[noise]["accuracy"], 1.959964**2 / 40
            centre = (share + spread / 2) / (1 + spread)
            assert sum(clean[noise]["interval"]) / 2 == pytest.approx(centre, abs=1e-6)


def test_a_study_of_an_earlier_version_is_taken_up(demo: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """Its rows have no names and nothing of noise; what it has done stands, and the new stages are added."""
    folder, expected = demo
    shutil.copytree(folder, tmp_path / "demo")
    for path in (tmp_path / "demo" / "stages").iterdir():
        kept = json.loads(path.read_text())
        if path.stem.endswith(("-off", "-frozen")):
            path.unlink()
        elif "rows" in kept:
            rows = [{key: row[key] for key in row if key not in ("name", "noise")} for row in kept["rows"]]
            path.write_text(json.dumps(kept | {"rows": rows}))
    (tmp_path / "demo" / "result.json").unlink()
    seen: list[Event] = []
    again = engine.run(demo_config(tmp_path), seen.append)
    status = stages_of(seen)
    assert {stage for stage in STAGES if status[stage] == "done"} == {
        stage for stage in STAGES if stage.endswith(("-off", "-frozen"))
    }
    assert again["rows"] == expected["rows"]


@pytest.fixture
def pair(recipes: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A study of the two networks alone that it compares."""
    monkeypatch.setattr(presets, "STUDY", (presets.RANDOMIZED, presets.MATCHED))


def study_config(folder: Path, models: Path) -> StudyConfig:
    small: dict[str, Any] = {"split": "train[:300]", "test_split": "test[:40]", "epochs": 1, "steps": 2, "eot": 2}
    radii = (Epsilon("8/255"),)
    return StudyConfig(**small, data="shapes", epsilons=radii, name="study", runs_dir=folder, models_dir=models)


def test_a_study_ends_with_whether_randomness_helps(
    demo: tuple[Path, dict[str, Any]], pair: None, tmp_path: Path
) -> None:
    seen: list[Event] = []
    config = study_config(tmp_path, demo[0] / "models")  # The randomized one is there already.
    result = engine.run(config, seen.append)
    assert list(dict.fromkeys(row["name"] for row in result["rows"])) == ["convnet-random-pgd", "convnet-matched"]
    lines = [event.message for event in seen if isinstance(event, Log)]
    assert lines[-1] == f"Does randomness help? {result['verdict']}"
    report = html.unescape((tmp_path / "study" / "report.html").read_text()).replace("\N{NO-BREAK SPACE}", " ")
    assert lines[-1] in report
    # Its figures are those of the table: of each network clean, and under the attack that leaves the least.
    for name in ("convnet-random-pgd", "convnet-matched"):
        mine = [row for row in result["rows"] if row["name"] == name and row["noise"] == "on"]
        worst = min((row for row in mine if row["attack"]), key=lambda row: row["accuracy"])
        assert f"{100 * worst['accuracy']:.1f} % ({100 * worst['interval'][0]:.1f}-" in result["verdict"]
        assert f"{100 * mine[0]['accuracy']:.1f} % clean" in result["verdict"]
    assert "on 40 images" in result["verdict"]

    # What an earlier version did of the pair lacks the verdict on each image, and is attacked again.
    kept = tmp_path / "study" / "stages" / "attack-convnet-random-pgd.json"
    kept.write_text(json.dumps({"rows": json.loads(kept.read_text())["rows"], "precision": "float32"}))
    seen.clear()
    assert engine.run(config, seen.append)["verdict"] == result["verdict"]
    status = stages_of(seen)
    assert [stage for stage, word in status.items() if word == "done"] == ["prepare", "attack-convnet-random-pgd"]


def test_a_study_that_is_done_is_not_done_again(
    demo: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, result = demo
    shutil.copytree(folder, tmp_path / "demo")  # It may be moved in the meantime.
    loaded: list[Path] = []
    monkeypatch.setattr(study.saving, "load_model", lambda path: loaded.append(Path(path)) or load_model(path))
    seen: list[Event] = []
    again = engine.run(demo_config(tmp_path), seen.append)
    assert all(path.is_relative_to(tmp_path) for path in loaded)
    assert again["rows"] == result["rows"]
    skipped = stages_of(seen)
    assert [skipped[name] for name in STAGES] == ["skipped"] * len(STAGES)
    assert [event for event in seen if isinstance(event, Metrics | AttackStarted)] == []
    assert len(rows_in(seen)) == len(result["rows"])
    assert isinstance(seen[-1], RunFinished) and seen[-1].status == "done"


def test_a_study_that_was_stopped_ends_with_the_same_rows(
    demo: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, expected = demo
    monkeypatch.setattr(presets, "DEMO", NETWORKS[:2])
    seen: list[Event] = []
    with pytest.raises(Cancelled):
        engine.run(demo_config(tmp_path), seen.append, lambda: "attack-lenet" in stages_of(seen))
    assert stages_of(seen)["train-lenet"] == "done"
    assert runs.state(tmp_path / "demo") == "cancelled" and not (tmp_path / "demo" / "result.json").exists()
    last = seen[-1]
    assert isinstance(last, RunFinished) and "the same command with --name demo resumes it" in last.message

    # The other network lies here, trained with the very same settings: it is taken, and attacked as if trained now.
    seen.clear()
    again = dataclasses.replace(demo_config(tmp_path), models_dir=folder / "models")
    result = engine.run(again, seen.append)
    status = stages_of(seen)
    assert {name: status[name] for name in STAGES[:4]} == dict(
        zip(STAGES[:4], ("skipped", "skipped", "skipped", "done"), strict=True)
    )
    assert not any(isinstance(event, Metrics) for event in seen)
    mine = [row for row in expected["rows"] if row["training"] == "standard" and not row["randomized"]]
    assert result["rows"] == mine
    assert [path.name for path in (tmp_path / "demo" / "models").iterdir()] == ["lenet"]


def test_networks_of_other_settings_are_not_taken(demo: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    seen: list[Event] = []
    config = dataclasses.replace(demo_config(tmp_path), models_dir=demo[0] / "models", seed=1)
    with pytest.raises(Cancelled):
        engine.run(config, seen.append, lambda: any(isinstance(event, Metrics) for event in seen))
    assert any(
        isinstance(event, StageStarted) and event.stage == "train-lenet" for event in seen
    )  # It was being trained.
    assert "train-lenet" not in stages_of(seen)  # Neither taken from there, nor done, nor failed.

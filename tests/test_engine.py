"""Runs from one end to the other, in seconds: what they leave behind, that they repeat, and that they are taken up."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import tensorflow as tf
from cli import events

from kerasrobust import presets, runs
from kerasrobust.attacks.verdict import predict
from kerasrobust.commands import from_dict
from kerasrobust.config import AttackConfig, DemoConfig, Epsilon, RandomnessConfig, TrainConfig
from kerasrobust.data.load import load_dataset
from kerasrobust.errors import Cancelled, InputError
from kerasrobust.events import (
    AttackFinished,
    AttackProgress,
    AttackStarted,
    Event,
    ExamplesSaved,
    Log,
    Metrics,
    ModelSaved,
    Row,
    RunFinished,
    RunStarted,
    StageFinished,
    StageStarted,
    as_dict,
)
from kerasrobust.jobs import engine, study, train
from kerasrobust.networks.making import as_classifier
from kerasrobust.networks.saving import load_model
from kerasrobust.show.examples import list_examples, read_index, read_pair

pytest_plugins = ["cli_fixtures"]

# What other programs read.
RESULT = {
    "schema", "kind", "model", "data", "seed", "precision", "versions", "clean_accuracy", "attacks", "robust_accuracy",
    "warnings",
}  # fmt: skip
ENTRY = {
    "name", "norm", "epsilon", "robust_accuracy", "interval", "median_distance", "seconds", "gradients", "forwards",
}  # fmt: skip
ROW = {
    "model", "training", "randomized", "attack", "norm", "epsilon", "steps", "eot", "accuracy", "interval",
    "median_distance", "published",
}  # fmt: skip
CONTRACT = ("x", "y", "x_adv", "prediction", "prediction_adv", "success", "correct_rate", "distance", "attack")
EXAMPLES = (*CONTRACT, "confidence", "confidence_adv", "epsilon", "eot")


def unheard(event: Event) -> None:
    """Stands for whoever watches."""


def nothing_half_written(folder: Path) -> bool:
    return not [path for path in folder.rglob("*") if path.suffix == ".part" or path.name.startswith(".")]


def share(low: float, value: float, high: float) -> bool:
    return 0 <= low <= value + 1e-9 and value <= high + 1e-9 and high <= 1


# Attacks.


def attacked(models_dir: Path, runs_dir: Path, name: str = "one", **settings: Any) -> tuple[dict[str, Any], Path]:
    defaults: dict[str, Any] = {"model": "tiny", "split": "test[:48]", "steps": 3, "batch_size": 32}
    config = AttackConfig(**(defaults | settings), name=name, models_dir=models_dir, runs_dir=runs_dir)
    result = engine.run(config, unheard)
    written = json.loads((runs_dir / name / "result.json").read_text())
    assert written == json.loads(json.dumps(result)), "what is returned is what is written"
    return written, runs_dir / name


@pytest.mark.parametrize(
    ("attack", "settings"),
    [
        ("pgd", {"restarts": 2}),
        ("fgsm", {"steps": None}),
        ("deepfool", {"norm": "l2", "epsilon": Epsilon(0.5), "steps": 20}),
        ("pgd", {"model": "noisy", "eot": 2, "passes": 5}),
    ],
    ids=["pgd", "fgsm", "deepfool", "randomized"],
)
def test_an_attack_leaves_what_the_contract_says(
    attack: str, settings: dict[str, Any], models_dir: Path, tmp_path: Path
) -> None:
    result, folder = attacked(models_dir, tmp_path, attack=attack, **settings)
    assert result.keys() >= RESULT and (result["schema"], result["kind"]) == (1, "attack")
    assert {"name": "shapes", "split": "test[:48]", "examples": 48}.items() <= result["data"].items()
    assert result["versions"].keys() >= {"python", "tensorflow", "keras", "numpy", "kerasrobust"}
    (entry,) = result["attacks"]
    assert entry.keys() - {"curve"} == ENTRY and entry["name"] == attack
    assert ("curve" in entry) == (attack == "deepfool")
    low, high = entry["interval"]
    assert share(low, entry["robust_accuracy"], high)
    assert entry["robust_accuracy"] == result["robust_accuracy"] <= result["clean_accuracy"] + 0.05
    assert entry["epsilon"] == settings.get("epsilon", 8 / 255)
    assert entry["gradients"] > 0 and entry["forwards"] > 0
    assert nothing_half_written(folder)
    assert "<html" in (folder / "report.html").read_text()

    data = load_dataset("shapes", "test[:48]")
    randomized = result["model"] == "noisy"
    with h5py.File(folder / "examples.h5") as file:
        assert set(file) == set(EXAMPLES)
        found = {name: file[name][()] for name in EXAMPLES}
    assert all(len(values) == 48 for values in found.values())
    np.testing.assert_array_equal(found["x"], data.x)
    np.testing.assert_array_equal(found["y"], data.y)
    assert found["x_adv"].dtype == np.float32 and found["x_adv"].min() >= 0 and found["x_adv"].max() <= 1
    assert set(found["attack"]) == {attack.encode()}
    gap = (found["x_adv"] - found["x"]).reshape(48, -1).astype(np.float64)
    order = 2 if settings.get("norm") == "l2" else np.inf
    np.testing.assert_allclose(found["distance"], np.linalg.norm(gap, order, axis=1), rtol=1e-5, atol=1e-7)
    assert found["success"].dtype == bool
    np.testing.assert_array_equal(found["success"], found["correct_rate"] <= 0.5)
    if not randomized:
        classifier = as_classifier(load_model(models_dir / "tiny"))
        for images, predictions in (("x", "prediction"), ("x_adv", "prediction_adv")):
            np.testing.assert_array_equal(predict(classifier, found[images]).argmax(1), found[predictions])
        np.testing.assert_array_equal(found["success"], found["prediction_adv"] != data.y)
        np.testing.assert_array_equal(found["correct_rate"], found["prediction_adv"] == data.y)
        assert result["clean_accuracy"] == np.mean(found["prediction"] == data.y)
    if attack != "deepfool":
        assert found["distance"].max() <= 8 / 255 + 1e-6
        assert entry["robust_accuracy"] == pytest.approx(found["correct_rate"].mean())
    else:
        right = found["prediction"] == data.y
        stays = right & ((found["distance"] > 0.5) | ~found["success"])
        assert entry["robust_accuracy"] == stays.mean()
        assert entry["median_distance"] == pytest.approx(np.median(found["distance"][right]), rel=1e-6)


def test_an_attack_reports_its_course(models_dir: Path, tmp_path: Path) -> None:
    result, folder = attacked(models_dir, tmp_path, restarts=2)
    log = events(folder)
    assert isinstance(log[0], RunStarted) and isinstance(log[-1], RunFinished)
    start = log[0]
    assert (start.run, start.kind) == ("one", "attack") and start.pid > 0 and start.devices
    assert from_dict(start.config) == from_dict(json.loads((folder / "config.json").read_text()))
    assert start.command.startswith("python -m kerasrobust.run attack --name one")
    assert log[-1].status == "done" and log[-1].seconds > 0
    times = [event.time for event in log]
    assert times == sorted(times)
    # Stages don't overlap; what happens in one carries its name.
    stage = None
    for event in log:
        if isinstance(event, StageStarted):
            assert stage is None
            stage = event.stage
        assert event.stage == stage
        if isinstance(event, StageFinished):
            assert event.status == "done" and event.seconds >= 0
            stage = None
    (begun,) = [event for event in log if isinstance(event, AttackStarted)]
    assert (begun.attack, begun.norm, begun.epsilon, begun.examples) == ("pgd", "linf", 8 / 255, 48)
    assert begun.settings["restarts"] == 2
    progress = [event for event in log if isinstance(event, AttackProgress)]
    assert all(event.done <= event.total == 48 for event in progress)
    assert progress[-1].done == 48 and progress[-1].survivors == round(48 * result["robust_accuracy"])
    for before, after in pairwise(progress):
        assert after.gradients >= before.gradients and after.survivors <= before.survivors
    (ended,) = [event for event in log if isinstance(event, AttackFinished)]
    assert result["attacks"] == [{key: value for key, value in as_dict(ended).items() if key in ENTRY}]
    named, computed, audited, last = [event for event in log if isinstance(event, Log)]
    assert named.message == "Data: shapes, as none were named."
    assert "float32" in computed.message or "bfloat16" in computed.message
    assert audited.message.startswith("Audit: ")
    assert "Robust accuracy under PGD" in last.message
    (saved,) = [event for event in log if isinstance(event, ExamplesSaved)]
    assert (folder / saved.path).is_file() and (saved.count, saved.attack) == (48, "pgd")


def figures(result: dict[str, Any]) -> dict[str, Any]:
    """Returns a result without what differs from run to run: the time it took."""
    entries = [{key: value for key, value in entry.items() if key != "seconds"} for entry in result["attacks"]]
    return result | {"attacks": entries}


@pytest.mark.parametrize("model", ["tiny", "noisy"])
def test_equal_seeds_give_equal_results(model: str, models_dir: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"model": model, "seed": 3, "passes": 3}
    (one, first), (two, second) = (attacked(models_dir, tmp_path, name, **settings) for name in ("one", "two"))
    assert figures(one) == figures(two)
    (_, third) = attacked(models_dir, tmp_path, "three", **settings | {"seed": 4})
    arrays = []
    for folder in (first, second, third):
        with h5py.File(folder / "examples.h5") as file:
            arrays.append({name: file[name][()] for name in EXAMPLES})
    for name in EXAMPLES:
        np.testing.assert_array_equal(arrays[0][name], arrays[1][name], err_msg=name)
    assert (arrays[0]["x_adv"] != arrays[2]["x_adv"]).any()


def test_the_engine_can_be_asked_to_stop(models_dir: Path, tmp_path: Path) -> None:
    config = AttackConfig(model="tiny", split="test[:48]", name="one", models_dir=models_dir, runs_dir=tmp_path)
    for place, stop_at in enumerate((StageStarted, AttackStarted, AttackProgress)):
        seen: list[Event] = []

        def stop(seen: list[Event] = seen, kind: type[Event] = stop_at) -> bool:
            return any(isinstance(event, kind) for event in seen)

        with pytest.raises(Cancelled):
            engine.run(dataclasses.replace(config, name=f"run-{place}"), seen.append, stop)
        last = seen[-1]
        assert isinstance(last, RunFinished) and last.status == "cancelled"
        assert f"the same command with --name run-{place} resumes it" in last.message
        assert runs.state(tmp_path / f"run-{place}") == "cancelled"
        assert not (tmp_path / f"run-{place}" / "examples.h5").exists()
    # Taken up under the same name, it ends as if nothing had been.
    engine.run(dataclasses.replace(config, name="run-0"), unheard)
    assert runs.state(tmp_path / "run-0") == "done"


def test_ctrl_c_from_python_is_a_cancelled_run_too(models_dir: Path, tmp_path: Path) -> None:
    def interrupted(event: Event) -> None:
        if isinstance(event, AttackStarted):
            raise KeyboardInterrupt

    config = AttackConfig(model="tiny", split="test[:48]", name="one", models_dir=models_dir, runs_dir=tmp_path)
    with pytest.raises(Cancelled):
        engine.run(config, interrupted)
    assert runs.state(tmp_path / "one") == "cancelled"


def test_randomness_leaves_a_verdict_and_refuses_a_network_without_any(models_dir: Path, tmp_path: Path) -> None:
    small: dict[str, Any] = {"split": "test[:6]", "gradients": 50, "passes": 2, "batch_size": 6}
    places: dict[str, Any] = {"models_dir": models_dir, "runs_dir": tmp_path}
    with pytest.raises(InputError, match="Use the command attack"):
        engine.run(RandomnessConfig(model="tiny", **small, **places), unheard)
    assert list(tmp_path.iterdir()) == []
    result = engine.run(RandomnessConfig(model="noisy", name="one", **small, **places), unheard)
    assert json.loads((tmp_path / "one" / "result.json").read_text()) == json.loads(json.dumps(result))
    assert result.keys() >= RESULT and result["verdict"] and result["kind"] == "randomness"
    assert [entry["name"] for entry in result["attacks"]]
    assert all(entry.keys() >= ENTRY for entry in result["attacks"])
    assert (tmp_path / "one" / "report.html").is_file()
    assert runs.state(tmp_path / "one") == "done"


# Training.


def train_config(folder: Path, **settings: Any) -> TrainConfig:
    defaults: dict[str, Any] = {
        "name": "net", "widths": (4, 8), "epochs": 2, "batch_size": 32, "split": "train[:200]",
        "test_split": "test[:30]", "validation_share": 0.2, "learning_rate": 0.05,
        "runs_dir": folder / "runs", "models_dir": folder / "models",
    }  # fmt: skip
    return TrainConfig(**(defaults | settings))


def noisy_config(folder: Path, **settings: Any) -> TrainConfig:
    noisy: dict[str, Any] = {"training": "fgsm", "randomize": 0.15, "clean_share": 0.25, "seed": 3}
    return train_config(folder, precision="folded", **noisy, **settings)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event], dict[str, Any]]:
    """A folder of runs and models with one training, its events and its result."""
    folder = tmp_path_factory.mktemp("trained")
    seen: list[Event] = []
    result = engine.run(noisy_config(folder), seen.append)
    return folder, seen, result


def test_no_image_is_both_trained_and_validated_on(tmp_path: Path) -> None:
    context: Any = SimpleNamespace(emit=lambda event: None)
    config = train_config(tmp_path)
    data = train.load_train_data(config, context)
    trained, validated = ({image.tobytes() for image in part.images} for part in (data.train, data.validation))
    assert (len(data.train), len(data.validation)) == (160, 40)
    assert not trained & validated
    assert trained | validated == {image.tobytes() for image in load_dataset("shapes", "train[:200]").images}


def test_training_leaves_a_model_with_its_card(trained: tuple[Path, list[Event], dict[str, Any]]) -> None:
    top, seen, result = trained
    folder = top / "models" / "net"
    assert {"saved_model.pb", "variables", "model.keras", "card.json"} <= {path.name for path in folder.iterdir()}
    assert callable(tf.saved_model.load(str(folder)).signatures["serving_default"])
    card = json.loads((folder / "card.json").read_text())
    assert card["schema"] == 1 and card["name"] == "net" and card["randomized"] is True
    assert {"name": "shapes", "split": "train[:200]", "test_split": "test[:30]", "examples": 30}.items() <= card[
        "data"
    ].items()
    assert card["data"]["synthetic"] is True
    trained = {"model": "convnet", "training": "fgsm", "randomize": 0.15, "epochs": 2, "seed": 3, "widths": [4, 8]}
    assert trained.items() <= card["training"].items()
    assert card["precision"] == card["training_precision"] == "folded"
    assert card["command"].startswith("python -m kerasrobust.run train --name net --seed 3")
    assert card["versions"].keys() >= {"python", "tensorflow", "keras", "numpy"}
    assert share(card["clean_interval"][0], card["clean_accuracy"], card["clean_interval"][1])
    assert share(card["robust_interval"][0], card["robust_accuracy"], card["robust_interval"][1])
    (attack,) = card["attacks"]
    assert attack.keys() >= ENTRY and attack["settings"]["eot"] > 1  # The network is a randomized one.
    assert {layer["type"] for layer in card["layers"]} >= {"Conv2D", "RandomDropout", "Dense"}
    assert card["parameters"] == load_model(folder).count_params()
    assert {"schema": 1, "kind": "train", "seed": 3}.items() <= result.items()
    assert result["clean_accuracy"] == card["clean_accuracy"]

    index = read_index(top / "runs" / "net" / "examples.h5")
    assert len(index) == 30 and index.model == "net" and set(index.attack) == {"pgd"} and set(index.eot) == {20}
    assert index.correct_rate.mean() == pytest.approx(card["robust_accuracy"])
    examples = [event for event in seen if isinstance(event, ExamplesSaved)]
    assert [(event.path, event.count) for event in examples] == [("examples.h5", 30)]

    saved = [event for event in seen if isinstance(event, ModelSaved)]
    assert [(event.name, Path(event.path)) for event in saved] == [("net", folder)]
    metrics = [event for event in seen if isinstance(event, Metrics)]
    names = {"loss", "accuracy", "robust_accuracy"}
    for split in ("train", "validation"):
        ends = [event for event in metrics if event.split == split and names <= event.values.keys()]
        assert {event.epoch for event in ends} == {1, 2}
        assert all(math.isfinite(value) for event in ends for value in event.values.values())
    assert any("learning_rate" in event.values for event in metrics)
    assert nothing_half_written(top)
    assert [path.name for path in folder.parent.iterdir()] == ["net"]


def test_a_model_is_replaced_only_when_asked_and_before_anything_is_trained(
    trained: tuple[Path, list[Event], dict[str, Any]], tmp_path: Path
) -> None:
    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
    card = tmp_path / "models" / "net" / "card.json"
    before = card.read_bytes()
    runs_before = sorted(path.name for path in (tmp_path / "runs").iterdir())
    seen: list[Event] = []
    with pytest.raises(InputError, match=r"Received: 'net', a finished run"):
        engine.run(noisy_config(tmp_path), seen.append)
    with pytest.raises(InputError, match=r"a name that no saved model has. Received: 'net'"):
        engine.run(noisy_config(tmp_path, runs_dir=tmp_path / "others"), seen.append)
    assert not any(isinstance(event, Metrics) for event in seen)
    assert list((tmp_path / "others").iterdir()) == []
    assert card.read_bytes() == before and sorted(path.name for path in (tmp_path / "runs").iterdir()) == runs_before
    # Trained on from itself, into its own place.
    again = train_config(tmp_path, overwrite=True, model="net", epochs=1, seed=5)
    engine.run(again, unheard)
    assert json.loads(card.read_text())["training"]["model"] == "net"
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == runs_before
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["net"]


@pytest.mark.parametrize("randomize", [None, 0.2])
def test_equal_seeds_train_equal_networks(randomize: float | None, tmp_path: Path) -> None:
    weights = []
    training = "pgd" if randomize is None else "standard"
    for name in ("a", "b"):
        config = train_config(
            tmp_path,
            name=name,
            training=training,
            widths=(4,),
            steps=2,
            epochs=1,
            seed=9,
            randomize=randomize,
            test_split="test[:8]",
        )
        seen: list[Event] = []
        with pytest.raises(Cancelled):  # The training is what matters here.
            engine.run(config, seen.append, lambda seen=seen: "train" in stages_of(seen))  # type: ignore[misc]
        with h5py.File(tmp_path / "runs" / name / "training" / "best.weights.h5") as file:
            found: dict[str, Any] = {}
            file.visititems(lambda key, item, to=found: to.update({key: item[()]} if hasattr(item, "dtype") else {}))
        weights.append(found)
    one, two = weights
    assert one.keys() == two.keys() and len(one) > 8
    for key, values in one.items():
        np.testing.assert_allclose(values, two[key], rtol=1e-5, atol=1e-6, err_msg=key)


# The study.


def demo_config(folder: Path, **settings: Any) -> DemoConfig:
    small: dict[str, Any] = {"split": "train[:300]", "test_split": "test[:40]", "epochs": 1, "steps": 2, "eot": 2}
    radii = Epsilon("4/255"), Epsilon("8/255")
    return DemoConfig(**small, epsilons=radii, name="demo", runs_dir=folder, models_dir=folder / "models", **settings)


@pytest.fixture(scope="module")
def recipes() -> Iterator[None]:
    """The five recipes for networks of one small block each; what they hold is in test_presets."""

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


def stages_of(log: list[Event]) -> dict[str, str]:
    return {event.stage or "": event.status for event in log if isinstance(event, StageFinished)}


NETWORKS = ["lenet", "convnet", "convnet-pgd", "convnet-random", "convnet-random-pgd"]
STAGES = [f"{work}-{name}" for name in NETWORKS for work in ("train", "attack")]


def test_a_study_is_one_table(demo: tuple[Path, dict[str, Any]]) -> None:
    folder, result = demo
    assert json.loads((folder / "result.json").read_text()) == json.loads(json.dumps(result))
    assert (result["schema"], result["kind"]) == (1, "demo")
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
        if row["published"] is not None
    }
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
    monkeypatch.setattr(presets, "PRESETS", {name: presets.PRESETS[name] for name in NETWORKS[:2]})
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

"""Attacks from one end to the other, in seconds: what they leave behind, and that they repeat."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil
import pytest
from cli import events
from schemas import faults_of_run
from whole_runs import ENTRY, EXAMPLES, RESULT, nothing_half_written, share, unheard

from kerasrobust import machine, runs
from kerasrobust.attacks.verdict import predict
from kerasrobust.commands import from_dict
from kerasrobust.config import AttackConfig, RandomnessConfig
from kerasrobust.data.load import load_dataset
from kerasrobust.errors import Cancelled, InputError
from kerasrobust.events import (
    AttackFinished,
    AttackProgress,
    AttackStarted,
    Event,
    ExamplesSaved,
    Log,
    RunFinished,
    RunStarted,
    StageFinished,
    StageStarted,
    SystemSampled,
    as_dict,
)
from kerasrobust.fields import Epsilon
from kerasrobust.jobs import engine
from kerasrobust.networks.making import as_classifier
from kerasrobust.networks.saving import load_model
from kerasrobust.tail import read_all

pytest_plugins = ["cli_fixtures"]


def attacked(models_dir: Path, runs_dir: Path, name: str = "one", **settings: Any) -> tuple[dict[str, Any], Path]:
    defaults: dict[str, Any] = {"model": "tiny", "split": "test[:48]", "steps": 3, "batch_size": 32}
    config = AttackConfig(**(defaults | settings), name=name, models_dir=models_dir, runs_dir=runs_dir)
    result = engine.run(config, unheard)
    written = json.loads((runs_dir / name / "result.json").read_text())
    assert written == json.loads(json.dumps(result)), "what is returned is what is written"
    assert faults_of_run(runs_dir / name) == []
    return written, runs_dir / name


def test_a_run_keeps_what_it_took_of_its_machine(
    models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "PERIOD", 0.0)
    _, folder = attacked(models_dir, tmp_path, attack="fgsm", steps=None)
    samples = [event for event in read_all(folder / "events.jsonl") if isinstance(event, SystemSampled)]
    assert len(samples) > 5
    held, here = psutil.Process().memory_info().rss, psutil.virtual_memory().total
    for sample in samples:
        assert sample.memory_total == here and 0 < sample.memory < here
        assert sample.process_memory == pytest.approx(held, rel=0.5)
        assert 0 <= sample.cpu <= 100 and sample.process_cpu >= 0
    # Computing takes a core or more at times.
    assert max(sample.process_cpu for sample in samples) > 30


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
    assert entry.keys() - {"curve"} == ENTRY | {"settings"} and entry["name"] == attack
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
    known = ENTRY | {"settings"}
    assert result["attacks"] == [{key: value for key, value in as_dict(ended).items() if key in known}]
    # It wasn't said, and is spelled out.
    assert result["attacks"][0]["settings"]["step_size"] == pytest.approx(2.5 * 8 / 255 / 3)
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
    # Taken up under the same name, it ends as if nothing had been; its report counts the time of both starts.
    path = tmp_path / "run-0" / "events.jsonl"
    first, *rest = path.read_text().splitlines()
    began = json.loads(first)
    path.write_text("\n".join([json.dumps(began | {"time": began["time"] - 3600}), *rest, ""]))
    engine.run(dataclasses.replace(config, name="run-0"), unheard)
    assert runs.state(tmp_path / "run-0") == "done"
    assert re.search(r"1:00:\d\d in 2 starts", (tmp_path / "run-0" / "report.html").read_text())


def test_versions_tell_the_commit_that_one_is_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert "commit" not in engine.versions()

    def git(*words: str) -> str:
        own = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(["git", *own, *words], check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    Path("a").write_text("1")
    git("add", "a")
    git("commit", "-qm", "a")
    assert engine.versions()["commit"] == git("rev-parse", "HEAD")[:12]
    Path("a").write_text("2")
    assert engine.versions()["commit"] == f"{git('rev-parse', 'HEAD')[:12]}-dirty"


def test_ctrl_c_from_python_is_a_cancelled_run_too(models_dir: Path, tmp_path: Path) -> None:
    def interrupted(event: Event) -> None:
        if isinstance(event, AttackStarted):
            raise KeyboardInterrupt

    config = AttackConfig(model="tiny", split="test[:48]", name="one", models_dir=models_dir, runs_dir=tmp_path)
    with pytest.raises(Cancelled):
        engine.run(config, interrupted)
    assert runs.state(tmp_path / "one") == "cancelled"
    engine.run(config, unheard)
    # A finished run is replaced only once there is work to take its place.
    with pytest.raises(Cancelled):
        engine.run(dataclasses.replace(config, overwrite=True), interrupted)
    assert runs.state(tmp_path / "one") == "done"


def test_randomness_leaves_a_verdict_and_refuses_a_network_without_any(models_dir: Path, tmp_path: Path) -> None:
    small: dict[str, Any] = {"split": "test[:6]", "gradients": 50, "passes": 2, "batch_size": 6}
    places: dict[str, Any] = {"models_dir": models_dir, "runs_dir": tmp_path}
    with pytest.raises(InputError, match="Use the command attack"):
        engine.run(RandomnessConfig(model="tiny", **small, **places), unheard)
    assert list(tmp_path.iterdir()) == []
    result = engine.run(RandomnessConfig(model="noisy", name="one", **small, **places), unheard)
    assert json.loads((tmp_path / "one" / "result.json").read_text()) == json.loads(json.dumps(result))
    assert result.keys() >= RESULT and result["verdict"] and result["kind"] == "randomness"
    assert faults_of_run(tmp_path / "one") == []
    assert [entry["name"] for entry in result["attacks"]]
    assert all(entry.keys() >= ENTRY for entry in result["attacks"])
    assert (tmp_path / "one" / "report.html").is_file()
    assert runs.state(tmp_path / "one") == "done"

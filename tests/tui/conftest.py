"""Folders with recorded runs, and the UI on top of them with a stand-in for the engine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_engine import ENGINE, leave_files, recorded

from kerasrobust.assessing import AssessConfig, CertifyConfig, CorruptionsConfig
from kerasrobust.config import AttackConfig, DemoConfig, TrainConfig
from kerasrobust.events import to_json
from kerasrobust.runs import write_json
from kerasrobust.settings import RunConfig, to_dict
from tui.app import Lab

CONFIGS: dict[str, RunConfig] = {
    "demo": DemoConfig(),
    "train": TrainConfig(model="lenet", split="train[:1000]", epochs=3),
    "attack": AttackConfig(model="small", steps=10),
    "corruptions": CorruptionsConfig(
        model="convnet-pgd", reference="convnet", kinds="all", data="cifar10", split="test[:60]"
    ),
    "certify": CertifyConfig(model="convnet-pgd", sigma=0.12, samples=1000, data="cifar10", split="test[:40]"),
    "assess": AssessConfig(model="convnet-gaussian", beside="convnet-pgd", minutes=6),
}

AddRun = Callable[..., Path]


@pytest.fixture(autouse=True)
def true_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal as most people have it, wherever the tests run."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at files more often than for people."""
    monkeypatch.setattr("tui.screens.runs.PERIOD", 0.1)
    monkeypatch.setattr("tui.screens.monitor.PERIOD", 0.05)


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    return tmp_path / "saved_models"


@pytest.fixture
def add_run(runs_dir: Path) -> AddRun:
    """Returns a function that makes the folder of a recorded run, whole or up to some event."""

    def add(kind: str, name: str | None = None, *, events: int | None = None, began: float | None = None) -> Path:
        folder = runs_dir / (name or kind)
        folder.mkdir(parents=True)
        write_json(folder / "config.json", to_dict(CONFIGS[kind]))
        happened = recorded(kind)[:events]
        (folder / "events.jsonl").write_text("".join(f"{to_json(event)}\n" for event in happened))
        (folder / "console.log").write_text("a warning of some library\nand its last line\n")
        if events is None:
            leave_files(kind, folder)
        if began is not None:
            os.utime(folder / "config.json", (began, began))
        return folder

    return add


@pytest.fixture
def lab(runs_dir: Path, models_dir: Path) -> Iterator[Lab]:
    app = Lab(runs_dir, models_dir, ENGINE)
    yield app
    for child in app.session.runner.running():
        child.process.kill()
        child.process.wait()

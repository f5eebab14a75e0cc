"""What tests of exports share: a run by hand, the runs that are kept, and the command."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli import ROOT, call, events
from schemas import faults

from kerasrobust.events import as_dict
from kerasrobust.show.examples import write_examples

RECORDINGS = ROOT / "tests" / "recordings"


DEMO = ROOT / "tests" / "tui" / "recordings"


HOSTILE = 'a_b & 50 % #1 {x} $y$ ~^ <i> [z] "q" --long \\end{tabular} | *é*'


PGD = {
    "name": "pgd", "norm": "linf", "epsilon": 8 / 255, "robust_accuracy": 0.278, "interval": [0.2412345, 0.3189],
    "median_distance": 0.0314, "seconds": 12.5, "gradients": 12345, "forwards": 678,
}  # fmt: skip


FMN = PGD | {
    "name": "fmn", "norm": "l2", "epsilon": None, "median_distance": None,
    "curve": [[0.0, 0.9, 0.8, 0.95], [0.5, 0.4, 0.3, 0.5], [1.0, 0.1, 0.05, 0.2]],
}  # fmt: skip


def write_run(folder: Path, *, examples: int = 0, **more: Any) -> Path:
    """Makes a run of an attack on a network with a hostile name, with as many examples as are asked for."""
    folder.mkdir(parents=True)
    result = {
        "schema": 1, "kind": "attack", "seed": 3, "model": HOSTILE, "attack": "pgd", "versions": {"keras": "3.15.1"},
        "data": {"name": "photos", "split": "test[:1000]", "examples": 1000, "synthetic": False},
        "precision": "float32", "clean_accuracy": 0.9, "clean_interval": [0.88, 0.92], "attacks": [PGD],
        "robust_accuracy": 0.278, "interval": [0.2412345, 0.3189],
        "warnings": [{"code": "rounding", "message": 'Says "no", twice,\nand é.', "severity": "warning"}],
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result | more))
    config = {"kind": "attack", "name": "mine", "model": "net", "attack": "pgd", "epsilon": 8 / 255, "data": "photos"}
    (folder / "config.json").write_text(json.dumps(config))
    if examples:
        rng = np.random.default_rng(0)
        y = np.arange(examples) % 3
        part = {
            "x": rng.random((examples, 4, 5, 3), np.float32), "x_adv": rng.random((examples, 4, 5, 3), np.float32),
            "y": y, "prediction": y, "prediction_adv": (y + 1) % 3, "success": y > 0, "correct_rate": 1.0 - (y > 0),
            "distance": np.full(examples, 0.5, np.float32), "confidence": np.full(examples, 0.9, np.float32),
            "confidence_adv": np.full(examples, 0.6, np.float32), "attack": "pgd", "epsilon": None, "eot": 1,
        }  # fmt: skip
        write_examples(folder / "examples.h5", [part], model="net", norm="linf", class_names=["cat", "dog", "é"])
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """The runs that the tests keep, and the demo that was recorded."""
    shutil.copytree(RECORDINGS, tmp_path / "runs")
    demo = tmp_path / "runs" / "demo"
    shutil.copytree(DEMO / "demo", demo)
    (demo / "events.jsonl").write_bytes(gzip.decompress((DEMO / "demo.jsonl.gz").read_bytes()))
    (demo / "config.json").write_text(json.dumps(as_dict(events(demo)[0])["config"]))
    return tmp_path / "runs"


def export(folder: Path, form: str, *more: str | Path) -> list[Path]:
    """Exports a run into its own folder; returns the files."""
    outcome = call("export", folder, "--format", form, "--json", *more)
    assert outcome.status == 0, outcome.err
    listed = json.loads(outcome.out)
    assert faults("export", listed) == []
    return [Path(item["path"]) for item in listed]


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))

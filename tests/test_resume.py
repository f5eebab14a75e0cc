"""An evaluation that was killed goes on where it was, and ends as if nothing had been."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import killing
import numpy as np
import pytest
from conftest import images, labels_of

from kerasrobust import runs
from kerasrobust.attacks import PGD, Attack, AutoAttack, Patch, SparseRS, Spatial, Square, UniversalPatch, batch
from kerasrobust.attacks.batch import Batch
from kerasrobust.attacks.checkpoint import Checkpoints
from kerasrobust.config import AttackConfig
from kerasrobust.errors import Cancelled, InputError
from kerasrobust.evaluation.evaluate import Evaluation, evaluate
from kerasrobust.jobs import engine

pytest_plugins = ["cli_fixtures"]

X = images(20, seed=12)
ATTACKS: list[Attack] = [PGD(epsilon=0.02, steps=4, restarts=2), Square(epsilon=0.02, queries=8)]


def judged(model: Any, folder: Path | None = None, **settings: Any) -> Evaluation:
    y = labels_of(model, X, 2)
    defaults: dict[str, Any] = {"attacks": ATTACKS, "batch_size": 8, "passes": 4, "audit": False, "seed": 5}
    return evaluate(model, X, y, resume_dir=folder, **(defaults | settings))


def same(one: Evaluation, other: Evaluation) -> None:
    for name in ("x_adv", "success", "correct_rate", "distance", "passes"):
        np.testing.assert_array_equal(getattr(one.worst, name), getattr(other.worst, name))
    np.testing.assert_array_equal(one.per_example, other.per_example)
    for first, second in zip(one.attacks, other.attacks, strict=True):
        assert first.result.gradients == second.result.gradients
        assert first.result.forwards == second.result.forwards


SHAPES: list[Attack] = [
    Patch(size=3, steps=4, restarts=2),
    Spatial(rotations=4, translations=2),
    SparseRS(budget=4, queries=30),
    UniversalPatch(size=3, steps=3),
]


@pytest.mark.parametrize(
    ("name", "moment", "attacks"),
    [
        *((name, moment, ATTACKS) for name in ("small", "randomized") for moment in (1, 4)),
        ("small", 4, SHAPES),
    ],
)
def test_it_goes_on_inside_a_batch(
    name: str,
    moment: int,
    attacks: list[Attack],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stopped after so many pieces, and each time again after one more, until it is through."""
    model = request.getfixturevalue(name)
    monkeypatch.setattr("kerasrobust.attacks.batch.SAVE_SECONDS", 0.0)
    monkeypatch.setattr("kerasrobust.attacks.batch.CHUNK_SECONDS", 0.0005)
    whole = judged(model, attacks=attacks)
    kept = 0
    save = Batch._save

    def counted(self: Batch, *arguments: Any) -> None:
        nonlocal kept
        save(self, *arguments)
        kept += 1

    monkeypatch.setattr(Batch, "_save", counted)
    stops = 0
    while stops < 200:
        limit = kept + moment
        try:
            found = judged(model, tmp_path, attacks=attacks, should_stop=lambda limit=limit: kept >= limit)
            break
        except Cancelled:
            stops += 1
    assert stops >= 1
    same(found, whole)


def test_a_finished_evaluation_is_read_and_not_computed(small: keras.Model, tmp_path: Path) -> None:
    one = judged(small, tmp_path)
    began = [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*.npz"))]
    two = judged(small, tmp_path)
    same(one, two)
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*.npz"))] == began
    assert two.attacks[0].result.seconds < 60


def test_what_was_torn_is_computed_again(small: keras.Model, tmp_path: Path) -> None:
    one = judged(small, tmp_path)
    files = sorted(tmp_path.rglob("*.npz"))
    files[0].write_bytes(files[0].read_bytes()[:100])
    files[1].write_bytes(b"")
    files[2].unlink()
    (files[0].parent / "9-9.tmp").write_bytes(b"half")
    with pytest.raises((zipfile.BadZipFile, ValueError, OSError)):
        np.load(files[0])
    same(judged(small, tmp_path), one)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"seed": 6}, "seed"),
        ({"batch_size": 7}, "batch_size"),
        ({"attacks": PGD()}, "attacks"),
        ({"attacks": AutoAttack(epsilon=0.01, attacks=[PGD(epsilon=0.01, steps=1)])}, "chain"),
        ({"precision": "folded"}, "precision"),
    ],
)
def test_another_evaluation_is_refused(other: dict[str, Any], named: str, small: keras.Model, tmp_path: Path) -> None:
    judged(small, tmp_path, attacks=PGD(epsilon=0.01, steps=1))
    with pytest.raises(InputError, match=rf"another in .*{named}"):
        judged(small, tmp_path, **({"attacks": PGD(epsilon=0.01, steps=1)} | other))


@pytest.mark.parametrize(("first", "asked"), [("folded", "float32"), ("float32", "bfloat16"), ("bfloat16", "folded")])
def test_a_precision_that_was_asked_for_is_never_ignored(
    first: str, asked: str, small: keras.Model, tmp_path: Path
) -> None:
    attack = PGD(epsilon=0.01, steps=1)
    assert judged(small, tmp_path, attacks=attack, precision=first).precision == first
    with pytest.raises(InputError, match=r"another in precision\.") as caught:
        judged(small, tmp_path, attacks=attack, precision=asked)
    assert "\n" not in str(caught.value)
    assert judged(small, tmp_path, attacks=attack, precision=first).precision == first
    assert judged(small, tmp_path / "anew", attacks=attack, precision=asked).precision == asked


@pytest.mark.parametrize("first", ["folded", "float32"])
def test_auto_takes_the_precision_of_the_first_start(first: str, small: keras.Model, tmp_path: Path) -> None:
    one = judged(small, tmp_path, attacks=PGD(epsilon=0.01, steps=1), precision=first)
    two = judged(small, tmp_path, attacks=PGD(epsilon=0.01, steps=1))
    assert one.precision == two.precision == first


def test_what_cannot_be_a_folder_is_refused_in_one_line(small: keras.Model, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for wrong in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(InputError, match=r"^Expected a folder.* Choose another\.$"):
            judged(small, wrong)
    assert (tmp_path / "file").read_text() == "mine"


def test_one_evaluation_at_a_time_works_in_a_folder(small: keras.Model, tmp_path: Path) -> None:
    """Another one in this process, as in a thread; and a process of its own, which leaves nothing held when it dies."""
    with Checkpoints(tmp_path).held(), pytest.raises(InputError, match="in use by another evaluation, in this process"):
        judged(small, tmp_path)
    code = f"""
import time
from pathlib import Path
from kerasrobust.attacks.checkpoint import Checkpoints
with Checkpoints(Path({str(tmp_path)!r})).held():
    Path({str(tmp_path / "1-torn.tmp")!r}).write_text("half")
    print("held", flush=True)
    time.sleep(600)
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match=f"in use by another evaluation, in process {child.pid}\\.") as caught:
            judged(small, tmp_path)
        assert "\n" not in str(caught.value)
    finally:
        child.kill()
        child.communicate()
    assert not (tmp_path / "evaluation.json").exists()
    same(judged(small, tmp_path), judged(small))
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("other", ["fewer", "more", "none", "older"])
def test_parts_of_another_evaluation_are_not_taken_for_this_one(
    other: str, small: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file would leave examples unchanged that were attacked, or attack some twice."""
    monkeypatch.setattr("kerasrobust.attacks.batch.SAVE_SECONDS", 0.0)
    monkeypatch.setattr("kerasrobust.attacks.batch.CHUNK_SECONDS", 0.0005)
    attack = PGD(epsilon=0.02, steps=4)
    whole = judged(small, attacks=attack)
    with pytest.raises(Cancelled):
        judged(small, tmp_path, attacks=attack, should_stop=lambda: bool(list(tmp_path.rglob("0-0.npz"))))
    (path,) = tmp_path.rglob("0-0.npz")
    with np.load(path) as file:
        part = dict(file)
    index = part["examples"]
    rows = {"fewer": index[:-1], "more": np.arange(len(X)), "none": index[:0], "older": index}[other]
    blank = {"examples": rows, "images": X[rows], "scores": np.zeros(len(rows), np.float32)}
    if other != "older":
        blank["queries"] = np.zeros(len(rows), np.int32)
    Checkpoints(path.parent).put("0-0", blank)
    same(judged(small, tmp_path, attacks=attack), whole)


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    """Each has a temporary file of its own."""
    checkpoints, rounds = Checkpoints(tmp_path), 40

    def write(value: int) -> None:
        for _ in range(rounds):
            checkpoints.put("one", {"a": np.full(5_000, value)})

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(write, range(3)))
    found = checkpoints.get("one")
    assert found is not None and np.ptp(found["a"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["one.npz"]


def test_an_unfinished_evaluation_of_the_old_format_is_refused_in_one_line(small: keras.Model, tmp_path: Path) -> None:
    """As kerasrobust 0.1.0 wrote it before states had types."""
    old = {"seed": 5, "batch_size": 8, "passes": 4, "attacks": [], "model": 0, "data": 0, "precision": "float32"}
    (tmp_path / "evaluation.json").write_text(json.dumps(old))
    with pytest.raises(InputError, match="Received: one that another version of kerasrobust has begun") as caught:
        judged(small, tmp_path)
    assert "\n" not in str(caught.value)
    assert json.loads((tmp_path / "evaluation.json").read_text()) == old, "nothing is lost"


def test_a_model_that_was_trained_since_is_refused(small: keras.Model, tmp_path: Path) -> None:
    attack = PGD(epsilon=0.01, steps=1)
    judged(small, tmp_path, attacks=attack)
    before = small.get_weights()
    small.set_weights([weight * 1.01 for weight in before])
    try:
        with pytest.raises(InputError, match="model"):
            judged(small, tmp_path, attacks=attack)
    finally:
        small.set_weights(before)


def test_checkpoints_are_replaced_whole(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path).inside("part")
    assert checkpoints.get("one") is None
    checkpoints.put("one", {"a": np.arange(3), "b": np.array(True)})
    checkpoints.put("one", {"a": np.arange(4)})
    found = checkpoints.get("one")
    assert found is not None and list(found) == ["a"] and len(found["a"]) == 4
    assert [path.name for path in (tmp_path / "part").iterdir()] == ["one.npz"]
    nothing = Checkpoints()
    nothing.put("one", {"a": np.arange(3)})
    assert nothing.get("one") is None and nothing.inside("x").folder is None


def test_a_run_without_a_name_is_taken_up_by_the_same_command(models_dir: Path, tmp_path: Path) -> None:
    config = AttackConfig(
        model="tiny", split="test[:40]", attack="pgd", steps=30, batch_size=8, models_dir=models_dir, runs_dir=tmp_path
    )
    seen = 0

    def stop() -> bool:
        nonlocal seen
        seen += len(list(tmp_path.rglob("0-*.npz"))) > 0
        return seen > 2

    with pytest.raises(Cancelled):
        engine.run(config, lambda event: None, stop)
    (begun,) = runs.list_runs(tmp_path)
    assert runs.state(begun) == "cancelled"
    engine.run(config, lambda event: None)
    assert runs.list_runs(tmp_path) == [begun]
    assert runs.state(begun) == "done"
    assert not (begun / "batches").exists()
    # A finished one stays what it is.
    engine.run(config, lambda event: None)
    assert len(runs.list_runs(tmp_path)) == 2


def test_killed_for_real(models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By SIGKILL inside a batch and while a file is written; `python tests/killing.py 20` does more of it.

    This process, which isn't the one that was killed, takes up what is left.
    """
    for name in ("SAVE_SECONDS", "CHUNK_SECONDS"):  # `killing.child` sets them; they are put back in the end.
        monkeypatch.setattr(batch, name, getattr(batch, name))
    killing.child(models_dir, tmp_path / "whole", {"kind": "never"})
    whole = killing.outcome(tmp_path / "whole")
    for number, moment in enumerate(({"kind": "batch", "at": 5}, {"kind": "write", "at": 8})):
        folder = tmp_path / str(number)
        assert killing.start(models_dir, folder, moment) == -9
        assert list(folder.rglob("*.npz"))
        killing.child(models_dir, folder, {"kind": "never"})
        assert killing.same(killing.outcome(folder), whole)

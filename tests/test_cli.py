"""The command line: what it refuses, in one line and without leaving anything behind, and what it prints otherwise."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from cli import call, events, finish, start

from kerasrobust.config import AttackConfig
from kerasrobust.events import RunFinished, RunStarted, from_json
from kerasrobust.networks import saving
from kerasrobust.runs import open_run, state

pytest_plugins = ["cli_fixtures"]

ATTACK = ["attack", "--model", "tiny", "--steps", "2", "--split", "test[:32]"]
TRAIN = ["train", "--widths", "4", "--epochs", "1", "--split", "train[:100]", "--test-split", "test[:20]"]


def left_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) if folder.exists() else []


def refused(*words: str | Path, places: list[str]) -> str:
    """Returns the line that refuses a command; checks that no folder of the run stays."""
    outcome = call(*words, *places)
    assert left_in(Path(places[1])) == []
    return outcome.message


# While the words are read: no folder is made, nothing is loaded.


@pytest.mark.parametrize(
    ("line", "received", "advice"),
    [
        ("atack --model m", "'atack'", "Did you mean 'attack'?"),
        ("Train", "'Train'", "Did you mean 'train'?"),
        ("attack --model m --attack pdg", "'pdg'", "Did you mean 'pgd'?"),
        ("attack --model m --attack deepfol", "'deepfol'", "Did you mean 'deepfool'?"),
        ("train --preset convnet-pdg", "'convnet-pdg'", "Did you mean 'convnet-pgd'?"),
        ("train --preset", "''", "Choose one"),
        ("train --training pdg", "'pdg'", "Did you mean 'pgd'?"),
        ("attack --model m --norm linff", "'linff'", "Did you mean 'linf'?"),
        ("attack --model m --precision bfloat15", "'bfloat15'", "Did you mean 'bfloat16'?"),
        ("attack --model m --epsilom 8/255", "--epsilom", "Did you mean --epsilon?"),
        ("attack --model m --epsilom=8/255", "--epsilom", "Did you mean --epsilon?"),
        ("train --batch_sice 8", "--batch-sice", "Did you mean --batch-size?"),
        ("train --no-augmnt", "--no-augmnt", "Did you mean --no-augment?"),
        ("--epoch 3", "--epoch", "Did you mean --epochs?"),
        ("demo --zzz", "--zzz", "See kerasrobust demo --help."),
        ("attack", "none", "See kerasrobust attack --help."),
        ("attack --model", "none", "See kerasrobust attack --help."),
        ("attack --model m --steps --quiet", "none", "See kerasrobust attack --help."),
        ("attack --model m more", "more", "See kerasrobust attack --help."),
        ("attack --model m --quiet=yes", "'yes'", "See kerasrobust attack --help."),
        ("attack --model m --quiet yes", "yes", "See kerasrobust attack --help."),
        ("attack --model m --step 3", "--step", "Did you mean --steps?"),
        ("attack --model m --preset lenet", "--preset", "Did you mean"),
        ("attack --model m --steps 1.5", "'1.5'", "See kerasrobust attack --help."),
        ("attack --model -m", "none", "See kerasrobust attack --help."),
        ("train --widths 4 b", "['4', 'b']", "See kerasrobust train --help."),
        ("attack --model m --epsilon -8/255", "-8/255", "in units of an image"),
        ("attack --model m --epsilon=-0.1", "-0.1", "in units of an image"),
        ("attack --model m --epsilon nan", "nan", "in units of an image"),
        ("attack --model m --epsilon 8/0", "8/0", "in units of an image"),
        ("attack --model m --epsilon 8", "8.", "Did you mean 8/255?"),
        ("attack --model m --epsilon eight", "eight", "in units of an image"),
        ("attack --model m --step-size 2/", "2/", "in units of an image"),
        ("study --epsilons 4/255 8", "8.", "Did you mean 8/255?"),
        ("study --epsilons 4/255 nan", "nan", "in units of an image"),
        ("study --epsilons", "none", "Try --epsilons"),
        ("train --epochs 0", "0", "larger"),
        ("train --epochs three", "'three'", "See kerasrobust train --help."),
        ("train --learning-rate fast", "'fast'", "See kerasrobust train --help."),
        ("train --widths a", "['a']", "See kerasrobust train --help."),
        ("train --batch-size 0", "0", "larger"),
        ("train --randomize 1.5", "1.5", "Try 0.15"),
        ("train --seed 4294967296", "4294967296", "Try 0"),
        ("demo --name ../elsewhere", "'../elsewhere'", "--runs-dir"),
    ],
)  # fmt: skip
def test_words_that_are_not_understood(
    line: str, received: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    message = call(*line.split()).message
    assert f"Received: {received}" in message and advice in message
    assert list(tmp_path.iterdir()) == []


def test_another_backend(places: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert "Received: KERAS_BACKEND=jax. Unset it" in refused(*ATTACK, places=places)


# Models.


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["attack", "--model", "tinny"], "Did you mean 'tiny'?"),
        (["attack", "--model", "./none.keras"], "Received: './none.keras'"),
        (["train", "--model", "convnett"], "Did you mean 'convnet'?"),
        (["train", "--name", "tiny"], "Received: 'tiny', which is in"),
        (["train", "--model", "lenet", "--data", "{small}", "--validation-share", "0.5"], "at least 16x16 pixels"),
        (["train", "--model", "tiny", "--data", "{small}", "--validation-share", "0.5"], "shape 32x32x3"),
        (["attack", "--model", "tiny", "--data", "{small}", "--split", "test"], "shape 32x32x3 for 'convnet'."),
        (["attack", "--model", "tiny", "--restarts", "2", "--attack", "deepfool"], "settings that 'deepfool' has"),
        (["attack", "--model", "tiny", "--steps", "3", "--attack", "fgsm"], "settings that 'fgsm' has"),
    ],
)  # fmt: skip
def test_models_and_attacks_that_do_not_fit(words: list[str], part: str, places: list[str], bad: Path) -> None:
    words = [word.format(small=bad / "small.npz") for word in words]
    assert part in refused(*words, places=places)


@pytest.mark.parametrize(
    "name",
    ["garbage.keras", "cut.keras", "empty.keras", "garbage.h5", "weights.h5", "empty.h5", "cut-saved", "garbage-saved",
     "hollow", "notes.txt"],
)  # fmt: skip
def test_damaged_models(name: str, places: list[str], bad: Path) -> None:
    message = refused("attack", "--model", bad / name, places=places)
    assert name in message


def test_a_gpu_that_is_not_there(places: list[str]) -> None:
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        pytest.skip("there is a GPU")
    assert "Expected a GPU" in refused(*ATTACK, "--device", "gpu", places=places)


# Data.


@pytest.fixture(scope="module")
def bad(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models and data sets, each with one thing wrong with it."""
    folder = tmp_path_factory.mktemp("bad")
    good = np.random.default_rng(0).random((6, 32, 32, 3), np.float32)
    y = np.arange(6)

    def arrays(name: str, **values: Any) -> None:
        np.savez(folder / f"{name}.npz", **({"x": good, "y": y} | values))
        with h5py.File(folder / f"{name}.h5", "w") as file:
            for key, value in ({"x": good, "y": y} | values).items():
                file[key] = value

    def with_one(value: float) -> np.ndarray:
        x = good.copy()
        x[4, 3, 2, 1] = value
        return x

    arrays("good")
    arrays("bright", x=good * 255)
    arrays("above", x=with_one(1.001))
    arrays("below", x=with_one(-1e-4))
    arrays("nan", x=with_one(np.nan))
    arrays("inf", x=with_one(np.inf))
    arrays("short", y=y[:5])
    arrays("long", y=np.arange(7))
    arrays("negative", y=y - 1)
    arrays("eleventh", y=y + 5)
    arrays("multi-hot", y=np.ones((6, 6)))
    arrays("small", x=good[:, :12, :12])
    arrays("none", x=good[:0], y=y[:0])
    with zipfile.ZipFile(folder / "torn.npz", "w") as file:
        file.writestr("x.npy", b"\x93NUMPY")

    keras_file = (models_dir / "tiny" / "model.keras").read_bytes()
    (folder / "garbage.keras").write_bytes(b"no zip file")
    (folder / "cut.keras").write_bytes(keras_file[: len(keras_file) // 2])
    (folder / "empty.keras").write_bytes(b"")
    (folder / "garbage.h5").write_bytes(b"no hdf5 file")
    (folder / "empty.h5").write_bytes(b"")
    with h5py.File(folder / "weights.h5", "w") as file:
        file["kernel"] = good
    for name in ("cut-saved", "garbage-saved"):
        shutil.copytree(models_dir / "tiny", folder / name, ignore=shutil.ignore_patterns("model.keras", "card.json"))
    graph = folder / "cut-saved" / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:1000])
    (folder / "garbage-saved" / "saved_model.pb").write_bytes(b"no protocol buffer")
    (folder / "hollow").mkdir()
    (folder / "notes.txt").write_text("nothing")
    return folder


@pytest.mark.parametrize("suffix", ["npz", "h5"])
@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("bright", "Expected images in [0, 1]"),
        ("above", "values from"),
        ("below", "values from"),
        ("nan", "Expected images in [0, 1]"),
        ("inf", "Expected images in [0, 1]"),
        ("short", "Expected a label for each of 6 images. Received: 5"),
        ("long", "Expected a label for each of 6 images. Received: 7"),
        ("negative", "Expected labels from 0"),
        ("eleventh", "Expected labels from 0 to 9. Received: 5 to 10"),
        ("multi-hot", "several labels an image"),
        ("small", "Received: 12x12x3"),
        ("none", "at least one"),
    ],
)
def test_images_and_labels_that_cannot_be_used(name: str, part: str, suffix: str, places: list[str], bad: Path) -> None:
    message = refused("attack", "--model", "tiny", "--split", "test", "--data", bad / f"{name}.{suffix}", places=places)
    assert part in message


@pytest.mark.parametrize(
    ("data", "split", "part"),
    [
        ("shapes", "test[:0]", "at least one example"),
        ("shapes", "test[5:5]", "at least one example"),
        ("shapes", "tset", "Did you mean 'test'?"),
        ("shapes", "test[:", "Expected a split such as"),
        ("good.npz", "test[6:]", "at least one example"),
        ("good.npz", "test[:7]", "within the 6 examples"),
        ("torn.npz", "test", "torn.npz"),
        ("missing.npz", "test", "isn't there"),
    ],
)
def test_splits_and_files_that_are_not_there(data: str, split: str, part: str, places: list[str], bad: Path) -> None:
    source = data if data == "shapes" else bad / data
    assert part in refused("attack", "--model", "tiny", "--data", source, "--split", split, places=places)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--attack", "fgsm", "--target", "17"], "Received: 17. Check"),
        (["--attack", "patch", "--patch-size", "400"], "400"),
        (["--attack", "square", "--surrogate", "tiny"], "gradients"),
    ],
)
def test_what_the_work_refuses_leaves_no_folder_and_what_it_would_replace(
    words: list[str], part: str, places: list[str]
) -> None:
    own = ["attack", "--model", "tiny", "--split", "test[:8]", *words]
    assert part in refused(*own, places=places)
    assert call("attack", "--model", "tiny", "--split", "test[:8]", "--name", "a", *places).status == 0
    before = left_in(Path(places[1]))
    outcome = call(*own, "--name", "a", "--overwrite", *places)
    assert part in outcome.message and "Failed" not in outcome.out
    assert left_in(Path(places[1])) == before


def test_an_unknown_data_set_names_the_nearest(places: list[str]) -> None:
    assert "Did you mean 'cifar10'?" in refused("attack", "--model", "tiny", "--data", "cifar01", places=places)


def test_a_data_set_that_is_not_there_without_network(
    places: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: Any, **__: Any) -> Any:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    message = refused("attack", "--model", "tiny", "--data", "mnist", "--data-dir", tmp_path / "data", places=places)
    assert ("or a network to download it from" in message and "--data" in message) or "data directory" in message
    assert left_in(tmp_path / "data") == []


@pytest.mark.parametrize("words", [["--validation-share", "0"], ["--split", "train[:10]"]])
def test_too_few_images_for_validation(words: list[str], places: list[str]) -> None:
    assert "some aside for validation" in refused(*TRAIN, *words, places=places)


# Folders.


def test_a_place_for_runs_that_cannot_be_written(tmp_path: Path, models_dir: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for place in (file, file / "runs", Path("/proc/nope")):
        message = call(*ATTACK, "--models-dir", models_dir, "--runs-dir", place).message
        assert str(place) in message and "--runs-dir" in message
    assert file.read_text() == "mine" and left_in(tmp_path) == ["file"]


@contextlib.contextmanager
def full_disk(folder: Path, size: str) -> Iterator[None]:
    """Mounts a disk of that size on a folder, or skips."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    if done.returncode != 0:
        pytest.skip(f"a small disk can't be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize(
    ("size", "stays"),
    [
        ("4k", False),  # Not even the lock's pid and the settings.
        ("60k", True),  # All but the examples: what there is says that the run failed.
    ],
)
def test_a_disk_that_is_full(tmp_path: Path, models_dir: Path, size: str, stays: bool) -> None:
    folder = tmp_path / "disk"
    with full_disk(folder, size):
        outcome = call(*ATTACK, "--models-dir", models_dir, "--runs-dir", folder, "--name", "one")
        assert "No space left on device" in outcome.message
        assert (folder / "one").exists() == stays
        if stays:
            assert not {"examples.h5", "examples.part", "result.json"} & {path.name for path in folder.rglob("*")}
            assert state(folder / "one") in ("failed", "died")


def test_files_that_may_not_grow(tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not beyond 100 kB: unlike a full disk, that can be had everywhere.
    monkeypatch.chdir(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        outcome = call(*ATTACK, "--models-dir", models_dir, "--name", "one")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "Received: File too large" in outcome.message
    folder = tmp_path / "runs" / "one"
    assert state(folder) == "failed" and not (folder / "examples.h5").exists()
    assert not list(folder.glob("*.part"))


def test_a_run_folder_in_use(places: list[str], models_dir: Path) -> None:
    config = AttackConfig(model="tiny", name="one", runs_dir=Path(places[1]))
    run = open_run(config)
    before = left_in(run.path)
    message = call(*ATTACK, *places, "--name", "one").message
    assert f"in use by process {os.getpid()}" in message and "another --name" in message
    assert left_in(run.path) == before
    run.close()


def test_a_finished_run_and_other_settings_under_its_name(places: list[str]) -> None:
    named = [*ATTACK, *places, "--name", "one"]
    folder = Path(places[1]) / "one"
    assert call(*named).status == 0
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert "a finished run" in call(*named).message
    assert "Received: other epsilon." in call(*named, "--epsilon", "4/255").message
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    # What turns out to be no use in the end doesn't cost what there was.
    assert "Received: 'tinny'" in call(*named, "--model", "tinny", "--overwrite").message
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert call(*named, "--epsilon", "4/255", "--overwrite").status == 0
    result = json.loads((folder / "result.json").read_text())
    assert result["attacks"][0]["epsilon"] == 4 / 255
    assert [path.name for path in folder.parent.iterdir()] == ["one"]
    assert len([event for event in events(folder) if isinstance(event, RunStarted)]) == 1


# What goes well, and what is not the person's fault.


def test_json_is_all_there_is_on_standard_output(places: list[str], tmp_path: Path) -> None:
    outcome = finish(start(*ATTACK, *places, "--name", "one", "--json", cwd=tmp_path))
    assert (outcome.status, outcome.err) == (0, "")
    printed = [from_json(line) for line in outcome.out.splitlines()]
    folder = Path(places[1]) / "one"
    assert printed == events(folder) and None not in printed
    assert isinstance(printed[0], RunStarted) and isinstance(printed[-1], RunFinished)
    for line in outcome.out.splitlines():
        json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    # TensorFlow says this and that on standard error whatever happens.
    assert (folder / "console.log").stat().st_size > 0


def test_a_reader_that_goes_away_ends_the_run_without_a_word(places: list[str]) -> None:
    process = start(*ATTACK, *places, "--name", "one", "--json")
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) == 1


def test_tensorflow_is_not_heard_beside_the_one_line(places: list[str], bad: Path) -> None:
    message = finish(start("attack", "--model", bad / "cut-saved", *places)).message
    assert "cut-saved" in message
    assert left_in(Path(places[1])) == []


def test_quiet_prints_the_result_only(places: list[str]) -> None:
    loud, quiet = call(*ATTACK, *places), call(*ATTACK, *places, "--quiet")
    assert (quiet.status, quiet.err, loud.err) == (0, "", "")
    assert "Attacking tiny with pgd" in loud.out and "Attacking tiny with pgd" not in quiet.out
    for part in ("clean", "pgd", "8/255", "Synthetic data", "Done after", "report.html"):
        assert part in quiet.out
    assert "\x1b" not in loud.out + quiet.out


def test_a_terminal_that_knows_ascii_only_is_enough(places: list[str]) -> None:
    outcome = call(*ATTACK, *places, encoding="ascii")
    assert (outcome.status, outcome.err) == (0, "")


def test_a_name_that_is_no_unicode_is_refused_in_one_line(places: list[str]) -> None:
    name = b"/tmp/caf\xe9.npz".decode("utf-8", "surrogateescape")
    assert r"caf\udce9.npz" in refused("attack", "--model", "tiny", "--data", name, places=places)


def test_file_descriptors_are_given_back(places: list[str]) -> None:
    def opened() -> dict[str, str]:
        folder = "/proc/self/fd"
        if not os.path.isdir(folder):
            pytest.skip("no /proc here")
        found = {}
        for number in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):  # That of the listing itself.
                found[number] = os.readlink(f"{folder}/{number}")
        return found

    call(*ATTACK, *places)
    before = opened()
    for words in (ATTACK, [*ATTACK, "--json"], ["attack", "--model", "tinny"], ["atack"]):
        call(*words, *(places if words[0] == "attack" else []))
    assert opened() == before


def test_a_bug_is_one_line_and_a_traceback_in_the_log(places: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a bug\nin two lines")

    monkeypatch.setattr(saving, "load_model", broken)
    outcome = call(*ATTACK, *places, "--name", "one")
    assert outcome.status == 1
    assert outcome.err.count("\n") == 1 and "failed with RuntimeError: a bug in two lines" in outcome.err
    folder = Path(places[1]) / "one"
    assert state(folder) == "failed"
    log = (folder / "console.log").read_text()
    assert "Traceback" in log and "in two lines" in log

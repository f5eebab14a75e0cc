"""Files of adversarial examples: what is written comes back, an image at a time, and bad files are one line."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from cli import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kerasrobust.errors import InputError
from kerasrobust.show.examples import list_examples, read_index, read_pair, same_images, write_examples

NAMES = ("cat", "dog", "owl")


def part(count: int = 6, seed: int = 0, **others: Any) -> dict[str, Any]:
    """Returns made-up examples of one attack: random numbers, so that every entry can be told from the others."""
    draw = np.random.default_rng(seed)
    x = draw.random((count, 4, 5, 3), np.float32)
    return {
        "x": x,
        "x_adv": np.clip(x + np.float32(0.02), 0, 1),
        "y": draw.integers(0, 3, count),
        "prediction": draw.integers(0, 3, count),
        "prediction_adv": draw.integers(0, 5, count),
        "confidence": draw.random(count, np.float32),
        "confidence_adv": draw.random(count, np.float32),
        "success": draw.random(count) > 0.5,
        "correct_rate": draw.random(count),
        "distance": draw.random(count, np.float32),
        "attack": "pgd",
        "epsilon": 0.03,
        "eot": 1,
    } | others


def write(path: Path, *parts: dict[str, Any], names: tuple[str, ...] = NAMES) -> Path:
    write_examples(path, parts, model="net", norm="linf", class_names=names)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "examples.h5", part())


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    parts = part(), part(4, 1, attack="deepfool", epsilon=None), part(4, 2, eot=20)
    path = write(tmp_path / "examples" / "net.h5", *parts)
    index = read_index(path)
    assert len(index) == 14 and index.image_shape == (4, 5, 3)
    assert (index.model, index.norm, index.class_names) == ("net", "linf", NAMES)
    for name in ("y", "prediction", "prediction_adv", "confidence", "confidence_adv", "success", "correct_rate",
                 "distance"):  # fmt: skip
        expected = np.concatenate([item[name] for item in parts])
        np.testing.assert_array_equal(getattr(index, name), expected)
        assert getattr(index, name).dtype == expected.dtype
    assert index.attack.tolist() == ["pgd"] * 6 + ["deepfool"] * 4 + ["pgd"] * 4
    np.testing.assert_array_equal(index.epsilon, [0.03] * 6 + [np.nan] * 4 + [0.03] * 4)
    assert [tuple(block) for block in index.blocks()] == [
        (range(6), "pgd", 0.03, 1), (range(6, 10), "deepfool", None, 1), (range(10, 14), "pgd", 0.03, 20),
    ]  # fmt: skip
    np.testing.assert_array_equal(index.correct, index.prediction == index.y)
    assert [index.class_name(number) for number in (0, 2, 3, -1)] == ["cat", "owl", "class 3", "class -1"]
    for place, (which, inner) in {0: (0, 0), 7: (1, 1), 13: (2, 3)}.items():
        for found, name in zip(read_pair(path, place), ("x", "x_adv"), strict=True):
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, parts[which][name][inner])
    assert [item.name for item in path.parent.iterdir()] == ["net.h5"]


def test_one_block_of_one_example(tmp_path: Path) -> None:
    (block,) = read_index(write(tmp_path / "examples.h5", part(1))).blocks()
    assert block.examples == range(1)


def test_names_that_hdf5_would_refuse(tmp_path: Path) -> None:
    # A folder's name in Latin-1, as Python reads it, and more classes than a classic attribute holds (64 kB).
    names = ("caf\udce9", *(f"class number {number}" for number in range(20_000)))
    index = read_index(write(tmp_path / "examples.h5", part(), names=names))
    assert len(index.class_names) == len(names) and index.class_names[1:] == names[1:]
    assert "caf" in index.class_names[0]


def test_a_file_that_cannot_be_written_leaves_what_was_there(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(TypeError):
        write(file, part(), part(2, x_adv=np.zeros((2, 9, 9, 3), np.float32)))
    assert file.read_bytes() == before and [item.name for item in file.parent.iterdir()] == ["examples.h5"]


@pytest.mark.parametrize("limit", [300, 4_000, 50_000, 170_000, 200_000, 230_000])
def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(limit: int, tmp_path: Path) -> None:
    # In a process of its own, as HDF5 ends it with a segmentation fault where a file can't grow in its middle.
    code = """
import resource, sys
from pathlib import Path
sys.path.insert(0, "tests")
from test_examples import part, write
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    write(Path(sys.argv[1]), part(250), part(200))
except OSError as error:
    print(error.errno, error.filename)
"""
    words = [sys.executable, "-c", code, str(tmp_path / "examples.h5"), str(limit)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == str(errno.EFBIG) and done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_files_of_older_runs(file: Path) -> None:
    with h5py.File(file, "a") as opened:
        for name in ("confidence", "confidence_adv", "epsilon", "eot"):
            del opened[name]
        for name in ("model", "norm", "class_names"):
            del opened.attrs[name]
    index = read_index(file)
    assert (index.model, index.norm, index.class_names) == ("", "", ())
    assert np.isnan(index.confidence).all() and np.isnan(index.confidence_adv).all() and np.isnan(index.epsilon).all()
    assert index.class_name(1) == "class 1"
    np.testing.assert_array_equal(index.y, part()["y"])


def test_the_files_of_a_run(tmp_path: Path) -> None:
    assert list_examples(tmp_path) == list_examples(tmp_path / "missing") == []
    for name in ("b", "a"):
        write(tmp_path / "examples" / f"{name}.h5", part())
    (tmp_path / "examples" / "c.part").touch()
    assert [path.name for path in list_examples(tmp_path)] == ["a.h5", "b.h5"]
    write(tmp_path / "examples.h5", part())
    assert [path.name for path in list_examples(tmp_path)] == ["examples.h5", "a.h5", "b.h5"]


def refused(path: Path, part: str = "Received") -> None:
    for read in (read_index, lambda path: read_pair(path, 0), lambda path: same_images(path, path)):
        with pytest.raises(InputError, match=part) as caught:
            read(path)
        message = str(caught.value)
        assert "\n" not in message and message.startswith("Expected a file of adversarial examples. Received: ")
        assert str(path) in message


def test_files_that_are_something_else(tmp_path: Path, file: Path) -> None:
    refused(tmp_path / "missing.h5")
    refused(tmp_path)
    (tmp_path / "text.h5").write_text("hello\n" * 1000)
    refused(tmp_path / "text.h5")
    (tmp_path / "empty.h5").touch()
    refused(tmp_path / "empty.h5")
    with h5py.File(tmp_path / "other.h5", "w") as opened:
        opened["x"] = np.zeros(3)
    refused(tmp_path / "other.h5", "no dataset 'x_adv'")
    with h5py.File(file, "a") as opened:
        del opened["x_adv"]
        opened.create_group("x_adv")
    refused(file, "no dataset 'x_adv'")


@pytest.mark.parametrize(
    ("name", "values"),
    [("y", np.zeros(5, int)), ("y", np.zeros((6, 1), int)), ("attack", np.zeros(6)), ("epsilon", np.zeros(2)),
     ("prediction", np.array([b"one"] * 6))],
)  # fmt: skip
def test_columns_of_other_types_and_lengths(name: str, values: np.ndarray, file: Path) -> None:
    with h5py.File(file, "a") as opened:
        del opened[name]
        opened[name] = values
    with pytest.raises(InputError, match="Received: "):
        read_index(file)


def test_an_example_that_is_not_there(file: Path) -> None:
    for place in (6, -1):
        with pytest.raises(InputError, match=f"6 examples, none of number {place}"):
            read_pair(file, place)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1), length=st.floats(0, 1), noise=st.binary(min_size=1, max_size=40))
def test_damaged_files_are_read_or_refused(place: float, length: float, noise: bytes, file: Path) -> None:
    whole = file.read_bytes()
    start = int(place * (len(whole) - 1))
    for content in (whole[: int(length * len(whole))], whole[:start] + noise + whole[start + len(noise) :]):
        damaged = file.with_name("damaged.h5")
        damaged.unlink(missing_ok=True)
        damaged.write_bytes(content)
        for read in (read_index, lambda path: read_pair(path, 0)):
            try:
                read(damaged)
            except InputError as error:
                assert "\n" not in str(error)


def test_strings_have_a_fixed_length(file: Path) -> None:
    """HDF5 keeps variable-length ones in a heap of its own, and may never finish reading that where it is damaged."""
    with h5py.File(file) as opened:
        kinds = {name: h5py.check_string_dtype(opened[name].dtype) for name in opened}
        kinds |= {name: h5py.check_string_dtype(opened.attrs.get_id(name).dtype) for name in opened.attrs}
    assert {name: tuple(kind) for name, kind in kinds.items() if kind} == {
        "attack": ("utf-8", 3), "model": ("utf-8", 3), "norm": ("utf-8", 4), "class_names": ("utf-8", 3),
    }  # fmt: skip


@pytest.mark.parametrize("names", [NAMES, ("chat", "œuf", "")])
def test_variable_length_strings_of_older_files_are_read(names: tuple[str, ...], file: Path) -> None:
    with h5py.File(file, "a") as opened:
        del opened["attack"]
        opened["attack"] = np.array(["pgd"] * 5 + ["deepfool"], h5py.string_dtype())
        opened.attrs["class_names"] = np.array(names, h5py.string_dtype())
        opened.attrs["model"] = "réseau"
    index = read_index(file)
    assert (index.class_names, index.model, index.attack[5]) == (names, "réseau", "deepfool")
    again = read_index(write(file.with_name("again.h5"), part(), names=names))
    assert again.class_names == names


def test_same_images(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kerasrobust.show.examples._CHUNK", 4)
    mine = part()

    def other(**changes: Any) -> Path:
        return write(tmp_path / "other.h5", mine | changes)

    assert same_images(file, other(x_adv=1 - mine["x_adv"], success=~mine["success"]))
    assert not same_images(file, other(y=(mine["y"] + 1) % 3))
    last = mine["x"].copy()
    last[5, 3, 4, 2] += 1 / 255
    assert not same_images(file, other(x=last))
    assert not same_images(file, write(tmp_path / "more.h5", part(7)))
    # Which of the two is damaged is what it says.
    shutil.copy(ROOT / "README.md", tmp_path / "bad.h5")
    with pytest.raises(InputError, match=r"^Expected a file of adversarial examples\. Received: \S*bad\.h5 "):
        same_images(file, tmp_path / "bad.h5")


def test_importing_it_takes_neither_h5py_nor_numpy_with_it() -> None:
    code = (
        "import sys, kerasrobust.show.examples; print([n for n in ('h5py', 'numpy', 'tensorflow') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""Files of images as people store them: labels, dtypes, parts and names of arrays; each read value from plain NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_data import IMAGES, LABELS, _write

from kerasrobust.data.load import load_dataset
from kerasrobust.errors import InputError

WORDS = ("cat", "ant", "dog", "bee")


@pytest.fixture(params=["set.npz", "set.h5"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / request.param


@pytest.mark.parametrize(
    "labels",
    [
        LABELS[:, None], LABELS.astype(np.float32), LABELS[:, None].astype(np.float64), LABELS.astype(np.int8),
        LABELS.astype(np.uint16), np.eye(4)[LABELS], np.eye(4, dtype=bool)[LABELS],
    ],
    ids=lambda y: f"{y.dtype}-{y.ndim}",
)  # fmt: skip
def test_labels_of_any_kind(path: Path, labels: np.ndarray) -> None:
    dataset = load_dataset(_write(path, x=IMAGES, y=labels), "test[:10]")
    assert dataset.labels.dtype == np.int64 and dataset.class_names == ("0", "1", "2", "3")
    np.testing.assert_array_equal(dataset.y, LABELS[:10])


def test_one_hot_labels_count_classes_without_an_image(path: Path) -> None:
    assert load_dataset(_write(path, x=IMAGES, y=np.eye(6)[LABELS])).classes == 6


def test_yes_and_no(path: Path) -> None:
    dataset = load_dataset(_write(path, x=IMAGES, y=LABELS > 1))
    np.testing.assert_array_equal(dataset.y, (LABELS > 1).astype(int))
    assert dataset.classes == 2


@pytest.mark.parametrize("column", [False, True])
@pytest.mark.parametrize("dtype", ["S", "U"])
def test_words_are_classes_in_their_alphabetical_order(path: Path, dtype: str, column: bool) -> None:
    words = np.array(WORDS)[LABELS]
    if path.suffix == ".h5" or dtype == "S":
        words = words.astype("S")
    if path.suffix == ".h5" and dtype == "U":  # Strings of variable length.
        words = words.astype(object)
    dataset = load_dataset(_write(path, x=IMAGES, y=words[:, None] if column else words), "test[5:]")
    assert dataset.class_names == ("ant", "bee", "cat", "dog")
    assert [dataset.class_names[label] for label in dataset.y] == [WORDS[label] for label in LABELS[5:]]


@pytest.mark.parametrize("labels", [LABELS, np.eye(4)[LABELS], np.eye(4, dtype=int)[LABELS] | np.eye(4, dtype=int)[0]])
def test_classes_are_named_by_an_array_beside_the_labels(path: Path, labels: np.ndarray) -> None:
    named = {"x": IMAGES, "y": labels, "classes": np.array(WORDS, "S")}
    dataset = load_dataset(_write(path, **named), "test[:5]")
    assert dataset.class_names == WORDS
    plain = load_dataset(_write(path, x=IMAGES, y=labels, classes=np.arange(4)), "test[:5]")  # Which are no names.
    assert plain.class_names == ("0", "1", "2", "3")
    np.testing.assert_array_equal(dataset.labels, plain.labels)
    with pytest.raises(InputError, match=r"a name for each of 4 classes\. Received: 3 in 'classes'") as caught:
        load_dataset(_write(path, **named | {"classes": np.array(WORDS[:3], "S")}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint16, np.int16, np.uint32])
def test_whole_numbers_up_to_255_are_eight_bits(path: Path, dtype: Any) -> None:
    dataset = load_dataset(_write(path, x=IMAGES.astype(dtype), y=LABELS), "test[:3]")
    assert dataset.images.dtype == np.uint8
    np.testing.assert_array_equal(dataset.images, IMAGES[:3])


def test_whether_they_are_is_asked_of_all_images_not_of_the_slice(path: Path) -> None:
    images = IMAGES.astype(np.uint16)
    images[-1] *= 257
    dark = load_dataset(_write(path, x=images, y=LABELS), "test[:3]")
    np.testing.assert_allclose(dark.x, IMAGES[:3] / 65535, rtol=1e-6)


def test_rounding_past_1_is_clipped(path: Path) -> None:
    dataset = load_dataset(_write(path, x=(IMAGES / 255 + 2e-7), y=LABELS))
    assert dataset.x.max() == 1
    np.testing.assert_allclose(dataset.x, IMAGES / 255, atol=1e-6)


def test_the_layout_of_keras_own_files_has_two_parts(path: Path) -> None:
    words = np.array(WORDS)[LABELS].astype("S")
    parts = {"x_train": IMAGES[:12], "y_train": words[:12], "x_test": IMAGES[12:], "y_test": words[12:]}
    parts["y_test"][:] = b"dog"  # So that the test part alone would number it 0.
    name = _write(path, **parts)
    train, test = load_dataset(name, "train"), load_dataset(name, "test")
    np.testing.assert_array_equal(train.images, IMAGES[:12])
    np.testing.assert_array_equal(test.images, IMAGES[12:])
    assert train.class_names == test.class_names == ("ant", "bee", "cat", "dog")
    assert set(test.y.tolist()) == {3}
    both = load_dataset(name, "train[-2:]+test[:1]")
    np.testing.assert_array_equal(both.images, IMAGES[10:13])
    with pytest.raises(InputError, match=r"a split that exists \(test, train\)"):
        load_dataset(name, "all")
    assert load_dataset(name, None).split == "test"


def in_parts(path: Path, **labels: np.ndarray) -> str:
    """Writes a file with parts of five images, each with its labels."""
    images = {f"x_{part}": IMAGES[5 * number : 5 * number + 5] for number, part in enumerate(labels)}
    return _write(path, **images, **{f"y_{part}": own for part, own in labels.items()})


FIVE = np.array([2, 0, 3, 1, 2])
FORMS = {
    "indices": FIVE,
    "column": FIVE[:, None],
    "uint8": FIVE.astype(np.uint8),
    "floating": FIVE[:, None].astype(np.float32),
    "one-hot": np.eye(4)[FIVE],
    "one-hot of booleans": np.eye(4, dtype=bool)[FIVE],
}


@pytest.mark.parametrize("train", FORMS)
@pytest.mark.parametrize("test", FORMS)
def test_each_part_may_have_its_own_form_of_labels(path: Path, train: str, test: str) -> None:
    name = in_parts(path, train=FORMS[train], test=FORMS[test])
    for split in ("train", "test"):
        found = load_dataset(name, split)
        assert found.y.tolist() == FIVE.tolist() and found.class_names == ("0", "1", "2", "3")
    both = load_dataset(name, "test[:2]+train[2:]")
    assert both.y.tolist() == [2, 0, 3, 1, 2] and both.y.dtype == np.int64


def test_one_hot_labels_count_the_classes_of_indices_beside_them(path: Path) -> None:
    parts = {"train": np.eye(6)[FIVE], "validation": FIVE[:, None], "test": FIVE}
    assert {load_dataset(in_parts(path, **parts), part).classes for part in parts} == {6}
    words = [b"a", b"b", b"c", b"d", b"e", b"f"]
    named = _write(path, x_train=IMAGES[:5], y_train=np.eye(6)[FIVE], x_test=IMAGES[:5], y_test=FIVE, classes=words)
    assert [load_dataset(named, "test").class_names[label] for label in load_dataset(named, "test").y] == list("cadbc")


def test_words_of_several_parts_in_columns_and_rows_are_numbered_together(path: Path) -> None:
    train = np.array([b"dog", b"cat", b"dog", b"cat", b"dog"])
    test = np.array([b"ant", b"dog", b"ant", b"cat", b"dog"])[:, None]
    name = in_parts(path, train=train, test=test)
    assert load_dataset(name, "train").y.tolist() == [2, 1, 2, 1, 2]
    assert load_dataset(name, "test").y.tolist() == [0, 2, 0, 1, 2]
    assert load_dataset(name, "test").class_names == ("ant", "cat", "dog")


SEVERAL = np.array([[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]])
UNLIKE = {
    "several": (
        SEVERAL,
        FIVE,
        r"class indices in 'test' beside several labels an image, or none \(4 columns\) in 'train'",
    ),
    "none": (FIVE, SEVERAL[1:].repeat(2, 0)[:5] * 1.0, r"none \(4 columns\) in 'test' beside class indices in 'train'"),
    "past the columns": (
        np.eye(3)[FIVE % 3],
        FIVE,
        r"indices below 3.*3 columns\. Received: 3 in 'test'.*Add a column",
    ),
    "below 0": (np.eye(4)[FIVE], FIVE - 1, "Received: -1 to 2"),
    "other columns": (
        np.eye(4)[FIVE],
        np.eye(5)[FIVE],
        r"\(5 columns\) in 'test' beside one-hot labels \(4 columns\) in 'train'",
    ),
    "words and numbers": (FIVE, FIVE.astype("S"), "words in 'test' beside class indices in 'train'"),
    "words and one-hot": (
        FIVE.astype("S"),
        np.eye(4)[FIVE],
        r"one-hot labels \(4 columns\) in 'test' beside words in 'train'",
    ),
    "shares": (FIVE, np.full((5, 4), 0.25), "argmax"),
}


@pytest.mark.parametrize("kind", UNLIKE)
def test_parts_in_which_a_class_is_not_surely_the_same_are_refused(path: Path, kind: str) -> None:
    train, test, message = UNLIKE[kind]
    name = in_parts(path, train=train, test=test)
    for split in ("train", "test"):
        with pytest.raises(InputError, match=message) as caught:
            load_dataset(name, split)
        assert "Received" in str(caught.value) and "\n" not in str(caught.value)
        assert "Write it again" not in str(caught.value)


def test_several_labels_an_image_may_be_single_ones_in_a_part(path: Path) -> None:
    name = in_parts(path, train=SEVERAL, test=np.eye(4)[FIVE])
    np.testing.assert_array_equal(load_dataset(name, "train").y, SEVERAL)
    np.testing.assert_array_equal(load_dataset(name, "test").y, np.eye(4)[FIVE])


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (("images", "labels"), "images,labels"),
        (("data", "fine"), " data , fine"),
        (("train_set_x", "train_set_y"), "set_x,set_y"),
        (("pixels_train", "digit_train"), "pixels,digit"),
    ],
)
def test_arrays_of_other_names(path: Path, names: tuple[str, str], keys: str) -> None:
    name = _write(path, **dict(zip(names, (IMAGES, LABELS), strict=True)))
    with pytest.raises(InputError, match=rf"Received: .*{names[0]}.*--keys IMAGES,LABELS"):
        load_dataset(name)
    dataset = load_dataset(name, "train", keys=keys)
    np.testing.assert_array_equal(dataset.images, IMAGES)
    np.testing.assert_array_equal(dataset.y, LABELS)


def test_arrays_inside_groups(tmp_path: Path) -> None:
    name = _write(tmp_path / "set.h5", **{"train/x": IMAGES, "train/y": LABELS, "deep/er/x": IMAGES})
    assert len(load_dataset(name, "train")) == 20
    assert len(load_dataset(name, "test", keys="deep/er/x,train/y")) == 20


def test_keys_are_for_files_and_are_two(path: Path) -> None:
    name = _write(path, x=IMAGES, y=LABELS)
    for keys in ("x", "x,y,z", ","):
        with pytest.raises(InputError, match=r"IMAGES,LABELS\. Received: .*In .* are x, y\."):
            load_dataset(name, keys=keys)
    with pytest.raises(InputError, match=r"--keys with an \.npz or \.h5 file only.*'shapes'"):
        load_dataset("shapes", keys="x,y")


def test_without_a_split_all_images_up_to_the_most(path: Path) -> None:
    name = _write(path, x=IMAGES, y=LABELS)
    assert (len(load_dataset(name, None)), load_dataset(name, None).split) == (20, "all")
    assert (len(load_dataset(name, None, most=7)), load_dataset(name, None, most=7).split) == (7, "all[:7]")
    assert load_dataset("shapes", None, most=5).split == "test[:5]"

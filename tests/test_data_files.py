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

"""Folders of images as people lay them out: formats, sizes, parts, nesting; pixels compared with what was written."""

from __future__ import annotations

import base64
import json
import struct
import warnings
from itertools import product
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from cli import call

from kerasrobust.data.load import load_data, load_dataset
from kerasrobust.errors import InputError
from kerasrobust.events import Event, Log

WEBP = {
    "lossy": "UklGRiIAAABXRUJQVlA4IBYAAAAwAQCdASoBAAEADsD+JaQAA3AAAAAA",
    "lossless, with alpha": "UklGRhoAAABXRUJQVlA4TA0AAAAvAAAAEAcQERGIiP4HAA==",
}
"""Pictures of one pixel, as TensorFlow can't write them."""


def write(path: Path, value: int, size: tuple[int, int] = (4, 5), channels: int = 3) -> Path:
    """Writes a picture of one colour, as a PNG whatever its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tf.io.encode_png(np.full((*size, channels), value, np.uint8)).numpy())
    return path


def said(folder: Path, split: str | None = "all", **options: str) -> tuple[list[str], np.ndarray]:
    events: list[Event] = []
    data = load_dataset(str(folder), split, emit=events.append, **options)  # type: ignore[arg-type]
    return [event.message for event in events if isinstance(event, Log)], data.images


@pytest.mark.parametrize("kind", WEBP)
def test_webp_is_read(tmp_path: Path, kind: str) -> None:
    write(tmp_path / "set/ant/a.png", 7, (1, 1))
    (tmp_path / "set/bee").mkdir()
    (tmp_path / "set/bee/b.webp").write_bytes(base64.b64decode(WEBP[kind]))
    messages, images = said(tmp_path / "set")
    assert messages == [] and images.shape == (2, 1, 1, 3)


def test_files_that_are_left_out_are_counted(tmp_path: Path) -> None:
    for number in range(6):
        write(tmp_path / f"set/c{number % 2}/{number}.png", number)
        (tmp_path / f"set/c{number % 2}/{number}.tif").write_bytes(b"II*")
    for name in ("a.AVIF", "notes.txt"):
        (tmp_path / "set/c0" / name).write_bytes(b"?")
    (tmp_path / "set/c0/.DS_Store").write_bytes(b"?")
    messages, images = said(tmp_path / "set")
    assert len(images) == 6
    (message,) = messages
    assert "Left out 8 files" in message and "6 .tif, 1 .avif, 1 .txt" in message


def test_in_python_a_warning_says_what_is_left_out_where_the_data_are_loaded(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write(tmp_path / f"set/{part}/ant/1.png", 1)
        write(tmp_path / f"set/{part}/bee/1.png", 2)
    write(tmp_path / "set/plots/1.png", 3)
    with pytest.warns(UserWarning) as caught:
        load_dataset(str(tmp_path / "set"), "test")
    assert [f"{warning.message}".rpartition("): ")[2] for warning in caught] == ["plots."]
    (tmp_path / "set/test/ant/1.jpg").write_bytes(jpeg(6, "little"))
    (tmp_path / "set/test/ant/1.tif").write_bytes(b"II*")
    with pytest.warns(UserWarning) as caught:
        load_dataset(str(tmp_path / "set"), "test", size=4)
    said_there = [str(warning.message) for warning in caught]
    assert len(said_there) == 3 and all(warning.filename == __file__ for warning in caught)
    assert "plots" in said_there[0] and "Left out 1 files" in said_there[1] and "1 of 3 images" in said_there[2]


def test_in_python_nothing_is_warned_of_where_nothing_is_left_out(tmp_path: Path) -> None:
    write(tmp_path / "set/ant/1.png", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_dataset(str(tmp_path / "set"), "all")


@pytest.mark.parametrize("other", ["x.tif", "x.avif", None])
def test_a_class_without_an_image_is_refused(tmp_path: Path, other: str | None) -> None:
    write(tmp_path / "set/ant/a.png", 1)
    (tmp_path / "set/bee").mkdir()
    if other:
        (tmp_path / "set/bee" / other).write_bytes(b"?")
    with pytest.raises(InputError, match=r"of each class\. Received: none of 'bee'.*Convert its files") as caught:
        load_dataset(str(tmp_path / "set"), "all")
    assert other is None or f"1 {Path(other).suffix}" in str(caught.value)


def test_sizes_are_made_one_by_covering_and_cropping(tmp_path: Path) -> None:
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 200  # The square in the middle.
    tall = wide.transpose(1, 0, 2)
    for name, image in (("wide", wide), ("tall", tall), ("small", np.full((2, 2, 3), 200, np.uint8))):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "a.png").write_bytes(tf.io.encode_png(image).numpy())
    with pytest.raises(InputError, match=r"one size.*Give --size, or size=, such as"):
        load_dataset(str(tmp_path / "set"), "all")
    messages, images = said(tmp_path / "set", size="8")
    assert len(messages) == 1
    assert messages[0].startswith(
        "Images were resized to cover 8x8 pixels, and cropped at the centre. --size stretch:8x8"
    )
    assert images.dtype == np.uint8 and (images == 200).all()
    assert said(tmp_path / "set", size="6x10")[1].shape == (3, 6, 10, 3)
    assert (said(tmp_path / "set", size="4")[1][:, 1:3, 1:3] == 200).all()


def test_large_images_are_averaged_not_sampled(tmp_path: Path) -> None:
    """White, but for the middle of each 8x8 block, which is all that a picture would show that isn't smoothed."""
    block = np.full((8, 8, 3), 255, np.uint8)
    block[3:5, 3:5] = 0
    (tmp_path / "set/a").mkdir(parents=True)
    (tmp_path / "set/a/a.png").write_bytes(tf.io.encode_png(np.tile(block, (4, 4, 1))).numpy())
    assert said(tmp_path / "set", size="4")[1].min() > 128


@pytest.mark.parametrize("size", ["5", "6x10", "7x3"])
def test_stretched_images_are_those_of_the_loader_of_keras(tmp_path: Path, size: str) -> None:
    draw = np.random.default_rng(0)
    for label in ("a", "b"):
        for number, shape in enumerate([(9, 14, 3), (20, 8, 3), (5, 5, 3)]):
            pixels = draw.integers(0, 256, shape, dtype=np.uint8)
            (tmp_path / "set" / label).mkdir(parents=True, exist_ok=True)
            (tmp_path / "set" / label / f"{number}.png").write_bytes(tf.io.encode_png(pixels).numpy())
    messages, ours = said(tmp_path / "set", size=f"stretch:{size}")
    assert messages[0].startswith("Images were stretched to ")
    sides = tuple(int(side) for side in size.split("x"))
    loader = keras.utils.image_dataset_from_directory(
        tmp_path / "set",
        image_size=sides if len(sides) == 2 else sides * 2,
        batch_size=None,
        shuffle=False,
        verbose=False,
    )
    theirs = [np.rint(image.numpy()) for image, _ in loader]
    assert sorted(image.sum() for image in theirs) == sorted(image.sum() for image in ours.astype(np.float32))


def jpeg(orientation: int | None, order: str) -> bytes:
    """A JPEG file with an EXIF directory of two entries, written by hand, or without one."""
    plain = tf.io.encode_jpeg(np.full((4, 6, 3), 90, np.uint8)).numpy()
    if orientation is None:
        return plain
    entries = [(0x010F, 2, 4, b"ab\0\0"), (0x0112, 3, 1, orientation.to_bytes(2, order) + b"\0\0")]
    tiff = (b"II*\0" if order == "little" else b"MM\0*") + (8).to_bytes(4, order) + (2).to_bytes(2, order)
    for tag, kind, count, value in entries:
        tiff += tag.to_bytes(2, order) + kind.to_bytes(2, order) + count.to_bytes(4, order) + value
    body = b"Exif\0\0" + tiff + (0).to_bytes(4, order)
    return plain[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + plain[2:]


@pytest.mark.parametrize("order", ["little", "big"])
def test_turned_photographs_are_told(tmp_path: Path, order: str) -> None:
    for label in ("a", "b"):
        (tmp_path / "set" / label).mkdir(parents=True)
    for number, turned in enumerate([None, 1, 3, 6, 8]):
        (tmp_path / "set" / "a" / f"{number}.jpg").write_bytes(jpeg(turned, order))
    (tmp_path / "set" / "b" / "0.jpg").write_bytes(jpeg(None, order))
    messages, images = said(tmp_path / "set")
    assert len(messages) == 1 and "3 of 6 images" in messages[0] and images.shape == (6, 4, 6, 3)
    with pytest.warns(UserWarning, match="marked as turned"):
        load_data(str(tmp_path / "set"), "all")


GREYS = [(grey, grey, grey) for grey in range(256)]
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]


def bmp(bits: int, palette: list[tuple[int, int, int]], packed: int = 0, used: int = 0, core: bool = False) -> bytes:
    """A BMP file of 4x4 pixels by hand: each row is 0, 1, 2, 3 in places of the palette, or, without one, in greys."""
    if bits == 24:
        row = bytes(value for grey in range(4) for value in (grey, grey, grey))
    else:
        whole = int("".join(f"{place % 2**bits:0{bits}b}" for place in range(4)), 2)
        row = (whole << -4 * bits % 32).to_bytes(-(-4 * bits // 32) * 4, "big")
    if core:
        head = struct.pack("<IHHHH", 12, 4, 4, 1, bits) + b"".join(bytes(colour[::-1]) for colour in palette)
    else:
        head = struct.pack("<IiiHHIIiiII", 40, 4, 4, 1, bits, packed, 0, 0, 0, used, 0)
        head += b"".join(bytes((*colour[::-1], 0)) for colour in palette)
    return struct.pack("<2sIHHI", b"BM", 14 + len(head) + 4 * len(row), 0, 0, 14 + len(head)) + head + 4 * row


PALETTES = {
    "8 bits": (8, bmp(8, COLOURS, used=4)),
    "8 bits, 256 colours": (8, bmp(8, COLOURS * 64)),
    "8 bits, greys in another order": (8, bmp(8, GREYS[::-1])),
    "8 bits, one colour among greys": (8, bmp(8, [*GREYS[:255], (255, 255, 254)])),
    "8 bits, in runs": (8, bmp(8, GREYS, packed=1)),
    "4 bits": (4, bmp(4, COLOURS * 4)),
    "1 bit": (1, bmp(1, COLOURS[:2])),
    "1 bit, black and white": (1, bmp(1, [(0, 0, 0), (255, 255, 255)])),
    "8 bits, of OS/2": (8, bmp(8, COLOURS * 64, core=True)),
}


@pytest.mark.parametrize("kind", PALETTES)
def test_bmp_files_with_a_palette_are_refused(tmp_path: Path, kind: str) -> None:
    bits, content = PALETTES[kind]
    (tmp_path / "set/ant").mkdir(parents=True)
    (tmp_path / "set/ant/a.bmp").write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.bmp', a BMP file of {bits} bits a pixel with a palette.*PNG") as caught:
        load_dataset(str(tmp_path / "set"), "all")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [bmp(8, GREYS), bmp(8, GREYS, used=256), bmp(8, GREYS[:4], used=4), bmp(24, [])])
def test_bmp_files_of_greys_and_of_colours_are_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "set/ant").mkdir(parents=True)
    (tmp_path / "set/ant/a.bmp").write_bytes(content)
    images = load_dataset(str(tmp_path / "set"), "all").images
    assert images.tolist() == [[[[grey] * 3 for grey in range(4)]] * 4]


@pytest.mark.parametrize("size", [10, 20, 40, 53, 60])
def test_bmp_files_that_end_early_are_refused(tmp_path: Path, size: int) -> None:
    (tmp_path / "set/ant").mkdir(parents=True)
    (tmp_path / "set/ant/a.bmp").write_bytes(bmp(24, [])[:size])
    with pytest.raises(InputError, match="can be decoded"):
        load_dataset(str(tmp_path / "set"), "all")


@pytest.mark.parametrize("size", ["0", "x", "8x", "3 2", "-4", "8x8x3"])
def test_sizes_that_are_none(tmp_path: Path, size: str) -> None:
    write(tmp_path / "set/a/a.png", 1)
    with pytest.raises(InputError, match="Expected a size in pixels, N or HEIGHTxWIDTH"):
        load_dataset(str(tmp_path / "set"), "all", size=size)
    with pytest.raises(InputError, match="--size with a folder of images only"):
        load_dataset("shapes", "test[:5]", size=size)


@pytest.mark.parametrize("name", ["val", "valid", "Validation"])
def test_parts_are_found(tmp_path: Path, name: str) -> None:
    for number in range(4):
        write(tmp_path / f"set/Train/{'abcd'[number]}/1.png", number)
    write(tmp_path / f"set/{name}/b/1.png", 9)
    write(tmp_path / "set/test/d/1.png", 8)
    folder = str(tmp_path / "set")
    train, kept, test = (load_dataset(folder, part) for part in ("train", "validation", None))
    assert train.class_names == kept.class_names == test.class_names == ("a", "b", "c", "d")
    assert sorted(zip(train.y.tolist(), train.images[:, 0, 0, 0].tolist(), strict=True)) == [(n, n) for n in range(4)]
    assert (kept.y.tolist(), kept.images[0, 0, 0, 0]) == ([1], 9)
    assert (test.split, test.y.tolist(), test.images[0, 0, 0, 0]) == ("test", [3], 8)
    with pytest.raises(InputError, match=r"a split that exists \(test, train, validation\)"):
        load_dataset(folder, "all")


TREES: dict[str, tuple[str, dict[str, str], str]] = {
    "Training, Testing": ("", {"train": "Training", "test": "Testing"}, ""),
    "a folder of each part within itself": (
        "", {"train": "training_set/training_set", "test": "test_set/test_set"}, "",
    ),
    "a prefix, and images to predict": (
        "seg_pred/seg_pred/1.png", {"train": "seg_train/seg_train", "test": "seg_test/seg_test"}, "seg_pred",
    ),
    "a copy of all": (
        "chest_xray/train/cat/1.png", {"train": "train", "validation": "val", "test": "test"}, "chest_xray",
    ),
    "plots": ("plots/1.png", {"train": "TrainData", "validation": "ValidationData", "test": "TestData"}, "plots"),
    "weights": ("models/1.h5", {"train": "train2017", "validation": "val2017"}, "models"),
    "one word": ("", {"train": "trainset", "test": "testset"}, ""),
    "weights beside one part": ("models/1.h5", {"train": "train"}, "models"),
    "a test part without classes": ("test/1.png", {"train": "train"}, "test"),
    "folders of images inside": ("", {"train": "train_images/images", "test": "test_images/images"}, ""),
}  # fmt: skip
"""Something that lies beside the parts; the folder of each part; and what is left out."""


@pytest.mark.parametrize("kind", TREES)
def test_parts_are_found_whatever_they_are_called(tmp_path: Path, kind: str) -> None:
    other, parts, left_out = TREES[kind]
    if other:
        write(tmp_path / "set" / other, 200)
    for number, place in enumerate(parts.values()):
        for label in range(2):
            write(tmp_path / "set" / place / ("cat", "dog")[label] / "1.png", 10 * number + label)
    for number, part in enumerate(parts):
        events: list[Event] = []
        data = load_dataset(str(tmp_path / "set"), part, emit=events.append)
        assert data.class_names == ("cat", "dog")
        found = dict(zip(data.images[:, 0, 0, 0].tolist(), data.y.tolist(), strict=True))
        assert found == {10 * number: 0, 10 * number + 1: 1}
        told = [event.message for event in events if isinstance(event, Log)]
        assert len(told) == bool(left_out) and all(message.endswith(f": {left_out}.") for message in told)
    with pytest.raises(InputError, match=rf"a split that exists \({', '.join(sorted(parts))}\)"):
        load_dataset(str(tmp_path / "set"), "all")


UNCLEAR = {
    "one part beside classes": (["cat", "dog", "test/cat", "test/dog"], r"test, with sub-folders cat, dog, beside cat"),
    "one part beside another": (["train/cat", "train/dog", "holdout/cat", "holdout/dog"], "train, .*beside holdout"),
    "parts of other classes": (["train/a", "train/b", "test/c", "test/d", "more"], "test, train, .*beside more"),
    "one part twice": (["val/a", "val/b", "valid/a", "valid/b", "train/a"], "each part of the data once.*val, valid"),
    "two sets": (["a_train/x", "a_test/x", "b_train/x", "b_test/x"], "each part of the data once.*a_test, a_train"),
    "a set beside a class": (["plants/train/a", "plants/test/a", "test"], "plants, with parts of its own .test, train"),
}


@pytest.mark.parametrize("kind", UNCLEAR)
def test_what_may_be_parts_or_classes_is_refused(tmp_path: Path, kind: str) -> None:
    places, part = UNCLEAR[kind]
    for place in places:
        write(tmp_path / "set" / place / "1.png", 1)
    with pytest.raises(InputError, match=part) as caught:
        load_dataset(str(tmp_path / "set"), None)
    assert "\n" not in str(caught.value) and "Give " in str(caught.value)


CALLED_LIKE_PARTS = {
    "beside others": ["test", "training", "walk"],
    "with folders, too": ["train", "train/steam", "train/diesel", "car", "plane"],
    "each in a folder": ["train/images", "car/images", "plane/images"],
    "tests": ["blood_test/a", "blood_test/b", "urine_test/a"],
    "trains": ["steam_train/a", "diesel_train/a"],
    "a prefix": ["seg_train", "seg_test"],
}


@pytest.mark.parametrize("kind", CALLED_LIKE_PARTS)
def test_classes_may_be_called_like_parts(tmp_path: Path, kind: str) -> None:
    for place in CALLED_LIKE_PARTS[kind]:
        write(tmp_path / "set" / place / "1.png", 1)
    data = load_dataset(str(tmp_path / "set"), "all")
    assert data.class_names == tuple(sorted({place.split("/")[0] for place in CALLED_LIKE_PARTS[kind]}))
    assert len(data) == len(CALLED_LIKE_PARTS[kind])


def test_training_takes_the_parts_of_a_folder(tmp_path: Path) -> None:
    for part, label in product(("Training", "Testing"), ("cat", "dog")):
        for number in range(6):
            write(tmp_path / "set" / part / label / f"{number}.png", 20 * number + (label == "dog"), (16, 16))
    write(tmp_path / "set/plots/1.png", 1)
    words = ["train", "--data", tmp_path / "set", "--training", "standard", "--widths", "4", "--epochs", "1"]
    words += ["--validation-share", "0.25", "--batch-size", "9", "--name", "own"]
    done = call(*words, "--runs-dir", tmp_path / "runs", "--models-dir", tmp_path / "models")
    assert done.status == 0, done.err
    assert (
        "Left out what lies beside the parts" in done.out + done.err and "(test, train): plots." in done.out + done.err
    )
    card = json.loads((tmp_path / "models/own/card.json").read_text())
    assert (card["data"]["classes"], card["data"]["split"]) == (["cat", "dog"], "train")


def test_classes_may_be_called_train_and_test(tmp_path: Path) -> None:
    write(tmp_path / "set/train/1.png", 1)
    write(tmp_path / "set/test/1.png", 2)
    assert load_dataset(str(tmp_path / "set"), "all").class_names == ("test", "train")


@pytest.mark.parametrize("above", ["archive", "archive/set", "archive/set/images"])
def test_folders_around_the_classes_are_gone_through(tmp_path: Path, above: str) -> None:
    for label in "ab":
        write(tmp_path / "set" / above / label / "deep/er/1.png", 3)
    (tmp_path / "set/__MACOSX").mkdir()
    assert load_dataset(str(tmp_path / "set"), "all").class_names == ("a", "b")


def test_a_single_class_stays_one(tmp_path: Path) -> None:
    write(tmp_path / "set/only/1.png", 3)
    assert load_dataset(str(tmp_path / "set"), "all").class_names == ("only",)


def test_the_layout_of_tiny_imagenet(tmp_path: Path) -> None:
    root = tmp_path / "tiny-imagenet-200"
    for number, label in enumerate(("n01", "n02", "n03")):
        write(root / f"train/{label}/images/{label}_0.JPEG", number)
        (root / f"train/{label}/{label}_boxes.txt").write_text("n01_0.JPEG\t0\t0\t4\t5\n")
        write(root / f"val/images/val_{number}.JPEG", 10 + number)
        write(root / f"test/images/test_{number}.JPEG", 20 + number)
    notes = "".join(f"val_{number}.JPEG\tn0{3 - number}\t0\t0\t4\t5\n" for number in range(3))
    (root / "val/val_annotations.txt").write_text(notes)
    for folder in (root, tmp_path):
        kept = load_dataset(str(folder), None)
        assert (kept.split, kept.class_names) == ("validation", ("n01", "n02", "n03"))
        found = dict(zip(kept.images[:, 0, 0, 0].tolist(), kept.y.tolist(), strict=True))
        assert found == {10: 2, 11: 1, 12: 0}
        assert len(load_dataset(str(folder), "train")) == 3
        with pytest.raises(InputError, match="a split that exists"):  # Images without labels.
            load_dataset(str(folder), "test")


def test_grey_files_for_a_model_of_one_channel_and_odd_sizes_on_the_command_line(tmp_path: Path) -> None:
    for number in range(10):
        write(tmp_path / f"set/{number % 2}/{number}.png", 25 * number, (6 + number, 8), channels=1)
    keras.utils.set_random_seed(0)
    layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(2)]
    model = keras.Sequential(layers, name="grey")
    model.save(tmp_path / "grey.keras")
    words = ["attack", "--model", tmp_path / "grey.keras", "--data", tmp_path / "set", "--attack", "fgsm"]
    words += ["--runs-dir", tmp_path / "runs", "--name", "g"]
    assert "--size" in call(*words).message
    done = call(*words, "--size", "8")
    assert done.status == 0 and "resized to cover 8x8" in done.out + done.err, done.err
    result = json.loads((tmp_path / "runs/g/result.json").read_text())
    x = np.stack([np.full((8, 8, 1), 25 * number / 255, np.float32) for number in range(10)])
    right = (model.predict(x, verbose=0).argmax(axis=1) == np.arange(10) % 2).mean()
    assert (result["data"]["examples"], result["clean_accuracy"]) == (10, right)
    assert "one channel is taken" in done.out + done.err
    with h5py.File(tmp_path / "runs/g/examples.h5") as file:
        assert file["x"].shape[1:] == (8, 8, 1)


def test_a_folder_written_like_a_data_set_is_named_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "pets/ant/a.png", 7)
    monkeypatch.chdir(tmp_path)
    for options in ({}, {"size": "4"}):
        with pytest.raises(InputError, match=r"'pets'. Give \./pets\.$"):
            load_dataset("pets", "all", **options)  # type: ignore[arg-type]
    assert load_data("./pets", "all", size=3)[0].shape == (1, 3, 3, 3)

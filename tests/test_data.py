from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasrobust.data.dataset import Dataset
from kerasrobust.data.load import load_data, load_dataset
from kerasrobust.data.pipeline import train_pipeline
from kerasrobust.data.split import parts_of
from kerasrobust.errors import InputError

# Splits


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("test", [("test", 0, 80)]),
        ("train[:90%]", [("train", 0, 90)]),
        ("test[10:20]", [("test", 10, 20)]),
        ("test[-5:]", [("test", 75, 80)]),
        ("test[25%:-25%]", [("test", 20, 60)]),
        ("train[:1]+test[:50%]", [("train", 0, 1), ("test", 0, 40)]),
        ("train[ 3 : ]", [("train", 3, 100)]),
    ],
)
def test_splits_are_read_as_tfds_reads_them(split: str, expected: list[tuple[str, int, int]]) -> None:
    assert parts_of(split, {"train": 100, "test": 80}) == expected


@pytest.mark.parametrize("split", ["", "test[", "test[:x]", "test[1]", "test[::2]", "test[:5", "test,train", "test+"])
def test_malformed_splits_are_refused(split: str) -> None:
    with pytest.raises(InputError, match=r"Expected a split such as"):
        parts_of(split, {"train": 100, "test": 80})


@pytest.mark.parametrize("split", ["test[:0]", "test[5:5]", "test[9:3]", "test[80:]"])
def test_empty_splits_are_refused(split: str) -> None:
    with pytest.raises(InputError, match="at least one example"):
        parts_of(split, {"test": 80})


@pytest.mark.parametrize("split", ["test[:81]", "test[-81:]", "test[:101%]"])
def test_splits_past_the_end_are_refused(split: str) -> None:
    with pytest.raises(InputError, match="within the 80 examples"):
        parts_of(split, {"test": 80})


def test_an_unknown_split_names_the_nearest() -> None:
    with pytest.raises(InputError, match="Did you mean 'test'"):
        parts_of("tets", {"train": 100, "test": 80})


# The embedded set


def test_shapes_come_in_two_parts_that_never_meet() -> None:
    train, test = load_dataset("shapes", "train"), load_dataset("shapes", "test")
    assert (len(train), len(test)) == (10_000, 2_000)
    assert train.synthetic
    assert train.classes == 10
    assert not {image.tobytes() for image in train.images} & {image.tobytes() for image in test.images}
    assert (load_dataset("shapes", "train[100:110]").images == train.images[100:110]).all()
    assert (load_dataset("shapes", "test[:10]", seed=1).images != test.images[:10]).any()


def test_images_are_converted_once_and_only_those_asked_for() -> None:
    dataset = load_dataset("shapes", "test[:40]")
    part = dataset[:8]
    assert "x" not in vars(dataset)
    assert part.x.dtype == np.float32
    np.testing.assert_array_equal(part.x, dataset.images[:8].astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(part.y, dataset.y[:8])
    assert dataset.x is dataset.x is dataset[:].x
    odd = dataset[dataset.y % 2 == 1]
    np.testing.assert_array_equal(odd.x, dataset.x[dataset.y % 2 == 1])
    assert (odd.classes, odd.name) == (dataset.classes, dataset.name)


def test_there_are_always_more_shapes() -> None:
    assert len(load_dataset("shapes", "test[1990:2010]")) == 20


def test_load_data_gives_what_models_take() -> None:
    x, y = load_data("shapes", split="test[:50]")
    assert (x.shape, x.dtype, y.dtype) == ((50, 32, 32, 3), np.float32, np.int64)
    assert x.min() >= 0
    assert x.max() <= 1
    np.testing.assert_array_equal(np.rint(x * 255), load_dataset("shapes", "test[:50]").images)


# Files


def _write(path: Path, **arrays: Any) -> str:
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array
    return str(path)


@pytest.fixture(params=["set.npz", "set.h5", "set.hdf5"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / request.param


IMAGES = np.random.default_rng(0).integers(0, 256, (20, 6, 5, 3), dtype=np.uint8)
LABELS = np.arange(20) % 4


def test_files_are_read(path: Path) -> None:
    name = _write(path, x=IMAGES, y=LABELS.astype(np.uint8))
    dataset = load_dataset(name, "test")
    assert (dataset.images == IMAGES).all()
    assert dataset.images.dtype == np.uint8
    assert dataset.labels.dtype == np.int64
    assert (dataset.y == LABELS).all()
    assert dataset.class_names == ("0", "1", "2", "3")
    assert (load_dataset(name, "[:3]").images == IMAGES[:3]).all()
    assert (load_dataset(name, "train[50%:]+all[:1]").y == [*LABELS[10:], LABELS[0]]).all()
    assert load_dataset(name, "[:1]").classes == 4  # Classes are those of the file, not of the slice.


def test_floating_grey_images_and_column_labels_are_read(path: Path) -> None:
    grey = (IMAGES[..., 0] / 255).astype(np.float64)
    dataset = load_dataset(_write(path, x=grey, y=LABELS[:, None]))
    assert dataset.images.shape == (20, 6, 5, 1)
    assert dataset.images.dtype == np.float32
    np.testing.assert_allclose(dataset.x[..., 0], grey, atol=1e-7)
    assert (dataset.y == LABELS).all()


FLOATS = (IMAGES / 255).astype(np.float32)


def _with(images: np.ndarray, value: float) -> np.ndarray:
    changed = images.copy()
    changed[7, 2, 2, 1] = value
    return changed


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (_with(FLOATS, np.nan), LABELS, "image 7"),
        (_with(FLOATS, np.inf), LABELS, "image 7"),
        (_with(FLOATS, 1.5), LABELS, "image 7.*Clip them"),
        (_with(FLOATS, -0.1), LABELS, r"Expected images in \[0, 1\]"),
        (IMAGES.astype(np.float32), LABELS, "Divide by 255"),
        (IMAGES.astype(np.int32) * 2, LABELS, r"int32 from 0 to 510.*Divide by 65535"),
        (IMAGES.astype(np.int64) % 17, LABELS, r"int64 from 0 to 16.*Divide by 16, their largest value"),
        (FLOATS * 2 - 1, LABELS, r"values from -1 to 1.*\(x \+ 1\) / 2"),
        (FLOATS.astype(complex), LABELS, "Expected images as uint8"),
        (IMAGES[0, 0], LABELS, "Expected images of shape|Expected a label for each"),
        (IMAGES[:, None], LABELS, "Expected images of shape"),
        (IMAGES.reshape(20, 3, 5, 6), LABELS, r"x\.transpose\(0, 2, 3, 1\)"),
        (IMAGES.reshape(20, 5, 3, 6), LABELS, "Put the channels last"),
        (np.zeros((20, 192), np.uint8), LABELS, r"Rows of numbers aren't images\. Give x\.reshape\(-1, 8, 8, 3\)"),
        (np.zeros((20, 64)), LABELS, r"Rows of numbers aren't images\. Give x\.reshape\(-1, 8, 8, 1\)"),
        (np.zeros((20, 90)), LABELS, r"Rows of numbers aren't images\. .*x\.reshape\(-1, height, width, channels\)"),
        (np.zeros((20, 0)), LABELS, "Rows of numbers aren't images"),
        (np.full(20, b"cat"), LABELS, r"images as numbers\. Received: strings or objects.*--keys IMAGES,LABELS"),
        (np.full((20, 6, 5, 3), b"cat"), LABELS, r"images as numbers\. Received: strings or objects.*--keys"),
        (LABELS, LABELS, r"Received: \(20,\).*--keys IMAGES,LABELS"),
        (LABELS, IMAGES, r"Received: uint8 of shape \(20, 6, 5, 3\) as 'y'.*--keys IMAGES,LABELS"),
        (IMAGES, LABELS[:-1], "Expected a label for each of 20 images. Received: 19"),
        (IMAGES, LABELS - 1, "Received: -1 to 2"),
        (IMAGES, LABELS * 100_000, "Number the classes"),
        (IMAGES, LABELS + 0.5, "aren't whole numbers"),
        (IMAGES, np.tile([1, 1, -1], (20, 1)), "of 0 and 1"),
        (IMAGES, np.full((20, 4), 0.25), "argmax"),
        (IMAGES[:0], LABELS[:0], "at least one example"),
        (np.uint8(3), LABELS, "Expected"),
    ],
)
@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_what_is_wrong_in_a_file_is_said(
    tmp_path: Path, suffix: str, images: np.ndarray, labels: np.ndarray, message: str
) -> None:
    name = _write(tmp_path / f"set{suffix}", x=images, y=labels)
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(name)
    assert "\n" not in str(caught.value)
    assert "Received" in str(caught.value)


def test_missing_arrays_are_named(path: Path) -> None:
    with pytest.raises(InputError, match="Received: images, y"):
        load_dataset(_write(path, images=IMAGES, y=LABELS))


def test_missing_and_unreadable_files_are_refused(path: Path) -> None:
    with pytest.raises(InputError, match="which isn't there"):
        load_dataset(str(path))
    path.write_bytes(b"not what the name says")
    with pytest.raises(InputError, match="Expected a readable"):
        load_dataset(str(path))
    _write(path, x=IMAGES, y=LABELS)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(InputError):
        load_dataset(str(path))


def test_damage_inside_a_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    np.savez_compressed(path, x=IMAGES, y=LABELS)
    content = bytearray(path.read_bytes())
    content[300:400] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"Expected a readable \.npz"):
        load_dataset(str(path))


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    name = _write(tmp_path / "set.npz", x=np.array([{"an": "object"}], dtype=object), y=np.array([0]))
    with pytest.raises(InputError, match=r"Expected a readable \.npz"):
        load_dataset(name)


def test_groups_are_not_arrays(tmp_path: Path) -> None:
    name = _write(tmp_path / "set.h5", **{"x/a": IMAGES, "y": LABELS})
    with pytest.raises(InputError, match="Expected arrays"):
        load_dataset(name)


@pytest.mark.parametrize("name", ["/not/there", "./not_there", "~/not_there_at_all"])
def test_paths_that_are_not_there_are_not_taken_for_names(name: str) -> None:
    with pytest.raises(InputError, match="not there"):
        load_dataset(name)


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("own.npy", r"np\.savez\('data\.npz', x=np\.load\('own\.npy'\)"),
        ("set.tar.gz", "Unpack it"),
        ("a.csv", "Convert"),
    ],
)
def test_other_files_lead_to_what_can_be_read(
    file: str, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / file).write_bytes(b"?")
    monkeypatch.chdir(tmp_path)
    for name in (str(tmp_path / file), file):
        with pytest.raises(InputError, match=rf"another kind of file\. .*{part}"):
            load_dataset(name)


# Folders


def _folder(root: Path, count: int = 6, size: tuple[int, int] = (4, 5)) -> Path:
    import tensorflow as tf

    encoders = {"png": tf.io.encode_png, "jpg": tf.io.encode_jpeg}
    for label, name in enumerate(("bee", "ant")):
        (root / name).mkdir(parents=True)
        for number in range(count):
            suffix = ("png", "jpg")[number % 2]
            picture = np.full((*size, 3), 100 * label + number, np.uint8)
            (root / name / f"{number}.{suffix}").write_bytes(encoders[suffix](picture).numpy())
    (root / "bee" / "notes.txt").write_text("no image")
    (root / ".hidden").mkdir()
    return root


def test_a_folder_has_a_class_for_each_sub_folder(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "set")
    dataset = load_dataset(str(folder), "train")
    assert dataset.class_names == ("ant", "bee")
    assert dataset.images.shape == (12, 4, 5, 3)
    assert np.bincount(dataset.y).tolist() == [6, 6]
    assert (dataset.images.mean(axis=(1, 2, 3)) > 60).tolist() == (dataset.y == 0).tolist()
    half = load_dataset(str(folder), "all[:50%]")
    assert set(half.y.tolist()) == {0, 1}  # Mixed before it is sliced,
    assert (half.images == dataset.images[:6]).all()  # always in the same way.


def test_images_of_two_sizes_are_refused(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "set")
    _folder(tmp_path / "other", size=(7, 7))
    shutil.copyfile(tmp_path / "other/ant/0.png", folder / "ant/other.png")
    with pytest.raises(InputError, match=r"Expected images of one size.*\(7, 7\).*Give --size, or size=, such as"):
        load_dataset(str(folder))


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "set")
    (folder / "ant/0.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(InputError, match=r"ant/0\.png"):
        load_dataset(str(folder))


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Expected a folder with a sub-folder of images"):
        load_dataset(str(tmp_path))


# The pipeline


def _numbered(count: int, size: int = 8, name: str = "numbered") -> Dataset:
    """Images whose pixels all differ and tell the label."""
    rng = np.random.default_rng(0)
    images = rng.permuted(np.broadcast_to(np.arange(size * size, dtype=np.uint8), (count, size * size)), axis=1)
    images = np.stack([images, np.broadcast_to(np.arange(count)[:, None] % 256, images.shape)], -1).astype(np.uint8)
    return Dataset(
        name=name,
        split="train",
        images=images.reshape(count, size, size, 2),
        labels=np.arange(count, dtype=np.int64),
        class_names=tuple(map(str, range(count))),
    )


def _epoch(pipeline: Any) -> tuple[np.ndarray, np.ndarray]:
    batches = list(pipeline.as_numpy_iterator())
    return np.concatenate([images for images, _ in batches]), np.concatenate([labels for _, labels in batches])


def test_the_pipeline_repeats_by_seed_and_differs_by_epoch() -> None:
    dataset = _numbered(64)
    runs = []
    for seed in (1, 1, 2):
        pipeline = train_pipeline(dataset, 16, seed=seed)
        runs.append([_epoch(pipeline) for _ in range(2)])
    for (images, labels), (same_images, same_labels) in zip(runs[0], runs[1], strict=True):
        assert (images == same_images).all()
        assert (labels == same_labels).all()
    assert (runs[0][0][1] != runs[0][1][1]).any()
    assert (runs[0][0][1] != runs[2][0][1]).any()
    # The noise is another one too: image by image, most pictures differ from epoch to epoch.
    first, second = (images[np.argsort(labels)] for images, labels in runs[0])
    assert (first != second).any(axis=(1, 2, 3)).mean() > 0.8


def test_every_image_comes_once_an_epoch_and_batches_have_one_shape() -> None:
    pipeline = train_pipeline(_numbered(64), 16, seed=0)
    assert pipeline.element_spec[0].shape == (16, 8, 8, 2)
    assert (pipeline.element_spec[0].dtype.name, pipeline.element_spec[1].dtype.name) == ("float32", "int64")
    assert sorted(_epoch(pipeline)[1]) == list(range(64))
    assert len(_epoch(train_pipeline(_numbered(70), 16, seed=0))[1]) == 64
    assert len(_epoch(train_pipeline(_numbered(7), 16, seed=0))[1]) == 7


def test_without_augmentation_the_images_are_as_stored() -> None:
    dataset = _numbered(32)
    images, labels = _epoch(train_pipeline(dataset, 8, seed=0, augment=False))
    assert (images == dataset.x[labels]).all()


def _crops(image: np.ndarray, padding: int) -> list[np.ndarray]:
    """Every picture that a flip and a crop from the image padded by reflection can give, made by numpy.pad."""
    size = len(image)
    found = []
    for side in (image, image[:, ::-1]):
        padded = np.pad(side, [(padding, padding), (padding, padding), (0, 0)], mode="reflect")
        for top in range(2 * padding + 1):
            found += [padded[top : top + size, left : left + size] for left in range(2 * padding + 1)]
    return found


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), size=st.sampled_from([3, 8, 12]))
def test_augmentation_only_flips_and_crops_and_keeps_labels_with_images(seed: int, size: int) -> None:
    dataset = _numbered(12, size)
    images, labels = _epoch(train_pipeline(dataset, 12, seed=seed))
    for image, label in zip(np.rint(images * 255).astype(np.uint8), labels, strict=True):
        allowed = _crops(dataset.images[label], min(4, size - 1))
        assert any((image == crop).all() for crop in allowed)


def test_flips_and_every_distance_occur() -> None:
    size = 16
    image = np.arange(size * size, dtype=np.float32).reshape(1, size, size, 1) / (size * size)
    dataset = Dataset(
        name="ramp",
        split="train",
        images=np.repeat(image, 2000, 0),
        labels=np.zeros(2000, np.int64),
        class_names=("ramp",),
    )
    images, _ = _epoch(train_pipeline(dataset, 500, seed=0))
    centre = np.rint(images[:, 8, 7:9, 0] * size * size).astype(int)
    flipped = centre[:, 0] > centre[:, 1]
    assert 0.45 < flipped.mean() < 0.55
    rows, counts = np.unique(centre[~flipped, 0] // size - 8, return_counts=True)
    assert rows.tolist() == list(range(-4, 5))
    assert counts.min() > 60  # of about 111 each
    columns = np.unique(centre[~flipped, 0] % size - 7)
    assert columns.tolist() == list(range(-4, 5))


def test_digits_are_not_mirrored() -> None:
    dataset = _numbered(12, name="mnist:3.0.1")
    images, labels = _epoch(train_pipeline(dataset, 12, seed=0))
    for image, label in zip(np.rint(images * 255).astype(np.uint8), labels, strict=True):
        unmirrored = _crops(dataset.images[label], 4)[:81]
        assert any((image == crop).all() for crop in unmirrored)


def test_the_pipeline_is_faster_than_any_network_here() -> None:
    dataset = load_dataset("shapes", "train[:5000]")
    pipeline = train_pipeline(dataset, 500, seed=0)
    _epoch(pipeline)
    started = time.process_time()
    _epoch(pipeline)
    assert 5000 / (time.process_time() - started) > 15_000  # Images per CPU second; alone above 100,000.


def test_a_batch_size_below_one_is_refused() -> None:
    with pytest.raises(InputError, match="batch size"):
        train_pipeline(_numbered(4), 0, seed=0)


def test_pipelines_are_not_tuned_while_they_run() -> None:
    """The thread that tunes misses the end of a pipeline now and then: an epoch then takes up to twice its time."""
    batches = train_pipeline(_numbered(64), 16, seed=0)
    assert batches.options().autotune.enabled is False

"""Images and labels as people have them in Python: what is taken, and what is refused with which way on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import check_images, images, linear_model

import kerasrobust as kr
from kerasrobust.attacks import FGSM
from kerasrobust.data.dataset import Dataset
from kerasrobust.errors import InputError
from kerasrobust.networks import images as module
from kerasrobust.networks.images import collected, read_images

COUNT = 12
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8, 3), dtype=np.uint8)
X = PIXELS.astype(np.float32) / 255
Y = np.random.default_rng(1).permutation(np.arange(COUNT) % 4)


@pytest.mark.parametrize(
    "y",
    [
        Y[:, None], Y.astype(np.float32), Y[:, None].astype(np.float64), np.eye(4)[Y], np.eye(4, dtype=bool)[Y],
        np.eye(4, dtype=np.int8)[Y], Y.astype(np.uint8), Y.astype(np.int16), Y.astype(np.uint64), list(Y),
        tf.constant(Y), tf.cast(Y, tf.bfloat16),
    ],
    ids=lambda y: f"{getattr(y, 'dtype', 'list')}",
)  # fmt: skip
def test_labels_of_any_kind_are_the_same_classes(y: Any) -> None:
    _, found = read_images(X, y)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, Y)


def test_booleans_are_two_classes() -> None:
    np.testing.assert_array_equal(read_images(X, Y > 1)[1], (Y > 1).astype(int))


@pytest.mark.parametrize(
    ("x", "exact"),
    [
        (X.astype(np.float64), True), (PIXELS, True), (PIXELS.astype(np.int64), True), (PIXELS.astype(np.uint16), True),
        (X + np.float32(2e-7), False), (X - np.float32(2e-7), False), (X.astype(np.float16), False),
        (tf.constant(X), True),
    ],
)  # fmt: skip
def test_images_of_any_kind_are_the_same_pixels(x: Any, exact: bool) -> None:
    found, _ = read_images(x, Y)
    assert found.dtype == np.float32 and found.shape == X.shape
    assert found.min() >= 0 and found.max() <= 1
    np.testing.assert_allclose(found, X, rtol=0, atol=0 if exact else 5e-4)


def test_sixteen_bits_are_their_own_range() -> None:
    np.testing.assert_allclose(read_images(PIXELS.astype(np.uint16) * 257, Y)[0], X, rtol=1e-6)


def test_grey_images_get_their_axis() -> None:
    np.testing.assert_array_equal(read_images(X[..., 0], Y)[0], X[..., :1])
    np.testing.assert_array_equal(read_images(PIXELS[..., 0], Y[:, None])[0], X[..., :1])


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X * 255, Y, r"values from 0 to 255.*Divide by 255\."),
        (X / 255, Y, r"up to 0\.0039.*divided by 255 twice\. Multiply them by 255\."),
        (X * 200 + 0.5, Y, r"Divide by 255\."),
        (np.arange(COUNT * 192).reshape(X.shape) % 17.0, Y, r"0 to 16.*Divide by 16, their largest value\."),
        (np.arange(COUNT * 192).reshape(X.shape) % 17, Y, r"int64 from 0 to 16.*Divide by 16, their largest value\."),
        (np.arange(COUNT * 192).reshape(X.shape) % 2, Y, r"Divide by 1, their largest value\."),
        (X * 65535, Y, r"Divide by 65535\."),
        ((X * 4000).astype(np.uint16), Y, r"uint16 from \d+ to \d+.*Divide by 4095 if"),
        ((X * 1000).astype(np.uint16), Y, "Divide by 1023 if"),
        (X * 1.0004 / X.max(), Y, r"to 1\.0004"),
        (X * 2 - 1, Y, r"from -1 to 1.*\(x \+ 1\) / 2"),
        ((X - 0.45) / 0.22, Y, r"Undo.*--input-range, or input_range="),
        (X + 1e-3, Y, "Clip them"),
        (np.where(X > 0.5, np.nan, X), Y, "Repair what made NaN"),
        (X.astype(str), Y, "Convert them to numbers"),
        (X.reshape(COUNT, -1), Y, r"x\.reshape\(-1, 8, 8, 3\)"),
        (X[..., 0].reshape(COUNT, -1), Y, r"x\.reshape\(-1, 8, 8, 1\)"),
        (X[0], 1, r"x\[None\]"),
        ([X[0], X[1, :4]], Y[:2], "of one size"),
        (X, np.arange(COUNT * 4).reshape(COUNT, 4) % 3 - 1, "of 0 and 1"),
        (X, np.full((COUNT, 4), 0.25), r"Give the likeliest class: y\.argmax\(axis=1\)"),
        (X, Y + 0.5, "aren't whole numbers"),
        (X, np.array(["bee", "ant", "cat"])[Y % 3], r"np\.unique\(y, return_inverse=True\)\[1\]"),
        (X, Y[:-1], "12 integer labels.*Received: 11"),
        (X, np.zeros((COUNT, 2, 2)), r"shape \(12, 2, 2\)"),
        (X, None, "ndarray alone. Give y as well"),
    ],
)  # fmt: skip
def test_what_can_not_be_told_is_refused_with_a_way_on(x: Any, y: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_images(x, y)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("largest", [1, 4, 16])
def test_8_bit_images_of_few_levels_are_no_8_bit_pixels(largest: int) -> None:
    """The digits of scikit-learn, binary pictures: divided by 255 they would all be black. Dark images are taken."""
    few = np.arange(16 * 64).reshape(16, 8, 8, 1).astype(np.uint8) % (largest + 1)
    with pytest.raises(InputError, match=rf"uint8 from 0 to {largest}\. Divide by {largest}, their largest") as caught:
        read_images(few, np.zeros(16, int))
    assert "\n" not in str(caught.value)
    assert read_images(few[:4], np.zeros(4, int))[0].max() == pytest.approx(largest / 255)
    bright = few.copy()
    bright[3, 2, 1] = 17
    assert read_images(bright, np.zeros(16, int))[0].max() == pytest.approx(17 / 255)


def test_the_way_on_is_one_that_works() -> None:
    """What the messages say to do gives the images themselves."""
    for changed, back in ((X * 255, lambda x: x / 255), (X * 2 - 1, lambda x: (x + 1) / 2)):
        np.testing.assert_allclose(read_images(back(changed), Y)[0], X, atol=1e-6)


@pytest.fixture(scope="module")
def linear() -> keras.Model:
    rng = np.random.default_rng(2)
    return linear_model(rng.normal(size=(192, 4)).astype(np.float32) / 10, np.zeros(4, np.float32))


def test_labels_from_one_on_and_channels_first_are_told(linear: keras.Model) -> None:
    classifier = kr.as_classifier(linear)
    with pytest.raises(InputError, match=r"from 0 to 3\. Received: 1 to 4\. Subtract 1\."):
        check_images(classifier, X, Y + 1)
    with pytest.raises(InputError, match=r"Received: -1 to 1\. Give \(y \+ 1\) // 2\."):
        check_images(classifier, X, np.where(Y > 1, 1, -1))
    with pytest.raises(InputError, match=r"Received: 4 to 7\. Choose the data"):
        check_images(classifier, X, Y + 4)
    for call in (kr.evaluate, FGSM()):
        with pytest.raises(InputError, match=r"8x8x3.*Received: 3x8x8\. .*x\.transpose\(0, 2, 3, 1\)"):
            call(linear, X.transpose(0, 3, 1, 2), Y)


class Stored(keras.utils.PyDataset):
    """As the documentation of Keras has it: with x and y of its own, which need not be what a batch gives."""

    def __init__(self, batches: int | None = 3) -> None:
        super().__init__()
        self.x, self.y, self.batches = ["a.png"], ["bee"], batches

    @property
    def num_batches(self) -> int | None:
        return self.batches

    def __getitem__(self, place: int) -> tuple[np.ndarray, np.ndarray]:
        return PIXELS[place * 4 : place * 4 + 4], Y[place * 4 : place * 4 + 4, None]


def _generated() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for first in range(0, COUNT, 5):
        yield X[first : first + 5], np.eye(4)[Y[first : first + 5]]


SETS: dict[str, Callable[[], Any]] = {
    "single": lambda: tf.data.Dataset.from_tensor_slices((X, Y)),
    "batches": lambda: tf.data.Dataset.from_tensor_slices((PIXELS, Y)).batch(5),
    "one-hot": lambda: tf.data.Dataset.from_tensor_slices((X, np.eye(8)[Y])),
    "weights": lambda: tf.data.Dataset.from_tensor_slices((X, Y, np.ones(COUNT))).batch(5),
    "as TFDS has it": lambda: tf.data.Dataset.from_tensor_slices({"image": PIXELS, "label": Y, "id": Y}),
    "PyDataset": Stored,
    "generator": _generated,
    "list": lambda: [(X[:7], Y[:7]), (X[7:], Y[7:])],
    "load_dataset": lambda: Dataset(name="own", split="all", images=PIXELS, labels=Y, class_names=tuple("abcd")),
}


@pytest.mark.parametrize("kind", SETS)
def test_a_data_set_gives_its_images_and_labels(kind: str) -> None:
    x, y = read_images(SETS[kind]())
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, Y)


@pytest.mark.parametrize("batch", [None, 1, 5, 12])
def test_grey_images_without_an_axis_are_told_from_single_ones(batch: int | None) -> None:
    data = tf.data.Dataset.from_tensor_slices((X[..., 0], Y))
    x, y = read_images(data if batch is None else data.batch(batch))
    np.testing.assert_array_equal(x, X[..., :1])
    np.testing.assert_array_equal(y, Y)


def test_what_has_no_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        while True:
            yield X, Y

    for data in (tf.data.Dataset.from_tensor_slices((X, Y)).repeat(), Stored(None)):
        with pytest.raises(InputError, match=r"Received: an endless one\. Take a part"):
            collected(data)
    memory = type("Memory", (), {"available": 2**24})
    monkeypatch.setattr(module.psutil, "virtual_memory", lambda: memory)
    with pytest.raises(InputError, match="more than 8 MiB"):
        collected(endless())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "Received: none"),
        (tf.data.Dataset.from_tensor_slices(X), "Received: EagerTensor"),
        ([(X, Y, Y, Y)], "Received: 4 parts"),
        ([({"a": X, "b": X}, Y)], "Choose one of 'a', 'b': dataset.map"),
        ([(X, Y), (X[:, :4], Y)], "of one size"),
        (lambda: X, "Received: function alone"),
        ([1, 2, 3], "Received: int"),
        (tf.data.Dataset.range(3), "pairs"),
    ],
)
def test_data_sets_that_give_something_else_are_refused(data: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_images(data)
    assert "\n" not in str(caught.value)


def test_labels_kept_by_a_data_set_of_ones_own_are_classes() -> None:
    class Kept(keras.utils.PyDataset):
        def __init__(self) -> None:
            super().__init__()
            self.labels = np.eye(4, dtype=np.int64)[Y % 4]

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            return X, self.labels

    np.testing.assert_array_equal(read_images(Kept())[1], Y % 4)


def test_an_evaluation_takes_all_of_them(linear: keras.Model) -> None:
    x = images(COUNT)
    y = linear.predict(x, verbose=0).argmax(axis=1)
    y[:3] = (y[:3] + 1) % 4
    attack = FGSM(epsilon=0.1)
    plain = kr.evaluate(linear, x, y, attacks=attack, audit=False)
    assert plain.clean_accuracy == 9 / 12 and plain.robust_accuracy < plain.clean_accuracy
    for data in ((tf.data.Dataset.from_tensor_slices((x, y)).batch(5),), (x.astype(np.float64), y[:, None])):
        found = kr.evaluate(linear, *data, attacks=attack, audit=False)
        np.testing.assert_array_equal(found.worst.x_adv, plain.worst.x_adv)
        assert found.clean_accuracy == plain.clean_accuracy


def test_the_first_tutorial_of_keras() -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8, 8)), keras.layers.Flatten(), keras.layers.Dense(4)])
    x = images(COUNT)[..., 0]
    y = model.predict(x, verbose=0).argmax(axis=1)
    assert kr.evaluate(model, x, y, attacks=FGSM(epsilon=0.0), audit=False).robust_accuracy == 1


@pytest.mark.parametrize("pair", [(X, Y), [X, Y], (X, Y, Y), (X, Y[:, None]), (X[..., 0], Y), (tf.constant(X), Y)])
def test_a_pair_of_arrays_is_asked_for_one_by_one(pair: Any) -> None:
    with pytest.raises(InputError, match=r"Give x and y separately: evaluate\(model, x, y\)") as caught:
        read_images(pair)
    assert "\n" not in str(caught.value)
    assert f"Received: both in a {type(pair).__name__}." in str(caught.value)
    # Two batches, each a pair, are a data set.
    x, y = read_images([(X[:5], Y[:5]), (X[5:], Y[5:])])
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, Y)

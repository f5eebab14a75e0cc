"""The contract of always-on dropout, and of `randomize`, which puts it into other people's models."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers as L

from kerasrobust.errors import InputError
from kerasrobust.networks.architectures import build_model
from kerasrobust.networks.noise import RandomDropout, is_noisy, keyed_noise, noise_off
from kerasrobust.networks.randomizing import randomize

ONES = tf.ones((64, 500))
KEY = tf.constant([3, 4])


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("training", [True, False, None])
def test_entries_are_dropped_at_the_rate_and_the_rest_scaled(rate: float, training: bool | None) -> None:
    found = RandomDropout(rate)(ONES, training=training).numpy()
    assert sorted(np.unique(found)) == pytest.approx([0, 1 / (1 - rate)])
    # Five standard deviations of a binomial share.
    assert (found == 0).mean() == pytest.approx(rate, abs=5 * np.sqrt(rate * (1 - rate) / found.size))


@settings(deadline=None, max_examples=20)
@given(rate=st.floats(0, 0.95), shape=st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_shape_is_kept_and_no_rate_is_no_noise(rate: float, shape: list[int]) -> None:
    x = tf.random.uniform(shape)
    layer = RandomDropout(rate)
    assert layer(x).shape == x.shape == layer.compute_output_shape(tuple(shape))
    np.testing.assert_array_equal(RandomDropout(0)(x), x)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan")])
def test_rate_out_of_bounds_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        RandomDropout(rate)


def test_a_seed_repeats_the_sequence_and_none_repeats_nothing() -> None:
    one, other, free = RandomDropout(0.5, seed=7), RandomDropout(0.5, seed=7), RandomDropout(0.5)
    first, second = one(ONES), one(ONES)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(other(ONES), first)
    np.testing.assert_array_equal(other(ONES), second)
    assert not np.array_equal(free(ONES), free(ONES))


def test_a_key_repeats_the_noise_layer_by_layer() -> None:
    layers = [RandomDropout(0.5), RandomDropout(0.5, seed=1)]

    def draw(key: tf.Tensor) -> list[np.ndarray]:
        with keyed_noise(key):
            return [layer(ONES).numpy() for layer in layers]

    one, again, other = draw(KEY), draw(KEY), draw(KEY + 1)
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one[0], one[1])
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("keyed", [True, False])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("shape", [(None, 8, 8, 1), (None, 1), (None, 4, 1, 3)])
def test_the_static_shape_is_kept_in_graphs(shape: tuple[int | None, ...], shared: bool, keyed: bool) -> None:
    """A depthwise convolution behind it asks for the number of channels."""

    @tf.function(autograph=False, input_signature=[tf.TensorSpec(shape)])
    def run(x: tf.Tensor) -> tf.Tensor:
        with keyed_noise(KEY, shared) if keyed else contextlib.nullcontext():
            outputs = RandomDropout(0.3)(x)
        assert tuple(outputs.shape) == shape
        return outputs

    assert run(tf.ones([3, *shape[1:]])).shape == (3, *shape[1:])


def test_noise_off_passes_through_and_ends_with_its_block() -> None:
    layer = RandomDropout(0.5)
    with keyed_noise(KEY):
        with noise_off():
            np.testing.assert_array_equal(layer(ONES), ONES)
        inside = layer(ONES)
    with pytest.raises(KeyError), noise_off():
        raise KeyError
    with keyed_noise(KEY):
        np.testing.assert_array_equal(layer(ONES), inside)
    assert not np.array_equal(layer(ONES), inside)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("seed", [None, 5])
def test_compiled_noise_is_fresh_in_each_call_and_follows_a_key(jit_compile: bool, seed: int | None) -> None:
    layer = RandomDropout(0.5, seed=seed)

    @tf.function(jit_compile=jit_compile)
    def free(x: tf.Tensor) -> tf.Tensor:
        return layer(x)

    @tf.function(jit_compile=jit_compile)
    def keyed(x: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
        with keyed_noise(key):
            return layer(x)

    assert not np.array_equal(free(ONES), free(ONES))
    np.testing.assert_array_equal(keyed(ONES, KEY), keyed(ONES, KEY))
    assert not np.array_equal(keyed(ONES, KEY), keyed(ONES, KEY + 1))


@pytest.mark.parametrize("set_seed", [keras.utils.set_random_seed, tf.random.set_seed])
def test_a_global_seed_does_not_repeat_the_noise(set_seed: Callable[[int], None]) -> None:
    found = []
    for _ in range(2):
        set_seed(11)
        layer = RandomDropout(0.5)
        found += [layer(ONES).numpy(), tf.function(layer)(ONES).numpy()]
    assert len({part.tobytes() for part in found}) == 4


def test_noise_differs_from_process_to_process_after_a_global_seed(tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    path = tmp_path / "noisy.keras"
    keras.Sequential([keras.Input((20,)), RandomDropout(0.5)]).save(path)
    program = (
        "import sys, keras, kerasrobust.networks.noise as _; keras.utils.set_random_seed(1);"
        "print(keras.models.load_model(sys.argv[1])(keras.ops.ones((4, 20))).numpy().tolist())"
    )
    command = [sys.executable, "-c", program, str(path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for _ in range(2)]
    one, other = (process.communicate(timeout=120)[0] for process in running)
    assert b"2.0" in one
    assert one != other


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_is_kept(policy: str) -> None:
    layer = RandomDropout(0.25, dtype=policy)
    found = layer(tf.ones((200, 200)))
    assert found.dtype == layer.compute_dtype
    assert float(tf.reduce_mean(tf.cast(found, tf.float32))) == pytest.approx(1, abs=0.02)


def test_gradient_is_the_mask() -> None:
    layer = RandomDropout(0.5)
    with tf.GradientTape() as tape:
        tape.watch(ONES)
        found = layer(ONES)
    np.testing.assert_array_equal(tape.gradient(found, ONES), found)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("seed", [None, 9])
def test_files_bring_the_layer_back(tmp_path: Path, suffix: str, seed: int | None) -> None:
    model = keras.Sequential([keras.Input((20,)), RandomDropout(0.3, seed=seed, name="drop", dtype="mixed_bfloat16")])
    model.save(tmp_path / f"m{suffix}")
    layer = keras.models.load_model(tmp_path / f"m{suffix}", compile=False).get_layer("drop")
    assert (type(layer), layer.rate, layer.seed, layer.compute_dtype) == (RandomDropout, 0.3, seed, "bfloat16")
    assert layer.get_config() == model.get_layer("drop").get_config()
    assert not np.array_equal(layer(ONES), layer(ONES))


SHAPE = (16, 16, 3)
X = np.random.default_rng(0).random((6, *SHAPE), np.float32)


def sequential(*layers: L.Layer) -> keras.Model:
    return keras.Sequential([keras.Input(SHAPE), *layers, L.Dense(4, name="logits")])


def functional_with_dropout() -> keras.Model:
    images = keras.Input(SHAPE)
    hidden = L.SpatialDropout2D(0.2)(L.Conv2D(4, 3)(images))
    hidden = L.Dropout(0.5)(L.Flatten()(L.MaxPooling2D()(hidden)))
    return keras.Model(images, L.Dense(4)(hidden))


def kinds(model: keras.Model) -> list[str]:
    return [type(layer).__name__ for layer in model.layers if not isinstance(layer, L.InputLayer)]


def nested() -> keras.Model:
    backbone = sequential(L.MaxPooling2D(), L.Flatten(), L.Dense(6))
    images = keras.Input(SHAPE)
    return keras.Model(images, L.Dense(4)(L.ReLU()(backbone(L.Conv2D(3, 1)(images)))))


CASES: dict[str, tuple[Callable[[], keras.Model], int]] = {
    # After three poolings, and between the dense layer and the logits.
    "convnet": (lambda: build_model("convnet", image_shape=SHAPE, widths=(2, 2, 4)), 4),
    # After two poolings, and in front of the second and third dense layer.
    "lenet": (lambda: build_model("lenet", image_shape=SHAPE), 4),
    # After the global pooling.
    "resnet": (lambda: build_model("resnet", image_shape=SHAPE, depth=1, width=4), 1),
    "sequential": (lambda: sequential(L.AveragePooling2D(2), L.Flatten(), L.Dense(5), L.ReLU(), L.Dense(6)), 3),
    # After the pooling inside, in front of the second dense layer inside, and of the one outside.
    "nested": (nested, 3),
    # Replaced where they stand, and no more put in.
    "functional with dropout": (functional_with_dropout, 2),
    "sequential with dropout": (lambda: sequential(L.MaxPooling2D(), L.Flatten(), L.Dropout(0.5), L.Dense(6)), 1),
}


@pytest.mark.parametrize("case", CASES)
def test_randomized_model_is_the_original_but_for_its_noise(case: str) -> None:
    make, count = CASES[case]
    model = make()
    before = model.get_weights()
    random = randomize(model, rate=0.3)
    rates = [layer.rate for layer in random._flatten_layers() if isinstance(layer, RandomDropout)]
    assert rates == [0.3] * count
    assert not any(isinstance(layer, (L.Dropout, L.SpatialDropout2D)) for layer in random.layers)
    for old, new in zip(before, random.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    with noise_off():
        np.testing.assert_allclose(random(X, training=False), model(X, training=False), atol=1e-6)
    assert not np.allclose(random(X, training=False), random(X, training=False), atol=1e-4)
    assert (is_noisy(random), is_noisy(model)) == (True, False)
    random.set_weights([0 * part for part in before])
    np.testing.assert_array_equal(model.get_weights()[0], before[0])


def test_noise_stands_after_pooling_and_between_dense_layers() -> None:
    model = sequential(L.MaxPooling2D(), L.Flatten(), L.Dense(6), L.ReLU())
    expected = ["MaxPooling2D", "RandomDropout", "Flatten", "Dense", "ReLU", "RandomDropout", "Dense"]
    assert kinds(randomize(model)) == expected


def test_dropout_inside_somebodys_own_layer_is_not_replaced() -> None:
    class Block(L.Layer):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.inner = L.Dropout(0.5)

        def call(self, inputs: tf.Tensor) -> tf.Tensor:
            return self.inner(inputs)

    model = sequential(Block(), L.MaxPooling2D(), L.Flatten())
    assert kinds(randomize(model)) == ["Block", "MaxPooling2D", "RandomDropout", "Flatten", "Dense"]


def test_randomizing_with_a_seed_repeats() -> None:
    model = build_model("lenet", image_shape=SHAPE)
    one, other = randomize(model, seed=3), randomize(model, seed=3)
    np.testing.assert_array_equal(one(X), other(X))
    assert not np.array_equal(one(X), randomize(model, seed=4)(X))
    seeds = [layer.seed for layer in one.layers if isinstance(layer, RandomDropout)]
    assert len(set(seeds)) == len(seeds) == 4


def test_randomizing_again_sets_the_rate_and_adds_nothing() -> None:
    again = randomize(randomize(build_model("lenet", image_shape=SHAPE), 0.1), 0.4)
    assert [layer.rate for layer in again.layers if isinstance(layer, RandomDropout)] == [0.4] * 4


def test_randomized_model_round_trips(tmp_path: Path) -> None:
    random = randomize(build_model("resnet", image_shape=SHAPE, depth=1, width=4))
    for suffix in (".keras", ".h5"):
        random.save(tmp_path / f"m{suffix}")
        loaded = keras.models.load_model(tmp_path / f"m{suffix}", compile=False)
        with keyed_noise(KEY):
            expected = random(X)
        with keyed_noise(KEY):
            np.testing.assert_allclose(loaded(X), expected, atol=1e-6)
        assert not np.array_equal(loaded(X), loaded(X))


def test_randomized_mixed_model_keeps_its_precision() -> None:
    random = randomize(build_model("convnet", image_shape=SHAPE, widths=(2, 2), dtype="mixed_bfloat16"))
    assert random(X).dtype == tf.float32
    # After two poolings, and in front of the logits, which a mixed model computes in float32.
    assert [layer.compute_dtype for layer in random.layers if isinstance(layer, RandomDropout)] == [
        "bfloat16",
        "bfloat16",
        "float32",
    ]


class Subclassed(keras.Model):
    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs


@pytest.mark.parametrize(
    ("make", "rate", "part"),
    [
        (lambda: build_model("lenet", image_shape=SHAPE), 0.0, "between 0 and 1"),
        (lambda: build_model("lenet", image_shape=SHAPE), 1.0, "between 0 and 1"),
        (Subclassed, 0.1, "Subclassed"),
        (lambda: keras.Sequential([L.Dense(3)]), 0.1, "built"),
        (lambda: sequential(L.Flatten()), 0.1, "no place"),
    ],
)
def test_what_cannot_be_randomized_is_refused_in_one_line(
    make: Callable[[], keras.Model], rate: float, part: str
) -> None:
    with pytest.raises(InputError, match=part) as caught:
        randomize(make(), rate)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.97])
def test_noise_of_a_key_has_the_rate_and_no_pattern(rate: float) -> None:
    """Two entries come of one number: each is dropped at the rate, whatever its neighbours are."""
    ones = tf.ones((41, 7, 11, 23))  # An odd number of entries.
    with keyed_noise(tf.constant([3, 4])):
        dropped = (RandomDropout(rate)(ones).numpy() == 0).ravel()
    spread = np.sqrt(rate * (1 - rate) / len(dropped))
    assert abs(dropped.mean() - rate) < 4 * spread
    for shift in (1, 2, 23):
        both = (dropped[shift:] & dropped[:-shift]).mean()
        assert abs(both - rate**2) < 5 * spread

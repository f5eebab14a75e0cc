"""Interval bounds, held to closed forms, to a propagation written in NumPy, and to whatever perturbations find."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import PIXELS, SHAPE, images, labels_of, linear_model
from keras import layers as L

import kerasrobust as kr
from kerasrobust.attacks import PGD
from kerasrobust.errors import Cancelled, InputError
from kerasrobust.evaluation.bounds import certified_by_bounds, interval_bounds
from kerasrobust.evaluation.intervals import gamma
from kerasrobust.events import Progress
from kerasrobust.networks.making import classifier_of

EPSILON = 2 / 255


def plain() -> keras.Model:
    return keras.Sequential([keras.Input(SHAPE), L.Flatten(), L.Dense(12, activation="relu"), L.Dense(4)])


def convolutional() -> keras.Model:
    """Strides, dilations, both paddings, both poolings, depthwise convolutions, and Dropout that is off."""
    return keras.Sequential([
        keras.Input(SHAPE), L.Rescaling(2.0, offset=-1.0), L.Conv2D(6, 3, padding="same", activation="leaky_relu"),
        L.ZeroPadding2D(1), L.DepthwiseConv2D(3, depth_multiplier=2, dilation_rate=2), L.ELU(),
        L.AveragePooling2D(3, strides=2, padding="same"), L.Conv2D(8, 2, strides=2), L.ReLU(max_value=6.0),
        L.Dropout(0.5), L.GlobalAveragePooling2D(), L.Dense(4, activation="softmax"),
    ])  # fmt: skip


def residual() -> keras.Model:
    """Two ways that are added and joined, after normalisation with statistics of its own; a model inside."""
    seen = hidden = keras.Input(SHAPE)
    hidden = L.Normalization(mean=[0.4, 0.5, 0.6], variance=[0.05, 0.04, 0.06])(hidden)
    hidden = L.Conv2D(4, 3, padding="same", use_bias=False)(hidden)
    hidden = L.Activation("relu")(L.BatchNormalization(name="norm")(hidden))
    inner = keras.Sequential([keras.Input((8, 8, 4)), L.Conv2D(4, 3, padding="same"), L.Activation("tanh")])
    hidden = L.Add()([hidden, inner(hidden)])
    hidden = L.Concatenate()([L.MaxPooling2D()(hidden), L.Conv2D(3, 2, strides=2, activation="softplus")(hidden)])
    hidden = L.Reshape((-1,))(hidden)
    return keras.Model(seen, L.Softmax()(L.Dense(4, name="logits")(hidden)))


def largest() -> keras.Model:
    seen = keras.Input(SHAPE)
    hidden = L.LeakyReLU(negative_slope=0.2)(L.Conv2D(6, 3)(seen))
    return keras.Model(seen, L.GlobalMaxPooling2D()(L.Conv2D(4, 3)(hidden)))  # It ends in no dense layer.


NETWORKS = {"plain": plain, "convolutional": convolutional, "residual": residual, "largest": largest}


@pytest.fixture(scope="module", params=[*NETWORKS, "small"])
def network(request: Any, small: keras.Model) -> keras.Model:
    keras.utils.set_random_seed(4)
    model = small if request.param == "small" else NETWORKS[request.param]()
    if request.param == "residual":  # As if its normalisation had been trained.
        ends = (-1, 2), (-0.5, 0.5), (-0.2, 0.3), (0.1, 0.9)
        model.get_layer("norm").set_weights([np.linspace(low, high, 4) for low, high in ends])
    return model


def logits(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return classifier_of(model, image_shape=SHAPE).run(x)


def test_what_is_found_in_the_ball_lies_in_the_bounds(network: keras.Model) -> None:
    """2,000 perturbations, half of them corners of the ball, and the images that PGD ends at."""
    x = images(8)
    x[0], x[1] = 0, 1  # Where the box cuts the ball.
    y = labels_of(network, x, 0)
    bounded = certified_by_bounds(network, x, y, EPSILON)
    lower, upper = interval_bounds(network, x, "2/255")
    np.testing.assert_array_equal((lower, upper), (bounded.lower, bounded.upper))
    change = np.random.default_rng(0).uniform(-1, 1, (250, *x.shape))
    change[::2] = np.sign(change[::2])
    near = np.clip(x + EPSILON * change, 0, 1).astype(np.float32)
    found = logits(network, near.reshape(-1, *SHAPE)).reshape(250, 8, 4)
    assert ((lower <= found) & (found <= upper)).all()
    others = np.where(np.eye(4)[y] == 1, -np.inf, found).max(axis=2)
    assert (bounded.margin <= found[:, np.arange(8), y] - others).all()
    for epsilon in (0.05 / 255, EPSILON):
        bounded = certified_by_bounds(network, x, y, epsilon)
        result = PGD(epsilon=epsilon, steps=10)(network, x, y)
        found = logits(network, result.x_adv)
        assert ((bounded.lower <= found) & (found <= bounded.upper)).all()
        assert bounded.accuracy <= 1 - result.success.mean() and not (bounded.certified & result.success).any()
    assert certified_by_bounds(network, x, y, 1e-5).accuracy > 0.5  # So that the last line can fail.


def test_of_a_linear_network_the_bounds_are_the_closed_form(weights: tuple[np.ndarray, np.ndarray]) -> None:
    """w x + b -+ epsilon ||w||_1, and the margins with the differences of the weights."""
    kernel, bias = (part.astype(np.float64) for part in weights)
    x, y = images(20), np.arange(20) % 4
    found = certified_by_bounds(linear_model(*weights), x, y, 0.03)
    middle, reach = x.reshape(20, -1).astype(np.float64) @ kernel + bias, 0.03 * abs(kernel).sum(axis=0)
    np.testing.assert_allclose(found.lower, middle - reach, atol=4e-3)
    np.testing.assert_allclose(found.upper, middle + reach, atol=4e-3)
    assert (found.lower <= middle - reach).all() and (found.upper >= middle + reach).all()
    for label, own, margin in zip(y, middle, found.margin, strict=True):
        lead = own[label] - own - 0.03 * abs(kernel[:, [label]] - kernel).sum(axis=0)
        assert (
            margin == pytest.approx(np.delete(lead, label).min(), abs=1e-2) and margin <= np.delete(lead, label).min()
        )


def test_layer_by_layer_it_is_the_propagation_written_in_numpy() -> None:
    """Gowal et al. 2018, equations 5 and 6: the middle through the layer, the radius through its absolute weights."""
    keras.utils.set_random_seed(1)
    model = plain()
    (first, before), (last, after) = (layer.get_weights() for layer in model.layers[1:])
    x = images(5)
    low, high = (x.reshape(5, -1).astype(np.float64) + sign * EPSILON for sign in (-1, 1))
    middle, reach = (low + high) / 2 @ first + before, (high - low) / 2 @ abs(first)
    low, high = np.maximum(middle - reach, 0), np.maximum(middle + reach, 0)
    middle, reach = (low + high) / 2 @ last + after, (high - low) / 2 @ abs(last)
    found = interval_bounds(model, x, EPSILON)
    np.testing.assert_allclose(found[0], middle - reach, atol=2e-4)
    np.testing.assert_allclose(found[1], middle + reach, atol=2e-4)


def test_the_bounds_hold_for_float32_where_sums_cancel() -> None:
    """Weights of 1e5 that cancel: what float32 makes of the image itself is far from the exact logits."""
    draw = np.random.default_rng(3)
    kernel = draw.normal(scale=1e5, size=(PIXELS, 4)).astype(np.float32)
    kernel[PIXELS // 2 :] = -kernel[: PIXELS // 2]
    x = images(50)
    x.reshape(50, -1)[:, PIXELS // 2 :] = x.reshape(50, -1)[:, : PIXELS // 2]
    model = linear_model(kernel, np.zeros(4, np.float32))
    exact = x.reshape(50, -1).astype(np.float64) @ kernel.astype(np.float64)
    lower, upper = interval_bounds(model, x, 0)
    found = logits(model, x)
    assert abs(found - exact).max() > 1e-2 and ((lower <= found) & (found <= upper)).all()
    # The share that Higham's lemma 3.1 gives, and one term more.
    assert gamma(100) == pytest.approx(101 * 2**-24 / (1 - 101 * 2**-24))


def test_what_a_model_takes_and_gives_is_the_models_own() -> None:
    keras.utils.set_random_seed(2)
    model, x, y = plain(), images(6), np.arange(6) % 4
    scaled = keras.Sequential([keras.Input(SHAPE), L.Rescaling(1 / 127.5, -1), *model.layers])
    other = kr.as_classifier(keras.Sequential([keras.Input(SHAPE), *model.layers]), input_range=(-1, 1))
    whole = kr.as_classifier(scaled, input_range=(0, 255))
    for one, two in zip(interval_bounds(whole, x, EPSILON), interval_bounds(other, x, EPSILON), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-4)
    single = keras.Sequential([keras.Input(SHAPE), L.Flatten(), L.Dense(1, activation="sigmoid")])
    found = certified_by_bounds(single, x, y % 2, 1e-4)
    z = logits(single, x)[:, 1]
    assert (found.lower[:, 0] == found.upper[:, 0]).all() or abs(found.lower[:, 0]).max() < 1e-20
    assert ((found.lower[:, 1] <= z) & (z <= found.upper[:, 1])).all()
    np.testing.assert_array_equal(found.certified, (z > 0) == (y % 2 == 1))


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_a_sum_of_different_ranks_is_that_of_the_layer(count: int) -> None:
    keras.utils.set_random_seed(3)
    seen = keras.Input((4, 4, 3))
    hidden = L.Conv2D(3, 3, padding="same", activation="relu")(seen)
    model = keras.Model(seen, L.Dense(4)(L.Flatten()(L.Add()([hidden, L.GlobalAveragePooling2D()(hidden)]))))
    x = np.random.default_rng(0).random((count, 4, 4, 3), np.float32)
    lower, upper = interval_bounds(model, x, 0.0)
    own = model(x).numpy()
    assert (lower <= own).all() and (own <= upper).all() and (upper - lower).max() < 1e-4


@pytest.mark.parametrize("given, taken", [(1, 3), (4, 3), (3, 1)])
def test_images_of_other_channels_are_bounded_as_they_are_converted(given: int, taken: int) -> None:
    keras.utils.set_random_seed(3)
    rng = np.random.default_rng(0)
    shape = (*SHAPE[:2], taken)
    model = keras.Sequential([keras.Input(shape), L.Conv2D(5, 3, activation="relu"), L.Flatten(), L.Dense(4)])
    x = rng.random((5, *SHAPE[:2], given), np.float32)
    lower, upper = interval_bounds(model, x, EPSILON)
    grey = x @ np.array([[0.2989], [0.587], [0.114]]) if taken == 1 else x
    own = model(np.repeat(grey, 3, axis=-1) if given == 1 else grey[..., :taken]).numpy()
    assert (lower <= own).all() and (own <= upper).all() and (upper - lower).max() < 1
    for _ in range(20):
        moved = np.clip(x + rng.choice([-EPSILON, EPSILON], x.shape), 0, 1).astype(np.float32)
        found = classifier_of(model, image_shape=x.shape[1:]).run(moved)
        assert (lower <= found).all() and (found <= upper).all()


class Doubling(L.Layer):
    def call(self, x: tf.Tensor) -> tf.Tensor:
        return 2 * x


class Sneaky(L.Dense):
    """Computes something else than its base, which a rule for that would miss."""

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return -super().call(x)


def test_what_bounds_cannot_pass_is_named_in_one_line(randomized: keras.Model) -> None:
    x = images(2)

    def ending_in(*layers: L.Layer) -> keras.Model:
        return keras.Sequential([keras.Input(SHAPE), L.Flatten(), *layers, L.Dense(4, name="last")])

    for layer, message in (
        (L.Dense(4, activation="gelu", name="odd"), "'odd', the activation gelu"),
        (L.Activation("silu", name="odd"), "'odd', the activation silu"),
        (Doubling(name="odd"), "'odd', a Doubling"),
        (Sneaky(4, name="odd"), "'odd', a Sneaky"),
        (L.Softmax(name="odd"), "'odd', a Softmax"),
        (L.LayerNormalization(name="odd"), "'odd', a LayerNormalization"),
        (L.Dense(4, dtype="mixed_bfloat16", name="odd"), "'odd', which computes in bfloat16"),
    ):
        with pytest.raises(InputError, match=message):
            interval_bounds(ending_in(layer), x, EPSILON)
    with pytest.raises(InputError, match="a random one"):
        interval_bounds(randomized, x, EPSILON)
    with pytest.raises(InputError, match="whose layers aren't known"):
        interval_bounds(lambda images: tf.reduce_mean(images, axis=[1, 2]), x, EPSILON)
    with pytest.raises(InputError, match="Did you mean 8/255"):
        interval_bounds(plain(), x, 8)


def test_it_tells_how_far_it_is_and_stops() -> None:
    told: list[Any] = []
    interval_bounds(plain(), images(8), EPSILON, batch_size=2, emit=told.append)
    assert told and isinstance(told[0], Progress) and told[0].total == 8 and told[0].done == 2
    with pytest.raises(Cancelled):
        interval_bounds(plain(), images(8), EPSILON, should_stop=lambda: True)


def test_the_gap_is_one_line(small: keras.Model) -> None:
    x = images(10)
    found = certified_by_bounds(small, x, labels_of(small, x, 2), 1e-6)
    assert found.accuracy == 0.8 and found.interval[0] < 0.8 < found.interval[1]
    assert found.beside(0.9) == (
        "Within 1e-06: 80.0 % certified at least, 90.0 % under attack at most; 10.0 % of the images are open."
    )

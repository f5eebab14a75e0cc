"""The attacks that look for the nearest example, against closed forms, steps by hand, and DeepFool and CW."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import PIXELS, SHAPE, images, labels_of, linear_model, soft
from keras import layers as L

from kerasrobust.attacks import CW, DDN, Attack, DeepFool
from kerasrobust.attacks.nearest import annealed
from kerasrobust.errors import InputError
from kerasrobust.networks.classifier import Classifier
from kerasrobust.networks.making import as_classifier

X = images(20)
ORDER = {"linf": np.inf, "l2": 2, "l1": 1}
DUAL = {"linf": 1, "l2": 2, "l1": np.inf}
ATTACKS: dict[str, Callable[..., Attack[Any]]] = {
    "ddn-l2": DDN,
}
TARGETED = list(ATTACKS)


def boundaries(kernel: np.ndarray, bias: np.ndarray, x: np.ndarray, y: np.ndarray, norm: str) -> np.ndarray:
    """Returns the distance at which each class wins over the label, float64 (N, K), infinite for the label."""
    logits = x.reshape(len(x), -1).astype(np.float64) @ kernel + bias
    gaps = np.abs(logits - logits[np.arange(len(x)), y][:, None])
    speeds = np.linalg.norm(kernel.T[None].astype(np.float64) - kernel.T[y][:, None], ord=DUAL[norm], axis=2)
    return np.where(speeds > 0, gaps / np.maximum(speeds, 1e-30), np.inf)


@pytest.fixture(scope="module")
def trained() -> tuple[Classifier, np.ndarray, np.ndarray]:
    """A network that has learnt four patterns in noise, with 24 images that it gets right."""
    keras.utils.set_random_seed(0)
    draw = np.random.default_rng(0)
    patterns = draw.normal(size=(4, *SHAPE)) * 0.1
    y = draw.integers(0, 4, 600)
    x = np.clip(0.5 + patterns[y] + draw.normal(size=(600, *SHAPE)) * 0.12, 0, 1).astype(np.float32)
    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            L.Conv2D(8, 3, padding="same", activation="relu"),
            L.Conv2D(12, 3, strides=2, activation="relu"),
            L.Flatten(),
            L.Dense(32, activation="relu"),
            L.Dense(4),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, jit_compile=False)
    model.fit(x, y, batch_size=50, epochs=6, verbose=0)
    right = np.flatnonzero(np.asarray(model(x)).argmax(axis=1) == y)[:24]
    assert len(right) == 24
    return as_classifier(model), x[right], y[right]


@pytest.mark.parametrize("name", ATTACKS)
def test_linear_boundaries_are_found(name: str, linear: keras.Model, weights: tuple[np.ndarray, np.ndarray]) -> None:
    norm = name.split("-")[-1]
    y = labels_of(linear, X, 4)
    result = ATTACKS[name](norm=norm)(linear, X, y)
    exact = boundaries(*weights, X, y, norm).min(axis=1)
    exact[:4] = 0  # Wrong from the start.
    assert result.success.all()
    assert (result.distance >= exact * 0.9999).all()
    assert (result.distance <= exact * 1.05).all()
    assert float(np.median(result.distance[4:] / exact[4:])) <= 1.01


@pytest.mark.parametrize("name", ATTACKS)
def test_distances_are_not_above_those_of_deepfool_and_cw(
    name: str, trained: tuple[Classifier, np.ndarray, np.ndarray]
) -> None:
    norm = name.split("-")[-1]
    result = ATTACKS[name](norm=norm)(*trained)
    assert result.success.all()
    others = {"linf": [DeepFool(norm="linf")], "l2": [DeepFool(norm="l2"), CW(steps=50, binary_steps=6)]}
    for other in others.get(norm, []):
        found = other(*trained)
        assert result.median_distance <= found.median_distance * 1.01


@pytest.mark.parametrize("name", TARGETED)
def test_targets_are_reached_at_their_own_boundaries(name: str, weights: tuple[np.ndarray, np.ndarray]) -> None:
    norm = name.split("-")[-1]
    kernel, bias = soft(weights)
    # Of two classes besides a hopeless third one: what is between the image and its target is the target's boundary.
    model = linear_model(kernel[:, :3], np.array([bias[0], bias[1], -50], np.float32))
    y = labels_of(model, X, 0)
    target = 1 - y
    attack = ATTACKS[name](norm=norm, targeted=True)
    result = attack(model, X, y, target=target)
    exact = boundaries(kernel[:, :2], bias[:2], X, y, norm)[np.arange(20), target]
    np.testing.assert_array_equal(result.prediction_adv, target)
    assert (result.distance >= exact * 0.9999).all()
    assert float(np.median(result.distance / exact)) <= 1.02
    # What says it already stays as it is; a wrong class that isn't the target is no success.
    assert not attack(model, X, y, target=y).distance.any()
    hopeless = attack(model, X, y, target=np.full(20, 2))
    assert not hopeless.success.any()
    np.testing.assert_array_equal(hopeless.x_adv, X)


@pytest.mark.parametrize("name", ATTACKS)
def test_images_of_black_and_white_stay_in_the_box_and_move(name: str, linear: keras.Model) -> None:
    x = X.round()
    y = labels_of(linear, x, 0)
    result = ATTACKS[name](norm=name.split("-")[-1])(linear, x, y)
    assert result.success.all()
    assert result.x_adv.min() >= 0
    assert result.x_adv.max() <= 1


@pytest.mark.parametrize("name", ATTACKS)
def test_what_is_wrong_already_has_distance_0(name: str, linear: keras.Model) -> None:
    y = labels_of(linear, X, 8)
    for early_stop in (True, False):
        result = ATTACKS[name](norm=name.split("-")[-1])(linear, X, y, early_stop=early_stop)
        assert not result.distance[:8].any()
        assert (result.distance[8:] > 0).all()
        assert result.success.all()


@pytest.mark.parametrize("name", ATTACKS)
def test_a_boundary_that_is_out_of_reach_leaves_images_alone(name: str) -> None:
    """f = x_0 - 1.2 has its boundary outside of the box, and a network without gradients shows none."""
    kernel = np.zeros((PIXELS, 2), np.float32)
    kernel[0, 1] = 1

    def flat(x: tf.Tensor) -> tf.Tensor:
        return tf.stop_gradient(tf.reshape(x, (-1, PIXELS))[:, :3])

    for model, y in (
        (linear_model(kernel, np.array([1.2, 0], np.float32)), np.zeros(20, np.int64)),
        (flat, X.reshape(20, -1)[:, :3].argmax(axis=1)),
    ):
        result = ATTACKS[name](norm=name.split("-")[-1], steps=20)(model, X, y)
        assert not result.success.any()
        np.testing.assert_array_equal(result.x_adv, X)
        assert np.isinf(result.median_distance)


@pytest.mark.parametrize("name", ATTACKS)
def test_repeats_and_does_not_depend_on_the_batch(name: str, linear: keras.Model) -> None:
    y = labels_of(linear, X, 2)
    attack = ATTACKS[name](norm=name.split("-")[-1], steps=15)
    whole, again = (attack(linear, X, y, seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(whole.x_adv, again.x_adv)
    parts = attack(linear, X[::-1], y[::-1], batch_size=7)
    np.testing.assert_allclose(whole.x_adv, parts.x_adv[::-1], atol=1e-4)


@pytest.mark.parametrize("name", ATTACKS)
def test_eot_averages_what_a_randomized_network_says(name: str, randomized: keras.Model) -> None:
    y = labels_of(randomized, X, 0)
    attack = ATTACKS[name](norm=name.split("-")[-1], eot=6, steps=40)
    results = [attack(randomized, X, y, passes=20, early_stop=False, seed=seed) for seed in (0, 1)]
    assert all(np.isfinite(result.x_adv).all() for result in results)
    assert np.mean([result.clean_rate.mean() - result.correct_rate.mean() for result in results]) > 0.15


def pixels(*kernel: float, bias: float) -> Any:
    """Returns a network of images (K, 1, 1) with the logits 0 and <kernel, x> + bias."""

    def network(x: tf.Tensor) -> tf.Tensor:
        lead = tf.linalg.matvec(tf.reshape(x, [-1, len(kernel)]), tf.constant(kernel, tf.float32)) + bias
        return tf.stack([tf.zeros_like(lead), lead], axis=1)

    return network


def test_ddn_by_hand() -> None:
    """f = 3a + 4b - 4.4 is -0.9 at (0.5, 0.5); the boundary is 0.18 away, along (0.6, 0.8).

    The radius begins at 0.2: not fooled, 0.2 * 1.1 = 0.22; fooled there, 0.198; again, 0.1782, which is too short;
    0.19602 is enough, and is seen by the look after four steps.
    """
    x, y = np.full((1, 2, 1, 1), 0.5, np.float32), np.zeros(1, np.int64)
    for steps, distance in ((1, 0.22), (2, 0.198), (3, 0.198), (4, 0.19602)):
        attack = DDN(gamma=0.1, first_radius=0.2, steps=steps)
        result = attack(pixels(3, 4, bias=-4.4), x, y)
        assert result.distance[0] == pytest.approx(distance, abs=1e-6)
        np.testing.assert_allclose((result.x_adv - x).ravel(), distance * np.array([0.6, 0.8]), atol=1e-6)
        assert result.gradients == steps


def test_steps_shrink_along_half_a_cosine() -> None:
    found = [float(annealed(1.0, 0.01, tf.constant(step), tf.constant(4))) for step in range(5)]
    np.testing.assert_allclose(found, [1, 0.505 + 0.495 * 0.5**0.5, 0.505, 0.505 - 0.495 * 0.5**0.5, 0.01], rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (DDN, {"steps": 0}, "step"),
        (DDN, {"gamma": 0.0}, "gamma"),
        (DDN, {"first_radius": 0.0}, "first_radius"),
        (DDN, {"norm": "linf"}, "l2"),
    ],
)
def test_bad_settings_are_told(kind: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        kind(**settings)

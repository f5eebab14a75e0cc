"""FAB against what linear models have in closed form, steps computed by hand, and projections by brute force."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import PIXELS, SHAPE, images, labels_of, linear_model
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasrobust.attacks import Attack, DeepFool
from kerasrobust.attacks.fab import FAB, FABT, project_plane
from kerasrobust.errors import InputError
from kerasrobust.networks.making import as_classifier

X = images(30)
NORMS: list[Any] = ["linf", "l2", "l1"]
ORDER = {"linf": np.inf, "l2": 2, "l1": 1}
DUAL = {"linf": 1, "l2": 2, "l1": np.inf}


def boundaries(kernel: np.ndarray, bias: np.ndarray, x: np.ndarray, y: np.ndarray, norm: str) -> np.ndarray:
    """Returns |f_k - f_y| / |w_k - w_y|_q of each class in float64, (N, K), infinite for the label."""
    logits = x.reshape(len(x), -1).astype(np.float64) @ kernel + bias
    gaps = np.abs(logits - logits[np.arange(len(x)), y][:, None])
    slopes = kernel.T[None].astype(np.float64) - kernel.T[y][:, None]
    speeds = np.linalg.norm(slopes, ord=DUAL[norm], axis=2)
    return np.where(speeds > 0, gaps / np.maximum(speeds, 1e-30), np.inf)


def projected(x: list[float], w: list[float], rise: float, norm: Any) -> list[float]:
    way = project_plane(tf.constant([x], tf.float32), tf.constant([w], tf.float32), tf.constant([rise]), norm)
    return np.asarray(way)[0].tolist()


@pytest.mark.parametrize(
    ("x", "w", "rise", "norm", "way"),
    [
        # Nothing in the way: rise * w / |w|^2, and rise * sign(w) / |w|_1.
        ([0.5, 0.5], [3, -4], 1.0, "l2", [0.12, -0.16]),
        ([0.5, 0.5], [3, -4], 1.4, "linf", [0.2, -0.2]),
        ([0.5, 0.5], [3, -4], -1.4, "linf", [-0.2, 0.2]),
        # In L1 the steepest alone, and once it is stopped, the next one: 4 * 0.5 of 2.6, and 0.6 / 3.
        ([0.5, 0.5], [3, -4], 1.0, "l1", [0, -0.25]),
        ([0.5, 0.5], [3, -4], 2.6, "l1", [0.2, -0.5]),
        ([0.5, 0.9, 0.3], [1, -1, 0], 2.0, "l1", [0.5, -0.9, 0]),
        ([0.5, 0.9], [0, 0], 1.0, "l1", [0, 0]),
        # Equally steep ones share the way: 2 * 0.2 of 0.6, and 0.2 of what is there, 0.5 + 0.3.
        ([0.8, 0.5, 0.7], [2, 1, 1], 0.6, "l1", [0.2, 0.125, 0.075]),
        # The second entry has 0.1 to go, and the first one makes up for it.
        ([0.5, 0.9], [1, 1], 0.4, "linf", [0.3, 0.1]),
        ([0.5, 0.9], [1, 1], 0.4, "l2", [0.3, 0.1]),
        # 2 * 0.2 are reached when the first entry is stopped; the other two share the remaining 1.6 - 0.4.
        ([0.8, 0.1, 0.5], [2, 1, -1], 1.2, "linf", [0.2, 0.4, -0.4]),
        # Speeds 1 and 0.5 after the first entry has stopped at 0.1: 0.1 + 0.5 t * 0.5 = 0.2 at t = 0.4.
        ([0.9, 0.5], [1, 0.5], 0.2, "l2", [0.1, 0.2]),
        # The box ends before the plane: its corner.
        ([0.5, 0.9, 0.3], [1, 1, 0], 2.0, "linf", [0.5, 0.1, 0]),
        ([0.5, 0.9, 0.3], [1, -1, 0], 2.0, "l2", [0.5, -0.9, 0]),
        # Already there, and nowhere to go.
        ([0.5, 0.9], [1, 1], 0.0, "linf", [0, 0]),
        ([0.5, 0.9], [0, 0], 1.0, "linf", [0, 0]),
        ([0.5, 0.9], [0, 0], 1.0, "l2", [0, 0]),
        # Gradients whose squares are 0 in float32, and a plane as far away as numbers go.
        ([0.5, 0.5], [3e-30, -4e-30], 1e-30, "l2", [0.12, -0.16]),
        ([0.5, 0.5], [1e-30, 1e-37], 1e38, "l2", [0.5, 0.5]),
        ([0.5, 0.5], [1, 0], np.inf, "l2", [0.5, 0]),
    ],
)
def test_projections_by_hand(x: list[float], w: list[float], rise: float, norm: str, way: list[float]) -> None:
    assert projected(x, w, rise, norm) == pytest.approx(way, abs=1e-6)


pixels = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1, width=32))
# Weights 1e7 times smaller than the largest one are nothing to float32, and so are not its planes.
weights_of_a_plane = st.one_of(st.just(0.0), st.floats(0.125, 1024, width=32), st.floats(-1024, -0.125, width=32))


@settings(max_examples=150, deadline=None)
@given(points=st.lists(st.tuples(pixels, pixels, weights_of_a_plane), min_size=5, max_size=5))
@pytest.mark.parametrize("norm", NORMS)
def test_projection_is_the_shortest_way_in_the_box(norm: Any, points: list[tuple[float, float, float]]) -> None:
    """Any point of the box lies on some plane: the projection onto that can't be farther."""
    x, z, w = np.array(points, np.float32).T
    rise = float(w.astype(np.float64) @ (z.astype(np.float64) - x))
    way = np.array(projected(x.tolist(), w.tolist(), rise, norm))
    assert (x + way >= -1e-6).all()
    assert (x + way <= 1 + 1e-6).all()
    assert way @ w == pytest.approx(rise, rel=1e-5, abs=1e-5 * np.abs(w).sum())
    length = np.linalg.norm(way, ord=ORDER[norm])
    # Where the largest weights have done what they can, their rounding is left to the smallest one.
    sizes = np.abs(w[w != 0])
    rounding = np.finfo(np.float32).eps * sizes.sum() / sizes.min() if len(sizes) else 0.0
    assert length <= np.linalg.norm(z.astype(np.float64) - x, ord=ORDER[norm]) * (1 + 1e-4) + 1e-5 + rounding


def many_dimensions() -> tuple[np.ndarray, ...]:
    """Returns points, normals and rises of 40 planes, the ways that lead up, and how far the box lets each entry go."""
    draw = np.random.default_rng(0)
    x, w = draw.random((40, 500)), draw.normal(size=(40, 500)) ** 3
    x[:, :100] = x[:, :100].round()
    rise = draw.normal(size=40) * np.logspace(-3, 2.5, 40)
    toward = np.sign(rise)[:, None] * w
    room = np.where(toward > 0, 1 - x, x)
    return x, w, rise, toward, room


def test_projection_in_l1_agrees_with_sorting_in_many_dimensions() -> None:
    x, w, rise, toward, room = many_dimensions()
    order = np.argsort(-np.abs(w), axis=1)
    first, rooms = (np.take_along_axis(part, order, axis=1) for part in (np.abs(w), room))
    done = np.cumsum(first * rooms, axis=1) - first * rooms
    ways = np.clip((np.abs(rise)[:, None] - done) / first, 0, rooms)
    way = np.zeros_like(x)
    np.put_along_axis(way, order, ways, axis=1)
    given = [tf.constant(part, tf.float32) for part in (x, w, rise)]
    found = project_plane(given[0], given[1], given[2], "l1")
    np.testing.assert_allclose(found, np.sign(toward) * way, atol=2e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_projection_agrees_with_bisection_in_many_dimensions(norm: Any) -> None:
    x, w, rise, toward, room = many_dimensions()
    low, high = np.zeros(40), np.full(40, 1e6)
    for _ in range(200):
        time = ((low + high) / 2)[:, None]
        way = np.minimum(time * (np.abs(w) if norm == "l2" else 1), room)
        short = (way * np.abs(w)).sum(axis=1) < np.abs(rise)
        low, high = np.where(short, time[:, 0], low), np.where(short, high, time[:, 0])
    given = [tf.constant(part, tf.float32) for part in (x, w, rise)]
    found = project_plane(given[0], given[1], given[2], norm)
    np.testing.assert_allclose(found, np.sign(toward) * way, atol=2e-6)


@pytest.fixture(scope="module")
def smooth() -> Any:
    """A network of two hidden layers. Of networks as rough as `small` the linearisation says too little for FAB."""
    draw = np.random.default_rng(0)
    shapes = [(PIXELS, 64), (64, 64), (64, 4)]
    kernels = [tf.constant(2 / shape[0] ** 0.5 * draw.normal(size=shape), tf.float32) for shape in shapes]
    biases = [tf.constant(draw.normal(size=64), tf.float32) for _ in range(2)]

    def network(x: tf.Tensor) -> tf.Tensor:
        hidden = tf.reshape(x, [-1, PIXELS])
        for kernel, bias in zip(kernels, biases, strict=False):
            hidden = tf.nn.relu(hidden @ kernel + bias)
        return hidden @ kernels[-1]

    return as_classifier(network, image_shape=SHAPE)  # A bare function would be traced anew in each call.


def two_pixels(kernel: tuple[float, float], bias: float) -> Any:
    """Returns a model of images (2, 1, 1) with the logits 0 and <kernel, x> + bias."""

    def model(x: tf.Tensor) -> tf.Tensor:
        lead = tf.linalg.matvec(tf.reshape(x, [-1, 2]), tf.constant(kernel, tf.float32)) + bias
        return tf.stack([tf.zeros_like(lead), lead], axis=1)

    return model


@pytest.mark.parametrize(
    ("kind", "norm", "start", "kernel", "bias", "more", "distances"),
    [
        # f = 3a + 4b - 5 is -1.5 at (0.5, 0.5): d = 1.5 / 25 * (3, 4) = (0.18, 0.24), of length 0.3.
        # Step 1: x and the original are one, so the step is 1.05 d: (0.689, 0.752), f = 0.075: flipped, at 0.315.
        #   Back to 0.9 of that: (0.6701, 0.7268), f = -0.0825.
        # Step 2: d1 = 0.0825 / 25 * (3, 4) = (0.0099, 0.0132), of length 0.0165; alpha = 0.0165 / 0.3165 = 0.0521327.
        #   a = 0.9478673 * (0.6701 + 0.010395) + 0.0521327 * 0.689 = 0.6809384, b = 0.7412512 alike: f = 0.0078,
        #   flipped, at |(0.1809384, 0.2412512)| = 0.3015640.
        (FABT, "l2", (0.5, 0.5), (3, 4), -5, {}, (0.315, 0.3015640)),
        # f = a + b - 1.8 is -0.4 at (0.5, 0.9), and b has 0.1 to go: d = (0.3, 0.1).
        # Step 1: (0.5 + 0.315, 0.9 + 0.105 clipped to 1), flipped, at 0.315. Back to (0.7835, 0.99), f = -0.0265.
        # Step 2: b has 0.01 to go: d1 = (0.0165, 0.01); alpha = 0.0165 / 0.3165 = 0.0521327.
        #   a = 0.9478673 * (0.7835 + 0.017325) + 0.0521327 * 0.815 = 0.8015640, b = 1: flipped, at 0.3015640.
        (FAB, "linf", (0.5, 0.9), (1, 1), -1.8, {}, (0.315, 0.3015640)),
        # f = 3a + 4b - 5 is -1.5 at (0.5, 0.5): b alone, 0.375. Step 1: 1.05 of it: (0.5, 0.89375), f = 0.075: flipped.
        #   Back to 0.9 of that: (0.5, 0.854375), f = -0.0825.
        # Step 2: d1 = (0, 0.020625); alpha = 0.020625 / 0.395625 = 0.0521327: b = 0.9478673 * (0.854375 + 0.02165625)
        #   + 0.0521327 * 0.89375 = 0.8769550: flipped, at 0.3769550.
        (FAB, "l1", (0.5, 0.5), (3, 4), -5, {}, (0.39375, 0.3769550)),
        # The same with beta = 0.1: back to (0.5315, 0.91), f = -0.3585, b has 0.09 to go: d1 = (0.2685, 0.09).
        #   alpha = 0.2685 / 0.5685 = 0.47 is cut to 0.1: a = 0.9 * (0.5315 + 0.281925) + 0.1 * 0.815 = 0.8135825.
        (FAB, "linf", (0.5, 0.9), (1, 1), -1.8, {"beta": 0.1}, (0.315, 0.3135825)),
        # And without that cut: alpha = 0.2685 / 0.5685 = 0.4722955, a = 0.813425 + alpha * 0.001575 = 0.8141689.
        (FABT, "linf", (0.5, 0.9), (1, 1), -1.8, {"beta": 0.1, "alpha_max": 1.0}, (0.315, 0.3141689)),
        # eta = 1.2: 0.36 in the first step; back to (0.824, 0.99), on the other side by 0.014: d1 = (-0.007, -0.007),
        #   alpha = 0.007 / 0.307 = 0.0228013: a = 0.9771987 * (0.824 - 0.0084) + 0.0228013 * 0.86 = 0.8166124,
        #   b = 0.9771987 * (0.99 - 0.0084) + 0.0228013 * 1.02 = 0.9824757: f = -0.0009: not flipped.
        (FAB, "linf", (0.5, 0.9), (1, 1), -1.8, {"eta": 1.2}, (0.36, 0.36)),
    ],
)
def test_two_steps_by_hand(
    kind: type[FAB],
    norm: Any,
    start: tuple[float, float],
    kernel: tuple[float, float],
    bias: float,
    more: dict[str, Any],
    distances: tuple[float, float],
) -> None:
    x = np.array(start, np.float32).reshape(1, 2, 1, 1)
    for steps, distance in enumerate(distances, 1):
        result = kind(norm=norm, steps=steps, **more)(two_pixels(kernel, bias), x, np.zeros(1, np.int64))
        assert result.success.all()
        assert result.distance[0] == pytest.approx(distance, abs=1e-6)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("attack", [{}, {"targets": 3}])
def test_linear_boundaries_are_found(
    norm: Any, attack: dict[str, Any], linear: keras.Model, weights: tuple[np.ndarray, np.ndarray]
) -> None:
    y = labels_of(linear, X, 4)
    result = (FABT if attack else FAB)(norm=norm, steps=20, **attack)(linear, X, y)
    exact = boundaries(*weights, X, y, norm).min(axis=1)
    exact[:4] = 0  # Wrong from the start.
    assert result.success.all()
    assert (result.distance >= exact * 0.9999).all()
    assert (result.distance <= exact * 1.01).all()


def test_targets_are_the_classes_with_the_highest_logits(
    linear: keras.Model, weights: tuple[np.ndarray, np.ndarray]
) -> None:
    y = labels_of(linear, X, 0)
    every = boundaries(*weights, X, y, "l2")
    logits = X.reshape(30, -1) @ weights[0] + weights[1]
    ranks = np.argsort(-logits, axis=1)[:, 1:]
    for targets in (1, 2, 3):
        result = FABT(norm="l2", steps=20, targets=targets)(linear, X, y)
        aimed = np.take_along_axis(every, ranks[:, :targets], axis=1).min(axis=1)
        # On the way to a target another class may come first, and that counts as well.
        assert (result.distance <= aimed * 1.01).all()
        alone = aimed < 0.98 * np.where(every == aimed[:, None], np.inf, every).min(axis=1)
        assert alone.sum() > 5
        np.testing.assert_allclose(result.distance[alone], aimed[alone], rtol=0.01)


def test_more_targets_than_rivals_cost_nothing(linear: keras.Model) -> None:
    y = labels_of(linear, X, 0)
    three, nine = (FABT(steps=5, targets=targets)(linear, X, y) for targets in (3, 9))
    np.testing.assert_array_equal(three.x_adv, nine.x_adv)
    assert three.gradients == nine.gradients == 30 * 5 * 3


def test_gradients_count_each_class() -> None:
    x = np.full((2, 2, 1, 1), 0.5, np.float32)
    y = np.zeros(2, np.int64)
    for kind, classes in ((FAB, 2), (FABT, 2)):
        result = kind(steps=7)(two_pixels((1, 1), -1.5), x, y, batch_size=2)
        assert result.gradients == 2 * 7 * (classes - 1)
        # A pass after each step, one for the logits of the start, and the verdicts on the image and the example.
        assert result.forwards == 2 * (7 + 1 + 2) + (2 * 8 if kind is FABT else 0)


@pytest.mark.parametrize("norm", ["linf", "l2"])  # DeepFool has no other.
def test_distances_are_not_above_those_of_deepfool(norm: Any, smooth: Any) -> None:
    y = np.asarray(smooth(X)).argmax(axis=1)
    rough = DeepFool(norm=norm)(smooth, X, y)
    for attack in (FAB(norm=norm, steps=30), FABT(norm=norm, steps=30, targets=3)):
        result = attack(smooth, X, y)
        assert result.success.all()
        assert result.median_distance <= rough.median_distance * 1.02
        assert (result.distance <= rough.distance * 1.1).all()


def test_boundary_in_a_corner_of_the_box_is_reached() -> None:
    """f = a + b - 1.9: the brighter pixel is at 1 before the other one has gone far enough."""
    kernel = np.zeros((PIXELS, 2), np.float32)
    kernel[:2, 1] = 1
    model = linear_model(kernel, np.array([1.9, 0], np.float32))
    result = FAB(norm="linf", steps=30)(model, X, np.zeros(30, np.int64))
    start = X.reshape(30, -1)[:, :2]
    rise, room = 1.9 - start.sum(axis=1), 1 - start.max(axis=1)
    exact = np.maximum(rise / 2, rise - room)
    assert (exact > rise / 2).sum() > 10
    assert result.success.all()
    np.testing.assert_allclose(result.distance, exact, rtol=0.02)


@pytest.mark.parametrize("kind", [FAB, FABT])
def test_boundary_outside_of_the_box_is_not_reached(kind: type[FAB]) -> None:
    kernel = np.zeros((PIXELS, 2), np.float32)
    kernel[0, 1] = 1
    model = linear_model(kernel, np.array([1.2, 0], np.float32))
    result = kind(steps=5)(model, X, np.zeros(30, np.int64))
    assert not result.success.any()
    np.testing.assert_array_equal(result.x_adv, X)


def test_a_flat_network_is_left_alone() -> None:
    def flat(x: tf.Tensor) -> tf.Tensor:
        return tf.stop_gradient(tf.reshape(x, (-1, PIXELS))[:, :3])

    y = X.reshape(30, -1)[:, :3].argmax(axis=1)
    result = FAB(steps=5)(flat, X, y)
    np.testing.assert_array_equal(result.x_adv, X)


@pytest.mark.parametrize("early_stop", [True, False])
def test_what_is_wrong_already_has_distance_0(early_stop: bool, linear: keras.Model) -> None:
    y = labels_of(linear, X, 10)
    result = FAB(steps=3)(linear, X, y, early_stop=early_stop)
    np.testing.assert_array_equal(result.distance[:10], 0)
    assert (result.distance[10:] > 0).all()
    assert result.success.all()


def test_within_epsilon_one_success_is_enough(linear: keras.Model, weights: tuple[np.ndarray, np.ndarray]) -> None:
    y = labels_of(linear, X, 0)
    exact = boundaries(*weights, X, y, "l2").min(axis=1)
    # All boundaries are crossed in the first step, which goes 1.05 times as far as needed.
    result = FABT(norm="l2", epsilon=float(exact.max() * 2), targets=1)(linear, X, y)
    assert result.gradients == 30
    # Half of the images are done in the first run, the others go on to all their targets, and are still reported.
    middle = float(np.median(exact))
    half = FABT(norm="l2", epsilon=middle, steps=10, targets=3)(linear, X, y)
    every = FABT(norm="l2", steps=10, targets=3)(linear, X, y)
    assert half.gradients < every.gradients == 30 * 10 * 3
    assert half.success.all()
    assert ((half.distance <= middle) == (every.distance <= middle)).all()
    far = every.distance > middle
    np.testing.assert_array_equal(half.x_adv[far], every.x_adv[far])
    # Asked not to stop, it looks for the nearest one all the same.
    on = FABT(norm="l2", epsilon=middle, steps=10, targets=3)(linear, X, y, early_stop=False)
    np.testing.assert_array_equal(on.x_adv, every.x_adv)


@pytest.mark.parametrize(
    "attack",
    [FAB(norm="l2", steps=6, epsilon=0.2), FAB(steps=6, epsilon=0.02), FABT(steps=6, epsilon=0.02, targets=2)],
)
def test_restarts_only_help_and_follow_the_seed(attack: FAB, small: keras.Model) -> None:
    y = labels_of(small, X, 0)
    more = type(attack)(**attack.settings() | {"restarts": 3})
    first, again, other = (more(small, X, y, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.x_adv, again.x_adv)
    assert not np.array_equal(first.x_adv, other.x_adv)
    once = attack(small, X, y, seed=1)
    before, after = (np.where(result.success, result.distance, np.inf) for result in (once, first))
    assert (after <= before).all()
    # The first run begins at the image itself: nothing is random about it.
    np.testing.assert_array_equal(once.x_adv, attack(small, X, y, seed=2).x_adv)


@pytest.mark.parametrize("attack", [FAB(norm="l2", steps=5, restarts=2), FABT(steps=5, targets=2, restarts=2)])
@pytest.mark.parametrize("epsilon", [None, 0.02])
def test_an_example_does_not_depend_on_its_batch(attack: FAB, epsilon: float | None, linear: keras.Model) -> None:
    y = labels_of(linear, X, 2)
    attack = type(attack)(**attack.settings() | {"epsilon": epsilon})
    whole = attack(linear, X, y)
    parts = attack(linear, X[::-1], y[::-1], batch_size=7)
    np.testing.assert_allclose(whole.x_adv, parts.x_adv[::-1], atol=1e-6)


@pytest.mark.parametrize("attack", [FAB(norm="l2", steps=12, eot=6), FABT(norm="l2", steps=12, eot=6, targets=2)])
def test_eot_averages_what_a_randomized_network_says(attack: Attack, randomized: keras.Model) -> None:
    y = labels_of(randomized, X, 0)
    result = attack(randomized, X, y, passes=10, early_stop=False)
    assert np.isfinite(result.x_adv).all()
    assert result.correct_rate.mean() < result.clean_rate.mean() - 0.15
    assert result.gradients == 30 * 12 * 6 * (2 if isinstance(attack, FABT) else 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "step"),
        ({"restarts": 0}, "restart"),
        ({"alpha_max": 1.5}, "alpha_max"),
        ({"eta": 0.9}, "eta"),
        ({"beta": 0.0}, "beta"),
        ({"epsilon": -0.1}, "epsilon"),
        ({"norm": "l0"}, "linf, l2, l1"),
        ({"targeted": True}, "takes targets"),
        ({"targets": 0}, "target class"),
    ],
)
def test_bad_settings_are_told(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FABT(**settings)

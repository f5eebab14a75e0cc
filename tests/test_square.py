"""Square: its schedule and windows against hand-computed values, its search against rules and closed forms."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SHAPE, images, labels_of, linear_model

from kerasrobust.attacks import Step
from kerasrobust.attacks.square import Square, _bumps, window_share
from kerasrobust.errors import InputError
from kerasrobust.networks.making import as_classifier
from kerasrobust.ops import draws

NORMS: list[Any] = ["linf", "l2", "l1"]
EPSILON = {"linf": 0.05, "l2": 0.5, "l1": 4.0}
ORDER = {"linf": np.inf, "l2": 2, "l1": 1}
X = images(11)


class Spy:
    """A model of NumPy arrays that keeps what it was asked. Each image has its own sum, whatever its batch."""

    def __init__(self, kernel: np.ndarray, bias: np.ndarray) -> None:
        self.kernel, self.bias = kernel.astype(np.float64), bias
        self.asked: list[np.ndarray] = []
        self.networks: dict[tuple[int, ...], Any] = {}

    def __call__(self, x: np.ndarray) -> np.ndarray:
        self.asked.append(x)
        return np.stack([image.reshape(-1) @ self.kernel for image in x.astype(np.float64)]) + self.bias

    def network(self, shape: tuple[int, ...] = SHAPE) -> Any:
        """Returns the classifier for images of a shape, whose graphs are used again."""
        if shape not in self.networks:
            self.networks[shape] = as_classifier(self, image_shape=shape, input_range=(0, 1), colors="rgb")
        return self.networks[shape]

    def during(self, attack: Square, x: np.ndarray, y: np.ndarray, **settings: Any) -> tuple[Any, np.ndarray]:
        """Returns the result of an attack and its queries, (Q, N, H, W, C), without those of the verdicts."""
        network = self.network(x.shape[1:])
        self.asked.clear()
        result = attack(network, x, y, **settings)
        return result, np.stack(self.asked[1:-1])


@pytest.fixture(scope="module")
def spy(weights: tuple[np.ndarray, np.ndarray]) -> Spy:
    return Spy(*weights)


@pytest.fixture(scope="module")
def stubborn() -> Spy:
    """Class 0 whatever comes, with a margin of 1."""
    return Spy(np.zeros((32 * 32 * 3, 2)), np.array([1.0, 0.0]))


# What the paper's schedule says for images of 32 x 32 and p = 0.8, and round(sqrt(1024 p)) by hand.
GOLDEN = [
    (0, 0.8, 29), (10, 0.8, 29), (11, 0.4, 20), (50, 0.4, 20), (51, 0.2, 14), (200, 0.2, 14), (201, 0.1, 10),
    (500, 0.1, 10), (501, 0.05, 7), (1000, 0.05, 7), (1001, 0.025, 5), (2000, 0.025, 5), (2001, 0.0125, 4),
    (4000, 0.0125, 4), (4001, 0.00625, 3), (6000, 0.00625, 3), (6001, 0.003125, 2), (8000, 0.003125, 2),
    (8001, 0.0015625, 1), (9999, 0.0015625, 1),
]  # fmt: skip


@pytest.mark.parametrize(("iteration", "share", "side"), GOLDEN)
def test_share_of_pixels_follows_the_papers_schedule(iteration: int, share: float, side: int) -> None:
    found = float(window_share(tf.constant(iteration), 0.8, 1.0))
    assert found == pytest.approx(share, rel=1e-6)
    assert round((found * 1024) ** 0.5) == side
    # Rescaled for 5,000 queries, the same is reached after half of them.
    if iteration % 2 == 0:
        assert float(window_share(tf.constant(iteration // 2), 0.8, 2.0)) == pytest.approx(share, rel=1e-6)


@pytest.mark.parametrize(
    ("rescale", "queries", "expected"),
    [
        (False, 60, {0: 29, 10: 29, 11: 20, 50: 20, 51: 14, 59: 14}),
        # 100 queries for 10,000: the t-th counts as iteration 100 t.
        (True, 100, {0: 29, 1: 14, 2: 14, 3: 10, 5: 10, 6: 7, 11: 5, 21: 4, 40: 4, 41: 3, 61: 2, 80: 2, 81: 1, 99: 1}),
    ],
)
def test_windows_have_the_side_that_the_schedule_says(
    rescale: bool, queries: int, expected: dict[int, int], stubborn: Spy
) -> None:
    x = np.full((1, 32, 32, 3), 0.5, np.float32)
    attack = Square(epsilon=0.1, queries=queries, rescale=rescale)
    _, asked = stubborn.during(attack, x, np.zeros(1, np.int64))
    assert asked.shape == (1 + queries, 1, 32, 32, 3)
    # A channel's sign may be that of the stripes all over a narrow window: then there is nothing to see.
    windows = np.abs(asked[1:, 0] - asked[0, 0]).max(axis=(2, 3)) > 0
    for step, side in expected.items():
        rows = np.flatnonzero(windows[step])
        if len(rows):
            assert rows[-1] - rows[0] + 1 == side == len(rows)
    assert windows[list(expected)].any(axis=1).mean() > 0.7


def test_linf_begins_with_stripes_and_goes_on_with_squares_of_one_sign(stubborn: Spy) -> None:
    x = np.full((6, 32, 32, 3), 0.5, np.float32)
    x += np.arange(6, dtype=np.float32)[:, None, None, None] / 100  # An image's noise follows from the image.
    _, asked = stubborn.during(Square(epsilon=0.1, queries=30), x, np.zeros(6, np.int64))
    moves = (asked - x) / 0.1
    np.testing.assert_allclose(np.abs(moves), 1, atol=1e-5)
    stripes = np.sign(moves[0])
    assert (stripes == stripes[:, :1]).all()
    assert 0.4 < (stripes > 0).mean() < 0.6
    assert len(np.unique(stripes[:, 0].reshape(6, -1), axis=0)) == 6
    corners = set()
    for step in range(1, 31):
        for example in range(6):
            changed = np.sign(moves[step, example]) != stripes[example]
            rows, columns = np.flatnonzero(changed.any((1, 2))), np.flatnonzero(changed.any((0, 2)))
            inside = np.sign(moves[step, example])[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert (inside == inside[0, 0]).all()
            corners.add((step, rows[0]))
    assert len(corners) > 60  # Each example has a place of its own.


def test_windows_reach_every_place_about_as_often(stubborn: Spy) -> None:
    x = np.linspace(0.3, 0.7, 8, dtype=np.float32)[:, None, None, None] * np.ones((1, 32, 32, 3), np.float32)
    # From iteration 1,001 on: sides of 5.
    _, asked = stubborn.during(Square(epsilon=0.1, queries=200, p_init=0.025), x, np.zeros(8, np.int64))
    first = asked[1:12]
    top = np.array([[np.flatnonzero((a != b).any((1, 2)))[0] for a, b in zip(q, asked[0], strict=True)] for q in first])
    assert top.max() <= 27  # 32 - 5.
    late = asked[51:]
    hits = (late != asked[0]).any(axis=-1).sum(axis=(0, 1))
    assert hits.shape == (32, 32)
    assert (hits > 0).mean() > 0.9


def pyramid(height: int, width: int) -> np.ndarray:
    """Returns the paper's eta of a rectangle: nested windows, each adding one over the square of its number."""
    found = np.zeros((height, width))
    down, right = height // 2, width // 2
    for number in range(max(height, width) // 2 + 1):
        rows = slice(max(down - number, 0), down + number + 1)
        columns = slice(max(right - number, 0), right + number + 1)
        found[rows, columns] += 1 / (number + 1) ** 2
    return found / np.sqrt((found**2).sum())


@pytest.mark.parametrize("side", [3, 5, 7, 29])
def test_bumps_are_two_pyramids_of_opposite_sign(side: int) -> None:
    half = side // 2
    expected = np.concatenate([pyramid(half, side), -pyramid(side - half, side)]) / np.sqrt(2)
    places = tf.range(32) - 2
    found = _bumps(places[None, :, None], places[None, None, :], tf.constant(side), 32)[0].numpy()
    np.testing.assert_allclose(found[2 : side + 2, 2 : side + 2], expected, atol=1e-6)
    found[2 : side + 2, 2 : side + 2] = 0
    assert not found.any()


@pytest.mark.parametrize("bright", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_every_query_keeps_to_ball_and_box(norm: Any, bright: bool, spy: Spy) -> None:
    x = np.random.default_rng(1).random((6, *SHAPE)).astype(np.float32) if bright else X[:6]
    y = spy(x).argmax(axis=1)
    attack = Square(norm=norm, epsilon=EPSILON[norm], queries=150)
    result, asked = spy.during(attack, x, y, early_stop=False)
    assert asked.min() >= 0
    assert asked.max() <= 1
    gaps = (asked.astype(np.float64) - x).reshape(len(asked) * 6, -1)
    sizes = np.linalg.norm(gaps, ord=ORDER[norm], axis=1)
    assert sizes.max() <= EPSILON[norm] + 1e-6
    if not bright:  # The box is far away: all of the budget is used.
        np.testing.assert_allclose(sizes, EPSILON[norm], rtol=1e-4)
    # What lowers the margin is kept, so the best of all queries is what comes out.
    logits = np.stack([spy(part) for part in asked])
    own = np.take_along_axis(logits, y[None, :, None], axis=2)[..., 0]
    np.put_along_axis(logits, y[None, :, None], -np.inf, axis=2)
    best = (own - logits.max(axis=2)).argmin(axis=0)
    np.testing.assert_array_equal(result.x_adv, asked[best, np.arange(6)])


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 8 / 255), ("l2", 0.5), ("l1", 12.0), ("l1", 0.1)])
def test_rounding_of_thousands_of_pixels_does_not_leave_the_ball(norm: Any, epsilon: float) -> None:
    x = np.random.default_rng(0).uniform(0.3, 0.7, (32, 32, 32, 3)).astype(np.float32)
    way = np.random.default_rng(1).choice([-1.0, 1.0], (3072, 1))
    model = Spy(np.concatenate([way, -way], axis=1), np.array([1e4, 0.0]))
    # The call itself raises where an example is further away than allowed.
    result = Square(norm=norm, epsilon=epsilon, queries=20)(model, x, np.zeros(32, np.int64))
    assert epsilon * 0.999 < result.distance.min()


@pytest.mark.parametrize("norm", ["linf", "l2"])  # L1 goes the way of L2.
def test_an_examples_attack_is_the_same_alone_and_in_any_batch(norm: Any, spy: Spy) -> None:
    y, spy = spy(X).argmax(axis=1), spy.network()
    attack = Square(norm=norm, epsilon=EPSILON[norm] / 2, queries=60, restarts=2)
    whole = attack(spy, X, y, seed=4)
    np.testing.assert_array_equal(whole.x_adv, attack(spy, X, y, seed=4).x_adv)
    np.testing.assert_array_equal(whole.x_adv, attack(spy, X[::-1], y[::-1], seed=4, batch_size=4).x_adv[::-1])
    np.testing.assert_array_equal(whole.x_adv[3:4], attack(spy, X[3:4], y[3:4], seed=4).x_adv)
    assert not np.array_equal(whole.x_adv, attack(spy, X, y, seed=5).x_adv)


@pytest.mark.parametrize("norm", ["linf", "l2"])  # L1 goes the way of L2.
def test_numpy_and_tensorflow_of_one_model_give_one_result(norm: Any, spy: Spy, linear: keras.Model) -> None:
    y = spy(X).argmax(axis=1)
    attack = Square(norm=norm, epsilon=EPSILON[norm] / 2, queries=80)
    one, other = attack(spy.network(), X, y), attack(linear, X, y)
    np.testing.assert_array_equal(one.success, other.success)
    np.testing.assert_allclose(one.x_adv, other.x_adv, atol=1e-5)


@pytest.mark.parametrize(("norm", "eot", "restarts"), [("linf", 1, 1), ("l2", 1, 2), ("linf", 3, 1)])
def test_queries_told_are_those_that_a_model_sees(norm: Any, eot: int, restarts: int, spy: Spy) -> None:
    y = spy(X).argmax(axis=1)
    told: list[Step] = []
    attack = Square(norm=norm, epsilon=0.001, queries=25, eot=eot, restarts=restarts)
    result, asked = spy.during(attack, X, y, early_stop=False, progress=told.append)
    # The start, 25 changes, and one pass before and after for the verdict.
    assert result.forwards == 11 * (eot * restarts * 26 + 2) == told[-1].forwards
    assert len(asked) * 11 == result.forwards - 22
    assert result.gradients == 0


def test_a_batch_stops_when_all_have_fallen(spy: Spy) -> None:
    y = spy(X).argmax(axis=1)
    result, asked = spy.during(Square(epsilon=0.3, queries=5_000), X, y)
    assert result.success.all()
    assert len(asked) < 200


@pytest.mark.parametrize("targeted", [False, True])
def test_linf_comes_near_the_optimum_of_a_linear_model(
    targeted: bool, linear: keras.Model, weights: tuple[np.ndarray, np.ndarray]
) -> None:
    """With two classes the lowest margin in the ball is f - epsilon |w|_1."""
    kernel = weights[0][:, :2]
    way = (kernel[:, 0] - kernel[:, 1]).astype(np.float64)
    model = linear_model(kernel, np.array([-0.5 * way.sum(), 0], np.float32))
    y = labels_of(model, X, 0)
    exact = np.abs(X.reshape(11, -1) @ way - 0.5 * way.sum()) / np.abs(way).sum()
    for share, falls in ((1.15, True), (0.999, False)):
        for index in (1, 5, 8):
            attack = Square(epsilon=share * exact[index], queries=3_000, rescale=True, targeted=targeted)
            part = slice(index, index + 1)
            goal = 1 - y[part] if targeted else None
            assert attack(model, X[part], y[part], target=goal).success[0] == falls


@pytest.mark.parametrize(("norm", "share"), [("l2", 0.45), ("l1", 0.3)])
def test_l2_and_l1_find_a_good_part_of_what_is_possible(norm: Any, share: float) -> None:
    """A smooth pattern, as bumps can follow; the most that the margin can fall is epsilon times the dual norm."""
    rows, columns = np.mgrid[:8, :8] / 8
    way = np.stack([np.sin(2 * np.pi * (rows + columns / 3 + phase)) for phase in (0, 0.1, 0.2)], axis=-1).reshape(-1)
    if norm == "l1":  # The best is to spend all in one place.
        way = way**9
    model = linear_model(np.stack([-way, way], 1).astype(np.float32), np.array([50.0, -50.0], np.float32))
    y = np.zeros(11, np.int64)
    result = Square(norm=norm, epsilon=EPSILON[norm] / 4, queries=1_500, rescale=True)(model, X, y)
    most = EPSILON[norm] / 4 * (np.linalg.norm(way) if norm == "l2" else np.abs(way).max())
    gain = ((result.x_adv - X).reshape(11, -1).astype(np.float64) @ way) / most
    assert gain.max() <= 1 + 1e-6
    assert gain.min() > share


def test_lucky_noise_is_not_kept_for_good(randomized: keras.Model) -> None:
    y = labels_of(randomized, X, 0)
    attack = Square(epsilon=0.1, queries=60, eot=2)
    result = attack(randomized, X, y, passes=4, early_stop=False)
    # Both the candidate and the best so far are asked on each step's noise.
    assert result.forwards == 11 * (2 * (2 * 60 + 1) + 2 * 4)
    assert result.correct_rate.mean() < result.clean_rate.mean()
    assert attack.resolved(False) == attack


@pytest.mark.parametrize("shape", [(5, 9, 1), (12, 6, 4), (3, 3, 2)])
@pytest.mark.parametrize("norm", NORMS)
def test_images_of_any_size(norm: Any, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).random((3, *shape)).astype(np.float32)
    model = Spy(np.random.default_rng(1).normal(size=(int(np.prod(shape)), 3)), np.zeros(3))
    y = model(x).argmax(axis=1)
    result = Square(norm=norm, epsilon=0.2, queries=40, rescale=True)(model, x, y, early_stop=False)
    assert (result.distance > 0).all()


def test_numbers_from_the_hash_are_uniform_and_unrelated() -> None:
    keys = np.stack([np.full(256, 7), np.arange(256)], axis=1).astype(np.int32)  # As regular as keys can be.
    drawn = np.stack([draws.hashed_uniform(tf.constant(keys), tf.constant(step), 64).numpy() for step in range(16)])
    assert drawn.dtype == np.float32
    assert drawn.min() >= 0
    assert drawn.max() < 1
    counts = np.bincount((drawn.reshape(-1) * 64).astype(int), minlength=64)
    # Chi-square with 63 degrees of freedom is above 104 with probability 1e-3.
    assert (((counts - 4096) ** 2) / 4096).sum() < 104
    for axis in range(3):
        one, other = np.moveaxis(drawn, axis, 0)[:-1], np.moveaxis(drawn, axis, 0)[1:]
        # Five standard errors of a correlation over a quarter of a million pairs.
        assert abs(np.corrcoef(one.reshape(-1), other.reshape(-1))[0, 1]) < 0.01
    assert len(np.unique(drawn)) > 0.98 * drawn.size
    again = draws.hashed_uniform(tf.constant(keys[5:6]), tf.constant(3), 64).numpy()
    np.testing.assert_array_equal(again[0], drawn[3, 5])
    assert not np.array_equal(
        draws.hashed_uniform(tf.constant(keys + np.array([1, 0], np.int32)), tf.constant(3), 64), drawn[3]
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"queries": 0}, "query"),
        ({"restarts": 0}, "restart"),
        ({"p_init": 0.0}, "p_init"),
        ({"p_init": 1.5}, "p_init"),
        ({"epsilon": -0.1}, "epsilon"),
        ({"epsilon": 8.0}, "8/255"),
        ({"norm": "l0"}, "linf, l2, l1"),
    ],
)
def test_bad_settings_are_told(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Square(**settings)

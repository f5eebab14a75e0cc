"""SurFree and the Boundary attack: the geometry of their steps, the closed form on a linear model, their queries."""

from __future__ import annotations

from math import cos
from typing import Any

import keras
import numpy as np
import pytest
import scipy.fft
import tensorflow as tf
from conftest import SHAPE, images, labels_of, linear_model

from kerasrobust.attacks import Boundary, HopSkipJump, RayS, SurFree, make_attack
from kerasrobust.attacks.algorithm import Images
from kerasrobust.attacks.boundary import _around, _judged
from kerasrobust.attacks.decision import FRESH, Doubt
from kerasrobust.attacks.surfree import _turned
from kerasrobust.errors import InputError
from kerasrobust.evaluation.evaluate import evaluate
from kerasrobust.networks.making import as_classifier
from kerasrobust.networks.noise import RandomDropout

X = images(16)
KINDS = [SurFree, Boundary]
ALL = [*KINDS, HopSkipJump, RayS]


@pytest.fixture(scope="module")
def y(small: keras.Model) -> np.ndarray:
    return labels_of(small, X, 0)


@pytest.fixture(scope="module")
def keyed(y: np.ndarray) -> Images:
    return Images(tf.constant(X), tf.constant(y), tf.stack([tf.zeros(16, tf.int32), tf.range(16)], axis=1))


def lengths(change: Any) -> np.ndarray:
    return np.linalg.norm(np.reshape(change, (len(change), -1)), axis=1)


@pytest.fixture(scope="module")
def two_classes(weights: tuple[np.ndarray, np.ndarray]) -> tuple[keras.Model, np.ndarray]:
    """A linear model with one boundary near to all of `X`, and the L2 distance of each from it."""
    kernel = weights[0][:, :2]
    slope = (kernel[:, 0] - kernel[:, 1]).astype(np.float64)
    model = linear_model(kernel, np.array([-0.5 * slope.sum(), 0], np.float32))
    return model, np.abs((X.reshape(16, -1) - 0.5) @ slope) / np.linalg.norm(slope)


# The weights are random, of all frequencies.
@pytest.mark.parametrize(("kind", "settings"), [(SurFree, {"frequencies": 1.0}), (Boundary, {})])
def test_the_linear_boundary_is_found(
    kind: Any, settings: dict[str, float], two_classes: tuple[keras.Model, np.ndarray]
) -> None:
    model, exact = two_classes
    y = labels_of(model, X, 3)
    few, many = (kind(queries=queries, **settings)(model, X, y) for queries in (300, 3_000))
    for found in (few, many):
        assert found.success.all() and found.gradients == 0
        np.testing.assert_array_equal(found.distance[:3], 0)  # Wrong from the start.
        assert (found.distance[3:] >= exact[3:] * 0.9999).all()
    assert (many.distance <= few.distance).all() and many.median_distance < 0.8 * few.median_distance
    assert np.median(many.distance[3:] / exact[3:]) < 1.1


def test_turns_lie_on_the_circle_and_come_nearer() -> None:
    draw = np.random.default_rng(0)
    x, end, across = draw.random((3, 4, *SHAPE)).astype(np.float32)
    way = end - x
    across -= way * ((across * way).sum((1, 2, 3)) / (way**2).sum((1, 2, 3)))[:, None, None, None]
    across /= lengths(across)[:, None, None, None]
    np.testing.assert_allclose(_turned(x, end, across, tf.zeros(4)), end, atol=1e-6)
    for angle in (0.3, -0.3, 1.2):
        turned = _turned(x, end, across, tf.fill([4], angle)).numpy()
        np.testing.assert_allclose(lengths(turned - x), lengths(way) * cos(angle), rtol=1e-5)
        np.testing.assert_allclose(lengths(turned - (x + end) / 2), lengths(way) / 2, rtol=1e-5)


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_directions_are_of_low_frequencies_across_the_way(share: float, keyed: Images) -> None:
    end = tf.constant(images(16)[::-1].copy())
    found = SurFree(frequencies=share)._direction(keyed, end, tf.constant(7)).numpy()
    np.testing.assert_allclose(lengths(found), 1, rtol=1e-5)
    np.testing.assert_allclose((found * (end - X)).numpy().sum((1, 2, 3)), 0, atol=1e-5)
    # But for what the right angle takes away, which is along the way and has all frequencies.
    way = (end - X) / tf.constant(lengths(end - X), tf.float32)[:, None, None, None]
    raw = scipy.fft.dctn(found, axes=(1, 2), norm="ortho")
    along = scipy.fft.dctn(np.asarray(way), axes=(1, 2), norm="ortho")
    order = np.add.outer(np.arange(SHAPE[0]) / SHAPE[0], np.arange(SHAPE[1]) / SHAPE[1])
    high = order > np.sort(order, axis=None)[round(share * order.size) - 1]
    for mine, other in zip(raw, along, strict=True):
        rest, known = mine[high].ravel(), other[high].ravel()
        if len(rest):
            np.testing.assert_allclose(rest, known * (rest @ known) / (known @ known), atol=1e-5)
    assert high.mean() == pytest.approx(1 - share, abs=0.1)


def test_steps_around_keep_the_distance(keyed: Images) -> None:
    end = tf.constant(images(16)[::-1].copy())
    length = tf.linspace(0.01, 0.5, 16)
    moved = _around(keyed, end, length, tf.constant(3)).numpy()
    np.testing.assert_allclose(lengths(moved - X), lengths(end - X), rtol=1e-5)
    cosine = ((moved - X) * (end - X)).numpy().sum((1, 2, 3)) / lengths(end - X) ** 2
    np.testing.assert_allclose(cosine, 1 / np.sqrt(1 + np.asarray(length) ** 2), rtol=1e-4)


def test_steps_follow_how_many_are_misclassified() -> None:
    steps, tried, hit = (
        part.numpy()
        for part in _judged(
            tf.fill([5, 2], 0.1),
            tf.constant([[10.0, 10], [10, 10], [10, 10], [9, 9], [0, 0]]),
            tf.constant([[6.0, 3], [1, 0], [3, 2], [9, 9], [0, 0]]),
        )
    )
    np.testing.assert_allclose(steps, np.array([[1.5, 1.5], [1 / 1.5, 1 / 1.5], [1, 1], [1, 1], [1, 1]]) * 0.1)
    np.testing.assert_array_equal(tried, [[0, 0]] * 3 + [[9, 9], [0, 0]])
    np.testing.assert_array_equal(hit, [[0, 0]] * 3 + [[9, 9], [0, 0]])


def test_few_queries_of_surfree_come_nearer_than_others(small: keras.Model, y: np.ndarray) -> None:
    ours, *others = (kind(norm="l2", queries=300)(small, X, y) for kind in (SurFree, HopSkipJump, Boundary))
    assert all(ours.median_distance < 0.9 * other.median_distance for other in others)


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_without_gradients_is_fooled(kind: Any, small: keras.Model) -> None:
    def rounded(x: tf.Tensor) -> tf.Tensor:
        return small(tf.round(x * 32) / 32)

    y = np.asarray(rounded(tf.constant(X))).argmax(axis=1)
    network = as_classifier(rounded, image_shape=SHAPE)
    few, many = (kind(queries=queries)(network, X, y) for queries in (100, 1_000))
    assert many.success.all() and many.median_distance < 0.8 * few.median_distance


@pytest.mark.parametrize("kind", KINDS)
def test_equal_seeds_give_equal_results_in_any_batch(kind: Any, small: keras.Model, y: np.ndarray) -> None:
    whole, again, other = (kind(queries=100)(small, X, y, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(whole.x_adv, again.x_adv)
    assert not np.array_equal(whole.x_adv, other.x_adv)
    parts = kind(queries=100)(small, X[::-1], y[::-1], seed=1, batch_size=7)
    # Logits of a smaller batch may be rounded otherwise, and a decision at the boundary with them.
    assert np.isclose(whole.distance, parts.distance[::-1], rtol=0.02).mean() > 0.7


@pytest.mark.parametrize("kind", ALL)
def test_queries_are_counted_until_an_example_is_within_epsilon(kind: Any, small: keras.Model) -> None:
    y, norm = labels_of(small, X, 2), "linf" if kind is RayS else "l2"
    epsilon = float(np.median(kind(norm=norm, queries=200)(small, X, y).distance))
    whole = kind(norm=norm, queries=200, epsilon=epsilon)(small, X, y)
    np.testing.assert_array_equal(whole.queries > 0, (whole.distance <= epsilon) & (np.arange(16) >= 2))
    assert len(np.unique(whole.queries)) > 3
    for count in (20, 80, 150):
        # One of them asks about the image itself.
        part = kind(norm=norm, queries=count - 1, epsilon=epsilon)(small, X, y)
        np.testing.assert_array_equal(part.queries, np.where(whole.queries <= count, whole.queries, 0))
    # Counting changes nothing.
    free = kind(norm=norm, queries=200)(small, X, y)
    assert free.queries is None
    np.testing.assert_array_equal(free.x_adv, whole.x_adv)


def test_queries_that_ask_again_are_counted(small: keras.Model) -> None:
    y = labels_of(small, X, 0)
    whole = RayS(norm="linf", queries=200, epsilon=1.0, doubting=True)(small, X, y)
    assert (whole.queries[whole.success] > FRESH).all() and whole.success.any()


def test_they_are_made_by_name_with_the_radius_that_they_count_to() -> None:
    for name in ("surfree", "boundary", "hopskipjump"):
        assert make_attack(name, epsilon=0.5, norm="l2", queries=9).epsilon == 0.5  # type: ignore[attr-defined]


@pytest.mark.parametrize(("kind", "eot"), [*((kind, 1) for kind in ALL), (SurFree, 5)])
def test_what_a_randomized_network_misclassifies_by_luck_is_not_kept(
    kind: Any, eot: int, weights: tuple[np.ndarray, np.ndarray]
) -> None:
    kernel = weights[0][:, :2]
    bias = np.array([-0.5 * (kernel[:, 0] - kernel[:, 1]).sum(), 0], np.float32)
    model = linear_model(kernel, bias, RandomDropout(0.2))
    norm = "linf" if kind is RayS else "l2"
    result = kind(norm=norm, queries=900 // eot, eot=eot)(model, X, labels_of(model, X, 0), passes=100)
    right = result.clean_rate > 0.5
    assert right.sum() > 5 and result.success[right].mean() > 0.8 and result.correct_rate[right].mean() < 0.45
    # Every pass is counted; one of the questions is about the image itself.
    assert result.forwards == (result.clean_rate > 0).sum() * (900 + eot) + 2 * 16 * 100


def test_the_audit_asks_for_no_passes_where_the_attack_asks_again(randomized: keras.Model, y: np.ndarray) -> None:
    found = evaluate(randomized, X, y, attacks=[RayS(queries=20)], norm="linf", passes=4)
    [said] = [item for item in found.audit.findings if item.code == "randomized"]
    assert said.severity == "info" and "averaged" not in said.message


def test_what_seems_misclassified_is_believed_once_most_of_many_passes_say_so() -> None:
    def heard(shares: list[float], passes: int) -> list[str]:
        doubt, said = Doubt(tf.zeros([1, 1]), tf.zeros(1), tf.zeros(1)), []
        for share in shares:
            doubt, settled, sure = doubt.after(
                doubt.query, tf.constant([share], tf.float32), tf.constant(passes, tf.float32)
            )
            said.append("more" if not settled[0] else "yes" if sure[0] else "no")
            assert bool(doubt.heard[0] > 0) == (said[-1] == "more")  # What follows is a new question.
        return said

    assert heard([0, 1, 0, 1, 0, 0], 1) == ["no", "more", "more", "more", "more", "no"]
    assert heard([1] * 28 + [0] * 12, 1) == ["more"] * 39 + ["yes"]
    assert heard([1] * 27 + [0] * 13, 1) == ["more"] * 39 + ["no"]
    assert heard([0.4, 0.5, 0.5, 0.8, 1.0], 10) == ["no", "more", "more", "more", "yes"]
    assert heard([0.7, 0.7, 0.7, 0.6, 0.6, 0.3], 10) == ["more", "more", "more", "no", "more", "no"]
    # Never at the first look, however many passes that has.
    assert heard([1.0, 0.4, 0.7, 0.7], 50) == ["more", "yes", "more", "yes"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"queries": 0}, "query"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"norm": "linf"}, "l2"),
        ({"targeted": True}, "targets"),
    ],
)
def test_bad_settings_are_told(kind: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        kind(**settings)


@pytest.mark.parametrize("share", [0.0, 1.1])
def test_a_share_of_frequencies_is_one(share: float) -> None:
    with pytest.raises(InputError, match="frequencies"):
        SurFree(frequencies=share)

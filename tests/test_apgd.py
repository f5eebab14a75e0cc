"""APGD against its paper: checkpoints, halvings, momentum and losses worked out by hand."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import PIXELS, images, labels_of, linear_model
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasrobust.attacks import APGDCE, APGDDLR, APGDT, PGD, APGDMargin
from kerasrobust.attacks.algorithm import Images
from kerasrobust.attacks.ascent import Ascent, check, check_l1, schedule, sparse
from kerasrobust.attacks.network import Network, nth_rival
from kerasrobust.errors import InputError
from kerasrobust.networks.making import as_classifier
from kerasrobust.ops import balls, losses

FAMILY = [APGDCE, APGDDLR, APGDT, APGDMargin]


def state(**given: Any) -> Ascent:
    """Returns what a checkpoint looks at, for one example."""
    values = {
        "age": [22], "checkpoint": [22], "period": [22], "rises": [22], "halved": [True], "checked": [0.0],
        "best_loss": [1.0], "size": [0.2],
    }  # fmt: skip
    rest = dict.fromkeys(Ascent._fields)
    return Ascent(**rest | {name: tf.constant(value) for name, value in (values | given).items()})


def numbers(steps: int, norm: str = "linf") -> dict[str, tf.Tensor]:
    first, shrink, least = schedule(steps, norm)  # type: ignore[arg-type]
    found = {"first": first, "shrink": shrink, "least": least, "epsilon": 0.1}
    return {name: tf.constant(value) for name, value in found.items()}


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        # Periods 22, 19, 16, 13, 10, 7, 6, 6: each 3 shorter, 6 at least (Croce and Hein 2020a, section 3.1).
        (100, [22, 41, 57, 70, 80, 87, 93, 99]),
        # 0.22, 0.03 and 0.06 of 50, rounded down: periods 11, 10, 9, 8, 7, 6 (5 would go beyond 50).
        (50, [11, 21, 30, 38, 45]),
        (10, [2, 3, 4, 5, 6, 7, 8, 9]),
    ],
)
def test_checkpoints(steps: int, expected: list[int]) -> None:
    given, found = numbers(steps), []
    now = state(checkpoint=[schedule(steps, "linf")[0]], period=[schedule(steps, "linf")[0]])
    for step in range(steps):
        before = int(now.checkpoint[0])
        _, now = check(now._replace(age=tf.constant([step])), given)
        found += [step] if int(now.checkpoint[0]) != before else []
    assert found == expected


@pytest.mark.parametrize(
    ("case", "halves"),
    [
        # 75 % of 22 steps are 16.5.
        ({"rises": [16]}, True),
        ({"rises": [17]}, False),
        # The best loss hasn't changed since the last checkpoint, at which the step wasn't halved.
        ({"halved": [False], "checked": [1.0]}, True),
        ({"halved": [False], "checked": [0.5]}, False),
        ({"halved": [True], "checked": [1.0]}, False),
        # No checkpoint.
        ({"age": [21], "rises": [0]}, False),
    ],
)
def test_when_the_step_is_halved(case: dict[str, Any], halves: bool) -> None:
    back, changed = check(state(**case), numbers(100))
    assert bool(back[0]) == halves
    assert float(changed.size[0]) == pytest.approx(0.1 if halves else 0.2)
    if "age" not in case:
        assert bool(changed.halved[0]) == halves
        assert tuple(int(part[0]) for part in (changed.rises, changed.period, changed.checkpoint)) == (0, 19, 41)


def test_momentum_by_hand() -> None:
    """One pixel at 0.5, radius 0.1, steps of 0.2 towards the loss's top at 0.55, from 0.6; projections onto [0.4, 0.6].

    x1 = 0.4, where the first step ends; then x + 0.75 (z - x) + 0.25 (x - x'), z the plain step's end:
    x2 = 0.4 + 0.75 * 0.2 - 0.25 * 0.2 = 0.5            (z = 0.6)
    x3 = 0.5 + 0.75 * 0.1 + 0.25 * 0.1 = 0.6            (z = 0.6)
    x4 = 0.6 - 0.75 * 0.2 + 0.25 * 0.1 = 0.475          (z = 0.4)
    x5 = 0.475 + 0.75 * 0.125 - 0.25 * 0.125 = 0.5375   (z = 0.6)
    """

    def network(x: tf.Tensor, key: tf.Tensor | None = None) -> tf.Tensor:
        pixel = x[:, 0, 0, :]
        return tf.concat([tf.ones_like(pixel), -tf.square(pixel - 0.55)], axis=1)

    attack = APGDCE(epsilon=0.1)
    given = {name: tf.constant(value) for name, value in attack.numbers().items()} | {"run": tf.constant(0)}
    images = Images(tf.fill([1, 1, 1, 1], 0.5), tf.constant([0], tf.int64), tf.constant([[1, 2]]))
    asked = Network(network, tf.constant([1, 2]))
    now = attack.begin(asked, images, given)
    assert float(abs(now.x_adv - 0.5)[0, 0, 0, 0]) == pytest.approx(0.1), "it starts on the ball's surface"
    now = now._replace(x_adv=tf.fill([1, 1, 1, 1], 0.6), previous=tf.fill([1, 1, 1, 1], 0.6))
    found = []
    for step in range(5):
        now = attack.step(asked.at(tf.constant(step)), images, now, given)
        found.append(float(now.x_adv[0, 0, 0, 0]))
    assert found == pytest.approx([0.4, 0.5, 0.6, 0.475, 0.5375], abs=1e-6)


def test_losses_by_hand() -> None:
    logits = tf.constant([[1.0, 3.0, 2.0, 0.0]] * 2)
    labels = tf.constant([0, 1], tf.int64)
    # -(1 - 3) / (3 - 1) and -(3 - 2) / (3 - 1).
    np.testing.assert_allclose(losses.dlr(logits, labels), [1.0, -0.5], rtol=1e-6)
    # -(1 - 2) / (3 - (1 + 0) / 2) and -(3 - 2) / 2.5.
    targets = tf.constant([2, 2], tf.int64)
    np.testing.assert_allclose(losses.targeted_dlr(logits, labels, targets), [0.4, -0.4], rtol=1e-6)


@given(st.floats(0.01, 1000), st.floats(-100, 100))
@settings(max_examples=20, deadline=None)
def test_dlr_does_not_change_with_the_scale_of_logits(scale: float, shift: float) -> None:
    logits = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    labels, targets = tf.constant([0, 1, 2, 3, 4], tf.int64), tf.constant([5, 4, 3, 2, 1], tf.int64)
    moved = (scale * logits + shift).astype(np.float32)
    tolerance = 1e-3 + 1e-5 * abs(shift) / scale
    np.testing.assert_allclose(losses.dlr(moved, labels), losses.dlr(logits, labels), atol=tolerance)
    np.testing.assert_allclose(
        losses.targeted_dlr(moved, labels, targets), losses.targeted_dlr(logits, labels, targets), atol=tolerance
    )


def test_targets_are_the_wrong_classes_by_their_logits() -> None:
    logits = tf.constant([[5.0, 1.0, 4.0, 3.0], [0.0, 2.0, 2.0, 9.0]])
    labels = tf.constant([0, 3], tf.int64)
    found = [nth_rival(logits, labels, tf.constant(number)).numpy().tolist() for number in (0, 1, 2, 7)]
    assert found == [[2, 1], [3, 2], [1, 0], [1, 0]]


def test_l1_steps_by_hand() -> None:
    # Of four entries a share of one half: the two steepest, each half of a step of L1 norm 1.
    slope = tf.reshape(tf.constant([[0.1, -3.0, 2.0, 0.5]]), [1, 2, 2, 1])
    np.testing.assert_allclose(tf.reshape(sparse(slope, tf.constant([0.5])), [-1]), [0, -0.5, 0.5, 0], atol=1e-6)
    # 4 % of 100 steps. With two of 16 entries changed instead of 16 the full step comes back, on 2 / 16 / 1.5 of them.
    x = tf.zeros([1, 4, 4, 1])
    best = tf.reshape(tf.one_hot([3], 16) + tf.one_hot([7], 16), [1, 4, 4, 1])
    now = state(age=[4], checkpoint=[4], period=[4], best=best, entries=[16.0], size=[0.05], share=[0.2])
    back, changed = check_l1(x, now, numbers(100, "l1"))
    assert bool(back[0])
    assert float(changed.size[0]) == pytest.approx(0.1)
    assert float(changed.share[0]) == pytest.approx(2 / 16 / 1.5)
    assert int(changed.checkpoint[0]) == 8
    # Sparsity as before: the step shrinks by 1.5, but not below a tenth of the radius.
    back, changed = check_l1(x, now._replace(entries=tf.constant([2.0])), numbers(100, "l1"))
    assert not bool(back[0])
    assert float(changed.size[0]) == pytest.approx(0.05 / 1.5)


@given(seed=st.integers(0, 10_000), epsilon=st.floats(0.01, 20))
@settings(max_examples=40, deadline=None)
def test_the_l1_projection_is_the_nearest_point_of_ball_and_box(seed: int, epsilon: float) -> None:
    draw = np.random.default_rng(seed)
    x = draw.random((3, 2, 3, 2)).astype(np.float32)
    far = (x + draw.normal(scale=draw.choice([0.05, 1.0, 5.0]), size=x.shape)).astype(np.float32)
    found = balls.project(tf.constant(far), tf.constant(x), epsilon, "l1").numpy().astype(np.float64)
    assert found.min() >= 0 and found.max() <= 1
    assert (abs(found - x).sum(axis=(1, 2, 3)) <= epsilon + 1e-6).all()
    gap = ((found - far) ** 2).sum(axis=(1, 2, 3))
    # No other point of the set is nearer: ones around the one found, pulled into ball and box.
    for scale in (1e-3, 1e-2, 0.1, 1.0):
        other = np.clip(found + scale * draw.normal(size=x.shape), 0, 1)
        size = abs(other - x).sum(axis=(1, 2, 3), keepdims=True)
        other = x + (other - x) * np.minimum(1, epsilon / np.maximum(size, 1e-12))
        assert (((other - far) ** 2).sum(axis=(1, 2, 3)) >= gap * (1 - 1e-4) - 1e-5).all()


@pytest.mark.parametrize("kind", FAMILY)
@pytest.mark.parametrize(("norm", "order"), [("linf", 1), ("l2", 2), ("l1", np.inf)])
def test_linear_models_fall_where_they_must(kind: type[APGDCE], norm: str, order: float) -> None:
    """In the ball of a norm a linear lead falls by at most epsilon times the dual norm of its weights."""
    draw = np.random.default_rng(2)
    kernel, bias = draw.normal(size=(PIXELS, 4)).astype(np.float32) / 5, np.zeros(4, np.float32)
    model = linear_model(kernel, bias)
    x = images(12, seed=4)
    y = labels_of(model, x, 0)
    logits = x.reshape(12, -1).astype(np.float64) @ kernel

    def nearest(row: np.ndarray, label: int) -> float:
        others = [k for k in range(4) if k != label]
        return min((row[label] - row[k]) / np.linalg.norm(kernel[:, label] - kernel[:, k], order) for k in others)

    exact = np.array([nearest(row, label) for row, label in zip(logits, y, strict=True)])
    epsilon = float(np.median(exact))
    # L1 moves single pixels, which meet the box before such a radius is used up.
    slack = {"linf": 1.02, "l2": 1.02, "l1": 1.5}[norm]
    result = kind(norm=norm, epsilon=epsilon, steps=40)(model, x, y, batch_size=6)  # type: ignore[arg-type]
    assert not result.success[exact > epsilon * 1.0001].any()
    if norm != "l1":
        assert result.success[exact < epsilon / slack].all()
    else:
        assert result.success[exact < epsilon / slack].mean() > 0.5


def test_it_beats_pgd_at_equal_steps(small: keras.Model) -> None:
    x = images(40, seed=9)
    y = labels_of(small, x, 0)
    radius = 0.012
    weaker = PGD(epsilon=radius, steps=10)(small, x, y).success.mean()
    stronger = APGDT(epsilon=radius, steps=10, targets=3)(small, x, y).success.mean()
    assert stronger >= weaker


def test_an_undefined_loss_is_refused_in_one_line() -> None:
    two = linear_model(np.eye(PIXELS, 2, dtype=np.float32), np.zeros(2, np.float32))
    x, y = images(3), np.zeros(3, np.int64)
    for kind, least in ((APGDDLR, 3), (APGDT, 4)):
        with pytest.raises(InputError, match=rf"at least {least} classes.*2"):
            kind()(as_classifier(two), x, y)
    with pytest.raises(InputError, match="takes targets"):
        APGDCE(targeted=True)
    with pytest.raises(InputError, match="norm"):
        APGDCE(norm="l7")  # type: ignore[arg-type]

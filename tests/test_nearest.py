"""The attacks that look for the nearest example, against closed forms, and DeepFool and CW."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import PIXELS, SHAPE, images, labels_of, linear_model, same, soft
from keras import layers as L

from kerasrobust.attacks import (
    APGDCE,
    CW,
    DDN,
    FMN,
    PDPGD,
    APGDNearest,
    Attack,
    AttackResult,
    DeepFool,
    SigmaZero,
    SuperDeepFool,
)
from kerasrobust.attacks.nearest import annealed
from kerasrobust.errors import Cancelled, InputError
from kerasrobust.evaluation.evaluate import evaluate
from kerasrobust.networks.classifier import Classifier
from kerasrobust.networks.making import as_classifier
from kerasrobust.ops import balls

X = images(20)
DUAL = {"linf": 1, "l2": 2}
ATTACKS: dict[str, type[Attack[Any]]] = {
    "ddn-l2": DDN,
    "superdeepfool-l2": SuperDeepFool,
    "fmn-linf": FMN,
    "apgd-nearest-linf": APGDNearest,
    "apgd-nearest-l2": APGDNearest,
    "fmn-l2": FMN,
    "fmn-l1": FMN,
    "pdpgd-l1": PDPGD,
    "fmn-l0": FMN,
    "sigma-zero-l0": SigmaZero,
}
TARGETED = [name for name, kind in ATTACKS.items() if kind.takes_targets]


def farther(w: np.ndarray, rise: float, x: np.ndarray, norm: str) -> float:
    """Returns the distance to the hyperplane where <w, z> has grown by `rise`, inside the box in L1 and L0.

    There the best is to drive values to the edge of the box one after another: in L1 those of the largest weights
    first, in L0 those that bring most.
    """
    if norm in DUAL:
        return rise / float(np.linalg.norm(w, ord=DUAL[norm]))
    room = np.where(w > 0, 1 - x, x)
    order = np.argsort(-np.abs(w) * (room if norm == "l0" else 1))
    reached = np.cumsum((np.abs(w) * room)[order])
    last = int(np.searchsorted(reached, rise))
    if norm == "l0":
        return last + 1
    before = reached[last - 1] if last else 0.0
    return float(room[order[:last]].sum() + (rise - before) / np.abs(w[order[last]]))


def boundaries(kernel: np.ndarray, bias: np.ndarray, x: np.ndarray, y: np.ndarray, norm: str) -> np.ndarray:
    """Returns the distance at which each class wins over the label, float64 (N, K), infinite for the label."""
    kernel, flat = kernel.astype(np.float64), x.reshape(len(x), -1).astype(np.float64)
    logits = flat @ kernel + bias
    found = np.full(logits.shape, np.inf)
    for row, label in enumerate(y):
        for other in set(range(logits.shape[1])) - {label}:
            rise = abs(logits[row, label] - logits[row, other])
            found[row, other] = farther(kernel[:, other] - kernel[:, label], rise, flat[row], norm)
    return found


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


@pytest.fixture(scope="module")
def others(trained: tuple[Classifier, np.ndarray, np.ndarray]) -> dict[str, float]:
    """The lowest median distances that DeepFool and CW find."""
    found = {norm: DeepFool(norm=norm)(*trained).median_distance for norm in DUAL}  # type: ignore[arg-type]
    return found | {"l2": min(found["l2"], CW(steps=50, binary_steps=6)(*trained).median_distance)}


@pytest.mark.parametrize("name", ATTACKS)
def test_linear_boundaries_are_found(name: str, linear: keras.Model, weights: tuple[np.ndarray, np.ndarray]) -> None:
    norm = name.split("-")[-1]
    y = labels_of(linear, X, 4)
    result = ATTACKS[name](norm=norm)(linear, X, y)
    exact = boundaries(*weights, X, y, norm).min(axis=1)
    exact[:4] = 0  # Wrong from the start.
    assert result.success.all()
    assert (result.distance >= exact * 0.9999).all()
    assert (result.distance <= exact * 1.05 + (norm == "l0")).all()
    assert float(np.median(result.distance[4:] / exact[4:])) <= 1.01


@pytest.mark.parametrize("name", [name for name in ATTACKS if name.endswith(("l1", "l0"))])
def test_value_after_value_is_driven_to_the_edge(name: str, weights: tuple[np.ndarray, np.ndarray]) -> None:
    """Of a far boundary the way in L1 and L0 goes through many values, as far as the box lets each of them."""
    norm = name.split("-")[-1]
    kernel = weights[0][:, :2]
    bias = np.array([0, -kernel.sum(axis=0) @ [-0.5, 0.5] - 25], np.float32)
    model = linear_model(kernel, bias)
    y = np.zeros(20, np.int64)
    result = ATTACKS[name](norm=norm)(model, X, y)
    exact = boundaries(kernel, bias, X, y, norm).min(axis=1)
    assert exact.min() > 3
    assert result.success.all()
    assert (result.distance >= exact * 0.9999).all()
    assert float(np.median(result.distance / exact)) <= 1.1


@pytest.mark.parametrize("name", ATTACKS)
def test_distances_are_not_above_those_of_others(
    name: str, trained: tuple[Classifier, np.ndarray, np.ndarray], others: dict[str, float]
) -> None:
    norm = name.split("-")[-1]
    result = ATTACKS[name](norm=norm)(*trained)
    assert result.success.all()
    if norm == "l1":
        # What a strong attack inside a ball of that radius breaks is about half of the images, too.
        inside = APGDCE(norm="l1", epsilon=result.median_distance)(*trained)
        assert inside.success.mean() <= 0.6
    if norm == "l0":
        dense = FMN(norm="l1")(*trained).x_adv
        assert result.median_distance <= np.median((dense != trained[1]).sum(axis=(1, 2, 3)))
    assert result.median_distance <= others.get(norm, np.inf) * 1.01


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
def test_repeats_and_does_not_depend_on_the_batch(name: str, linear: keras.Model) -> None:
    y = labels_of(linear, X, 2)
    attack = ATTACKS[name](norm=name.split("-")[-1], steps=15)
    whole, again = (attack(linear, X, y, seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(whole.x_adv, again.x_adv)
    parts = attack(linear, X[::-1], y[::-1], batch_size=7)
    np.testing.assert_allclose(whole.x_adv, parts.x_adv[::-1], atol=1e-4)


@pytest.mark.parametrize("name", ATTACKS)
def test_it_goes_on_where_it_was_stopped(
    name: str, linear: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kerasrobust.attacks.batch.CHUNK_SECONDS", 0.0005)
    y, asked = labels_of(linear, X, 2), 0
    attack = ATTACKS[name](norm=name.split("-")[-1], steps=12)

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked == 6

    def found(folder: Path | None, stop: Any = None) -> AttackResult:
        return evaluate(
            linear, X, y, attacks=attack, audit=False, batch_size=8, resume_dir=folder, should_stop=stop
        ).worst

    whole = found(None)
    with pytest.raises(Cancelled):
        found(tmp_path, should_stop)
    again = found(tmp_path)
    same(whole, again)
    assert (whole.gradients, whole.forwards) == (again.gradients, again.forwards)


@pytest.mark.parametrize("name", ["ddn-l2", "superdeepfool-l2", "fmn-l0"])
def test_eot_averages_what_a_randomized_network_says(name: str, randomized: keras.Model) -> None:
    y = labels_of(randomized, X, 0)
    attack = ATTACKS[name](norm=name.split("-")[-1], eot=6, steps=40)
    result = attack(randomized, X, y, passes=20, early_stop=False)
    assert np.isfinite(result.x_adv).all()
    assert result.correct_rate.mean() < result.clean_rate.mean() - 0.15
    if name in TARGETED:
        assert result.gradients == 20 * 40 * 6


@pytest.mark.parametrize("name", ATTACKS)
def test_values_at_the_edge_do_not_stop_an_attack_and_what_is_out_of_reach_stays(name: str) -> None:
    """f = 9a + b - 9.2 - 5c with a = 1, of which nothing more comes, and c without a gradient.

    Only the boundary of the first image, whose c is 0, is inside the box: at b = 0.2.
    """

    def network(x: tf.Tensor) -> tf.Tensor:
        a, b, c = tf.unstack(tf.reshape(x, [-1, 3]), axis=1)
        lead = 9 * a + b - 9.2 - 5 * tf.stop_gradient(c)
        return tf.stack([tf.zeros_like(lead), lead], axis=1)

    x = np.array([[1, 0.1, 0], [1, 0.1, 1], [1, 0.9, 0.6]], np.float32).reshape(3, 3, 1, 1)
    result = ATTACKS[name](norm=name.split("-")[-1])(network, x, np.zeros(3, np.int64))
    np.testing.assert_array_equal(result.success, [True, False, False])
    assert result.distance[0] == pytest.approx(1 if name.endswith("l0") else 0.1, rel=0.03)
    np.testing.assert_array_equal(result.x_adv[1:], x[1:])
    assert np.isinf(result.median_distance)


def test_a_flat_network_is_left_alone() -> None:
    def flat(x: tf.Tensor) -> tf.Tensor:
        return tf.stop_gradient(tf.reshape(x, (-1, PIXELS))[:, :3])

    y = X.reshape(20, -1)[:, :3].argmax(axis=1)
    for attack in (DDN(steps=5), FMN(norm="l0", steps=5), SuperDeepFool(), PDPGD(steps=5)):
        result = attack(flat, X, y)
        assert not result.success.any()
        np.testing.assert_array_equal(result.x_adv, X)


def test_soft_probabilities_mislead_ddn_on_the_cross_entropy(weights: tuple[np.ndarray, np.ndarray]) -> None:
    """Of probabilities that are nearly equal, it climbs away from the label, not towards the class that is nearest."""
    kernel, bias = weights[0] / 1000, weights[1] / 1000
    model = linear_model(kernel, bias)
    y = labels_of(model, X, 0)
    exact = boundaries(kernel, bias, X, y, "l2")
    margin, entropy = (DDN(loss=loss)(model, X, y) for loss in ("margin", "cross-entropy"))  # type: ignore[arg-type]
    assert margin.success.all() and entropy.success.all()
    assert np.median(margin.distance / exact.min(axis=1)) <= 1.01
    assert np.median(entropy.distance / exact.min(axis=1)) >= 1.2
    target = (y + 1) % 4
    aimed = DDN(loss="cross-entropy", targeted=True)(model, X, y, target=target)
    np.testing.assert_array_equal(aimed.prediction_adv, target)
    assert (aimed.distance >= 0.999 * exact[np.arange(20), target]).all()


def test_steps_shrink_along_half_a_cosine() -> None:
    found = [float(annealed(1.0, 0.01, tf.constant(step), tf.constant(4))) for step in range(5)]
    np.testing.assert_allclose(found, [1, 0.505 + 0.495 * 0.5**0.5, 0.505, 0.505 - 0.495 * 0.5**0.5, 0.01], rtol=1e-5)


@pytest.mark.parametrize("bend", [2, -1])
def test_superdeepfool_straightens_what_deepfool_leaves_crooked(bend: int) -> None:
    """The boundary a + 2 b^2 + b = 0.12 of deviations from grey; its nearest point by a search along it.

    Of the one that is bent away, a - b^2 + b = 0.12, each projection falls short, and the search ends all the same.
    """

    def bent(x: tf.Tensor) -> tf.Tensor:
        a, b = tf.unstack(tf.reshape(x, [-1, 2]) - 0.5, axis=1)
        lead = a + bend * b**2 + b - 0.12
        return tf.stack([tf.zeros_like(lead), lead], axis=1)

    along = np.linspace(-0.5, 0.5, 100_001)
    exact = np.sqrt(along**2 + (0.12 - along - bend * along**2) ** 2).min()
    x, y = np.full((1, 2, 1, 1), 0.5, np.float32), np.zeros(1, np.int64)
    rough, straight = DeepFool()(bent, x, y), SuperDeepFool()(bent, x, y)
    assert rough.distance[0] > (1.05 if bend > 0 else 1) * exact
    assert exact <= straight.distance[0] <= 1.006 * exact
    assert straight.gradients <= 12


def test_l0_counts_the_values_that_change_and_keeps_the_largest_changes() -> None:
    draw = np.random.default_rng(0)
    x = draw.random((3, 2, 2, 3)).astype(np.float32)
    x_adv = x.copy()
    x_adv[1, 0, 0, :2] += 0.5
    x_adv[2] += draw.normal(size=(2, 2, 3)).astype(np.float32)
    np.testing.assert_array_equal(balls.distance(tf.constant(x_adv - x), "l0"), [0, 2, 12])
    for count in (0, 1, 5, 12, 40):
        found = balls.project(tf.constant(x_adv), tf.constant(x), tf.constant([1.0, 1.0, count]), "l0").numpy()
        order = np.argsort(-np.abs(x_adv[2] - x[2]).ravel())[:count]
        expected = x[2].ravel().copy()
        expected[order] = np.clip(x_adv[2].ravel()[order], 0, 1)
        np.testing.assert_allclose(found[2].ravel(), expected, atol=1e-6)


@pytest.mark.parametrize(("name", "norm", "epsilon"), [("apgd-ce", "l1", 12), ("fmn", "l0", 24)])
def test_evaluations_and_their_audit_take_every_norm(
    name: str, norm: str, epsilon: float, trained: tuple[Classifier, np.ndarray, np.ndarray]
) -> None:
    found = evaluate(*trained, attacks=name, norm=norm, thorough=True)
    report = found.attacks[0]
    assert report.epsilon == epsilon
    # The checks' own attacks run in a norm that they have, and at its radius.
    assert found.audit is not None and {"one-step-wins", "black-box-wins"} <= set(found.audit.checked)
    if report.attack.minimum_norm:
        assert found.robust_accuracy == (report.result.distance > epsilon).mean()
        curve = np.array(report.entry()["curve"])
        np.testing.assert_allclose(curve[:, 1], [(report.result.distance > at).mean() for at in curve[:, 0]])


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (DDN, {"steps": 0}, "step"),
        (DDN, {"gamma": 0.0}, "gamma"),
        (DDN, {"loss": "hinge"}, "loss"),
        (DDN, {"first_radius": 0.0}, "first_radius"),
        (DDN, {"norm": "linf"}, "l2"),
        (SuperDeepFool, {"candidates": 0}, "candidate"),
        (SuperDeepFool, {"targeted": True}, "takes targets"),
        (PDPGD, {"step_size": 0.0}, "step_size"),
        (PDPGD, {"norm": "l2"}, "l1"),
        (SigmaZero, {"sigma": 0.0}, "sigma"),
        (SigmaZero, {"threshold": 1.5}, "threshold"),
        (SigmaZero, {"norm": "l2"}, "l0"),
        (FMN, {"gamma": 1.0}, "gamma"),
        (FMN, {"step_size": 0.0}, "step_size"),
        (APGDNearest, {"ball_steps": 0}, "step in a ball"),
        (APGDNearest, {"tolerance": 0.0}, "tolerance"),
        (APGDNearest, {"norm": "l1"}, "l2"),
    ],
)
def test_bad_settings_are_told(kind: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        kind(**settings)

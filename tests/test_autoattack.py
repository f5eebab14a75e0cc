"""AutoAttack: which attacks run on what, and that together they do at least what each does."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import PIXELS, images, labels_of, linear_model

from kerasrobust.attacks import FAB, PGD, AutoAttack, Square
from kerasrobust.attacks.driver import KEPT
from kerasrobust.errors import InputError
from kerasrobust.evaluation.chain import part_of
from kerasrobust.evaluation.evaluate import evaluate
from kerasrobust.evaluation.outcome import curve
from kerasrobust.networks.making import classifier_of
from kerasrobust.stats import wilson

X = images(30, seed=3)
CHEAP: list[Any] = [PGD(epsilon=0.012, steps=3), "apgd-ce", FAB(steps=5), Square(epsilon=0.012, queries=20)]


def names(attack: AutoAttack, model: Any) -> list[str]:
    return [part.name for part in attack.parts(classifier_of(model))]


def test_versions_are_those_of_the_paper(small: keras.Model, randomized: keras.Model) -> None:
    """Croce and Hein 2020a, section 6, and their program's `plus` and `rand`."""
    assert names(AutoAttack(), small) == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert names(AutoAttack(version="plus"), small) == ["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"]
    assert names(AutoAttack(), randomized) == ["apgd-ce", "apgd-dlr"]
    assert names(AutoAttack(version="standard"), randomized) == ["apgd-ce", "apgd-t", "fab-t", "square"]
    quick = ["apgd-ce", "apgd-t", "apgd-t", "fab-t", "square", "square"]
    assert names(AutoAttack(version="adaptive"), small) == quick
    assert names(AutoAttack(version="adaptive", confirm=True), small) == [*quick, *names(AutoAttack(), small)]
    assert names(AutoAttack(norm="l1", epsilon=4.0), small) == ["apgd-ce", "apgd-t", "fab-t", "square"]
    parts = {part.name: part for part in AutoAttack(epsilon=0.02).parts(classifier_of(small))}
    assert vars(parts["apgd-ce"])["steps"] == vars(parts["fab-t"])["steps"] == 100
    assert vars(parts["square"])["queries"] == 5000 and not vars(parts["square"])["rescale"]
    # Four classes have three wrong ones.
    assert vars(parts["apgd-t"])["targets"] == vars(parts["fab-t"])["targets"] == 3
    assert {vars(part)["epsilon"] for part in parts.values()} == {0.02}
    # Croce and Hein 2021, section 5, and their program: in L1 larger balls first, APGD-CE five times, 5 targets.
    ten = linear_model(np.eye(PIXELS, 10, dtype=np.float32), np.zeros(10, np.float32))
    sparse = {part.name: vars(part) for part in AutoAttack(norm="l1", epsilon=12.0).parts(classifier_of(ten))}
    assert (sparse["apgd-ce"]["restarts"], sparse["apgd-t"]["restarts"]) == (5, 1)
    assert (sparse["apgd-t"]["targets"], sparse["fab-t"]["targets"]) == (5, 9)
    assert sparse["apgd-ce"]["multi_radius"] and sparse["apgd-t"]["multi_radius"]
    plus = {part.name: part for part in AutoAttack(version="plus").parts(classifier_of(small))}
    assert [vars(plus[name])["restarts"] for name in ("apgd-ce", "apgd-dlr", "fab")] == [5, 5, 5]
    assert {part.eot for part in AutoAttack().parts(classifier_of(randomized))} == {20}
    assert {part.eot for part in AutoAttack(eot=7).parts(classifier_of(randomized))} == {7}


FEW: dict[tuple[int, str], tuple[list[str], str]] = {
    (2, "standard"): (["apgd-ce", "apgd-margin", "fab-t", "square"], "With 2 classes the loss DLR is"),
    (3, "standard"): (["apgd-ce", "apgd-margin", "fab-t", "square"], "With 3 classes the targeted loss DLR is"),
    (4, "standard"): (["apgd-ce", "apgd-t", "fab-t", "square"], ""),
    (2, "rand"): (["apgd-ce", "apgd-margin"], "With 2 classes the loss DLR is"),
    (3, "rand"): (["apgd-ce", "apgd-dlr"], ""),
    (2, "plus"): (["apgd-ce", "apgd-margin", "fab", "square", "fab-t"], "With 2 classes the loss DLR is"),
    (3, "plus"): (
        ["apgd-ce", "apgd-dlr", "fab", "square", "apgd-margin", "fab-t"], "With 3 classes the targeted loss DLR is",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("classes", "version"), FEW)
def test_few_classes_get_the_margin_in_place_of_dlr(classes: int, version: Any) -> None:
    """DLR divides by the distance of the first from the third logit, the targeted one by that from the fourth."""
    kernel = np.random.default_rng(0).normal(size=(PIXELS, classes)).astype(np.float32)
    model = linear_model(kernel, -kernel.sum(axis=0) / 2)
    parts, said = FEW[classes, version]
    attack = AutoAttack(epsilon=0.5, version=version)
    assert names(attack, model) == parts
    y = labels_of(model, X, 0)
    found = evaluate(model, X, y, attacks=attack, audit=False)
    assert [code for code, _ in found.warnings] == (["dlr-undefined"] if said else [])
    assert not said or found.warnings[0][1].startswith(said)
    assert found.robust_accuracy == 0
    one = evaluate(model, X, y, attacks=AutoAttack(epsilon=0.001, attacks=("apgd-ce",)), audit=False)
    assert one.findings == []


def test_each_part_runs_on_what_is_left(small: keras.Model) -> None:
    y = labels_of(small, X, 4)
    attack = AutoAttack(epsilon=0.012, attacks=CHEAP)
    found = evaluate(small, X, y, attacks=attack, batch_size=8, audit=False)
    left = np.arange(30) >= 4
    for item in found.attacks:
        np.testing.assert_array_equal(item.attacked, left)
        assert item.entry().get("attacked", 30) == left.sum()
        left = left & (item.rates > 0)
        assert item.robust_accuracy == left.mean() and item.interval == wilson(left.sum(), 30)
    np.testing.assert_array_equal(found.per_example > 0, left)
    assert 0 < found.robust_accuracy < 26 / 30
    # The examples are those that the figures are about, each inside the ball, each with the attack that made it.
    worst = found.worst
    np.testing.assert_array_equal(worst.success, ~left)
    np.testing.assert_array_equal(np.asarray(small(worst.x_adv, training=False)).argmax(1) != y, ~left)
    assert abs(worst.x_adv - X).max() <= 0.012 + 1e-6
    assert set(found.by_attack) <= {"pgd", "apgd-ce", "fab", "square"}
    # Called like an attack it gives the same.
    again = attack(small, X, y, batch_size=8)
    np.testing.assert_array_equal(again.x_adv, worst.x_adv)


def test_parts_share_one_trace_each_however_many_are_left(small: keras.Model) -> None:
    y = labels_of(small, X, 4)
    evaluate(small, X, y, attacks=AutoAttack(epsilon=0.012, attacks=CHEAP), batch_size=8, audit=False)
    kept = KEPT[classifier_of(small)]
    structures = [structure for structure, _ in kept]
    assert len(structures) == len(set(structures)) >= len(CHEAP)
    assert {part.traces for item in kept.values() for part in (item.begin, item.advance, item.look)} <= {0, 1}


def test_a_randomized_network_is_judged_on_fresh_passes(randomized: keras.Model, small: keras.Model) -> None:
    y = labels_of(small, X, 0)
    attack = AutoAttack(epsilon=0.01, attacks=(PGD(epsilon=0.01, steps=2, eot=2), "apgd-ce"))
    found = evaluate(randomized, X, y, attacks=attack, passes=10, audit=False)
    np.testing.assert_array_equal(found.worst.correct_rate, (found.worst.passes == y).mean(axis=0))
    assert found.robust_accuracy == found.worst.correct_rate.mean()
    assert found.majority.accuracy == (found.worst.correct_rate > 0.5).mean()
    assert found.worst_case.accuracy == (found.worst.passes == y).all(axis=0).mean()
    assert found.worst_case.accuracy <= found.majority.accuracy
    for share in (found.majority, found.worst_case):
        assert share.interval[0] <= share.accuracy <= share.interval[1]
    # The verdict isn't the one that chose the example.
    assert not any(np.array_equal(found.worst.passes, item.result.passes) for item in found.attacks)


def test_standard_on_a_randomized_network_warns(
    randomized: keras.Model, small: keras.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Which parts those are, and what they do, is tested above.
    monkeypatch.setattr(AutoAttack, "parts_of_chain", lambda *_: [part_of(PGD(epsilon=1.0, steps=1), 1.0, True)])
    y = labels_of(small, X, 0)
    quick = AutoAttack(version="standard", epsilon=1.0)
    found = evaluate(randomized, X[:4], y[:4], attacks=quick, passes=2, audit=False)
    assert "standard-on-randomized" in [code for code, _ in found.warnings]
    custom = AutoAttack(attacks=("apgd-ce",), epsilon=1.0)
    found = evaluate(randomized, X[:4], y[:4], attacks=custom, passes=2, audit=False)
    assert "standard-on-randomized" not in [code for code, _ in found.warnings]


def test_without_gradients_black_boxes_take_over(linear: keras.Model) -> None:
    def rounded(x: tf.Tensor) -> tf.Tensor:
        return linear(tf.round(x * 32) / 32, training=False)

    y = np.asarray(rounded(tf.constant(X[:8]))).argmax(axis=1)
    for asked in ("pgd", AutoAttack(epsilon=0.05, attacks=("apgd-ce", Square(epsilon=0.05, queries=40)))):
        found = evaluate(rounded, X[:8], y, attacks=asked, epsilon=0.05, audit=False)
        assert sorted(item.attack.name for item in found.attacks) == ["hopskipjump", "square"]
        assert [code for code, _ in found.warnings] == ["black-box-only"]
        assert abs(found.worst.x_adv - X[:8]).max() <= 0.05 + 1e-6
        assert sum(item.result.gradients for item in found.attacks) == 0


@pytest.mark.parametrize("masked", [-1e9, -np.inf])
def test_a_masked_class_hides_no_missing_gradient(masked: float, linear: keras.Model) -> None:
    def rounded(x: tf.Tensor) -> tf.Tensor:
        logits = linear(tf.round(x * 32) / 32, training=False)
        return tf.pad(logits, [[0, 0], [0, 1]], constant_values=masked)

    y = np.asarray(rounded(tf.constant(X[:8]))).argmax(axis=1)
    found = evaluate(rounded, X[:8], y, attacks="fgsm", epsilon=0.05, audit=False)
    assert [code for code, _ in found.warnings] == ["black-box-only"]


def test_a_curve_is_the_share_that_lies_further_away(linear: keras.Model) -> None:
    y = labels_of(linear, X, 3)
    found = evaluate(linear, X, y, attacks="deepfool", norm="l2", epsilon=0.5, audit=False)
    (entry,) = [item.entry() for item in found.attacks]
    epsilons = [point[0] for point in entry["curve"]]
    assert epsilons == sorted(epsilons) and epsilons[0] == 0
    kernel, bias = (np.asarray(weight, np.float64) for weight in linear.get_weights())
    logits = X.reshape(30, -1) @ kernel + bias
    for radius, accuracy, low, high in curve(found.attacks[0].result, [0.0, 0.2, 0.5]):
        exact = 0
        for row, label in zip(logits, y, strict=True):
            gaps = [
                (row[label] - row[k]) / np.linalg.norm(kernel[:, label] - kernel[:, k]) for k in range(4) if k != label
            ]
            exact += min(gaps) * 1.02 > radius if min(gaps) > 0 else 0
        assert accuracy == pytest.approx(exact / 30, abs=1.01 / 30)
        assert low <= accuracy <= high


def test_within_several_radii_each_attacks_what_the_smaller_ones_left(linear: keras.Model) -> None:
    y = labels_of(linear, X, 3)
    radii = (0.02, 0.005, "0.05")
    found = evaluate(linear, X, y, attacks="pgd", epsilon=radii, audit=False)
    alone = [evaluate(linear, X, y, attacks="pgd", epsilon=radius, audit=False) for radius in sorted(map(float, radii))]
    # On a linear network PGD finds whatever there is, so that the figures are those of each radius by itself.
    assert [point.epsilon for point in found.within] == [0, 0.005, 0.02, 0.05]
    shares = [point.accuracy for point in found.within]
    assert shares == [found.clean_accuracy, *(one.robust_accuracy for one in alone)] and shares[1] > shares[3]
    assert [(point.low, point.high) for point in found.within[1:]] == [one.interval for one in alone]
    assert found.robust_accuracy == shares[-1]
    assert [int(item.attacked.sum()) for item in found.attacks] == [round(30 * share) for share in shares[:-1]]
    # An example lies within the radius at which its image fell.
    assert (found.worst.distance <= 0.05 + 1e-6).all()
    fell = found.attacks[0].attacked & (found.attacks[0].rates == 0)
    assert fell.any() and (found.worst.distance[fell] <= 0.005 + 1e-6).all()
    # Of an image that withstood all, what is kept is the attempt within the largest.
    assert (found.worst.distance[found.per_example == 1] > 0.02).all()
    (curve_entry,) = found.entry()["curves"]
    assert curve_entry["within"] and [point[:2] for point in curve_entry["curve"]] == [
        [point.epsilon, point.accuracy] for point in found.within
    ]
    assert len(found.plot().svgs) == 1


def test_radii_of_versions_and_of_randomized_networks(small: keras.Model, randomized: keras.Model) -> None:
    twice = AutoAttack(version="adaptive", epsilons=(0.02, 0.01)).parts(classifier_of(small))
    quick = AutoAttack(version="adaptive", epsilon=0.01).parts(classifier_of(small))
    assert twice[: len(quick)] == quick and {vars(part)["epsilon"] for part in twice[len(quick) :]} == {0.02}
    custom = AutoAttack(attacks=(PGD(steps=3), "square"), epsilons=(0.02, 0.01)).parts(classifier_of(small))
    assert [(part.name, vars(part)["epsilon"]) for part in custom] == [
        ("pgd", 0.01), ("square", 0.01), ("pgd", 0.02), ("square", 0.02)
    ]  # fmt: skip
    assert vars(custom[2])["steps"] == 3
    y = np.asarray(randomized(X[:8], training=False)).argmax(axis=1)
    found = evaluate(randomized, X[:8], y, attacks="fgsm", epsilon=(0.001, 0.3), audit=False)
    assert [point.epsilon for point in found.within] == [0, 0.001, 0.3]
    assert found.within[0].accuracy == found.clean_accuracy and found.within[-1].accuracy == found.robust_accuracy
    assert found.within[0].low <= found.within[0].accuracy <= found.within[0].high


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"attacks": "fmn"}, "one run of which says all radii"),
        ({"attacks": "sparse-rs"}, "no ball"),
        ({"attacks": PGD()}, "attacks by name"),
        ({"attacks": "pgd", "target": "next"}, "without a target"),
        ({"attacks": "pgd", "epsilon": ()}, "one radius or more"),
        ({"attacks": "pgd", "epsilon": (0.01, 8.0)}, "Did you mean 8/255"),
    ],
)
def test_radii_that_make_no_sense_are_refused(asked: dict[str, Any], said: str, linear: keras.Model) -> None:
    with pytest.raises(InputError, match=said):
        evaluate(linear, X, np.zeros(30, int), **{"epsilon": (0.01, 0.02)} | asked)


@pytest.mark.parametrize(
    "bad",
    [
        {"version": "hard"},
        {"attacks": ("pdg",)},
        {"attacks": (PGD(norm="l2"),)},
        {"epsilon": 8.0},
        {"norm": "l1", "epsilon": 4.0, "attacks": ("pgd",)},
    ],
)
def test_bad_settings_are_refused_in_one_line(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="Expected"):
        AutoAttack(**bad)

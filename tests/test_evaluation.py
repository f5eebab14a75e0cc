"""Accuracies and their intervals, against published values, exact distributions and closed forms."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from conftest import PIXELS, SHAPE, images, labels_of, linear_model
from hypothesis import given
from hypothesis import strategies as st

from kerasrobust.attacks import BIM, FGSM, MIFGSM, PGD, Attack, AttackResult, DeepFool, Step, make_attack
from kerasrobust.errors import Cancelled, InputError
from kerasrobust.evaluation.autoattack import AutoAttack
from kerasrobust.evaluation.evaluate import evaluate
from kerasrobust.evaluation.outcome import report, surviving
from kerasrobust.events import AttackFinished, AttackProgress, AttackStarted, Event
from kerasrobust.names import ATTACKS, norm_of
from kerasrobust.networks.classifier import Classifier
from kerasrobust.networks.making import as_classifier
from kerasrobust.networks.noise import RandomDropout
from kerasrobust.stats import accuracy_interval, bootstrap, wilson

X = images(60)


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [
        # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_as_published(right: int, count: int, low: float, high: float) -> None:
    assert wilson(right, count) == pytest.approx((low, high), abs=5e-5)
    mirrored = wilson(count - right, count)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=5e-5)


@given(count=st.integers(1, 10_000), share=st.floats(0, 1))
def test_wilson_holds_the_share_and_stays_in_range(count: int, share: float) -> None:
    right = round(share * count)
    low, high = wilson(right, count)
    assert 0 <= low <= right / count + 1e-12
    assert right / count - 1e-12 <= high <= 1


def test_wilson_of_nothing_is_everything() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert bootstrap(np.array([])) == (0.0, 1.0)


def test_bootstrap_agrees_with_the_normal_interval_of_a_mean() -> None:
    rates = np.random.default_rng(0).uniform(0.2, 1.0, 400)
    half = 1.96 * rates.std() / np.sqrt(400)
    assert bootstrap(rates) == pytest.approx((rates.mean() - half, rates.mean() + half), abs=0.1 * half)
    assert bootstrap(rates) == bootstrap(rates)
    assert bootstrap(np.ones(50)) == wilson(50, 50)  # All alike: no resample differs, and yet 50 are not all there are.


def test_bootstrap_covers_the_truth_as_often_as_it_says() -> None:
    """Of 200 samples of 60 rates with mean 0.6, about 95 % of the intervals hold 0.6 (93.5 % is usual at this size)."""
    draw = np.random.default_rng(1)
    samples = draw.beta(3, 2, (200, 60))
    held = 0
    for number, rates in enumerate(samples):
        low, high = bootstrap(rates, seed=number)
        held += low <= 0.6 <= high
    assert 0.89 <= held / 200 <= 0.985


def test_many_passes_do_not_make_the_interval_narrow() -> None:
    """20 examples, each right in all passes or in none: 20 trials, not 20 times the passes."""
    rates = np.repeat([0.0, 1.0], 10)
    low, high = accuracy_interval(rates, randomized=True)
    assert high - low > 0.35
    assert accuracy_interval(rates, randomized=False) == wilson(10, 20)


def made_result(**changes: Any) -> AttackResult:
    size = len(changes["distance"])
    blank = np.zeros(size)
    fields: dict[str, Any] = dict.fromkeys(AttackResult.__dataclass_fields__, blank)
    fields |= {"x_adv": np.zeros((size, *SHAPE)), "gradients": 3, "forwards": 2, "seconds": 1.5, "precision": "float32"}
    fields["queries"] = None
    return AttackResult(**fields | changes)


def test_minimum_norm_attack_is_read_off_at_a_radius() -> None:
    """Wrong at the start, fooled at 0.1, at exactly 0.2, at 0.3, and never (though it walked to 0.15)."""
    result = made_result(
        distance=np.array([0, 0.1, 0.2, 0.3, 0.15]),
        clean_rate=np.array([0, 1, 1, 1, 1.0]),
        correct_rate=np.array([0, 0, 0, 0, 1.0]),
        success=np.array([True, True, True, True, False]),
    )
    attack = DeepFool()
    for epsilon, expected in ((0.05, 0.8), (0.1, 0.6), (0.2, 0.4), (0.25, 0.4), (1.0, 0.2)):
        assert surviving(attack, result, epsilon).mean() == pytest.approx(expected)
        found = report(attack, result, epsilon, randomized=False)
        assert found.robust_accuracy == pytest.approx(expected)
        assert found.interval == wilson(expected * 5, 5)
    # Of the four that were right: 0.1, 0.2, 0.3, infinite.
    assert result.median_distance == pytest.approx(0.25)
    assert surviving(PGD(), result, 0.05).mean() == pytest.approx(0.2)


def test_entry_is_what_result_json_holds() -> None:
    result = made_result(
        distance=np.array([0.1, 0.1]), clean_rate=np.ones(2), correct_rate=np.ones(2), success=np.zeros(2, bool)
    )
    entry = report(FGSM(epsilon=0.1), result, 0.1, randomized=False).entry()
    assert entry == {
        "name": "fgsm", "norm": "linf", "epsilon": 0.1, "robust_accuracy": 1.0, "interval": list(wilson(2, 2)),
        "median_distance": None, "seconds": 1.5, "gradients": 3, "forwards": 2,
        "settings": FGSM(epsilon=0.1).settings(),
    }  # fmt: skip


@pytest.mark.parametrize("name", [name for name, known in ATTACKS.items() if known.in_ball and name != "autoattack"])
def test_an_entry_has_one_radius(name: str) -> None:
    result = made_result(
        distance=np.array([0.1, 0.1]), clean_rate=np.ones(2), correct_rate=np.ones(2), success=np.zeros(2, bool)
    )
    attack = make_attack(name, epsilon=None, norm=norm_of([name]))
    # One that looks for the nearest example has none of its own, and is judged at any.
    radius = getattr(attack, "epsilon", None) or 0.2
    settings = report(attack, result, radius, randomized=False)._settings()
    assert settings.get("epsilon", radius) == radius


@pytest.fixture(scope="module")
def two() -> tuple[keras.Model, np.ndarray, np.ndarray]:
    """A linear model of two classes, labels of which 6 of 60 are wrong, and each image's exact Linf distance."""
    kernel = np.random.default_rng(3).normal(size=(PIXELS, 2)).astype(np.float32)
    bias = -np.median(X.reshape(60, -1) @ kernel, axis=0).astype(np.float32)
    model = linear_model(kernel, bias)
    y = labels_of(model, X, 6)
    logits = np.asarray(model(X), np.float64)
    away = np.abs(logits[:, 0] - logits[:, 1]) / np.abs(kernel[:, 0] - kernel[:, 1]).sum()
    return model, y, np.where(np.arange(60) < 6, 0, away)


def test_linear_robust_accuracy_is_exact(two: tuple[keras.Model, np.ndarray, np.ndarray]) -> None:
    model, y, exact = two
    epsilon = float(np.median(exact)) * 1.001
    evaluation = evaluate(model, X, y, attacks=["fgsm", "pgd", "deepfool"], epsilon=epsilon)
    assert evaluation.clean_accuracy == pytest.approx(0.9)
    assert evaluation.clean_interval == wilson(54, 60)
    np.testing.assert_array_equal(evaluation.per_example, exact > epsilon)
    assert evaluation.robust_accuracy == (exact > epsilon).mean()
    assert evaluation.interval == wilson(int((exact > epsilon).sum()), 60)
    assert [item.attack.name for item in evaluation.attacks] == ["fgsm", "pgd", "deepfool"]
    assert evaluation.attacks[0].robust_accuracy == evaluation.robust_accuracy
    # DeepFool overshoots by 2 %, so it may miss what lies just inside.
    assert evaluation.attacks[2].robust_accuracy == (1.02 * exact > epsilon).mean()
    assert {code for code, _ in evaluation.warnings} <= {"rounding", "few-examples"}


def test_attacks_together_count_the_worst_per_example(small: keras.Model) -> None:
    y = labels_of(small, X, 5)
    attacks: list[str | Attack] = [FGSM(epsilon=0.02), PGD(norm="l2", epsilon=0.3, steps=3), "deepfool"]
    evaluation = evaluate(small, X, y, attacks=attacks, epsilon=0.01)
    worst = np.min([item.rates for item in evaluation.attacks], axis=0)
    np.testing.assert_array_equal(evaluation.per_example, worst)
    assert evaluation.robust_accuracy == worst.mean()
    assert evaluation.robust_accuracy <= min(item.robust_accuracy for item in evaluation.attacks)
    assert [item.epsilon for item in evaluation.attacks] == [0.02, 0.3, 0.01]


def noisy_threshold(rate: float) -> Classifier:
    """Right (class 0) where the first pixel is below 0.7, and where the one noisy unit is dropped.

    Fooled images are right with probability `rate`, unfooled ones always.
    """
    seen = keras.Input(SHAPE)
    pixel = keras.layers.Flatten()(keras.layers.Cropping2D(((0, 7), (0, 7)))(seen))[:, :1]
    kept = RandomDropout(rate)(pixel - 0.7)
    model = keras.Model(seen, keras.layers.Concatenate()([0 * pixel + 1e-6, kept]))
    return as_classifier(model, input_range=(0, 1), colors="rgb")


def test_randomized_network_is_judged_by_its_mean() -> None:
    rate, passes = 0.3, 50
    y = np.zeros(60, np.int64)
    x = X.copy()
    x[:, 0, 0, 0] = np.where(np.arange(60) < 20, 0.72, 0.4)  # 20 images are beyond the threshold from the start.
    evaluation = evaluate(noisy_threshold(rate), x, y, attacks="pgd", epsilon=0.1, passes=passes, eot=4)
    expected = (20 * rate + 40) / 60
    spread = np.sqrt(rate * (1 - rate) / passes / 20) * 20 / 60
    assert evaluation.clean_accuracy == pytest.approx(expected, abs=5 * spread)
    # Nothing else comes within reach, and what is beyond stays at its mean, whatever one lucky pass says.
    assert evaluation.robust_accuracy == pytest.approx(expected, abs=5 * spread)
    np.testing.assert_array_equal(evaluation.per_example[20:], 1)
    low, high = evaluation.interval
    assert evaluation.interval == bootstrap(evaluation.per_example)
    assert low < evaluation.robust_accuracy < high


def test_worst_of_several_attacks_on_a_randomized_network_is_judged_afresh() -> None:
    """Four attacks that change nothing: the lowest of four noisy rates would be far too low."""
    rate, passes = 0.5, 20
    y = np.zeros(60, np.int64)
    x = X.copy()
    x[:, 0, 0, 0] = 0.9
    attacks = [FGSM(epsilon=0), PGD(epsilon=0, steps=1), BIM(epsilon=0, steps=1), MIFGSM(epsilon=0, steps=1)]
    evaluation = evaluate(noisy_threshold(rate), x, y, attacks=attacks, passes=passes)
    spread = np.sqrt(rate * (1 - rate) / passes / 60)
    assert evaluation.robust_accuracy == pytest.approx(rate, abs=5 * spread)


def test_deepfool_beyond_the_radius_is_no_example_of_a_randomized_network(randomized: keras.Model) -> None:
    y = labels_of(randomized, X, 0)
    evaluation = evaluate(randomized, X, y, attacks=[DeepFool(), FGSM(epsilon=0)], epsilon=1e-9, passes=20)
    assert evaluation.robust_accuracy == pytest.approx(evaluation.clean_accuracy, abs=0.08)
    assert evaluation.attacks[0].result.correct_rate.mean() < evaluation.clean_accuracy - 0.1


def test_equal_seeds_give_equal_results(randomized: keras.Model) -> None:
    y = labels_of(randomized, X, 0)
    settings: dict[str, Any] = {"attacks": ["fgsm", "fgsm-rs"], "epsilon": 0.02, "passes": 5, "eot": 2}
    one, again, other = (evaluate(randomized, X, y, seed=seed, **settings) for seed in (4, 4, 5))
    np.testing.assert_array_equal(one.per_example, again.per_example)
    assert not np.array_equal(one.per_example, other.per_example)


def test_events_and_progress_say_how_each_attack_goes(small: keras.Model) -> None:
    heard: list[tuple[str, str]] = []
    seen: list[str] = []

    def emit(event: Event) -> None:
        if isinstance(event, AttackStarted | AttackProgress | AttackFinished):
            heard.append((type(event).__name__, event.attack))

    def progress(attack: Attack, step: Step) -> None:
        assert step.total == len(X)
        seen.append(attack.name)

    evaluate(small, X, labels_of(small, X, 5), attacks=["fgsm", "bim"], emit=emit, progress=progress)
    kinds = ("AttackStarted", "AttackProgress", "AttackFinished")
    assert list(dict.fromkeys(heard)) == [(kind, name) for name in ("fgsm", "bim") for kind in kinds]
    assert list(dict.fromkeys(seen)) == ["fgsm", "bim"]


def test_survivors_of_a_chain_are_those_that_all_its_attacks_have_left(small: keras.Model) -> None:
    """Images that an attack before has broken aren't attacked, and don't survive."""
    seen: list[int] = []

    def emit(event: Event) -> None:
        if isinstance(event, AttackProgress):
            seen.append(event.survivors)

    y = labels_of(small, X, 5)
    parts = AutoAttack(epsilon=0.01, attacks=("fgsm", "bim"))
    found = evaluate(small, X, y, attacks=parts, emit=emit, audit=False)
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] == int(found.per_example.sum()) < int(found.attacks[0].rates.sum())


def test_warnings_of_the_model_are_passed_on(linear: keras.Model) -> None:
    def softmax(x: Any) -> Any:
        return keras.ops.softmax(linear(x, training=False))

    y = labels_of(linear, X, 0)
    assert [code for code, _ in evaluate(softmax, X, y, attacks="fgsm").warnings] == ["softmax-output"]


def test_cancelling(small: keras.Model) -> None:
    with pytest.raises(Cancelled):
        evaluate(small, X, labels_of(small, X, 5), should_stop=lambda: True)


def test_attacks_are_made_by_name() -> None:
    attack = make_attack("pgd", epsilon=0.1, norm="l2", eot=3, steps=7, restarts=2, step_size=None)
    assert attack == PGD(epsilon=0.1, norm="l2", eot=3, steps=7, restarts=2)
    assert make_attack("deepfool", epsilon=0.1, norm="l2") == DeepFool(norm="l2")


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (lambda: make_attack("pdg"), "'pgd'"),
        (lambda: make_attack("fgsm", steps=5), "steps"),
        (lambda: make_attack("pgd", epsilon=8), "8/255"),
        (lambda: evaluate(as_classifier(linear_model(np.eye(PIXELS, 2), np.zeros(2))), X, X, attacks=[]), "labels"),
        (
            lambda: evaluate(linear_model(np.eye(PIXELS, 2), np.zeros(2)), X, np.zeros(60, int), attacks=[]),
            "at least one attack",
        ),
        (
            lambda: evaluate(linear_model(np.eye(PIXELS, 2), np.zeros(2)), X, np.zeros(60, int), batch_size=0),
            "batch size",
        ),
    ],
)
def test_bad_input_is_refused_in_one_line(call: Any, part: str) -> None:
    with pytest.raises(InputError, match=part) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_an_evaluation_is_printed_as_its_figures(small: keras.Model) -> None:
    found = evaluate(small, X, labels_of(small, X, 5), attacks=["fgsm", "bim"], audit=False)
    text = repr(found)
    assert f"robust accuracy {100 * found.robust_accuracy:.1f} % (" in text and "fgsm, bim; examples" in text
    assert "array" not in text and "\n" not in text and len(text) < 300

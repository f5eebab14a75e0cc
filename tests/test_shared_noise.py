"""Noise that images share widens the intervals by what it adds, and noise of each image's own doesn't."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from conftest import PIXELS, images, linear_model

from kerasrobust.attacks import FGSM
from kerasrobust.evaluation.evaluate import evaluate
from kerasrobust.networks.making import as_classifier
from kerasrobust.stats import accuracy_interval, bootstrap, pass_error, shared_error, wilson


def passes_of(draw: np.random.Generator, levels: np.ndarray, shared: float, passes: int = 20) -> np.ndarray:
    """Returns right answers (passes, N): images of some levels of difficulty, and a draw that moves all of a pass."""
    moved = levels + draw.normal(0, shared, (passes, 1))
    return draw.random((passes, len(levels))) < 1 / (1 + np.exp(-moved))


def intervals(shared: float, passes: int = 20, runs: int = 300) -> tuple[float, float, float]:
    """Returns how often the interval covers the true mean, and its mean width, with what images share and without."""
    draw = np.random.default_rng(3)
    population = draw.normal(1.0, 2.0, 20_000)
    moves = np.random.default_rng(4).normal(0, shared, 500)[:, None]
    truth = float(np.mean(1 / (1 + np.exp(-(population[None, ::10] + moves)))))
    held, wide, narrow = 0, 0.0, 0.0
    for _ in range(runs):
        right = passes_of(draw, draw.choice(population, 300), shared, passes)
        rates = right.mean(axis=0)
        low, high = accuracy_interval(rates, True, shared_error(right))
        plain = bootstrap(rates)
        held += low <= truth <= high
        wide, narrow = wide + high - low, narrow + plain[1] - plain[0]
    return held / runs, wide / runs, narrow / runs


@pytest.mark.parametrize(("shared", "passes"), [(1.0, 20), (2.0, 20), (1.0, 6)])
def test_intervals_cover_the_truth_where_noise_is_drawn_once_per_batch(
    shared: float, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 300 simulated runs about 95 %; the interval that resamples images alone holds far fewer."""
    monkeypatch.setattr("kerasrobust.stats.RESAMPLES", 200)
    held, wide, narrow = intervals(shared, passes)
    assert 0.915 <= held <= 0.985
    assert wide > 1.2 * narrow


def test_intervals_stay_as_they_are_where_noise_is_each_images_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kerasrobust.stats.RESAMPLES", 200)
    held, wide, narrow = intervals(0.0)
    assert 0.915 <= held <= 0.985
    assert narrow <= wide <= 1.02 * narrow
    draw = np.random.default_rng(5)
    alone = [shared_error(passes_of(draw, draw.normal(1, 2, 300), 0.0)) for _ in range(200)]
    assert np.mean(np.array(alone) > 0) <= 0.1  # A test at 5 %.


def test_what_passes_share_by_hand() -> None:
    """Images that are right together or not at all: 12 of 20 passes, whose mean has the error of 20 coins."""
    right = np.repeat(np.arange(20) < 12, 50).reshape(20, 50)
    variance = 0.6 * 0.4 * 20 / 19
    own = 50 * 0.6 * 0.4 * 20 / 19 / 50**2
    assert shared_error(right) == pytest.approx(2.093024 / 1.959964 * np.sqrt((variance - own) / 20), rel=1e-3)
    assert shared_error(right[:1]) == 0  # One pass says nothing.


@pytest.mark.parametrize("count", [7, 30, 49])
def test_passes_that_are_all_alike_share_nothing(count: int) -> None:
    """A network of one answer: means of equal shares differ by 1e-17, which once was a finding."""
    for right in range(count + 1):
        alike = np.tile(np.arange(count) < right, (20, 1))
        assert shared_error(alike) == pass_error(alike, lambda rates: rates) == 0
    assert shared_error(np.ones((20, 50), bool)) == 0
    assert shared_error(np.zeros((20, 0), bool)) == 0


DECIDING: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "majority": lambda rates: rates > 0.5,
    "worst of the passes": lambda rates: rates == 1,
}


@pytest.mark.parametrize(("shared", "passes"), [(1.0, 20), (2.0, 20), (1.0, 6)])
@pytest.mark.parametrize("verdict", DECIDING)
def test_intervals_of_verdicts_over_passes_cover_the_truth(
    verdict: str, shared: float, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 200 simulated runs about 95 %; an interval that doesn't know of the passes holds far fewer."""
    monkeypatch.setattr("kerasrobust.stats.RESAMPLES", 200)
    deciding = DECIDING[verdict]
    population = np.random.default_rng(1).normal(1, 2, 4000)
    draw = np.random.default_rng(9)
    many = [deciding(passes_of(draw, population, shared, passes).mean(axis=0)).mean() for _ in range(200)]
    held, plain = 0, 0
    for seed in range(200):
        draw = np.random.default_rng(seed)
        right = passes_of(draw, draw.choice(population, 300), shared, passes)
        rates = deciding(right.mean(axis=0)).astype(np.float64)
        low, high = accuracy_interval(rates, True, pass_error(right, deciding))
        held += low <= np.mean(many) <= high
        low, high = wilson(rates.sum(), 300)
        plain += low <= np.mean(many) <= high
    assert 0.915 <= held / 200 <= 0.995
    assert plain / 200 < 0.85


def test_the_error_of_passes_by_hand() -> None:
    """One image is right in 2 of 3 passes: without one of those it has no majority of the other two any more."""
    right = np.array([[True], [True], [False]])
    # Majorities 0, 0, 1: their variance is 2/9, times 2; Student's quantile for 2 is 4.3027.
    assert pass_error(right, DECIDING["majority"]) == pytest.approx(4.3027 / 1.96 * np.sqrt(4 / 9), rel=0.15)
    assert pass_error(right[:1], DECIDING["majority"]) == 0
    assert pass_error(np.ones((20, 50), bool), DECIDING["majority"]) == 0


def test_noise_of_a_batch_widens_every_interval_and_is_found() -> None:
    """One draw moves all images of a batch; with each image's own draw nothing is found."""
    x = images(60)
    kernel = np.random.default_rng(0).normal(size=(PIXELS, 2))
    linear = linear_model(kernel, -0.5 * kernel.sum(axis=0))
    y = linear.predict(x, verbose=0).argmax(axis=1)
    found = {}
    for kind in ("batch", "own"):

        def noisy(x: tf.Tensor, one: bool = kind == "batch") -> tf.Tensor:
            draws = tf.random.uniform([] if one else [tf.shape(x)[0], 1])
            return (draws - 0.3) * linear(x)

        settings: dict[str, Any] = {"attacks": FGSM(epsilon=1e-4), "epsilon": 1e-4, "batch_size": 60, "passes": 20}
        found[kind] = evaluate(noisy, x, y, seed=1, **settings)
    batch, own = found["batch"], found["own"]
    assert batch.clean_interval[1] - batch.clean_interval[0] > 0.3, "20 coins"
    assert batch.interval[1] - batch.interval[0] > 0.3
    assert batch.attacks[0].interval == batch.interval

    def shifted(x: tf.Tensor) -> tf.Tensor:
        return linear(x) + 2 * tf.random.normal([]) * [1.0, -1.0]

    moved = evaluate(shifted, x, y, seed=1, **settings)
    for share in (moved.majority, moved.worst_case):
        plain = wilson(share.accuracy * 60, 60)
        assert share.interval[1] - share.interval[0] > 1.05 * (plain[1] - plain[0])
    assert own.clean_interval == bootstrap(own.attacks[0].result.clean_rate)
    codes = {kind: [finding.code for finding in item.findings] for kind, item in found.items()}
    assert "shared-noise" in codes["batch"] and "shared-noise" not in codes["own"]


def resized(x: tf.Tensor) -> tf.Tensor:
    """Random resizing and padding (Xie et al. 2018), with one size and place for the whole batch."""
    side = tf.random.uniform([], 5, 9, tf.int32)
    top, left = (tf.random.uniform([], 0, 9 - side, tf.int32) for _ in range(2))
    smaller = tf.image.resize(x, [side, side])
    room = 8 - side
    return tf.ensure_shape(tf.pad(smaller, [[0, 0], [top, room - top], [left, room - left], [0, 0]]), x.shape)


def rolled(x: tf.Tensor) -> tf.Tensor:
    return tf.roll(x, tf.random.uniform([], -3, 4, tf.int32), axis=2)


def dimmed(x: tf.Tensor) -> tf.Tensor:
    return x * tf.random.uniform([], 0.6, 1.4)


@pytest.mark.parametrize("moved", [resized, rolled, dimmed])
def test_transformations_of_a_whole_batch_widen_the_interval(moved: Callable[[tf.Tensor], tf.Tensor]) -> None:
    """The network tells bright images from dark ones, or those that get brighter to the right."""
    ramp = np.linspace(-1, 1, 8)[:, None]
    x = (images(60) + 0.2 * ramp).astype(np.float32)
    kernel = np.tile(ramp * np.ones(3), (8, 1, 1)).reshape(-1, 1) if moved is rolled else np.ones((PIXELS, 1))
    threshold = {resized: 64, rolled: 0, dimmed: 96}[moved]
    linear = linear_model(kernel * [1.0, -1.0], threshold * np.array([-1.0, 1.0]))
    model = as_classifier(lambda x: linear(moved(x)), input_range=(0, 1), colors="rgb", image_shape=x.shape[1:])
    settings: dict[str, Any] = {"attacks": FGSM(epsilon=1e-4), "epsilon": 1e-4, "batch_size": 60, "passes": 20}
    found = evaluate(model, x, np.zeros(60, int), **settings)
    width, alone = found.clean_interval, bootstrap(found.attacks[0].result.clean_rate)
    assert width[1] - width[0] > 1.5 * (alone[1] - alone[0])
    assert 0.2 < found.clean_accuracy < 0.8 and width[0] < 0.5 < width[1], "20 coins"
    assert "shared-noise" in [finding.code for finding in found.findings]

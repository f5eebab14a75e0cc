"""Randomized smoothing, held to networks whose smoothed answer is known in closed form, and to SciPy's quantiles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from cli import call, events
from conftest import PIXELS, SHAPE, images, labels_of, linear_model
from schemas import faults_of_run
from scipy import stats as scipy_stats
from whole_runs import exported

import kerasrobust as kr
from kerasrobust.assessing import CertifyConfig
from kerasrobust.config import TrainConfig
from kerasrobust.errors import Cancelled, InputError
from kerasrobust.evaluation.smoothing import Certificate, certified_radii, certify
from kerasrobust.events import Certified, Finding, Progress
from kerasrobust.jobs import engine
from kerasrobust.jobs.certify import untrained
from kerasrobust.jobs.recipes import recipe_of
from kerasrobust.ops import draws
from kerasrobust.stats import few_of_many, lowest_share

pytest_plugins = ["cli_fixtures"]

SIGMA = 0.25


def plane(weights: np.ndarray, x: np.ndarray) -> tuple[keras.Model, np.ndarray]:
    """Returns a network of two classes that are a plane's sides, and how far each image lies behind it."""
    size = np.linalg.norm(weights)
    middle = np.median(x.reshape(len(x), -1) @ weights)
    model = linear_model(np.stack([-weights, weights], axis=1) / 2, np.array([middle, -middle]) / 2)
    return model, (x.reshape(len(x), -1) @ weights - middle) / size


def spread(count: int, direction: np.ndarray) -> np.ndarray:
    """Returns images whose distances from a plane with that normal are spread evenly."""
    unit = direction / np.linalg.norm(direction)
    x = images(count).reshape(count, -1)
    x += np.outer(np.linspace(-0.6, 0.6, count) - (x - x.mean(axis=0)) @ unit, unit)
    return np.clip(x, 0, 1).reshape(count, *SHAPE).astype(np.float32)


@pytest.fixture(scope="module")
def gaussian() -> tuple[Certificate, np.ndarray, Any]:
    weights = np.random.default_rng(2).normal(size=PIXELS)
    x = spread(200, weights)
    model, distance = plane(weights, x)
    y = (distance > 0).astype(np.int64)
    found = certify(model, x, y, sigma=SIGMA, samples=500, selection=100, alpha=0.05, batch_size=200)
    return found, distance, (model, x, y)


@pytest.mark.parametrize("count", [1, 7, 1000, 100_000])
@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_the_bound_is_scipys_and_never_above_it(count: int, alpha: float) -> None:
    right = np.unique(np.linspace(0, count, 40).astype(int))
    exact = np.where(right > 0, scipy_stats.beta.ppf(alpha, np.maximum(right, 1), count - right + 1), 0)
    bound = lowest_share(right, count, alpha)
    np.testing.assert_allclose(bound, exact, rtol=3e-9)
    assert (bound <= exact).all()


def test_radii_are_those_of_the_papers() -> None:
    right = np.array([0, 400, 501, 900, 1000])
    share = lowest_share(right, 1000, 0.001)
    normal = np.maximum(scipy_stats.norm.ppf(np.maximum(share, 0.5)), 0) * 0.5
    np.testing.assert_allclose(certified_radii(right, 1000, sigma=0.5), normal, atol=1e-12)
    # lambda = sqrt(3) sigma; 2 lambda (p - 1/2).
    uniform = np.maximum(share - 0.5, 0) * 2 * 3**0.5 * 0.5
    np.testing.assert_allclose(certified_radii(right, 1000, noise="uniform", sigma=0.5), uniform, atol=1e-12)
    # Cohen et al. 2019, section 3.2.2: 100,000 votes of one class certify about 4 sigma at alpha 0.001.
    assert round(float(certified_radii(np.array([100_000]), 100_000, sigma=1.0)[0]), 2) == 3.81


@pytest.mark.parametrize("noise", ["gaussian", "uniform"])
@pytest.mark.parametrize("share", [0.55, 0.9, 0.999])
@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_in_10_000_trials_radii_are_above_the_exact_one_no_more_often_than_alpha(
    noise: str, share: float, alpha: float
) -> None:
    trials, samples = 10_000, 1000
    votes = np.random.default_rng(1).binomial(samples, share, trials)
    exact = scipy_stats.norm.ppf(share) if noise == "gaussian" else 2 * 3**0.5 * (share - 0.5)
    above = int((certified_radii(votes, samples, noise=noise, sigma=1.0, alpha=alpha) > exact).sum())
    assert above <= scipy_stats.binom.ppf(0.999, trials, alpha)
    # The bound isn't idle: where whole votes are fine enough it uses up alpha.
    if share < 0.99 and alpha == 0.05:
        assert above >= scipy_stats.binom.ppf(0.001, trials, 0.6 * alpha)


def test_of_a_linear_network_the_radius_is_the_exact_one_within_the_sampling_bound(gaussian: Any) -> None:
    found, distance, _ = gaussian
    exact = np.abs(distance)
    above = int((found.radius > exact).sum())
    assert above <= scipy_stats.binom.ppf(0.9999, len(exact), found.alpha)
    # From below: the radius that the exact share's votes give, less five standard deviations.
    share = scipy_stats.norm.cdf(exact / SIGMA)
    fewest = share * found.samples - 5 * np.sqrt(share * (1 - share) * found.samples)
    least = certified_radii(np.maximum(fewest, 0).astype(int), found.samples, sigma=SIGMA, alpha=found.alpha)
    certain = exact > 0.1  # Nearer to the plane a hundred samples may choose the other class.
    assert (found.radius >= least)[certain].all() and (found.radius > 0).mean() > 0.8
    np.testing.assert_array_equal(found.prediction[certain], (distance > 0)[certain])


def test_votes_are_binomial_with_the_exact_share(gaussian: Any) -> None:
    """The noise itself: normal, as wide as said, and each sample's own."""
    found, distance, _ = gaussian
    clear = (np.abs(distance) > 0.1) & (np.abs(distance) < 0.4) & (found.prediction >= 0)
    share = scipy_stats.norm.cdf(np.abs(distance[clear]) / SIGMA)
    gaps = (found.right[clear] - share * found.samples) / np.sqrt(share * (1 - share) * found.samples)
    low, high = scipy_stats.chi2.ppf([1e-4, 1 - 1e-4], len(gaps))
    assert low < (gaps**2).sum() < high and clear.sum() > 60


def test_noise_by_pairs_is_normal_and_each_samples_own() -> None:
    keys = tf.constant(np.stack([np.full(2000, 3), np.full(2000, 5)], axis=1), tf.int32)
    noise = draws.normal_pairs(draws.fold(keys, tf.range(2000)), (2000, 5, 5, 3)).numpy().reshape(2000, 75)
    assert scipy_stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
    # Both numbers of a pair, neighbours, and the pixels and samples at large: correlations are those of chance.
    for values in (noise.T, noise[:75]):
        assert abs(np.corrcoef(values)[np.triu_indices(75, 1)]).max() < 6 / np.sqrt(values.shape[1])
    mean = noise @ np.full(75, 75**-0.5)
    assert scipy_stats.kstest(mean, "norm").pvalue > 1e-3
    part = draws.normal_pairs(draws.fold(keys[:7], tf.range(7)), (7, 5, 5, 3)).numpy().reshape(7, 75)
    np.testing.assert_allclose(part, noise[:7], atol=1e-6)  # Vectors of another length round otherwise.


def test_uniform_noise_certifies_the_exact_l1_radius_of_a_network_that_sees_one_pixel() -> None:
    weights = np.zeros(PIXELS)
    weights[7] = 1.0
    x = spread(100, weights)
    model, distance = plane(weights, x)
    found = certify(model, x, (distance > 0).astype(int), sigma=SIGMA, noise="uniform", samples=1000, selection=100)
    half = 3**0.5 * SIGMA
    exact = np.minimum(np.abs(distance), half)
    assert found.norm == "l1" and (found.radius <= exact).all() and found.radius.max() < half
    middling = (exact > 0.1) & (exact < 0.35)
    assert (exact - found.radius)[middling].max() < 2 * half * 0.09 and found.certified(0.1).accuracy > 0.5


def test_neither_batches_nor_leaving_early_change_what_is_certified(gaussian: Any) -> None:
    found, _, (model, x, y) = gaussian
    settings = {"sigma": SIGMA, "samples": 500, "selection": 100, "alpha": 0.05}
    others = certify(model, x, y, batch_size=77, **settings)
    np.testing.assert_array_equal(others.radius, found.radius)
    np.testing.assert_array_equal(others.prediction, found.prediction)
    hurried = certify(model, x, y, least_radius=0.2, batch_size=200, **settings)
    enough = found.radius > 0.2
    assert 0.3 < enough.mean() < 0.9
    np.testing.assert_array_equal(hurried.radius, np.where(enough, found.radius, 0))
    np.testing.assert_array_equal(hurried.prediction, np.where(enough, found.prediction, -1))
    assert (hurried.counted[enough] == 500).all() and hurried.counted.sum() < 0.9 * found.counted.sum()
    again = certify(model, x[100:], y[100:], batch_size=200, **settings)
    assert (again.right != found.right[100:]).any()  # Another place in the data is other noise.
    assert (certify(model, x, y, seed=1, batch_size=200, **settings).right != found.right).any()


@pytest.mark.parametrize(("right", "count"), [(990, 1000), (530, 1000), (1000, 1000), (51_000, 100_000)])
def test_the_chance_of_few_right_ones_is_never_above_the_bound(right: int, count: int) -> None:
    drawn = np.array([1, 10, 100, 400, 900])
    for share in (0.0, 0.2, 0.5, 0.9, 1.0):
        seen = np.floor(share * drawn).astype(int)
        exact = scipy_stats.hypergeom.cdf(seen, count, right, drawn)
        bound = few_of_many(seen, drawn, right, count)
        assert (exact <= bound * (1 + 1e-9) + 1e-300).all()
        # And it is sharp enough to see what is that unlikely.
        small = exact < 1e-12
        assert (bound[small] < 1e-9).all()


def test_images_without_hope_are_left_after_few_samples() -> None:
    """A plane that goes through the images: half of the samples are right, and none can reach the radius."""
    weights = np.ones(PIXELS)
    x = spread(40, weights)
    model, distance = plane(weights, x)
    near = np.abs(distance) < 0.3
    settings: dict[str, Any] = {"sigma": SIGMA, "samples": 20_000, "selection": 100}
    found = certify(model, x, (distance > 0).astype(int), least_radius=0.5, **settings)
    assert near.any() and (found.counted[near] <= 800).all() and (found.prediction[near] == -1).all()
    assert (found.counted[found.prediction >= 0] == 20_000).all()
    everything = certify(model, x, (distance > 0).astype(int), **settings)
    enough = everything.radius > 0.5
    np.testing.assert_array_equal(found.radius, np.where(enough, everything.radius, 0))


def test_one_that_was_stopped_goes_on_and_ends_the_same(gaussian: Any, tmp_path: Path) -> None:
    found, _, (model, x, y) = gaussian
    settings: dict[str, Any] = {"sigma": SIGMA, "samples": 500, "selection": 100, "alpha": 0.05, "batch_size": 200}
    told: list[Any] = []
    for looks in (1, 2, 2):
        left = iter(range(looks))
        with pytest.raises(Cancelled):
            certify(
                model, x, y, resume_dir=tmp_path, should_stop=lambda left=left: next(left, None) is None, **settings
            )
    with pytest.raises(InputError, match="Received: another in sigma"):
        certify(model, x, y, resume_dir=tmp_path, **(settings | {"sigma": 0.3}))
    with pytest.raises(InputError, match="Received: another in data"):
        certify(model, x, 1 - y, resume_dir=tmp_path, **settings)
    ended = certify(model, x, y, resume_dir=tmp_path, emit=told.append, **settings)
    for name in ("right", "radius", "prediction", "counted"):
        np.testing.assert_array_equal(getattr(ended, name), getattr(found, name))
    steps = [event for event in told if isinstance(event, Progress)]
    assert steps and all(step.done < (step.total or 0) == 200 * 600 for step in steps[:1])
    assert all(isinstance(step.seconds_left, float) for step in steps[1:])


def test_pixels_below_0_and_above_1_reach_the_network() -> None:
    """Of an image of 0 and 1: a network that asks whether any pixel lies outside is certain only if nothing clips."""

    def outside(x: tf.Tensor) -> tf.Tensor:
        far = tf.reduce_max(tf.abs(x - 0.5), axis=[1, 2, 3]) - 0.5
        return tf.stack([-far, far], axis=1)

    x = np.zeros((2, *SHAPE), np.float32)
    x[1] = 1
    model = kr.as_classifier(outside, image_shape=SHAPE, input_range=(0, 1))
    found = certify(model, x, np.array([1, 1]), samples=50, selection=5)
    assert (found.right == 50).all() and (found.prediction == 1).all()


def test_a_network_that_says_nothing_of_an_image_abstains() -> None:
    def nan(x: tf.Tensor) -> tf.Tensor:
        value = tf.reduce_mean(x, axis=[1, 2, 3])
        return tf.stack([tf.where(value > 0.7, np.nan, 1.0), tf.zeros_like(value)], axis=1)

    x = np.stack([np.full(SHAPE, 0.2, np.float32), np.full(SHAPE, 1, np.float32)])
    found = certify(kr.as_classifier(nan, image_shape=SHAPE), x, np.array([0, 0]), samples=100, selection=5)
    assert found.prediction.tolist() == [0, -1] and found.radius[1] == 0 and found.counted.tolist() == [100, 0]
    assert found.abstained == 0.5 and found.clean.accuracy == 0.5


def test_what_is_said_of_radii_follows_from_each_image() -> None:
    radius = np.array([0.0, 0.1, 0.3, 0.5, 0.5])
    found = Certificate(
        prediction=np.array([-1, 0, 1, 1, 0]), radius=radius, y=np.array([0, 0, 1, 1, 1]),
        right=np.zeros(5, int), counted=np.full(5, 100), noise="gaussian", sigma=0.25, samples=100, selection=10,
        alpha=0.001,
    )  # fmt: skip
    assert [found.certified(at).accuracy for at in (0, 0.1, 0.2, 0.3, 0.49, 0.5)] == [0.6, 0.4, 0.4, 0.2, 0.2, 0]
    assert found.abstained == 0.2 and found.multiples(2) == [0.0, 0.125, 0.25, 0.375] and 0.375 < found.largest < 0.5
    assert [point.accuracy for point in found.curve([0.05, 0.4])] == [0.6, 0.2]
    low, high = found.clean.interval
    assert low < 0.6 < high and "confidence 0.999 each" in repr(found)


def test_refusals_are_one_line(gaussian: Any) -> None:
    _, _, (model, x, y) = gaussian
    for settings, message in (
        ({"sigma": 0.0}, "a sigma above 0"),
        ({"noise": "laplace"}, "gaussian, uniform"),
        ({"alpha": 0.5}, "alpha between 0 and 0.5"),
        ({"samples": 0}, "at least one sample"),
        ({"samples": 9}, "at least 10 samples"),
        ({"samples": 100, "least_radius": 0.4}, "from 0 to below 0.375"),
    ):
        with pytest.raises(InputError, match=message):
            certify(model, x, y, **settings)
    whole = keras.Sequential(
        [
            keras.Input(SHAPE, dtype="uint8"),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    with pytest.raises(InputError, match="which takes uint8"):
        certify(whole, x, y)


def test_a_network_at_chance_is_said_to_be_one(gaussian: Any) -> None:
    _, _, (model, x, y) = gaussian
    codes = [
        [finding.code for finding in certify(model, x, labels, samples=20, selection=5).findings]
        for labels in (np.arange(len(x)) % 2, y)
    ]
    assert "at-chance" in codes[0] and "at-chance" not in codes[1]


def test_a_random_network_is_said_to_be_one(randomized: keras.Model) -> None:
    x = images(4)
    told: list[Any] = []
    found = certify(
        randomized, x, labels_of(randomized, x, 0), samples=20, selection=5, batch_size=16, emit=told.append
    )
    assert [finding.code for finding in found.findings] == ["random-base"] and found.findings[0] in told


def test_the_command_certifies_and_says_with_which_confidence(models_dir: Path, tmp_path: Path) -> None:
    places = ["--runs-dir", tmp_path, "--models-dir", models_dir, "--name", "one", "--batch-size", "64"]
    words = ["certify", "--model", "tiny", "--split", "test[:6]", "--samples", "60", "--selection", "10", *places]
    outcome = call(*words, "--radii", "0", "0.1")
    assert outcome.status == 0, outcome.err
    assert "L2 certified" in outcome.out and "confidence 99.9 %" in outcome.out and "[noise-not-trained]" in outcome.out
    result = json.loads((tmp_path / "one" / "result.json").read_text())
    assert faults_of_run(tmp_path / "one") == []
    assert call("compare", tmp_path / "one").out.count("%") >= 1
    files = exported(tmp_path / "one")
    assert files["certificate.csv"].splitlines()[0].startswith("noise,sigma,norm,samples,radius,accuracy")
    assert files["certificate.csv"].count("\n") == 3 and "certified" in files["certificate.tex"]
    assert any("certified, sigma 0.25" in text for name, text in files.items() if name.endswith(".svg"))
    entry = result["certificate"]
    assert [point[0] for point in entry["points"]] == [0, 0.1] and entry["confidence"] == 0.999
    assert (entry["norm"], entry["samples"], entry["curve"][1][0]) == ("l2", 60, 0.025)
    each = np.load(tmp_path / "one" / "certificate.npz")
    right = each["prediction"] == each["y"]
    assert result["clean_accuracy"] == right.mean() == entry["points"][0][1]
    assert entry["points"][1][1] == (right & (each["radius"] > 0.1)).mean()
    told = events(tmp_path / "one")
    assert [event.certificate for event in told if isinstance(event, Certified)] == [entry]
    assert "noise-not-trained" in [event.code for event in told if isinstance(event, Finding)]
    report = (tmp_path / "one" / "report.html").read_text()
    assert "Certified accuracy" in report and "99.9 %" in report and "radius, L2" in report
    assert "classified again in float32" not in report  # What it says of attacks.
    assert not (tmp_path / "one" / "batches").exists()
    assert "Expected a sigma above 0" in call("certify", "--model", "tiny", "--sigma", "0", *places).message
    assert "at least 10 samples" in call(*words, "--samples", "9", "--overwrite").message
    assert (tmp_path / "one" / "result.json").is_file()  # What was there is still.
    call(*words, "--smoothing-noise", "uniform", "--overwrite")
    assert json.loads((tmp_path / "one" / "result.json").read_text())["certificate"]["norm"] == "l1"


def test_only_a_training_under_such_noise_is_beyond_doubt(tmp_path: Path) -> None:
    def doubt(sigma: float = 0.5, noise: str = "gaussian", model: str = "mine") -> Finding | None:
        return untrained(model, tmp_path, sigma, noise)

    (tmp_path / "mine").mkdir()
    for training, doubted in (
        ({"training": "gaussian", "sigma": 0.5}, False),
        ({"training": "gaussian", "sigma": 0.25}, True),
        ({"training": "gaussian"}, True),  # That is 0.25, as cards leave out what has its default.
        ({"training": "pgd", "sigma": 0.5}, True),
        ({}, True),
    ):
        (tmp_path / "mine" / "card.json").write_text(json.dumps({"training": training}))
        assert (doubt() is not None) == doubted
        assert doubt(noise="uniform") is not None
    assert doubt(model="nobody") is not None
    recipe = recipe_of(TrainConfig(training="gaussian"))
    (tmp_path / "mine" / "card.json").write_text(json.dumps({"training": recipe}))
    assert doubt(0.25) is None and doubt() is not None


def test_a_cancelled_run_is_resumed_by_the_same_command(models_dir: Path, tmp_path: Path) -> None:
    def config(runs: str) -> CertifyConfig:
        return CertifyConfig(
            model="tiny", split="test[:20]", samples=400, selection=10, batch_size=32, sigma=0.1,
            models_dir=models_dir, runs_dir=tmp_path / runs,
        )  # fmt: skip

    whole = engine.run(config("whole"), emit=lambda event: None)
    told: list[Any] = []
    with pytest.raises(Cancelled):
        engine.run(config("cut"), emit=told.append, should_stop=lambda: any(isinstance(e, Progress) for e in told))
    (folder,) = (tmp_path / "cut").iterdir()
    assert (folder / "batches" / "votes.npz").is_file() and "the same command resumes it" in told[-1].message
    resumed: list[Any] = []
    again = engine.run(config("cut"), emit=resumed.append)
    assert again["certificate"] == whole["certificate"] and len(list((tmp_path / "cut").iterdir())) == 1
    assert min(event.done for event in resumed if isinstance(event, Progress)) > 32  # Not from the start.


def test_rounds_of_one_call_each_can_be_stopped_and_are_kept(gaussian: Any, tmp_path: Path) -> None:
    """As on a fast machine: twenty rounds of few samples, each in a batch."""
    _, _, (model, x, y) = gaussian
    settings: dict[str, Any] = {"sigma": SIGMA, "samples": 400, "selection": 10, "batch_size": 40}
    asked = iter(range(4))
    with pytest.raises(Cancelled):
        certify(model, x[:2], y[:2], resume_dir=tmp_path, should_stop=lambda: next(asked, None) is None, **settings)
    kept = np.load(tmp_path / "votes.npz")
    assert kept["taken"].tolist() == [80, 80] and kept["place"] == 0  # Looked at after the choice and after each round.
    again = certify(model, x[:2], y[:2], resume_dir=tmp_path, **settings)
    np.testing.assert_array_equal(again.right, certify(model, x[:2], y[:2], **settings).right)

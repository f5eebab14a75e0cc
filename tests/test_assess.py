"""An assessment: figures of a linear network against closed forms, the union by image, calibration by hand."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from conftest import PIXELS, SHAPE, images, labels_of, linear_model

from kerasrobust.attacks.checkpoint import Checkpoints
from kerasrobust.attacks.task import Task
from kerasrobust.attacks.verdict import Verdict
from kerasrobust.data.corruptions.corrupting import corrupted, levels
from kerasrobust.errors import Cancelled, InputError
from kerasrobust.evaluation import threats
from kerasrobust.evaluation.assess import Assessment, _pace, _short, assess
from kerasrobust.evaluation.assessed import _figures, _worst, without_union
from kerasrobust.evaluation.begun import agree
from kerasrobust.evaluation.budget import Block, Found, Part
from kerasrobust.evaluation.corruptions import measure_corruptions
from kerasrobust.evaluation.threats import _heard
from kerasrobust.evaluation.unattacked import calibration_error, unattacked
from kerasrobust.events import Event, Finding
from kerasrobust.show.pairs import by_threat

COUNT = 96
SIGMA = 0.02
MINUTES = 1_000.0
"""More than it takes on any machine: all images are measured."""


@pytest.fixture(scope="module")
def linear() -> keras.Model:
    draw = np.random.default_rng(3)
    return linear_model(draw.normal(size=(PIXELS, 4)).astype(np.float32), np.zeros(4, np.float32))


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("blocks")


@pytest.fixture(scope="module")
def found(linear: keras.Model, blocks: Path) -> Assessment:
    x = images(COUNT)
    return assess(linear, x, labels_of(linear, x, 0), minutes=MINUTES, sigma=SIGMA, resume_dir=blocks)


def exact(model: keras.Model, x: np.ndarray, epsilon: float, dual: int) -> np.ndarray:
    """Whether each image of a linear network keeps its class in a ball that meets no edge of the box."""
    kernel, bias = model.get_weights()
    logits = x.reshape(len(x), -1) @ kernel + bias
    y = logits.argmax(axis=1)
    lead = logits[np.arange(len(x)), y][:, None] - logits
    slope = np.linalg.norm(kernel[:, y][:, :, None] - kernel[:, None], ord=dual, axis=0)
    slope[np.arange(len(x)), y] = 1
    lead[np.arange(len(x)), y] = np.inf
    return (lead > epsilon * slope).all(axis=1)


def test_figures_of_a_linear_network_are_those_of_the_closed_form(linear: keras.Model, found: Assessment) -> None:
    x = images(COUNT)[found.order]
    for norm, epsilon, dual in (("linf", 8 / 255, 1), ("l2", 0.5, 2)):
        np.testing.assert_array_equal(found.rates[norm], exact(linear, x, epsilon, dual))
        (figure,) = [item for item in found.figures if item.name == "autoattack" and item.threat == norm]
        assert (figure.accuracy, figure.images) == (exact(linear, x, epsilon, dual).mean(), COUNT)
    assert 0 < found.rates["l2"].mean() < 1


def test_the_union_is_the_worst_of_its_parts_on_each_image(found: Assessment) -> None:
    parts = [found.rates[norm] for norm in ("linf", "l2", "l1")]
    np.testing.assert_array_equal(found.rates["union"], np.min(parts, axis=0))
    (union,) = [item for item in found.figures if item.name == "union"]
    assert union.accuracy == found.rates["union"].mean() <= min(part.mean() for part in parts)


def test_the_union_of_a_randomized_network_is_not_the_least_of_its_noise() -> None:
    """Three attacks that leave each image right in half of the passes: so does the worst of them."""
    halves = np.random.default_rng(0).binomial(10, 0.5, (3, 20_000, 2)) / 10
    rates = halves.mean(axis=2)
    assert abs(_worst(rates, halves).mean() - 0.5) < 0.01
    assert rates.min(axis=0).mean() < 0.42
    one = np.array([[[1.0, 1.0]], [[0.0, 0.0]]])
    np.testing.assert_array_equal(_worst(one.mean(axis=2), one), [0.0])


def test_the_union_of_a_randomized_network_is_never_above_one_of_its_parts() -> None:
    """One attack is the worst of all images, and choosing by few noisy passes would often take the other."""
    draw = np.random.default_rng(0)
    halves = np.stack([draw.binomial(5, share, (500, 2)) / 5 for share in (0.30, 0.36)])
    rates = halves.mean(axis=2)
    np.testing.assert_array_equal(_worst(rates, halves), rates[0])


def norm_found(norm: str, right: list[float]) -> Found:
    rates = np.array(right)
    arrays = {norm: rates, f"{norm} shared": np.zeros(len(rates)), f"{norm} halves": np.stack([rates, rates], 1)}
    return Found(arrays if right else {}, len(rates), 1.0, [])


def test_the_union_is_of_the_norms_that_were_measured_where_there_are_two() -> None:
    found = {"linf": norm_found("linf", [1, 1, 0, 0, 1, 1]), "l2": norm_found("l2", [1, 0, 1, 0])}
    # The third may have a figure yet: told already, the union would stand twice in the table.
    assert "union" not in [item.name for item in _figures(found, {}, False)[0]]
    found["l1"] = norm_found("l1", [])
    figures, rates = _figures(found, {}, False)
    (union,) = [item for item in figures if item.name == "union"]
    assert (union.threat, union.accuracy, union.images) == ("L∞ or L2", 0.25, 4) and without_union(found) == []
    np.testing.assert_array_equal(rates["union-linf-l2"], [1, 0, 0, 0])
    # It is compared with one of the same norms alone.
    own = rates | {"y": np.zeros(4), "checksum": np.zeros(4)}
    other = {("union" if name == "union-linf-l2" else name): values for name, values in own.items()}
    assert [pair.under for pair in by_threat(own, own)] == ["L∞", "L2", "the worst of L∞ and L2"]
    assert [pair.under for pair in by_threat(own, other)] == ["L∞", "L2"]
    assert [pair.under for pair in by_threat(other, other)][-1] == "the worst of L∞, L2 and L1"


@pytest.mark.parametrize(("images", "words"), [([1.0], "one in L∞ alone."), ([], "and there is none.")])
def test_where_there_is_no_union_it_is_said_why(images: list[float], words: str) -> None:
    found = {"linf": norm_found("linf", images), "l2": norm_found("l2", []), "l1": norm_found("l1", [])}
    assert "union" not in [item.name for item in _figures(found, {}, False)[0]]
    (reason,) = without_union(found)
    assert reason.startswith("Union: ") and words in reason


@pytest.mark.parametrize(
    ("minutes", "models", "words"),
    [
        (0.3, 1, "Try --minutes 1 (minutes=)."), (2.0, 1, "Try --minutes 3 (minutes=)."),
        (0.15, 2, "Try --minutes 1 (minutes=), for the 2 models together."),
        (5.0, 3, "Try --minutes 23 (minutes=), for the 3 models together."),
    ],
)  # fmt: skip
def test_the_minutes_to_try_are_whole_ones_for_all_models_and_more_than_there_were(
    minutes: float, models: int, words: str, found: Assessment
) -> None:
    part = Part(name="a", title="A", share=1, passes=1, measure=lambda block: {})
    short = _short([part], {"a": Found({}, 0, 0.0, [])}, minutes, 0.001)
    (reason,) = dataclasses.replace(found, short=short, not_taken=[]).reasons(models)
    assert reason == f"A: there was no time. {words}"
    # 8 images of 10 passes of 3 s are 4 minutes, and a quarter of the budget is its.
    slow = [dataclasses.replace(part, passes=10), dataclasses.replace(part, name="b", share=3)]
    there = {"a": Found({}, 0, 0.0, []), "b": Found({}, 8, 0.0, [])}
    assert _short(slow, there, minutes, 3.0) == {"A": pytest.approx(16.0)}


def test_what_a_block_alone_says_is_not_told(linear: keras.Model) -> None:
    told: list[Event] = []
    rest: Any = (None, told.append, lambda: False)
    heard = _heard(Block(slice(0, 64), *rest))
    for code in ("at-chance", "rounding", "classes-missing"):
        heard(Finding(code=code, message="So.", severity="warning"))
    assert [item.code for item in told if isinstance(item, Finding)] == ["rounding"]


def test_the_audit_of_a_randomized_network_has_no_doubt_of_its_own_attack(randomized: keras.Model) -> None:
    """Nobody asked for it, and there is nothing to ask for it with: the figures are of averaged gradients."""
    x = images(8)
    task = Task.checked(randomized, x, labels_of(randomized, x, 0), passes=4)
    told: list[Event] = []
    threats._audited(task, Block(slice(0, 8), Checkpoints(), told.append, lambda: False))
    (said,) = [item for item in told if isinstance(item, Finding) and item.code == "randomized"]
    assert said.severity == "info" and "not averaged" not in said.message


def test_corruptions_go_on_where_they_were_stopped(
    linear: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = images(6)
    task = Task.checked(linear, x, labels_of(linear, x, 0))
    asked: list[tuple[str, int]] = []

    def counted(pixels: np.ndarray, kind: str, severity: int, **settings: int) -> np.ndarray:
        asked.append((kind, severity))
        return corrupted(pixels, kind, severity, **settings)

    monkeypatch.setattr(threats, "corrupted", counted)
    pixels, emit = levels(x), lambda event: None
    whole = threats._corrupted(task, pixels, Block(slice(0, 6), Checkpoints(), emit, lambda: False))
    asked.clear()
    with pytest.raises(Cancelled):
        threats._corrupted(task, pixels, Block(slice(0, 6), Checkpoints(tmp_path), emit, lambda: len(asked) >= 30))
    again = threats._corrupted(task, pixels, Block(slice(0, 6), Checkpoints(tmp_path), emit, lambda: False))
    assert asked == list(threats.CELLS)
    np.testing.assert_array_equal(again["rates"], whole["rates"])


def test_a_network_whose_answers_depend_on_the_batch_gets_no_certificate_and_the_rest_is_measured() -> None:
    seen = keras.Input(SHAPE)
    hidden = keras.layers.Flatten()(seen)
    hidden = keras.layers.Lambda(lambda value: value - keras.ops.mean(value, axis=0, keepdims=True))(hidden)
    task = Task.checked(keras.Model(seen, keras.layers.Dense(4)(hidden)), images(16), np.arange(16) % 4)
    parts, left_out = threats.parts_of(task, "auto", 0.25)
    assert "certified" not in [part.name for part in parts] and len(parts) > 5
    assert any("depend on the other images" in reason for reason in left_out)


class Slow:
    """A model that takes a second for each image, and fifty for the first."""

    def __init__(self, clock: Callable[[float], None]) -> None:
        self.clock, self.asked = clock, 0

    def runner(self, batches: int) -> Callable[[np.ndarray], None]:
        def run(x: np.ndarray) -> None:
            self.clock(len(x) if self.asked else 50.0)
            self.asked += len(x)

        return run


@pytest.mark.parametrize(("seconds", "asked"), [(1.0, 2), (60.0, 6), (10_000.0, 86)])
def test_how_fast_a_slow_model_is_is_asked_of_few_images(
    seconds: float, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    def forward(by: float) -> None:
        nonlocal now
        now += by

    monkeypatch.setattr("kerasrobust.evaluation.assess.time.perf_counter", lambda: now)
    model: Any = Slow(forward)
    assert _pace(model, np.zeros((64, 1, 1, 1), np.float32), seconds) == 1.0
    assert model.asked == asked


def test_curves_fall_from_the_clean_accuracy_and_meet_the_closed_form(linear: keras.Model, found: Assessment) -> None:
    x = images(COUNT)[found.order]
    for norm, dual in (("linf", 1), ("l2", 2)):
        points = found.curves[norm]
        assert points[0].accuracy == found.unattacked.clean.accuracy == 1
        assert all(later.accuracy <= earlier.accuracy for earlier, later in itertools.pairwise(points))
        middle = points[len(points) // 2]
        # FMN comes within a few per cent of the nearest example.
        high, low = (exact(linear, x, middle.epsilon / factor, dual).mean() for factor in (1.05, 1.0))
        assert low <= middle.accuracy <= high


def test_no_certificate_is_above_the_distance_of_the_closed_form(linear: keras.Model, found: Assessment) -> None:
    certificate = found.certificate
    assert certificate is not None and (certificate.radius > 0).mean() > 0.9
    kernel, bias = linear.get_weights()
    x = images(COUNT)[found.order].reshape(COUNT, -1)
    logits = x @ kernel + bias
    y = logits.argmax(axis=1)
    slope = np.linalg.norm(kernel[:, y].T[:, :, None] - kernel[None], axis=1)
    slope[np.arange(COUNT), y] = 1
    lead = logits[np.arange(COUNT), y][:, None] - logits
    lead[np.arange(COUNT), y] = np.inf
    # The vote of more than two classes is bounded by that of the nearest alone. Each is wrong in one of 1,000 cases.
    assert (certificate.radius > (lead / slope).min(axis=1)).sum() <= 2
    (figure,) = [item for item in found.figures if item.name == "certified"]
    assert (figure.threat, figure.epsilon) == ("l2", SIGMA)  # 0.5 is above what 10,000 samples can certify.
    assert figure.accuracy == (certificate.radius > SIGMA).mean()


def test_corruptions_are_those_of_the_command(linear: keras.Model, found: Assessment) -> None:
    x = images(COUNT)
    y = labels_of(linear, x, 0)
    alone = measure_corruptions(linear, x[found.order], y[found.order])
    assert found.corruptions is not None
    told = {(cell.kind, cell.severity): cell.judged.accuracy for cell in found.corruptions.cells}
    assert told == {(cell.kind, cell.severity): cell.judged.accuracy for cell in alone.cells}
    assert found.corruptions.mean == alone.mean and found.corruptions.clean == alone.clean
    (figure,) = [item for item in found.figures if item.name == "corruptions"]
    assert (figure.accuracy, figure.images) == (alone.mean.accuracy, COUNT)


def test_everything_was_looked_at_and_stands_in_the_files(linear: keras.Model, found: Assessment, blocks: Path) -> None:
    (reason,) = found.left_out
    assert "version standard" in reason
    names = {"autoattack", "union", "spatial", "patch", "corruptions", "certified"}
    assert {item.name for item in found.figures} == names
    x = images(COUNT)
    again = assess(linear, x, labels_of(linear, x, 0), minutes=MINUTES, sigma=SIGMA, resume_dir=blocks)
    assert again.figures == found.figures and again.curves == found.curves
    assert found.corruptions is not None and again.corruptions is not None
    assert again.corruptions.entry() == found.corruptions.entry()
    assert [item.code for item in again.findings] == [item.code for item in found.findings]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"minutes": 0}, "above 0 minutes"), ({"minutes": float("inf")}, "above 0 minutes"),
        ({"minutes": "5"}, "Received: '5'"), ({"seed": -1}, "a seed from 0"), ({"seed": 0.5}, "a seed from 0"),
        ({"sigma": "a"}, "a sigma above 0"), ({"passes": 0}, "at least 1"),
    ],
)  # fmt: skip
def test_bad_settings_are_refused_and_leave_nothing(
    linear: keras.Model, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        assess(linear, images(4), np.zeros(4, int), resume_dir=tmp_path / "a", **settings)
    assert not list(tmp_path.rglob("*.npz"))


def test_work_of_which_nothing_is_known_is_not_gone_on_with(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "new")
    settings = {"sigma": np.float32(0.25), "seed": np.int64(3)}
    agree(checkpoints, "certificate", settings)
    checkpoints.put("votes", {"right": np.zeros(3)})
    agree(checkpoints, "certificate", {"sigma": 0.25, "seed": 3})
    with pytest.raises(InputError, match="another in seed"):
        agree(checkpoints, "certificate", settings | {"seed": np.int64(4)})
    (tmp_path / "new" / "certificate.json").unlink()
    with pytest.raises(InputError, match="an older version's"):
        agree(checkpoints, "certificate", settings)


def test_confusion_and_accuracy_by_class_are_counted() -> None:
    y, predicted = np.array([0, 0, 0, 1, 1, 3]), np.array([0, 1, 1, 1, 1, -1])
    right = (y == predicted).astype(float)
    verdict = Verdict(passes=predicted[None], prediction=predicted, correct_rate=right, confidence=np.full(6, 0.5))
    seen = unattacked(verdict, y, 4, randomized=False)
    np.testing.assert_array_equal(seen.confusion, [[1, 2, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    assert [None if share is None else share.accuracy for share in seen.per_class] == [1 / 3, 1, None, 0]
    assert seen.clean.accuracy == 0.5


def test_the_calibration_error_is_that_of_the_formula() -> None:
    # Two bins: 0.95 with 3 of 4 right, 0.55 with 3 of 6 right: 0.4 * 0.2 + 0.6 * 0.05.
    confidence = np.array([0.95] * 4 + [0.55] * 6)
    right = np.array([True, True, True, False] + [True, False] * 3)
    assert calibration_error(confidence, right).accuracy == pytest.approx(0.11)


@pytest.mark.parametrize("shift", [0.0, 0.15])
def test_the_interval_of_the_calibration_error_holds_the_truth(shift: float) -> None:
    draw = np.random.default_rng(0)
    held = 0
    for seed in range(40):
        confidence = draw.uniform(0.4, 1, 400)
        low, high = calibration_error(confidence, draw.random(400) < confidence - shift, seed).interval
        held += low <= shift <= high
    # Of 40 at 95 %, fewer than 34 come by a chance of 1 in 1,000.
    assert held >= 34

"""A model that is right by chance alone, as it is asked wrongly: it is told before the attacks, with what would fit."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
from cli import call, events
from conftest import PIXELS, images, linear_model
from keras import layers as L

from kerasrobust.attacks import FGSM, Square
from kerasrobust.evaluation.checks.labels import _better, _exchanged, _order
from kerasrobust.evaluation.evaluate import Evaluation, evaluate
from kerasrobust.events import AttackStarted, Event, Finding
from kerasrobust.networks.making import as_classifier

X = images(96, seed=6)
DRAW = np.random.default_rng(3)
ORDER = np.array([2, 3, 0, 1])
FEW = np.random.default_rng(7).permutation(96) % 8


def linear(classes: int = 4, *between: L.Layer) -> keras.Model:
    """A network that says all of its classes about equally often."""
    kernel = np.random.default_rng(1).normal(size=(PIXELS, classes))
    return linear_model(kernel, -kernel.sum(axis=0) / 2, *between)


MODEL = linear()
SAID = MODEL.predict(X, verbose=0).argmax(axis=1)
TWO = linear(2).predict(X, verbose=0).argmax(axis=1)
SPOILT = np.where(np.arange(96) % 8 == 0, (ORDER[SAID] + 1) % 4, ORDER[SAID])


def always(number: int) -> keras.Model:
    kernel = np.random.default_rng(1).normal(size=(PIXELS, 4)) * 1e-4
    return linear_model(kernel, np.eye(4)[number])


def audited(model: keras.Model, x: np.ndarray, y: np.ndarray, **settings: Any) -> Evaluation:
    said = as_classifier(model, input_range=(0, 1), colors="rgb")
    return evaluate(said, x, y, attacks=FGSM(epsilon=0.01), **settings)


def of(found: Evaluation) -> list[Finding]:
    return [item for item in found.findings if item.code == "at-chance"]


def unit() -> keras.Model:
    return keras.Sequential([keras.Input((8, 8, 3)), L.Flatten(), L.Dense(16), L.UnitNormalization()])


def few_answers(unit_length: bool = True) -> keras.Model:
    """A network of 128 outputs that answers by the first eight alone, whatever the image."""
    kernel = np.random.default_rng(1).normal(size=(PIXELS, 128))
    model = linear_model(kernel, -kernel.sum(axis=0) / 2 + 100 * (np.arange(128) < 8))
    return keras.Sequential([model, L.UnitNormalization()]) if unit_length else model


ASKED_WRONGLY: dict[str, tuple[Callable[[], keras.Model], np.ndarray, np.ndarray, str]] = {
    "labels from 1 on": (linear, SAID < 3, SAID + 1, "With 1 taken from each label it is right on 100.0 %"),
    "a class for the background": (linear, SAID > 0, SAID - 1, "With 1 added to each label it is right on 100.0 %"),
    "another order": (linear, SAID < 4, ORDER[SAID], "classes in another order it is right on 100.0 %"),
    "another order, some wrong": (
        linear, SAID < 4, SPOILT,
        f"another order it is right on {100 * (ORDER[SAID] == SPOILT)[48:].mean():.1f} %",
    ),
    "two classes in another order": (
        lambda: linear(2), SAID < 4, 1 - linear(2).predict(X, verbose=0).argmax(axis=1),
        "classes in another order it is right on 100.0 %",
    ),
    "an inverted sigmoid of a weak network": (
        lambda: linear(2), SAID < 4, np.where(np.arange(96) % 10 < 7, 1 - TWO, TWO), "in another order it is right on",
    ),
    "two folders of four classes": (linear, np.isin(SAID, [2, 3]), SAID - 2, "compare the names of the classes"),
    "one answer": (lambda: always(2), SAID < 4, SAID, "It says class 2 of every image"),
    "one answer, the commonest": (lambda: always(1), SAID < 4, np.where(SAID < 3, 1, 0), "as often as who always says"),
    "an embedding": (unit, SAID < 4, DRAW.integers(0, 16, 96), "vectors of length 1: an embedding"),
    "an embedding of other data": (unit, SAID < 4, DRAW.integers(0, 8, 96), "vectors of length 1: an embedding"),
    "an embedding that answers by a few": (few_answers, SAID < 4, FEW, "an embedding, no classes"),
    "many outputs of which few are answers": (
        lambda: few_answers(False), SAID < 4, FEW, "The data have 8 of its 128 classes",
    ),
    "other folders": (lambda: linear(12), SAID < 4, DRAW.integers(0, 3, 96), "The data have 3 of its 12 classes"),
    "other data": (linear, SAID < 4, DRAW.integers(0, 4, 96), "Give the data that it was trained for"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ASKED_WRONGLY)
def test_what_would_fit_better_is_said_before_the_attack(kind: str) -> None:
    make, taken, y, part = ASKED_WRONGLY[kind]
    model, told = make(), list[Event]()
    found = audited(model, X[taken], y[taken], emit=told.append)
    right = (model.predict(X[taken], verbose=0).argmax(axis=1) == y[taken]).mean()
    (finding,) = of(found)
    assert part in finding.message and f"right on {100 * right:.1f} % of {taken.sum()} unchanged" in finding.message
    assert (finding.severity, finding.evidence["accuracy"]) == ("error", pytest.approx(right))
    assert found.audit is not None and "at-chance" in found.audit.checked and finding in found.audit.findings
    kinds = [event.code if isinstance(event, Finding) else type(event) for event in told]
    assert kinds.count("at-chance") == 1 and kinds.index("at-chance") < kinds.index(AttackStarted)


def test_few_images_show_less_and_sound_models_nothing() -> None:
    y = np.where(np.arange(96) % 3 < 2, (SAID + 1) % 4, SAID)  # A third is right, of four classes.
    (finding,) = of(audited(MODEL, X[:24], y[:24]))
    assert finding.severity == "warning" and finding.message.endswith("Take more images.")
    assert of(audited(MODEL, X[:12], ORDER[SAID][:12])) == []
    assert of(audited(MODEL, X, np.where(np.arange(96) % 2, SAID, ORDER[SAID]))) == []
    assert of(audited(MODEL, X, ORDER[SAID], audit=False)) == []


@pytest.mark.parametrize(("count", "severity"), [(20, "warning"), (96, "error")])
def test_few_images_cannot_tell_guessing_from_a_bad_draw(count: int, severity: str) -> None:
    """A tenth of ten classes is right: of 20 images two, which a model that is right on a third gets wrong as often."""
    model = linear(10)
    said = model.predict(X[:count], verbose=0).argmax(axis=1)
    y = np.random.default_rng(0).integers(0, 10, count)
    y[y == said] = (y[y == said] + 1) % 10
    y[: count // 10] = said[: count // 10]
    [item] = of(audited(model, X[:count], y))
    assert item.severity == severity
    assert ("Take more images" in item.message) == (severity == "warning")


def test_class_numbers_are_no_embedding() -> None:
    kernel, bias = MODEL.get_weights()
    numbers = as_classifier(
        predict=lambda x: (x.reshape(len(x), -1) @ kernel + bias).argmax(axis=1), classes=4, image_shape=(8, 8, 3),
        input_range="0,1",
    )  # fmt: skip
    found = evaluate(numbers, X, ORDER[SAID], attacks=Square(epsilon=0.01, queries=2))
    assert "classes in another order it is right on 100.0 %" in of(found)[0].message
    constant = as_classifier(predict=lambda x: np.ones(len(x), int), classes=4, image_shape=(8, 8, 3))
    found = evaluate(constant, X, SAID, attacks=Square(epsilon=0.01, queries=2))
    assert "It says class 1 of every image" in of(found)[0].message


@pytest.mark.parametrize("labels", [1, 3])
def test_a_run_says_it_once(labels: int, tmp_path: Path) -> None:
    """Of several labels an image too: of all of them together, before the first is attacked."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    activation = None if labels == 1 else "sigmoid"
    model = keras.Sequential([keras.Input((8, 8, 3)), L.Flatten(), L.Dense(max(labels, 2), activation=activation)])
    weights = model.layers[-1].get_weights()
    model.layers[-1].set_weights([weights[0] * 1e-4, weights[1] + 1.0 + np.arange(max(labels, 2))])
    model.save(tmp_path / "m.keras")
    y = DRAW.integers(0, 2, (40, labels))
    np.savez(tmp_path / "own.npz", x=pixels, y=y[:, 0] if labels == 1 else y)
    words = ("--model", tmp_path / "m.keras", "--data", tmp_path / "own.npz", "--input-range", "0,1", "--steps", "2")
    outcome = call("attack", *words, "--runs-dir", tmp_path / "runs", "--name", "one")
    assert outcome.status == 0, outcome.err
    told = events(tmp_path / "runs/one")
    places = [place for place, event in enumerate(told) if isinstance(event, Finding) and event.code == "at-chance"]
    starts = [place for place, event in enumerate(told) if isinstance(event, AttackStarted)]
    assert len(places) == 1 and places[0] < starts[0]
    warnings = json.loads((tmp_path / "runs/one/result.json").read_text())["warnings"]
    assert [item["code"] for item in warnings].count("at-chance") == 1


PARTLY: dict[str, np.ndarray] = {
    "two of four": np.array([1, 0, 2, 3]),
    "the first and the last": np.array([3, 1, 2, 0]),
    "two, and some wrong": np.array([0, 1, 3, 2]),
}


@pytest.mark.parametrize("kind", PARTLY)
def test_some_classes_in_another_order_are_found_far_above_chance(kind: str) -> None:
    y = PARTLY[kind][SAID]
    if "wrong" in kind:
        y = np.where(np.arange(96) % 8 == 0, (y + 1) % 4, y)
    found = audited(MODEL, X, y)
    (finding,) = [item for item in found.findings if item.code in ("class-order", "at-chance")]
    plain, otherwise = (y == SAID).mean(), (PARTLY[kind][SAID] == y).mean()
    assert (finding.code, finding.severity) == ("class-order", "error")
    assert finding.evidence == {"accuracy": pytest.approx(plain), "accuracy_otherwise": pytest.approx(otherwise)}
    pairs = [f"{answer} for {label}" for answer, label in enumerate(PARTLY[kind]) if answer != label]
    assert f"it says {', '.join(pairs)}." in finding.message


def test_many_classes_counted_from_one_on_are_told_so() -> None:
    """Being never right doesn't show that it is worse than guessing among so many."""
    model = linear(200)
    x = images(150, seed=8)
    said = model.predict(x, verbose=0).argmax(axis=1)
    keep = said < 199
    found = audited(model, x[keep], said[keep] + 1)
    (finding,) = [item for item in found.findings if item.code in ("class-order", "at-chance")]
    assert "With 1 taken from each label it is right on 100.0 %" in finding.message


def test_weak_networks_and_constant_ones_are_not_called_exchanged() -> None:
    groups = np.random.default_rng(9).integers(0, 50, 2000)
    y = 2 * groups + np.random.default_rng(10).integers(0, 2, 2000)
    said = 2 * groups + np.random.default_rng(11).integers(0, 2, 2000)  # It tells groups, and guesses inside them.
    task: Any = SimpleNamespace(y=y, classifier=SimpleNamespace(classes=100, labels=None))
    assert _exchanged(task, said) == []
    y = np.repeat([5, 3, *range(6, 10), 0, 1, 2, 4], [30, 5, *[2] * 8])
    found = audited(linear_model(np.zeros((PIXELS, 10)), np.eye(10)[3]), images(len(y), seed=2), y)
    assert "It says class 3 of every image" in of(found)[0].message


def test_classes_in_their_order_are_left_alone() -> None:
    """Also where many are taken for others, as long as none is taken for another more often than for itself."""
    draw = np.random.default_rng(5)
    for wrong in (0.0, 0.3, 0.6):
        y = np.where(draw.random(96) < wrong, draw.integers(0, 4, 96), SAID)
        assert "class-order" not in [item.code for item in audited(MODEL, X, y).findings]
    confused = np.where((SAID == 1) & (np.arange(96) % 5 < 2), 2, SAID)
    assert "class-order" not in [item.code for item in audited(MODEL, X, confused).findings]


def test_tens_of_thousands_of_classes_take_no_table_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kerasrobust.evaluation.checks.labels.predict", lambda *_, **__: np.zeros((20, 3)))
    classes = 21_843  # As ImageNet-21k has; a table of all pairs takes 3.8 GB.
    y = np.arange(400) % 20 * 1000 + 7
    order = np.arange(classes)
    order[[7, 1007]] = order[[1007, 7]]
    task: Any = SimpleNamespace(
        y=y, x=np.zeros((20, 1)), batch_size=20, classifier=SimpleNamespace(classes=classes, labels=None)
    )
    tracemalloc.start()
    try:
        (finding,) = _exchanged(task, order[y])
        explained = _better(task, (y + 3000) % 20_000)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    assert "it says 7 for 1007, 1007 for 7." in finding.message
    assert "With its classes in another order it is right on 100.0 %" in explained


def test_the_most_frequent_pairs_come_first() -> None:
    """Worked out by hand: 0 stands for 1 (3 times), 1 for 0 though for 1 more often, 2 for itself between equals."""
    said = np.array([0, 0, 0, 1, 1, 1, 2, 2, 0])
    y = np.array([1, 1, 1, 1, 1, 0, 2, 3, 0])
    assert _order(said, y, 5).tolist() == [1, 0, 2, 3, 4]
    # An answer that wasn't given stands for itself, or for what is left where that is taken.
    assert _order(np.array([0, 0]), np.array([2, 2]), 4).tolist() == [2, 1, 0, 3]


def test_classes_that_are_missing_are_told() -> None:
    """Of 60 images of four classes, drawn at random, one would be missing once in 8 million times: 4 * 0.75**60."""
    one = np.resize(np.flatnonzero(SAID == 2), 60)
    found = [item for item in audited(MODEL, X[one], SAID[one]).findings if item.code == "classes-missing"]
    assert len(found) == 1 and found[0].severity == "warning" and found[0].evidence == {"classes": 1}
    assert "The 60 images are of 1 of the model's 4 classes" in found[0].message
    two = np.resize(np.flatnonzero(SAID < 2), 60)
    # All are there; half of them; or too few to tell.
    for x, y in ((X, SAID), (X[two], SAID[two]), (X[one[:9]], SAID[one[:9]])):
        assert "classes-missing" not in [item.code for item in audited(MODEL, x, y).findings]


def test_a_model_that_knows_its_rare_classes_is_left_alone_and_who_only_says_the_commonest_is_not() -> None:
    y = np.where(np.arange(96) % 8 == 0, 1, 0)
    said = {"knows": y, "guesses": np.roll(y, 3)}
    for kind, answers in said.items():
        model = as_classifier(predict=lambda x, a=answers: np.eye(4)[a[: len(x)]], classes=4, image_shape=(8, 8, 3))
        found = evaluate(model, X, y, attacks=Square(epsilon=0.01, queries=2), batch_size=96)
        assert bool(of(found)) == (kind == "guesses")

"""No attack is traced twice per (attack, model, shape, precision), whatever its numbers; a planted retrace is seen."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SHAPE, images, labels_of
from test_attacks import NOISY

from kerasrobust import twins
from kerasrobust.attacks import (
    ATTACKS,
    CW,
    FAB,
    FGSM,
    PGD,
    Attack,
    Boundary,
    DeepFool,
    HopSkipJump,
    Patch,
    RayS,
    SparseRS,
    Spatial,
    Square,
    SuperDeepFool,
    SurFree,
    UniversalPatch,
)
from kerasrobust.attacks.apgd import APGD
from kerasrobust.attacks.driver import KEPT
from kerasrobust.attacks.loop import Graphs
from kerasrobust.attacks.nearest import NearestExample
from kerasrobust.networks.architectures import build_model
from kerasrobust.networks.classifier import Classifier
from kerasrobust.networks.making import classifier_of
from kerasrobust.ops.tracing import Traced

X = images(11)


def compiled(classifier: Classifier) -> list[Graphs]:
    return list(KEPT.get(classifier, {}).values())


def traces(classifier: Classifier) -> int:
    """Returns how often anything about attacks was traced for a model."""
    return sum(part.traces for one in compiled(classifier) for part in (one.begin, one.advance, one.look))


def check_traced_once(model: keras.Model, attacks: list[Attack], run: Callable[[Attack, int], object]) -> None:
    """Runs variants of one attack with several seeds and data sizes, and raises where more than one trace is made.

    The graphs of the attack count, whoever has used them before: other tests may have made them.
    """
    classifier = classifier_of(model)
    for seed, attack in enumerate(attacks):
        run(attack, seed)
    structures = {attack.resolved(classifier.randomized).structure() for attack in attacks}
    used = [graphs for (structure, _), graphs in KEPT[classifier].items() if structure in structures]
    count = sum(part.traces for one in used for part in (one.begin, one.advance, one.look))
    # Where all examples are done before the last step, there is no last look.
    if len(used) != 1 or not 2 <= count <= 3:
        raise AssertionError(f"{len(used)} sets of graphs and {count} traces, expected 1 and 3 (begin, advance, look)")


@pytest.fixture(scope="module")
def models(small: keras.Model, randomized: keras.Model) -> dict[str, keras.Model]:
    return {"plain": small, "randomized": randomized}


def variants(name: str, norm: Any) -> list[Attack]:
    kind = ATTACKS[name]

    def made(**settings: Any) -> Attack:
        return kind(norm=norm, **settings)

    if kind in (DeepFool, SuperDeepFool):
        return [made(steps=3), made(steps=5, overshoot=0.1), made(steps=1)]
    if issubclass(kind, NearestExample):
        return [made(steps=2), made(steps=3), made(steps=1, **({"gamma": 0.1} if hasattr(kind, "gamma") else {}))]
    if kind is HopSkipJump:
        return [made(queries=40, initial_queries=5), made(queries=60, initial_queries=8)]
    if kind in (Boundary, SurFree):
        return [made(queries=count, epsilon=0.1 * count) for count in (3, 5)]
    if kind is RayS:
        return [made(queries=count, tolerance=0.1 * count, epsilon=0.1 * count) for count in (3, 5)]
    if kind is Patch:
        return [made(size=3, steps=steps, restarts=steps, step_size=0.1 * steps) for steps in (1, 2, 3)]
    if kind is UniversalPatch:
        return [made(size=3, steps=steps, restarts=steps, images=steps + 4, step_size=0.1) for steps in (1, 2, 3)]
    if kind is Spatial:
        return [made(rotations=count, translations=count, degrees=9.0 * count, shift=0.1 * count) for count in (1, 2)]
    if kind is SparseRS:
        return [made(budget=3, queries=count, restarts=count, p_init=0.2 * count) for count in (2, 4)]
    if kind is CW:
        return [made(steps=3, binary_steps=2), made(steps=2, binary_steps=3, confidence=0.1, learning_rate=0.1)]
    if kind is Square:
        numbers = ((1, {}), (3, {"p_init": 0.3}), (8, {"restarts": 2}))
        return [made(queries=steps, epsilon=0.1 * steps, rescale=steps > 3, **more) for steps, more in numbers]
    if issubclass(kind, FAB):
        return [made(steps=steps, epsilon=epsilon, beta=0.8) for steps, epsilon in ((2, 0.1), (5, 0.2))]
    epsilons = [made(epsilon=epsilon) for epsilon in (0.0, 0.01, 0.1, 1)]
    if not hasattr(kind, "steps"):
        return epsilons
    if issubclass(kind, APGD):
        return [*epsilons[1:3], *(made(steps=steps, restarts=steps) for steps in (1, 3))]
    more = [made(steps=steps, step_size=0.01 * steps) for steps in (1, 2, 9)]
    return epsilons + more + ([made(restarts=3, steps=2)] if kind is PGD else [])


@pytest.mark.parametrize(
    ("name", "model_name"),
    [(name, model) for name in ATTACKS for model in ("plain", "randomized")],
)
def test_numbers_seeds_and_sizes_share_one_trace(name: str, model_name: str, models: dict[str, keras.Model]) -> None:
    model = models[model_name]
    y = labels_of(model, X, 2)
    # The norm in which test_attacks has had the attack traced on a randomized network.
    norms = ATTACKS[name].norms
    norm = next((norm for norm in norms if name == "pgd" or f"{name}-{norm}" in NOISY), norms[0])

    def run(attack: Attack, seed: int) -> None:
        count = 11 - seed % 4  # More than one batch of 4, the last one padded.
        attack(model, X[:count], y[:count], seed=seed, batch_size=4, passes=2, early_stop=bool(seed % 2))

    check_traced_once(model, variants(name, norm), run)


def test_eot_counts_share_one_trace(models: dict[str, keras.Model]) -> None:
    model = models["randomized"]
    y = labels_of(model, X, 0)
    attacks: list[Attack] = [PGD(steps=2, eot=eot) for eot in (2, 3, 7)]
    check_traced_once(model, attacks, lambda attack, seed: attack(model, X, y, seed=seed, batch_size=4, passes=2))


def test_another_precision_has_graphs_of_its_own() -> None:
    model = build_model("convnet", image_shape=SHAPE, classes=4, widths=(2, 4))
    y = labels_of(model, X, 0)
    attack = PGD(norm="l2", steps=2)
    attack(model, X, y, batch_size=4)
    attack(model, X, y, batch_size=4, precision="bfloat16")
    twin = twins.of(classifier_of(model), "bfloat16", X)
    before = traces(classifier_of(model)), traces(twin)
    assert before[1] == 3
    for precision in ("float32", "bfloat16", "auto"):
        PGD(norm="l2", steps=3, epsilon=0.3)(model, X, y, batch_size=4, precision=precision)
    assert (traces(classifier_of(model)), traces(twin)) == before


def test_weights_that_change_need_no_trace(models: dict[str, keras.Model]) -> None:
    model = models["plain"]
    attack = FGSM(norm="l2", epsilon=0.5)
    y = np.zeros(11, np.int64)
    one = attack(model, X, y, early_stop=False).x_adv
    before = traces(classifier_of(model))
    kept = model.get_weights()
    model.set_weights([-part if part.ndim == 2 else part for part in kept])
    other = attack(model, X, y, early_stop=False).x_adv
    model.set_weights(kept)
    assert traces(classifier_of(model)) == before
    assert not np.array_equal(one, other)


@dataclass(frozen=True, kw_only=True)
class Planted(PGD):
    """PGD that bakes epsilon into its graph, as one would by mistake."""

    def structure(self) -> Hashable:
        return super().structure(), self.epsilon


def test_a_planted_retrace_is_seen(models: dict[str, keras.Model]) -> None:
    model = models["plain"]
    y = labels_of(model, X, 0)
    attacks: list[Attack] = [Planted(epsilon=epsilon, steps=2) for epsilon in (0.01, 0.02)]
    with pytest.raises(AssertionError, match="2 sets of graphs and 6 traces"):
        check_traced_once(model, attacks, lambda attack, seed: attack(model, X, y, batch_size=4))


def test_a_planted_plain_function_is_seen(models: dict[str, keras.Model], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a plain `tf.function` would do: trace anew for each Python number that it is given."""

    def call(self: Traced, *arguments: object) -> object:
        return tf.function(self._counted, autograph=False)(*arguments)

    monkeypatch.setattr(Traced, "__call__", call)
    model = models["plain"]
    y = labels_of(model, X, 0)
    attacks: list[Attack] = [Planted(norm="l2", steps=2, targeted=True)]
    with pytest.raises(AssertionError, match="1 sets of graphs"):
        check_traced_once(model, attacks, lambda attack, seed: attack(model, X, y, batch_size=4, target=(y + 1) % 4))


def test_traced_refuses_another_dtype() -> None:
    double = Traced(lambda x: 2 * x)
    assert double.traces == 0
    assert [float(double(tf.constant(value))) for value in (1.0, 2.0)] == [2, 4]
    assert double.traces == 1
    with pytest.raises((TypeError, tf.errors.InvalidArgumentError)):
        double(tf.constant(1))
    assert double.traces == 1

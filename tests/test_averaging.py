"""The moving average of the weights: what it is, and that it is what is evaluated and saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L

from kerasrobust.errors import InputError
from kerasrobust.training import ADR, PGD, TRADES, AdversarialModel, EpsilonSchedule, Objective, StepsSchedule
from kerasrobust.training.optimizers import optimizer_for

DRAW = np.random.default_rng(0)
X, Y = DRAW.random((32, 8, 8, 3), np.float32), DRAW.integers(0, 3, 32)


def network(*more: L.Layer, last: Any = None) -> keras.Model:
    keras.utils.set_random_seed(0)
    body = [L.Conv2D(4, 3), L.BatchNormalization(momentum=0.9), L.ReLU(), *more, L.Flatten(), last or L.Dense(3)]
    return keras.Sequential([keras.Input((8, 8, 3)), *body])


def around(model: keras.Model, objective: Objective | None = None, **settings: Any) -> AdversarialModel:
    objective = PGD(epsilon=0.1, steps=1, validation_steps=1) if objective is None else objective
    made = AdversarialModel(model, objective, precision="float32", **settings)
    made.compile(keras.optimizers.SGD(0.1), run_eagerly=False)
    return made


def test_it_is_the_mean_of_numpy() -> None:
    """With the statistics of batch normalisation, and less of the first steps."""
    inner = network()
    model = around(inner, average=0.4)
    mean = [np.array(weight) for weight in inner.get_weights()]
    for step in range(1, 6):
        model.train_on_batch(X, Y)
        kept = min(0.4, (1 + step) / (10 + step))
        mean = [kept * old + (1 - kept) * new for old, new in zip(mean, inner.get_weights(), strict=True)]
        assert model.averaged is not None
        for mine, right in zip(model.averaged.get_weights(), mean, strict=True):
            np.testing.assert_allclose(mine, right, rtol=1e-4, atol=1e-6)
    assert not np.allclose(mean[0], inner.get_weights()[0], atol=1e-4)


def test_compiling_anew_does_not_forget_it() -> None:
    model = around(network(), average=0.5)
    model.fit(X, Y, epochs=8, batch_size=4, verbose=0)
    assert model.averaged is not None
    before, raw = (np.array(one.get_weights()[0]) for one in (model.averaged, model.network))
    model.compile(keras.optimizers.SGD(1e-9))
    model.train_on_batch(X, Y)
    np.testing.assert_allclose(model.averaged.get_weights()[0], 0.5 * before + 0.5 * raw, rtol=1e-4, atol=1e-6)


def test_it_is_what_predicts_and_is_saved(tmp_path: Path) -> None:
    model = around(network(), average=0.9)
    model.fit(X, Y, validation_data=(X, Y), epochs=2, verbose=0)
    assert model.averaged is not None and model.evaluated is model.averaged
    right = keras.ops.convert_to_numpy(model.averaged(X, training=False))
    raw = keras.ops.convert_to_numpy(model.network(X, training=False))
    assert np.abs(right - raw).max() > 1e-3
    np.testing.assert_allclose(model.predict(X, verbose=0), right, rtol=1e-5, atol=1e-6)
    model.save(tmp_path / "one.keras")
    loaded = keras.models.load_model(tmp_path / "one.keras")
    np.testing.assert_allclose(loaded(X, training=False), right, rtol=1e-5, atol=1e-6)
    assert all(variable.trainable for layer in loaded.layers for variable in layer.trainable_variables)
    accuracy = float((right.argmax(axis=1) == Y).mean())
    assert model.evaluate(X, Y, verbose=0, return_dict=True)["accuracy"] == pytest.approx(accuracy)


def test_the_whole_is_saved_with_it(tmp_path: Path) -> None:
    model = around(network(), ADR(epsilon=0.1, steps=1), average=0.8)
    model.fit(X, Y, verbose=0)
    keras.saving.save_model(model, tmp_path / "whole.keras")
    again = keras.saving.load_model(tmp_path / "whole.keras")
    assert model.averaged is not None and again.averaged is not None
    for one, other in zip(model.averaged.get_weights(), again.averaged.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert int(again.averaged_steps) == int(model.averaged_steps) == 1
    for trained in (model, again):
        trained.train_on_batch(X, Y)
    for one, other in zip(model.averaged.get_weights(), again.averaged.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_no_optimizer_and_no_regularizer_sees_it() -> None:
    inner = network(L.Conv2D(2, 3, kernel_regularizer="l2"))
    model = around(inner, average=0.9)
    model.trainable = False
    model.trainable = True
    model.compile("sgd")
    assert [id(one) for one in model.trainable_variables] == [id(one) for one in inner.trainable_variables]
    plain = around(inner)
    assert len(model.losses) == len(plain.losses) == 1


def test_losses_that_layers_add_come_from_training_alone() -> None:
    """The average is attacked in validation and asked by ADR: its layers' losses are none of the step's."""
    inner = network(L.Activation("relu", activity_regularizer="l2"))
    found = around(inner, ADR(epsilon=0.1, steps=1, validation_steps=1), average=0.9).fit(
        X, Y, validation_data=(X, Y), epochs=1, verbose=0
    )
    assert all(np.isfinite(values[0]) for values in found.history.values())


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (lambda: network(), {"average": 1.0}, "average in"),
    (lambda: keras.Sequential([L.Flatten(), L.Dense(3)]), {"average": 0.9}, "built network to average"),
    (lambda: network(), {"objective": ADR(epsilon=0.1)}, "an average for 'adr'"),
    (lambda: network(), {"objective": ADR(epsilon=0.1), "average": 0.9, "teacher": network()}, "no teacher for 'adr'"),
    (lambda: network(last=L.Dense(1)), {"objective": TRADES(epsilon=0.1)}, "output for each class for 'trades'"),
    (lambda: network(last=L.Dense(1)), {"teacher": network()}, "output for each class for 'teacher'"),
]


@pytest.mark.parametrize(("make", "settings", "part"), REFUSED, ids=[part for _, _, part in REFUSED])
def test_what_is_refused(make: Any, settings: dict[str, Any], part: str) -> None:
    with pytest.raises(InputError, match=part) as caught:
        around(make(), **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("loss", ["sparse_categorical_crossentropy", keras.losses.sparse_categorical_crossentropy])
def test_a_sparse_loss_takes_no_soft_labels(loss: Any) -> None:
    model = AdversarialModel(network(), ADR(epsilon=0.1), average=0.9)
    with pytest.raises(InputError, match="sparse"):
        model.compile("sgd", loss)


@pytest.mark.parametrize("last", ["logits", "softmax", "own"])
def test_a_teacher_is_read_by_what_it_gives(last: str) -> None:
    """Its probabilities are the labels, whether it gives them, or logits, and whatever loss the student has."""
    wise = network()
    made: Any = {
        "logits": wise,
        "softmax": keras.Sequential([wise, L.Softmax()]),
        "own": keras.Sequential([wise, L.Lambda(lambda z: keras.ops.softmax(z))]),
    }[last]
    seen: list[np.ndarray] = []

    class Watched(PGD):
        def loss(self, step: Any, images: Any, labels: Any) -> Any:
            seen.append(labels.numpy())
            return super().loss(step, images, labels)

    model = AdversarialModel(network(), Watched(epsilon=0.1, steps=1), precision="float32", teacher=made)
    model.compile("sgd", run_eagerly=True)
    model.train_on_batch(X, Y)
    right = keras.ops.convert_to_numpy(keras.ops.softmax(wise(X, training=False)))
    np.testing.assert_allclose(seen[0], right, rtol=1e-4, atol=1e-6)
    assert len(model.trainable_variables) == len(model.network.trainable_variables)
    with pytest.raises(InputError, match="teacher"):
        model.get_config()


def test_schedules_last_as_long_as_their_training() -> None:
    model = around(network())
    model.fit(X, Y, verbose=0, callbacks=[EpsilonSchedule(lambda epoch: 0.25), StepsSchedule({0: 5})])
    assert (float(model.budget), int(model.attack_steps)) == (0.25, 5)
    model.fit(X, Y, verbose=0, callbacks=keras.callbacks.CallbackList([], model=model, epochs=1))
    assert (float(model.budget), int(model.attack_steps)) == (1.0, 1)
    with pytest.raises(InputError, match="share of epsilon"):
        model.fit(X, Y, verbose=0, callbacks=[EpsilonSchedule(lambda epoch: 2.0)])
    for wrong in ({1: 2}, {0: 0}):
        with pytest.raises(InputError, match="numbers of steps"):
            StepsSchedule(wrong)


def test_muon_leaves_the_last_layer_and_convolutions_to_adamw() -> None:
    inner = network(L.Flatten(), L.Dense(5))
    optimizer = optimizer_for(inner, "muon", 0.01, 1e-3)
    optimizer.build(inner.trainable_variables)
    shapes = [tuple(one.shape) for one in inner.trainable_variables if not optimizer._should_use_adamw(one)]
    assert shapes == [(144, 5)]

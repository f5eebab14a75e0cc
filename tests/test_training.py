"""Adversarial training: what a step does, what it leaves alone, and that it makes a network robust."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import PIXELS, SHAPE, linear_model
from keras import layers as L

from kerasrobust.attacks import PGD as PGDAttack
from kerasrobust.config import TrainConfig
from kerasrobust.errors import InputError
from kerasrobust.jobs.train import make_objective
from kerasrobust.networks.architectures import build_model
from kerasrobust.networks.making import as_classifier
from kerasrobust.networks.randomizing import randomize
from kerasrobust.training import FGSM, OBJECTIVES, PGD, AdversarialModel, Objective, Standard

EPSILON = 0.1
OBJECTIVE_CASES: dict[str, Objective] = {
    "standard": Standard(epsilon=EPSILON),
    "fgsm": FGSM(epsilon=EPSILON),
    "pgd": PGD(epsilon=EPSILON, steps=3),
    "pgd-l2": PGD(epsilon=0.5, norm="l2", steps=2),
    "half clean": PGD(epsilon=EPSILON, steps=2, clean_share=0.5),
}


def cues(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns images with a robust cue, the brightness (0.3 or 0.7), and a perfect but brittle one, a faint texture.

    The brightness is right in 85 % of the images only; the texture is always right, and 0.06 strong (Tsipras 2019).
    """
    draw = np.random.default_rng(seed)
    y = draw.integers(0, 2, count)
    bright = np.where(draw.random(count) < 0.85, y, 1 - y)
    texture = np.where(np.indices(SHAPE).sum(axis=0) % 2 == 0, 0.06, -0.06)
    x = 0.5 + 0.2 * (2 * bright - 1)[:, None, None, None] + (2 * y - 1)[:, None, None, None] * texture
    return np.clip(x + draw.normal(0, 0.02, x.shape), 0, 1).astype(np.float32), y.astype(np.int64)


X, Y = cues(512)
X_VAL, Y_VAL = cues(128, seed=1)


def tiny(**settings: Any) -> keras.Model:
    return build_model("convnet", image_shape=SHAPE, classes=2, widths=(4, 8), **settings)


def wrapped(objective: Objective, network: keras.Model | None = None, rate: float = 0.05, **compiled: Any) -> Any:
    model = AdversarialModel(tiny() if network is None else network, objective)
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), **compiled)
    return model


def moving(network: keras.Model) -> list[np.ndarray]:
    return [np.array(variable) for variable in network.non_trainable_variables]


def test_objectives_are_registered() -> None:
    assert set(OBJECTIVES) == {"standard", "fgsm", "nfgsm", "pgd", "trades", "mart", "alp", "adr", "free", "gaussian"}
    assert PGD(epsilon=0.1).attack() == PGDAttack(epsilon=0.1, steps=7, keep_best=False)
    assert Standard().attack() is None


def test_steps_are_the_replays_of_free_training() -> None:
    objective = make_objective(TrainConfig(training="free", steps=3), 1)
    assert (objective.replays, objective.passes()) == (3, 3.0)
    with pytest.raises(InputError, match="at least 2 replays"):
        make_objective(TrainConfig(training="free", steps=1), 1)


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: PGD(epsilon=-1), "epsilon"),
        (lambda: FGSM(epsilon=8), "8/255"),
        (lambda: PGD(clean_share=1.0), "clean"),
        (lambda: PGD(clean_share=-0.1), "clean"),
        (lambda: AdversarialModel(tiny(), PGD(), precision="float16"), "float16"),
    ],
)
def test_bad_objectives_are_refused_in_one_line(make: Any, part: str) -> None:
    with pytest.raises(InputError, match=part) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", OBJECTIVE_CASES)
def test_training_reports_its_metrics_and_lowers_the_loss(case: str) -> None:
    keras.utils.set_random_seed(0)
    objective = OBJECTIVE_CASES[case]
    history = (
        wrapped(objective)
        .fit(X, Y, epochs=4, batch_size=64, validation_data=(X_VAL, Y_VAL), verbose=0, shuffle=True)
        .history
    )
    trained = {"loss", "accuracy"} | (set() if case == "standard" else {"robust_accuracy"})
    assert set(history) == trained | {"val_loss", "val_accuracy", "val_robust_accuracy"}
    assert history["loss"][-1] < 0.8 * history["loss"][0]
    for name, values in history.items():
        assert np.isfinite(values).all()
        if "accuracy" in name:
            assert 0 <= min(values) <= max(values) <= 1
    assert history["val_accuracy"][-1] > 0.8
    assert history["val_robust_accuracy"][-1] <= history["val_accuracy"][-1]


@pytest.fixture(scope="module")
def trained() -> dict[str, Any]:
    """A network trained on clean images and one trained with PGD, on the same data."""
    found = {}
    for name in ("standard", "pgd"):
        keras.utils.set_random_seed(1)
        found[name] = wrapped(OBJECTIVE_CASES[name])
        found[name].fit(X, Y, epochs=8, batch_size=64, verbose=0)
    return found


def test_adversarial_training_makes_robust_and_clean_training_does_not(trained: dict[str, Any]) -> None:
    """No network can be right on more than about 88 % here without the texture, which epsilon 0.1 can invert."""
    robust = {
        name: 1 - PGDAttack(epsilon=EPSILON, steps=20)(model, X_VAL, Y_VAL).success.mean()
        for name, model in trained.items()
    }
    assert robust["standard"] < 0.2
    assert robust["pgd"] > 0.8
    clean = {name: (model.predict(X_VAL, verbose=0).argmax(1) == Y_VAL).mean() for name, model in trained.items()}
    assert clean["standard"] > 0.97
    assert clean["pgd"] > 0.85


def test_evaluate_agrees_with_the_attack_and_repeats(trained: dict[str, Any]) -> None:
    model = trained["pgd"]
    found = model.evaluate(X_VAL, Y_VAL, batch_size=32, return_dict=True, verbose=0)
    assert found == model.evaluate(X_VAL, Y_VAL, batch_size=32, return_dict=True, verbose=0)
    logits = model.predict(X_VAL, verbose=0)
    assert found["accuracy"] == pytest.approx((logits.argmax(1) == Y_VAL).mean(), abs=1e-6)
    shifted = np.exp(logits.astype(np.float64))
    p = shifted[np.arange(128), Y_VAL] / shifted.sum(axis=1)
    assert found["loss"] == pytest.approx(-np.log(p).mean(), rel=1e-3)
    robust = 1 - PGDAttack(epsilon=EPSILON, steps=10)(model, X_VAL, Y_VAL).success.mean()
    assert found["robust_accuracy"] == pytest.approx(robust, abs=0.03)


def test_evaluating_and_attacking_leave_the_network_as_it_was(trained: dict[str, Any]) -> None:
    model = trained["pgd"]
    before = [np.array(part) for part in model.network.variables]
    model.evaluate(X_VAL, Y_VAL, verbose=0)
    PGDAttack(steps=2)(model, X_VAL[:8], Y_VAL[:8])
    for old, new in zip(before, model.network.variables, strict=True):
        np.testing.assert_array_equal(old, new)


def test_batch_statistics_come_from_the_training_pass_alone() -> None:
    """With epsilon 0 the attack changes no image: the moving statistics must be those of plain Keras training."""
    keras.utils.set_random_seed(2)
    network = tiny()
    twin = keras.models.clone_model(network)
    twin.set_weights(network.get_weights())
    model = wrapped(PGD(epsilon=0.0, steps=5), network)
    twin.compile(keras.optimizers.SGD(0.05, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for part in range(3):
        batch = slice(64 * part, 64 * part + 64)
        model.train_on_batch(X[batch], Y[batch])
        twin.train_on_batch(X[batch], Y[batch])
    for mine, plain in zip(network.variables, twin.variables, strict=True):
        np.testing.assert_allclose(mine, plain, rtol=1e-3, atol=1e-5)
    assert not np.allclose(moving(network)[0], 0)


def test_the_attack_inside_sees_the_inference_mode() -> None:
    """A layer that answers otherwise in training tells in which mode it was called."""
    seen: list[bool] = []

    class Spy(L.Layer):
        def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
            seen.append(bool(training))
            return inputs

    network = keras.Sequential([keras.Input(SHAPE), Spy(), L.Flatten(), L.Dense(2)])
    model = wrapped(PGD(steps=2), network, run_eagerly=True)
    model.make_train_function()  # Which looks what the attack is to see.
    seen.clear()
    model.train_on_batch(X[:8], Y[:8])
    # The weights' gradient is taken once, in training mode; two attack steps and the clean figure are not.
    assert seen.count(True) == 1
    assert seen.count(False) == 3
    seen.clear()
    model.test_on_batch(X[:8], Y[:8])
    assert True not in seen


def spread_of_training_images(objective: Objective, batches: int) -> list[float]:
    """Returns how far the images of each training step are from the clean ones, in Linf."""
    far: list[float] = []

    class Seen(L.Layer):
        def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
            if training:
                far.append(float(tf.reduce_max(tf.abs(inputs - X[:16]))))
            return inputs

    network = keras.Sequential([keras.Input(SHAPE), Seen(), L.Flatten(), L.Dense(2)])
    model = wrapped(objective, network, run_eagerly=True)
    for _ in range(batches):
        model.train_on_batch(X[:16], Y[:16])
    return far


@pytest.mark.parametrize("objective", [FGSM(epsilon=0.1, warmup_steps=4), PGD(epsilon=0.1, warmup_steps=4, steps=2)])
def test_epsilon_grows_linearly_in_warm_up(objective: Objective) -> None:
    assert spread_of_training_images(objective, 6) == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1], abs=1e-4)


def test_without_warm_up_epsilon_is_whole_at_once() -> None:
    assert spread_of_training_images(PGD(epsilon=0.05, steps=2), 2) == pytest.approx([0.05, 0.05], abs=1e-4)


@pytest.mark.parametrize(("share", "clean"), [(0.0, 0), (0.25, 4), (0.5, 8), (0.9, 14)])
def test_share_of_clean_images(share: float, clean: int) -> None:
    unchanged: list[int] = []

    class Count(L.Layer):
        def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
            if training:
                same = tf.reduce_all(inputs == X[:16], axis=[1, 2, 3])
                unchanged.append(int(tf.reduce_sum(tf.cast(same, tf.int32))))
            return inputs

    network = keras.Sequential([keras.Input(SHAPE), Count(), L.Flatten(), L.Dense(2)])
    model = wrapped(PGD(epsilon=0.1, steps=1, clean_share=share), network, run_eagerly=True)
    logs = model.train_on_batch(X[:16], Y[:16], return_dict=True)
    assert unchanged == [clean]
    assert {"accuracy", "robust_accuracy"} <= set(logs)


def test_random_start_changes_from_step_to_step_and_repeats_by_seed() -> None:
    def first_loss(seed: int, steps: int) -> float:
        network = linear_model(np.random.default_rng(0).normal(size=(PIXELS, 2)) / 20, np.zeros(2))
        model = AdversarialModel(network, PGD(epsilon=0.1, steps=1, step_size=1e-6), seed=seed)
        model.compile(keras.optimizers.SGD(0.0))
        for _ in range(steps):
            model.reset_metrics()
            logs = model.train_on_batch(X[:16], Y[:16], return_dict=True)
        return float(logs["loss"])

    assert first_loss(0, 1) == first_loss(0, 1)
    assert len({first_loss(0, 1), first_loss(0, 2), first_loss(1, 1)}) == 3


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_files_hold_the_inner_network(suffix: str, tmp_path: Path, trained: dict[str, Any]) -> None:
    model = trained["pgd"]
    path = tmp_path / f"m{suffix}"
    model.save(path)
    loaded = keras.models.load_model(path)
    assert type(loaded) is type(model.network)
    np.testing.assert_allclose(loaded(X_VAL), model.predict(X_VAL, verbose=0), atol=1e-5)
    model.save_weights(tmp_path / "m.weights.h5")
    other = wrapped(PGD())
    other.build(X.shape)
    other.load_weights(tmp_path / "m.weights.h5")
    np.testing.assert_allclose(other.predict(X_VAL, verbose=0), loaded(X_VAL), atol=1e-5)


def test_checkpoints_and_early_stopping_of_keras(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    model = wrapped(FGSM(epsilon=EPSILON), rate=0.02)
    history = model.fit(
        X[:128],
        Y[:128],
        epochs=6,
        validation_data=(X_VAL[:64], Y_VAL[:64]),
        verbose=0,
        callbacks=[
            keras.callbacks.ModelCheckpoint(
                tmp_path / "best.keras", monitor="val_robust_accuracy", mode="max", save_best_only=True
            ),
            keras.callbacks.ModelCheckpoint(tmp_path / "last.weights.h5", save_weights_only=True),
            # Nothing improves on a perfect figure by 1, so the training stops after the second epoch.
            keras.callbacks.EarlyStopping(
                "val_robust_accuracy", mode="max", min_delta=1.0, patience=1, restore_best_weights=True
            ),
        ],
    ).history
    assert len(history["loss"]) == 2
    best = int(np.argmax(history["val_robust_accuracy"]))
    kept = wrapped(FGSM(epsilon=EPSILON), keras.models.load_model(tmp_path / "best.keras"))
    found = kept.evaluate(X_VAL[:64], Y_VAL[:64], return_dict=True, verbose=0)
    assert found["robust_accuracy"] == pytest.approx(history["val_robust_accuracy"][best])
    assert (tmp_path / "last.weights.h5").exists()


def test_sample_weights_decide_what_is_learned() -> None:
    """With all weight on images whose labels are flipped, the flipped labels are learned."""
    keras.utils.set_random_seed(0)
    flipped = np.arange(512) % 2 == 0
    y = np.where(flipped, 1 - Y, Y)
    model = wrapped(PGD(epsilon=0.01, steps=1))
    model.fit(X, y, sample_weight=flipped.astype(np.float32), epochs=3, batch_size=64, verbose=0)
    assert (model.predict(X_VAL, verbose=0).argmax(1) == 1 - Y_VAL).mean() > 0.8


def test_labels_of_shape_n_1_are_taken() -> None:
    """As keras.datasets gives them."""
    model = wrapped(PGD(epsilon=EPSILON, steps=1))
    history = model.fit(X[:64], Y[:64, None], validation_data=(X_VAL, Y_VAL[:, None]), verbose=0).history
    flat = model.evaluate(X_VAL, Y_VAL, return_dict=True, verbose=0)
    assert history["val_robust_accuracy"][0] == pytest.approx(flat["robust_accuracy"], abs=0.05)


def test_datasets_and_uneven_batches_are_taken() -> None:
    data = tf.data.Dataset.from_tensor_slices((X[:50], Y[:50])).batch(16)
    history = wrapped(PGD(epsilon=EPSILON, steps=1, clean_share=0.5)).fit(data, validation_data=data, verbose=0).history
    assert np.isfinite([values[0] for values in history.values()]).all()


def test_mixed_precision_trains() -> None:
    keras.utils.set_random_seed(0)
    model = wrapped(PGD(epsilon=EPSILON, steps=2), tiny(dtype="mixed_bfloat16"))
    history = model.fit(X, Y, epochs=2, batch_size=64, validation_data=(X_VAL, Y_VAL), verbose=0).history
    assert history["val_robust_accuracy"][-1] > 0.6
    assert {variable.dtype for variable in model.network.trainable_variables} == {"float32"}


@pytest.mark.parametrize("objective", [FGSM(epsilon=EPSILON), PGD(epsilon=EPSILON, steps=2, clean_share=0.5)])
def test_a_step_compiled_by_xla_is_the_same_step(objective: Objective) -> None:
    """Same weights, same images: the losses of the first two steps agree."""
    kernel = np.random.default_rng(0).normal(size=(PIXELS, 2)) / 20
    found = []
    for jit_compile in (False, True):
        model = wrapped(objective, linear_model(kernel, np.zeros(2)), jit_compile=jit_compile)
        logs = [model.train_on_batch(X[:16], Y[:16], return_dict=True) for _ in range(2)]
        found.append([float(log["loss"]) for log in logs])
    # XLA draws the random start with another generator, which moves the loss a little.
    assert found[0] == pytest.approx(found[1], rel=1e-2)


def test_a_randomized_network_compiled_by_xla_trains() -> None:
    network = randomize(build_model("convnet", image_shape=SHAPE, classes=2, widths=(2,)), 0.2)
    model = wrapped(FGSM(epsilon=EPSILON), network, jit_compile=True)
    assert np.isfinite(model.train_on_batch(X[:16], Y[:16]))[0]


def test_the_wrapper_stands_for_its_network(trained: dict[str, Any]) -> None:
    assert as_classifier(trained["pgd"]).model is trained["pgd"].network

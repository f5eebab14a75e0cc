"""The binarization test: a sound attack finds what is known to be there, one whose gradients mislead doesn't."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from cli import call
from conftest import PIXELS, SHAPE, images, labels_of
from keras import layers as L

from kerasrobust.attacks import DDN, PGD, Square, make_attack
from kerasrobust.evaluation.case import FEWEST
from kerasrobust.evaluation.evaluate import Evaluation, evaluate
from kerasrobust.networks.classifier import Classifier
from kerasrobust.networks.making import as_classifier
from kerasrobust.networks.readout import Readout

pytest_plugins = ["cli_fixtures"]

X = images(14, seed=8)


@keras.saving.register_keras_serializable("tests")
class Turned(L.Layer):
    """The identity, whose gradients point to a fixed, wrong direction."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        @tf.custom_gradient
        def turn(x: tf.Tensor) -> Any:
            wrong = tf.random.stateless_normal(x.shape[1:], [3, 4])
            return tf.identity(x), lambda up: tf.broadcast_to(wrong, tf.shape(up))

        return turn(x)


def network(front: L.Layer, *ending: Any) -> keras.Model:
    keras.utils.set_random_seed(5)
    parts = [front, L.Conv2D(8, 3, activation="relu"), L.Flatten(), *(ending or [L.Dense(4)])]
    return keras.Sequential([keras.Input(SHAPE), *parts])


def examined(model: Any, attack: Any = None, **settings: Any) -> Evaluation:
    attack = attack or PGD(epsilon=0.03, steps=20)
    return evaluate(model, X, labels_of(model, X, 0), attacks=attack, test_attack=True, **settings)


def codes(found: Evaluation) -> set[str]:
    return {finding.code for finding in found.findings}


def left(run: Path) -> int:
    """Returns how many images of a run its attack has left."""
    with h5py.File(run / "examples.h5") as file:
        return int((file["correct_rate"][:] > 0.5).sum())


def classifier(model: Any) -> Classifier:
    return as_classifier(model, image_shape=SHAPE, input_range="0,1", colors="rgb")


ENDINGS: dict[str, Callable[[], list[Any]]] = {
    "dense": lambda: [L.Dense(4)],
    "softmax": lambda: [L.Dense(4, activation="softmax")],
    "softmax layer": lambda: [L.Dense(4), L.Softmax()],
    "nested": lambda: [keras.Sequential([L.Dense(64, activation="relu"), L.Dense(4)])],
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_readout_tells_one_image_apart_from_many(ending: str) -> None:
    """By a linear function of what the last dense layer takes, whatever is behind it."""
    model = network(L.Identity(), *ENDINGS[ending]())
    readout = Readout(classifier(model), SHAPE)
    others, image = images(300, seed=9), images(1, seed=10)[0]
    assert readout.tell_apart(others, image)
    score = np.diff(readout.classifier(tf.constant(np.concatenate([image[None], others]))).numpy())[:, 0]
    assert score[0] == pytest.approx(1, abs=1e-3) and score[1:].max() == pytest.approx(-1, abs=1e-3)
    features = keras.Model(model.inputs, model.layers[2].output).predict(others, verbose=0)
    if ending == "nested":
        features = model.layers[3].layers[0](features).numpy()
        design = np.concatenate([features, np.ones((300, 1))], axis=1)
        left = score[1:] - design @ np.linalg.lstsq(design, score[1:], rcond=None)[0]
        assert abs(left).max() < 1e-3 * abs(score).max()


def test_a_sound_attack_passes() -> None:
    found = examined(network(L.Identity()), PGD(epsilon=0.002, steps=20))
    assert found.audit is not None and "attack-fails" in found.audit.checked and "attack-fails" not in codes(found)
    (told,) = [item for item in found.findings if item.code == "attack-tested"]
    assert told.severity == "info" and told.evidence["solved"] > 0.8 * told.evidence["images"]
    assert (
        "attack-fails" not in evaluate(network(L.Identity()), X, labels_of(network(L.Identity()), X, 0)).audit.checked
    )  # type: ignore[union-attr]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_gradients_that_mislead_fail_it(norm: Any) -> None:
    attack = PGD(norm=norm, epsilon=0.002 if norm == "linf" else 0.002 * PIXELS**0.5, steps=20)
    found = examined(network(Turned()), attack)
    (finding,) = [item for item in found.findings if item.code == "attack-fails"]
    solved, count, random = (finding.evidence[name] for name in ("solved", "images", "random"))
    assert finding.severity == "error" and solved < 0.5 * count and 8 <= count <= len(X) and random < 0.5
    assert f"pgd finds {solved:.0f} of {count:.0f} adversarial examples" in finding.message


def test_what_it_cannot_be_done_on_is_named() -> None:
    base = network(L.Identity())
    for model, attack in (
        (lambda x, training=False: base(x), PGD(epsilon=0.002)),
        (base, Square(epsilon=0.002, queries=20)),
        (base, PGD(epsilon=0.5)),  # Nothing is left.
        (base, make_attack("apgd-dlr", epsilon=0.002, steps=5)),  # It needs three classes.
    ):
        found = examined(model, attack)
        assert found.audit is not None and "attack-fails" in found.audit.left_out
        (told,) = [item for item in found.findings if item.code == "attack-tested"]
        assert told.severity == "info" and "That needs" in told.message


def test_the_radius_is_that_of_the_attack_that_is_tested() -> None:
    """Beside another one's, in another norm."""
    base = network(L.Identity())
    found = examined(base, [DDN(norm="l2", steps=5), PGD(epsilon=0.002, steps=20)])
    assert found.audit is not None and "attack-fails" in found.audit.checked and "attack-fails" not in codes(found)


def test_the_command_takes_it(models_dir: Path, tmp_path: Path) -> None:
    words = ["audit", "--model", "tiny", "--models-dir", models_dir, "--runs-dir", tmp_path, "--name", "a"]
    assert call(*words, "--epsilon", "1/255", "--split", "test[:40]", "--thorough", "--quiet").status == 0
    audit = json.loads((tmp_path / "a" / "result.json").read_text())["audit"]
    assert "attack-fails" in audit["checked"] + audit["left_out"]
    # It can be done where enough images are left.
    assert ("attack-fails" in audit["checked"]) is (left(tmp_path / "a") >= FEWEST)

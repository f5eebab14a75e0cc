"""Adversarial training is in [0, 1]: networks of other ranges are refused, or taken there by the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
from cli import call
from colours import Data
from keras import layers as L

import kerasrobust as kr
from kerasrobust.config import TrainConfig
from kerasrobust.data.dataset import Dataset
from kerasrobust.errors import InputError
from kerasrobust.jobs.train import load_teacher, make_network
from kerasrobust.networks.architectures import build_model
from kerasrobust.training import PGD, AdversarialModel

pytest_plugins = ["cli_fixtures"]

EPSILON = 0.1


def flat(*first: Any, begin: bool = True) -> keras.Model:
    return keras.Sequential([*([keras.Input((8, 8, 3))] if begin else []), *first, L.Flatten(), L.Dense(6)])


def adapted() -> keras.Model:
    layer = L.Normalization()
    layer.adapt(np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3)).astype(np.float32))
    return flat(layer)


def said(input_range: Any, *first: L.Layer) -> keras.Model:
    model = flat(*first)
    kr.as_classifier(model, input_range=input_range)
    return model


OTHERS: dict[str, tuple[Callable[[], keras.Model], str, str]] = {
    "rescaling": (lambda: flat(L.Rescaling(1 / 255)), "[0, 255]", "Rescaling(255.0)"),
    "rescaling to [-1, 1]": (lambda: flat(L.Rescaling(1 / 127.5, -1)), "[0, 255]", "Rescaling(255.0)"),
    "from [-1, 1]": (lambda: flat(L.Rescaling(0.5, 0.5)), "[-1, 1]", "Rescaling(2.0, offset=-1.0)"),
    "sixteen levels": (lambda: flat(L.Rescaling(1 / 16)), "[0, 16]", "Rescaling(16.0)"),
    "not built": (lambda: flat(L.Rescaling(1 / 255), begin=False), "[0, 255]", "Rescaling(255.0)"),
    "within another": (
        lambda: flat(L.RandomFlip(), keras.Sequential([keras.Input((8, 8, 3)), L.Rescaling(1 / 255), L.Conv2D(2, 3)])),
        "[0, 255]",
        "Rescaling(255.0)",
    ),
    "adapted to 8 bits": (adapted, "[0, 255]", "Rescaling(255.0)"),
    "of keras.applications": (
        lambda: keras.applications.MobileNetV3Small(weights=None, input_shape=(32, 32, 3), classes=6),
        "[0, 255]",
        "Rescaling(255.0)",
    ),
    "said": (lambda: said((0, 255)), "[0, 255]", "Rescaling(255.0)"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_network_of_another_range_is_refused_in_one_line(kind: str) -> None:
    make, taken, front = OTHERS[kind]
    network = make()
    with pytest.raises(InputError) as caught:
        AdversarialModel(network)
    line = str(caught.value)
    assert f"Received: {network.name!r}, which takes pixels in {taken}. " in line and f"keras.layers.{front}, " in line
    assert "\n" not in line
    with pytest.raises(InputError, match="takes images in"):
        AdversarialModel(flat(), teacher=network)


TAKEN: dict[str, Callable[[], keras.Model]] = {
    "our own": lambda: build_model("lenet"),
    "nothing": flat,
    "to [-1, 1]": lambda: flat(L.Rescaling(2.0, -1.0)),
    "not adapted": lambda: flat(L.Normalization()),
    "not adapted, not built": lambda: flat(L.Normalization(), begin=False),
    "said": lambda: said((0, 1), L.Rescaling(1 / 16)),
    "another in front": lambda: flat(L.Rescaling(255.0), flat(L.Rescaling(1 / 255))),
}


@pytest.mark.parametrize("kind", TAKEN)
def test_a_network_of_our_range_is_taken(kind: str) -> None:
    network = TAKEN[kind]()
    assert AdversarialModel(network).network is network


def test_layers_that_were_adapted_since_are_seen() -> None:
    layer = L.Normalization()
    model = AdversarialModel(flat(layer))
    model.compile("sgd")
    layer.adapt(np.full((4, 8, 8, 3), 120, np.float32))
    with pytest.raises(InputError, match="takes images in"):
        model.compile("sgd")


@pytest.mark.parametrize(
    ("input_range", "colors"), [("caffe", "auto"), ("caffe", "bgr"), ("0,1", "bgr"), ("-1,1", "bgr")]
)
def test_the_advice_for_bgr_is_the_conversion(input_range: str, colors: str) -> None:
    network = flat()
    through = kr.as_classifier(network, input_range=input_range, colors=colors)
    images = np.random.default_rng(0).random((4, 8, 8, 3), np.float32)
    right = through.run(images)
    with pytest.raises(InputError, match="and RGB") as caught:
        AdversarialModel(network)
    model, image = re.findall(r"Train (keras\.Model\(.*\)) with x = (keras\.Input\(\(8, 8, 3\)\)),", str(caught.value))[
        0
    ]
    train = eval(model, {"keras": keras, "network": network, "x": eval(image, {"keras": keras})})
    np.testing.assert_allclose(AdversarialModel(train).network(images), right, rtol=1e-4, atol=1e-3)


def test_what_was_said_is_not_asked_again_of_a_whole_that_was_saved(tmp_path: Path) -> None:
    model = AdversarialModel(said((0, 1), L.Rescaling(1 / 16)), PGD(epsilon=EPSILON, steps=1))
    model.compile("sgd")
    images = np.random.default_rng(0).random((4, 8, 8, 3), np.float32)
    model.fit(images, np.arange(4), verbose=0)
    keras.saving.save_model(model, tmp_path / "whole.keras")
    loaded = keras.saving.load_model(tmp_path / "whole.keras")
    np.testing.assert_allclose(loaded.predict(images, verbose=0), model.predict(images, verbose=0), rtol=1e-5)
    loaded.fit(images, np.arange(4), verbose=0)


@pytest.fixture(scope="module")
def eight(coloured: Data) -> tuple[np.ndarray, np.ndarray]:
    return np.round(coloured[0] * 255).astype(np.uint8), coloured[1]


@pytest.fixture
def of_8_bits(colour_network: keras.Model) -> keras.Model:
    """The network of colours with its own weights for pixels in [0, 255]."""
    own = keras.models.clone_model(colour_network)
    own.set_weights(colour_network.get_weights())
    return keras.Sequential([keras.Input((8, 8, 3)), L.Rescaling(1 / 255), own], name="eight")


def wrapped(network: keras.Model) -> AdversarialModel:
    model = AdversarialModel(network, PGD(epsilon=EPSILON, steps=2))
    model.compile(keras.optimizers.SGD(1e-3))
    return model


def test_the_advice_makes_it_right(
    of_8_bits: keras.Model, colour_network: keras.Model, eight: Data, tmp_path: Path
) -> None:
    """As many are right as in plain `predict` of 8-bit images, and as robust as the network without any Rescaling."""
    x, y = eight
    own = (of_8_bits.predict(x, verbose=0).argmax(axis=1) == y).mean()
    assert own > 0.9
    with pytest.raises(InputError) as caught:
        AdversarialModel(of_8_bits)
    advice = re.search(r"Train (keras\.Sequential\(.*network\]\)), or", str(caught.value))
    assert advice is not None
    network = eval(advice.group(1), {"keras": keras, "network": of_8_bits})
    model = wrapped(network)
    for images in (x, x / np.float32(255)):
        found = model.evaluate(images, y, verbose=0, return_dict=True)
        assert found["accuracy"] == pytest.approx(own)
    plain = wrapped(colour_network).evaluate(x, y, verbose=0, return_dict=True)
    assert found["robust_accuracy"] == pytest.approx(plain["robust_accuracy"], abs=0.01)
    assert 0.1 < found["robust_accuracy"] < own
    model.fit(x, y, epochs=1, verbose=0)
    assert (of_8_bits.predict(x, verbose=0).argmax(axis=1) == y).mean() > 0.9
    model.save(tmp_path / "net.keras")
    saved = keras.models.load_model(tmp_path / "net.keras").predict(x / np.float32(255), verbose=0)
    np.testing.assert_allclose(saved, of_8_bits.predict(x, verbose=0), rtol=1e-4, atol=1e-4)


# On the command line


def data(x: np.ndarray, y: np.ndarray) -> Dataset:
    return Dataset(name="own", split="all", images=x, labels=y, class_names=tuple("abcdef"))


def test_a_training_takes_such_a_model_to_our_range(of_8_bits: keras.Model, eight: Data, tmp_path: Path) -> None:
    x, y = eight
    of_8_bits.save(tmp_path / "eight.keras")
    np.savez(tmp_path / "own.npz", x=x, y=y)
    words = ["train", "--model", tmp_path / "eight.keras", "--data", tmp_path / "own.npz", "--split", "train[:300]"]
    words += ["--test-split", "train[300:]", "--epochs", "1", "--learning-rate", "0.001", "--no-augment"]
    done = call(*words, "--name", "t", "--runs-dir", tmp_path / "runs", "--models-dir", tmp_path / "models")
    assert done.status == 0, done.err
    assert json.loads((tmp_path / "models/t/card.json").read_text())["clean_accuracy"] > 0.9
    logits = keras.models.load_model(tmp_path / "models/t/model.keras").predict(x / np.float32(255), verbose=0)
    assert (logits.argmax(axis=1) == y).mean() > 0.9


def test_so_does_one_that_learns_from_it(of_8_bits: keras.Model, eight: Data, tmp_path: Path) -> None:
    x, y = eight
    of_8_bits.save(tmp_path / "eight.keras")
    context: Any = SimpleNamespace(emit=None)
    teacher = load_teacher(str(tmp_path / "eight.keras"), context, TrainConfig(), data(x, y))
    right = of_8_bits.predict(x, verbose=0)
    np.testing.assert_allclose(teacher.predict(x / np.float32(255), verbose=0), right, rtol=1e-4, atol=1e-4)
    AdversarialModel(flat(), teacher=teacher)


@pytest.mark.parametrize("input_range", ["0,1", "auto"])
def test_a_training_goes_on_in_our_range_where_that_is_so(
    input_range: str, colour_network: keras.Model, eight: Data, tmp_path: Path
) -> None:
    """Its Rescaling looks like 16 levels of grey; what was said, and what images show, counts."""
    x, y = eight
    back = L.Dense(3)
    own = keras.Sequential([keras.Input((8, 8, 3)), L.Rescaling(1 / 16), back, colour_network])
    back.set_weights([16 * np.eye(3), np.zeros(3)])
    own.save(tmp_path / "own.keras")
    config = TrainConfig(model=str(tmp_path / "own.keras"), input_range=input_range)
    network = make_network(config, data(x, y))
    unit = x / np.float32(255)
    np.testing.assert_allclose(network.predict(unit, verbose=0), own.predict(unit, verbose=0), rtol=1e-4, atol=1e-4)
    AdversarialModel(network)

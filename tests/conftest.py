"""Models that several test files attack, small enough to be traced in a second and kept for the session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # As the package has it, where TensorFlow is imported later.

import keras
import numpy as np
import pytest
from colours import Data
from keras import layers as L

from kerasrobust.attacks import AttackResult
from kerasrobust.networks.architectures import build_model
from kerasrobust.networks.classifier import Classifier
from kerasrobust.networks.images import check_fits, read_images
from kerasrobust.networks.noise import noise_off
from kerasrobust.networks.randomizing import randomize
from kerasrobust.twins import precision

GROUPS = {
    # They attack the models below with the same settings, so that each attack is traced once.
    "attacks": (
        "test_attacks", "test_attack_input", "test_traces", "test_batch", "test_eot", "test_fab", "test_square",
        "test_apgd", "test_cw", "test_deepfool", "test_hopskipjump",
        "test_autoattack", "test_gradient_free", "test_evaluation",
    ),
    # They start runs of the models of `cli_fixtures`.
    "runs": ("test_engine", "test_engine_training", "test_study", "test_cancel", "test_cli", "test_resume"),
    "training": ("test_training", "test_training_twins", "test_training_callbacks"),
    "twins": ("test_precision", "test_folding"),
    "ranges": ("test_ranges", "test_ranges_of_images", "test_first_layers"),
}  # fmt: skip
"""Files that share models and graphs, so that one worker runs them; any other file is a group of its own. What takes
longest comes first."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    names = {file: name for name, files in GROUPS.items() for file in files}
    order = list(GROUPS)

    def group(item: pytest.Item) -> str:
        return names.get(item.path.stem, item.path.stem)

    for item in items:
        item.add_marker(pytest.mark.xdist_group(group(item)))
    items.sort(key=lambda item: order.index(group(item)) if group(item) in order else len(order))


SHAPE = (8, 8, 3)
PIXELS = 192


def linear_model(kernel: np.ndarray, bias: np.ndarray, *between: L.Layer) -> keras.Model:
    """Returns a linear classifier with known weights: images -> flatten -> `between` -> dense."""
    head = L.Dense(kernel.shape[1])
    model = keras.Sequential([keras.Input(SHAPE), L.Flatten(), *between, head], name="linear")
    head.set_weights([kernel, bias])
    return model


def images(count: int, seed: int = 0) -> np.ndarray:
    """Returns images of middling brightness, so that no small perturbation meets the box [0, 1]."""
    return np.random.default_rng(seed).uniform(0.35, 0.65, (count, *SHAPE)).astype(np.float32)


def check_images(classifier: Classifier, x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns images and labels as every public call reads them, held to a model."""
    x, y = read_images(x, y)
    check_fits(classifier, x.shape[1:], y)
    return x, y


def same(one: AttackResult, other: AttackResult) -> None:
    """Asserts that two attacks found the same."""
    for field in ("x_adv", "prediction_adv", "success", "correct_rate", "distance"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field))


FASTEST = precision._fastest
"""The probe itself, for its own tests."""


@pytest.fixture(scope="session", autouse=True)
def exact() -> Iterator[None]:
    """Makes "auto" float32: the choice follows what is fastest on the machine just now."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "_fastest", lambda *_: "float32")
        yield


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Gives networks that a test builds without a seed the same weights in each run; layers' own noise stays fresh."""
    keras.utils.set_random_seed(1)


@pytest.fixture(scope="session")
def weights() -> tuple[np.ndarray, np.ndarray]:
    """Kernel (192, 4) and bias (4,) of `linear`, in float32."""
    draw = np.random.default_rng(1)
    return draw.normal(size=(PIXELS, 4)).astype(np.float32), draw.normal(size=4).astype(np.float32)


def soft(weights: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Weights so small that no softmax saturates, and gradients are far above float32's rounding."""
    return weights[0] / 10, weights[1] / 10


@pytest.fixture(scope="session")
def linear(weights: tuple[np.ndarray, np.ndarray]) -> keras.Model:
    return linear_model(*weights)


@pytest.fixture(scope="session")
def small() -> keras.Model:
    """A convnet with BatchNorm whose random weights are scaled up, so that small perturbations change its mind."""
    keras.utils.set_random_seed(3)
    model = build_model("convnet", image_shape=SHAPE, classes=4, widths=(4, 8))
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([5 * kernel, bias])
    return model


@pytest.fixture(scope="session")
def randomized(small: keras.Model) -> keras.Model:
    return randomize(small, 0.15)


def labels_of(model: keras.Model, x: np.ndarray, wrong: int) -> np.ndarray:
    """Returns the model's own predictions without noise as labels, but for the first `wrong` images another class."""
    with noise_off():
        logits = np.asarray(model(x, training=False))
    y = logits.argmax(axis=1).astype(np.int64)
    y[:wrong] = (y[:wrong] + 1) % logits.shape[1]
    return y


@pytest.fixture(scope="session")
def coloured() -> Data:
    """Images whose class is a colour and a brightness, so that range and order matter."""
    draw = np.random.default_rng(0)
    y = draw.integers(0, 6, 400)
    colours = np.array(
        [[0.8, 0.2, 0.3], [0.2, 0.3, 0.8], [0.3, 0.8, 0.2], [0.5, 0.1, 0.6], [0.4, 0.1, 0.15], [0.1, 0.15, 0.4]]
    )
    x = colours[y][:, None, None] + draw.normal(0, 0.08, (400, 8, 8, 3))
    return np.clip(x, 0, 1).astype(np.float32), y


@pytest.fixture(scope="session")
def colour_network(coloured: Data) -> keras.Model:
    """Tells those images, in [0, 1] and RGB, with logits."""
    keras.utils.set_random_seed(0)
    x, y = coloured
    model = keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(8, 3, activation="relu"), L.Flatten(), L.Dense(6)])
    model.compile(keras.optimizers.Adam(5e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, y, epochs=8, verbose=0)
    return model


@pytest.fixture(scope="session")
def tfds_dir() -> Path:
    """The prepared TFDS data, or a skip."""
    folder = Path(os.environ.get("TFDS_DATA_DIR") or Path(__file__).parents[2] / "shared/data/tfds")
    if not (folder / "cifar10").is_dir():
        pytest.skip(f"no CIFAR-10 in {folder}: set TFDS_DATA_DIR")
    return folder

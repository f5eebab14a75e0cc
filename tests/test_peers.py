"""Agreement with an independent program, the Adversarial Robustness Toolbox, on the same network and images.

It is not among the dependencies; without it these tests are skipped. To run them:

    pip install --no-deps adversarial-robustness-toolbox && pip install scipy scikit-learn tqdm

`KERASROBUST_PEER_MODEL` may name a saved model to compare on; without it `saved_models/convnet` is taken where it is.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kerasrobust.attacks import FGSM, PGD, Attack, DeepFool
from kerasrobust.data.load import load_data
from kerasrobust.networks.architectures import build_model
from kerasrobust.networks.saving import load_model

pytest.importorskip("art", reason="adversarial-robustness-toolbox is not installed")
evasion = pytest.importorskip("art.attacks.evasion")
estimators = pytest.importorskip("art.estimators.classification")

COUNT = 128
EPSILON = 8 / 255


@pytest.fixture(scope="module")
def network() -> keras.Model:
    named = os.environ.get("KERASROBUST_PEER_MODEL")
    path = Path(named) if named else Path(__file__).parents[1] / "saved_models" / "convnet"
    if path.exists():
        return load_model(path)
    keras.utils.set_random_seed(0)
    model = build_model("convnet", widths=(8, 16))
    x, y = load_data("shapes", split="train[:1500]")
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    model.fit(x, y, batch_size=64, epochs=3, verbose=0)
    return model


@pytest.fixture(scope="module")
def data(network: keras.Model, request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    """Images that the network gets right: programs differ in what they do with the others."""
    if (Path(__file__).parents[1] / "saved_models" / "convnet").exists() or "KERASROBUST_PEER_MODEL" in os.environ:
        folder = request.getfixturevalue("tfds_dir")
        x, y = load_data("cifar10", split="test[:512]", data_dir=folder)
    else:
        x, y = load_data("shapes", split="test[:512]")
    right = network.predict(x, verbose=0).argmax(axis=1) == y
    return x[right][:COUNT], y[right][:COUNT]


@pytest.fixture(scope="module")
def peer(network: keras.Model) -> Any:
    return estimators.TensorFlowV2Classifier(
        model=network,
        nb_classes=10,
        input_shape=(32, 32, 3),
        loss_object=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        clip_values=(0.0, 1.0),
    )


def ours(attack: Attack, network: keras.Model, data: tuple[np.ndarray, np.ndarray]) -> Any:
    return attack(network, *data, precision="float32", early_stop=False)


def agreeing(one: np.ndarray, other: np.ndarray) -> float:
    """Returns the share of pixels that agree to 1e-6."""
    share = float((np.abs(one.astype(np.float64) - other) <= 1e-6).mean())
    print(f"{share:.4%} of the pixels agree to 1e-6")
    return share


def test_fgsm_agrees_pixel_by_pixel(network: keras.Model, data: tuple[np.ndarray, np.ndarray], peer: Any) -> None:
    x, y = data
    theirs = evasion.FastGradientMethod(peer, norm=np.inf, eps=EPSILON, batch_size=COUNT).generate(x, y)
    assert agreeing(ours(FGSM(epsilon=EPSILON), network, data).x_adv, theirs) >= 0.999


def test_pgd_without_random_start_agrees_for_five_steps(
    network: keras.Model, data: tuple[np.ndarray, np.ndarray], peer: Any
) -> None:
    x, y = data
    theirs = evasion.ProjectedGradientDescentTensorFlowV2(
        peer, norm=np.inf, eps=EPSILON, eps_step=2 / 255, max_iter=5, num_random_init=0, batch_size=COUNT, verbose=False
    ).generate(x, y)
    attack = PGD(epsilon=EPSILON, steps=5, step_size=2 / 255, random_start=False, keep_best=False)
    assert agreeing(ours(attack, network, data).x_adv, theirs) >= 0.999


@pytest.mark.timeout(900)  # The other program takes a Python loop over classes and steps.
def test_deepfool_needs_the_same_median_distance(
    network: keras.Model, data: tuple[np.ndarray, np.ndarray], peer: Any
) -> None:
    x, _ = data
    theirs = evasion.DeepFool(peer, max_iter=50, epsilon=0.02, nb_grads=10, batch_size=COUNT, verbose=False).generate(x)
    length = np.linalg.norm((theirs - x).reshape(len(x), -1), axis=1)
    result = ours(DeepFool(norm="l2"), network, data)
    print(f"median L2 distance {result.median_distance:.5f}, the other program's {np.median(length):.5f}")
    assert result.success.mean() >= 0.99
    assert result.median_distance == pytest.approx(float(np.median(length)), rel=0.02)

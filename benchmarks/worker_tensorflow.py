"""The worker of a peer on TensorFlow: CleverHans 4, Foolbox 3.3.4 or ART 1.20, chosen by the first argument.

Each gets the Keras model as its documentation says, eagerly (`eager`), and with the model, or for CleverHans the whole
attack, inside a `tf.function` (`graph`); the driver takes what is faster.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from protocol import Measurement, in_batches, serve, timed

ROOT = Path(__file__).resolve().parents[1]
EPSILON = 8 / 255
STEPS = 20
STEP_SIZE = 2.5 * EPSILON / STEPS
PACKAGES = {"cleverhans": "cleverhans", "foolbox": "foolbox", "art": "adversarial-robustness-toolbox"}


@cache
def network(name: str) -> keras.Model:
    # The file, not the SavedModel beside it; it holds no layers of ours.
    return keras.models.load_model(ROOT / "saved_models" / name / "model.keras", compile=False)


@cache
def everything() -> tuple[np.ndarray, np.ndarray]:
    with np.load(Path(sys.argv[2]) / "data.npz") as stored:
        return stored["x"], stored["y"].astype(np.int64)


def data(count: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = everything()
    return x[:count], y[:count]


def versions() -> Measurement:
    names = (PACKAGES[sys.argv[1]], "tensorflow", "keras", "numpy")
    return Measurement(0.0, figures={name: importlib.metadata.version(name) for name in names})


@cache
def logits(model: str, mode: str) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns the function that maps images to logits, as a graph of its own or not."""
    victim = network(model)

    def forward(x: tf.Tensor) -> tf.Tensor:
        return victim(x, training=False)

    return tf.function(forward, autograph=False, reduce_retracing=True) if mode == "graph" else forward


@cache
def cleverhans_pgd(model: str, mode: str) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent

    forward = logits(model, "eager")  # CleverHans makes a graph of each gradient by itself.

    def attack(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return projected_gradient_descent(
            forward, x, EPSILON, STEP_SIZE, STEPS, np.inf, clip_min=0.0, clip_max=1.0, y=y, rand_init=True
        )

    return tf.function(attack, autograph=False) if mode == "graph" else attack


def run_cleverhans(model: str, count: int, seed: int, batch_size: int, mode: str) -> Measurement:
    x, y = data(count)
    tf.random.set_seed(seed)
    attack = cleverhans_pgd(model, mode)
    x_adv, seconds = timed(lambda: in_batches(lambda x, y: attack(tf.constant(x), tf.constant(y)), x, y, batch_size))
    return Measurement(seconds, {"x_adv": x_adv})


@cache
def foolbox_model(model: str, mode: str) -> Any:
    import foolbox

    victim: Any = logits(model, "graph") if mode == "graph" else network(model)
    return foolbox.TensorFlowModel(victim, bounds=(0, 1), device="/CPU:0")


def run_foolbox(attack: Any, epsilon: float | None, model: str, count: int, batch_size: int, mode: str) -> Measurement:
    x, y = data(count)
    victim = foolbox_model(model, mode)

    def part(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        _, clipped, _ = attack(victim, tf.constant(x), tf.constant(y), epsilons=epsilon)
        return clipped.numpy()

    x_adv, seconds = timed(lambda: in_batches(part, x, y, batch_size))
    return Measurement(seconds, {"x_adv": x_adv})


def foolbox_pgd(model: str, count: int, seed: int, batch_size: int, mode: str) -> Measurement:
    import foolbox

    tf.random.set_seed(seed)
    attack = foolbox.attacks.LinfPGD(abs_stepsize=STEP_SIZE, steps=STEPS, random_start=True)
    return run_foolbox(attack, EPSILON, model, count, batch_size, mode)


def foolbox_deepfool(model: str, count: int, seed: int, batch_size: int, mode: str) -> Measurement:
    import foolbox

    tf.random.set_seed(seed)
    attack = foolbox.attacks.L2DeepFoolAttack(steps=50, candidates=10, overshoot=0.02)
    return run_foolbox(attack, None, model, count, batch_size, mode)


@cache
def art_classifier(model: str, mode: str) -> Any:
    from art.estimators.classification import TensorFlowV2Classifier

    forward = logits(model, "graph")
    victim: Any = (lambda x, training: forward(x)) if mode == "graph" else network(model)
    return TensorFlowV2Classifier(
        model=victim,
        nb_classes=10,
        input_shape=(32, 32, 3),
        loss_object=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        clip_values=(0.0, 1.0),
    )


def art_pgd(model: str, count: int, seed: int, batch_size: int, mode: str) -> Measurement:
    from art.attacks.evasion import ProjectedGradientDescent

    x, y = data(count)
    np.random.seed(seed)  # ART draws its random starts from it.
    attack = ProjectedGradientDescent(
        art_classifier(model, mode), norm=np.inf, eps=EPSILON, eps_step=STEP_SIZE, max_iter=STEPS, num_random_init=1,
        batch_size=batch_size, verbose=False,
    )  # fmt: skip
    x_adv, seconds = timed(lambda: attack.generate(x, y))
    return Measurement(seconds, {"x_adv": x_adv})


def art_deepfool(model: str, count: int, seed: int, batch_size: int, mode: str) -> Measurement:
    from art.attacks.evasion import DeepFool

    x, y = data(count)
    np.random.seed(seed)
    attack = DeepFool(
        art_classifier(model, mode), max_iter=50, epsilon=0.02, nb_grads=10, batch_size=batch_size, verbose=False
    )
    x_adv, seconds = timed(lambda: attack.generate(x, y))
    return Measurement(seconds, {"x_adv": x_adv})


def art_smoothing(
    model: str, count: int, seed: int, batch_size: int, mode: str, samples: int, least_radius: float
) -> Measurement:
    from art.estimators.certification.randomized_smoothing import TensorFlowV2RandomizedSmoothing

    x, y = data(count)
    forward = logits(model, "graph")
    victim: Any = (lambda x, training: forward(x)) if mode == "graph" else network(model)
    np.random.seed(seed)
    smoothed = TensorFlowV2RandomizedSmoothing(
        victim, nb_classes=10, input_shape=(32, 32, 3), clip_values=(0.0, 1.0), sample_size=100, scale=0.25, alpha=0.001
    )
    (prediction, radius), seconds = timed(lambda: smoothed.certify(x, n=samples, batch_size=batch_size))
    right = prediction == y
    return Measurement(seconds, figures={"certified": float((right & (radius > (least_radius or 0.25))).mean())})


FUNCTIONS: dict[str, dict[str, Callable[..., Measurement]]] = {
    "cleverhans": {"pgd": run_cleverhans},
    "foolbox": {"pgd": foolbox_pgd, "deepfool": foolbox_deepfool},
    "art": {"pgd": art_pgd, "deepfool": art_deepfool, "smoothing": art_smoothing},
}

if __name__ == "__main__":
    serve({"versions": versions, **FUNCTIONS[sys.argv[1]]})

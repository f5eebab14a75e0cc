"""The worker of the project itself, and the referee that judges everybody's images."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from convnet_weights import weights_of
from overhead import bare_gradient
from protocol import Measurement, serve, timed
from training_step import feed, train

import kerasrobust as kr
from kerasrobust.networks.noise import noise_off

ROOT = Path(__file__).resolve().parents[1]
EPSILON = 8 / 255


@cache
def network(name: str) -> keras.Model:
    return kr.load_model(str(ROOT / "saved_models" / name))


@cache
def sized_network(widths: tuple[int, ...]) -> keras.Model:
    """Returns a ConvNet with random weights: for times, which don't depend on what it has learned."""
    keras.utils.set_random_seed(0)
    return kr.build_model("convnet", widths=widths)


@cache
def data(count: int) -> tuple[np.ndarray, np.ndarray]:
    return kr.load_data("cifar10", split=f"test[:{count}]")


def export(folder: str, models: list[str], count: int) -> Measurement:
    """Writes what the peers load: images and labels, each model's weights by name, and its logits to compare with."""
    x, y = data(count)
    np.savez(Path(folder) / "data.npz", x=x, y=y)
    for name in models:
        model = network(name)
        logits = model.predict(x[:64], verbose=0)
        np.savez(Path(folder) / f"{name}.npz", logits=logits, **weights_of(model))
    return Measurement(0.0, figures={"clean": [float(np.mean(right(network(name), x, y))) for name in models]})


def versions() -> Measurement:
    return Measurement(
        0.0,
        figures={
            "kerasrobust": kr.__version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
            "python": sys.version.split()[0],
        },
    )


def pgd(
    model: str,
    count: int,
    seed: int,
    batch_size: int,
    early_stop: bool = False,
    steps: int = 20,
    eot: int = 1,
    widths: list[int] | None = None,
    precision: str = "auto",
) -> Measurement:
    """Measures PGD; a step is 2.5 epsilon / steps long, which is the default."""
    victim = sized_network(tuple(widths)) if widths else network(model)
    x, y = data(count)
    attack = kr.attacks.PGD(epsilon=EPSILON, steps=steps, eot=eot)
    result, seconds = timed(
        lambda: attack(victim, x, y, seed=seed, precision=precision, batch_size=batch_size, early_stop=early_stop)
    )
    return Measurement(seconds, {"x_adv": result.x_adv}, {"precision": result.precision, "gradients": result.gradients})


@cache
def bare(model: str, noise: bool) -> tf.types.experimental.GenericFunction:
    """Returns one float32 gradient of a Keras model as a graph, its noise on or off."""
    victim = network(model)

    def gradient(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        if noise:
            return bare_gradient(victim, x, y)
        with noise_off():
            return bare_gradient(victim, x, y)

    return tf.function(gradient, autograph=False)


def gradients(model: str, count: int, seed: int, times: int, noise: bool = True) -> Measurement:
    """Measures bare gradients, one after the other, of the same images: what no attack in float32 can save."""
    del seed
    x, y = data(count)
    images, labels = tf.constant(x), tf.constant(y)
    work = bare(model, noise)

    def run() -> None:
        for _ in range(times):
            work(images, labels).numpy()

    _, seconds = timed(run)
    return Measurement(seconds)


def deepfool(model: str, count: int, seed: int, batch_size: int) -> Measurement:
    x, y = data(count)
    attack = kr.attacks.DeepFool(norm="l2", steps=50, overshoot=0.02)
    result, seconds = timed(lambda: attack(network(model), x, y, seed=seed, batch_size=batch_size))
    return Measurement(seconds, {"x_adv": result.x_adv}, {"gradients": result.gradients})


def autoattack(model: str, count: int, seed: int, batch_size: int) -> Measurement:
    x, y = data(count)
    attack = kr.attacks.AutoAttack(norm="linf", epsilon=EPSILON, version="standard")
    evaluation, seconds = timed(
        lambda: kr.evaluate(network(model), x, y, attacks=attack, audit=False, seed=seed, batch_size=batch_size)
    )
    parts = {report.attack.name: round(report.result.seconds, 1) for report in evaluation.attacks}
    figures = {"precision": evaluation.precision, "parts": parts}
    return Measurement(seconds, {"x_adv": evaluation.worst.x_adv}, figures)


def smoothing(model: str, count: int, seed: int, batch_size: int, samples: int, least_radius: float) -> Measurement:
    """Measures certificates of randomized smoothing: 100 samples choose the class, `samples` bound its share."""
    x, y = data(count)
    found, seconds = timed(
        lambda: kr.certify(
            network(model), x, y, sigma=0.25, samples=samples, least_radius=least_radius, seed=seed,
            batch_size=batch_size,
        )
    )  # fmt: skip
    return Measurement(seconds, figures={"certified": found.certified(least_radius or 0.25).accuracy})


def judge(model: str, count: int, file: str, norm: str) -> Measurement:
    """Judges images: the one referee of all peers, our Keras model in float32.

    Returns:
        Under `broken` which images are wrong, bool (N,): also the ones that were wrong from the start, whatever an
        attack made of them. An image outside the box, or the ball of Linf, counts as its clean original.
    """
    x, y = data(count)
    with np.load(file) as stored:
        x_adv = stored["x_adv"].astype(np.float32)
    if x_adv.shape != x.shape:
        raise ValueError(f"Expected images of shape {x.shape}. Received: {x_adv.shape}.")
    gap = (x_adv.astype(np.float64) - x).reshape(len(x), -1)
    distance = np.abs(gap).max(axis=1) if norm == "linf" else np.linalg.norm(gap, axis=1)
    clean = right(network(model), x, y)
    flat = x_adv.reshape(len(x), -1)
    outside = ~np.isfinite(flat).all(axis=1) | (flat.min(axis=1) < -1e-6) | (flat.max(axis=1) > 1 + 1e-6)
    if norm == "linf":
        outside |= distance > EPSILON + 1e-6
    broken = ~clean | (~outside & ~right(network(model), x_adv, y))
    reached = np.where(broken, distance, np.inf)[clean]
    figures = {
        "clean": float(clean.mean()),
        "robust": float(1 - broken.mean()),
        "outside": int(outside.sum()),
        "median_distance": float(np.median(reached)) if len(reached) else float("nan"),
        "failed": int(np.sum(~np.isfinite(reached))),
    }
    return Measurement(0.0, {"broken": broken}, figures)


def right(model: keras.Model, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns which images the model gets right, bool (N,)."""
    return model.predict(x, batch_size=256, verbose=0).argmax(axis=1) == y


if __name__ == "__main__":
    keras.config.disable_interactive_logging()
    serve(
        {
            "export": export, "versions": versions, "judge": judge, "pgd": pgd, "gradients": gradients,
            "deepfool": deepfool, "autoattack": autoattack, "smoothing": smoothing, "train": train, "feed": feed,
        }
    )  # fmt: skip

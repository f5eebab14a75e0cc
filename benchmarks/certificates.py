"""Certificates held to what is known in closed form, to bare passes of the same network, and to what attacks find.

    python benchmarks/certificates.py [speed] [trials] [linear] [bounds] [--quick]

(speed) Samples a second of a certificate, beside bare forward passes of the same network in batches of the same size,
    in processor time of this process; both sides take turns. Tracing is left out: it doesn't grow with the samples.
(trials) 10,000 simulated counts for each of several shares, through the very function that turns votes into radii: how
    many radii are above the exact one, beside alpha.
(linear) A linear network on images of CIFAR-10's size, whose exact radius is its distance from the boundary: how many
    of the certified ones are above it, and how far below they are in the mean.
(bounds) Interval bounds of five networks: 100,000 perturbations of each network's images and what AutoAttack, PGD and
    FAB end at; the certified share beside what the attacks leave, in one line.

`--quick` takes a tenth of everything. The exit status is 1 where something isn't as it has to be.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import NormalDist

import keras
import numpy as np
import tensorflow as tf
from keras import layers as L

import kerasrobust as kr
from kerasrobust.attacks import FAB, PGD
from kerasrobust.attacks.task import Task
from kerasrobust.evaluation.bounds import certified_by_bounds
from kerasrobust.evaluation.sampling import Asked, Smoothing
from kerasrobust.evaluation.smoothing import certified_radii, certify
from kerasrobust.networks.making import classifier_of

MODELS = Path(__file__).parents[1] / "saved_models"
SPEED = 0.9
"""Of bare passes that a certificate has to reach."""

SHAPE = (32, 32, 3)


def speed(share: float) -> Iterator[bool]:
    """Yields for each network and noise whether sampling is nearly as fast as bare passes."""
    size, batches, rounds = 256, 4, max(3, round(15 * share))
    x = np.random.default_rng(0).random((8, *SHAPE), np.float32)
    for name in ("convnet", "convnet-adv", "lenet"):
        task = Task.checked(kr.load_model(MODELS / name), x, np.zeros(8, np.int64), precision="float32")
        graph, images = task.classifier.graph(), tf.constant(np.resize(x, (size, *SHAPE)))
        places = np.repeat(np.arange(8), batches * size // 8)
        for noise in ("gaussian", "uniform"):
            asked = Asked(task, Smoothing(noise=noise, sigma=0.25, samples=1, selection=1, needed=1))

            def bare(graph: Callable[[tf.Tensor], tf.Tensor] = graph, images: tf.Tensor = images) -> None:
                for _ in range(batches):
                    graph(images).numpy()

            def votes(asked: Asked = asked, places: np.ndarray = places) -> None:
                asked(places, np.arange(len(places)))

            seconds = in_turn(bare, votes, rounds)
            ratio = seconds[0] / seconds[1]
            rate = len(places) / seconds[1]
            print(f"{name:12}{noise:9} {ratio:.3f} of bare passes, {rate:,.0f} samples a second of processor time")
            yield ratio >= SPEED


def in_turn(one: Callable[[], None], other: Callable[[], None], rounds: int) -> tuple[float, float]:
    """Returns the median seconds of processor time of two functions that are called in turn."""
    one(), other()
    seconds: tuple[list[float], list[float]] = [], []
    for _ in range(rounds):
        for taken, work in zip(seconds, (one, other), strict=True):
            began = time.process_time()
            work()
            taken.append(time.process_time() - began)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def trials(share: float) -> Iterator[bool]:
    """Yields for each share, noise and alpha whether radii are above the exact one no more often than alpha allows."""
    count, samples, draw = round(10_000 * share), 10_000, np.random.default_rng(0)
    for alpha in (0.001, 0.05):
        for right in (0.55, 0.8, 0.99, 0.9999):
            votes = draw.binomial(samples, right, count)
            for noise in ("gaussian", "uniform"):
                exact = NormalDist().inv_cdf(right) if noise == "gaussian" else 2 * math.sqrt(3) * (right - 0.5)
                above = int((certified_radii(votes, samples, noise=noise, sigma=1.0, alpha=alpha) > exact).sum())
                # Three standard deviations above what alpha gives on average.
                most = count * alpha + 3 * math.sqrt(count * alpha)
                print(
                    f"share {right:6} alpha {alpha:5} {noise:9} {above:4} of {count:,} above, {alpha * count:g} allowed"
                )
                yield above <= most


def linear(share: float) -> Iterator[bool]:
    """Yields whether the certificates of a linear network are its exact radii within the sampling bound."""
    count, samples, sigma, alpha = 100, round(100_000 * share), 0.25, 0.001
    draw = np.random.default_rng(1)
    weights = draw.normal(size=math.prod(SHAPE))
    weights /= np.linalg.norm(weights)
    x = draw.uniform(0.35, 0.65, (count, len(weights)))
    x += np.outer(np.linspace(-0.7, 0.7, count) - (x - 0.5) @ weights, weights)
    x = x.astype(np.float32)
    model = keras.Sequential([keras.Input(SHAPE), L.Flatten(), L.Dense(2)])
    model.layers[-1].set_weights([np.stack([-weights, weights], 1) / 2, np.array([0.5, -0.5]) * weights.sum() / 2])
    distance = x.astype(np.float64) @ weights - weights.sum() / 2
    y = (distance > 0).astype(np.int64)
    found = certify(model, x.reshape(count, *SHAPE), y, sigma=sigma, samples=samples, alpha=alpha)
    exact, sure = abs(distance), found.radius > 0
    above = int((found.radius > exact).sum())
    reachable = np.minimum(exact, found.largest)
    below = (reachable - found.radius)[sure]
    print(
        f"linear, {samples:,} samples: {above} of {count} radii above the exact one ({alpha * count:g} allowed), "
        f"{below.mean():.4f} below it or the largest possible in the mean, {below.max():.4f} at most; abstained on "
        f"{found.abstained:.0%}"
    )
    # The bound of a share is a few times 1 / sqrt(samples) below it.
    yield above <= 2 and bool(below.max() < 16 / math.sqrt(samples))


def bounds(share: float) -> Iterator[bool]:
    """Yields for each network whether its bounds hold what perturbations and attacks find."""
    x, y = kr.load_data("cifar10", split="test[:100]")
    for name, model, epsilon in networks():
        images, labels = x[:: max(1, round(1 / share))], y[:: max(1, round(1 / share))]
        bounded = certified_by_bounds(model, images, labels, epsilon)
        run, draw, tried, inside = classifier_of(model, image_shape=SHAPE), np.random.default_rng(0), 0, True
        runner = run.runner(1_000)
        while tried < 100_000 * share:
            change = draw.uniform(-1, 1, images.shape)
            change = np.sign(change) if tried // len(images) % 2 else change
            near = np.clip(images + epsilon * change, 0, 1).astype(np.float32)
            inside &= holds(bounded, runner(near))
            tried += len(images)
        attacks = [PGD(epsilon=epsilon), FAB(epsilon=epsilon), kr.AutoAttack(epsilon=epsilon)]
        evaluation = kr.evaluate(model, images, labels, attacks=attacks, epsilon=epsilon, audit=False)
        reached = [report.result.x_adv for report in evaluation.attacks if report.attacked.all()]
        inside &= all(
            holds(bounded, runner(np.clip(near, images - np.float32(epsilon), images + np.float32(epsilon))))
            for near in (*reached, evaluation.worst.x_adv)
        )
        broken = int((bounded.certified & (evaluation.per_example < 1)).sum())
        print(
            f"{name:12} {tried:,} perturbations and {len(reached) + 1} attacks: {'inside' if inside else 'OUTSIDE'}; "
            f"{broken} certified images broken. {bounded.beside(evaluation.robust_accuracy)}"
        )
        yield inside and broken == 0 and bounded.accuracy <= evaluation.robust_accuracy


def holds(bounded: object, logits: np.ndarray) -> bool:
    """Returns whether logits lie within bounds."""
    return bool(((bounded.lower <= logits) & (logits <= bounded.upper)).all())  # type: ignore[attr-defined]


def networks() -> Iterator[tuple[str, keras.Model, float]]:
    """Yields five networks, each with a radius at which something is certified and something isn't."""
    yield "lenet", kr.load_model(MODELS / "lenet"), 0.002 / 255
    yield "convnet", kr.load_model(MODELS / "convnet"), 0.001 / 255
    yield "convnet-pgd", kr.load_model(MODELS / "convnet-pgd"), 0.1 / 255
    x, y = kr.load_data("cifar10", split="train[:5000]")
    keras.utils.set_random_seed(0)
    dense = keras.Sequential([keras.Input(SHAPE), L.Flatten(), L.Dense(128, activation="relu"), L.Dense(10)])
    small = keras.Sequential([
        keras.Input(SHAPE), L.Conv2D(16, 4, strides=4, activation="softplus"), L.BatchNormalization(),
        L.AveragePooling2D(2), L.Flatten(), L.Dense(10),
    ])  # fmt: skip
    for name, model, epsilon in (("dense", dense, 1 / 255), ("pooled", small, 0.1 / 255)):
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.fit(x, y, epochs=5, batch_size=64, verbose=0)
        yield name, model, epsilon


PARTS: dict[str, Callable[[float], Iterator[bool]]] = {
    "speed": speed, "trials": trials, "linear": linear, "bounds": bounds,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all without any")
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    kept = [PARTS[name](0.1 if chosen.quick else 1.0) for name in chosen.parts or PARTS]
    return int(not min(fine for part in kept for fine in part))


if __name__ == "__main__":
    sys.exit(main())

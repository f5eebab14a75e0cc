"""What attacks and adversarial training cost beyond the passes through the network that they can't do without.

    python benchmarks/overhead.py

(a) PGD-20 on 512 images, beside 20 bare gradients and one forward pass of the same network.
(b) One adversarial training step (FGSM-RS, PGD-7), beside its bare passes: k gradients of the images, a forward pass of
    a quarter of the batch (the clean figure), and a step of the weights with the same optimizer.

Everything in float32 and without early stop. Both sides of a ratio take turns, and medians are compared, so that a
machine which slows down in between disfavours neither. The exit status is 1 where a ratio is above the target.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from kerasrobust.attacks import PGD
from kerasrobust.networks.architectures import ARCHITECTURES, build_model
from kerasrobust.ops import losses
from kerasrobust.training import FGSM, AdversarialModel, Objective
from kerasrobust.training import PGD as PGDTraining

TARGET = 1.15


def in_turn(one: Callable[[], object], other: Callable[[], object], rounds: int) -> tuple[list[float], list[float]]:
    """Returns the seconds of two functions that are called in turn, after one call each to trace and warm up."""
    one(), other()
    seconds: tuple[list[float], list[float]] = [], []
    for _ in range(rounds):
        for taken, work in zip(seconds, (one, other), strict=True):
            began = time.perf_counter()
            work()
            taken.append(time.perf_counter() - began)
    return seconds


def alternate(one: Callable[[], object], other: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Returns the median seconds of two functions that are called in turn."""
    seconds = in_turn(one, other, rounds)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def bare_gradient(network: keras.Model, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Returns the gradient of the cross-entropy by the images, in inference mode: the work that no attack can save."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        loss = tf.reduce_sum(losses.cross_entropy(network(x, training=False), y))
    return tape.gradient(loss, x)


def attack_ratio(network: keras.Model, count: int, steps: int, rounds: int) -> tuple[float, float]:
    """Returns the seconds of PGD on `count` images, and of as many bare gradients and one forward pass."""
    draw = np.random.default_rng(0)
    x = draw.random((count, *network.input_shape[1:]), np.float32)
    y = draw.integers(0, 10, count)
    gradient = tf.function(lambda x, y: bare_gradient(network, x, y), autograph=False)
    forward = tf.function(lambda x: network(x, training=False), autograph=False)
    images, labels = tf.constant(x), tf.constant(y)

    def bare() -> None:
        for _ in range(steps):
            gradient(images, labels).numpy()
        forward(images).numpy()

    attack = PGD(epsilon=8 / 255, steps=steps)
    return alternate(
        lambda: attack(network, x, y, batch_size=count, precision="float32", early_stop=False), bare, rounds
    )


def training_ratio(
    network: keras.Model, objective: Objective, steps: int, size: int, rounds: int
) -> tuple[float, float]:
    """Returns the seconds of one adversarial training step, and of its bare passes."""
    draw = np.random.default_rng(0)
    x = tf.constant(draw.random((size, *network.input_shape[1:]), np.float32))
    y = tf.constant(draw.integers(0, 10, size))
    model = AdversarialModel(network, objective)
    # A rate of 0: the figures of the hundredth step are those of the first.
    model.compile(keras.optimizers.SGD(0.0, momentum=0.9, nesterov=True, weight_decay=5e-4), jit_compile=False)
    optimizer = keras.optimizers.SGD(0.0, momentum=0.9, nesterov=True, weight_decay=5e-4)
    optimizer.build(network.trainable_variables)

    @tf.function(autograph=False)
    def bare() -> tf.Tensor:
        total = tf.constant(0.0)
        for _ in range(steps):
            # One after the other, as in an attack; equal passes would be computed once.
            with tf.control_dependencies([total]):
                total += tf.reduce_sum(bare_gradient(network, x + 1e-20 * total, y))
        with tf.control_dependencies([total]):
            total += tf.reduce_sum(network(x[: size // 4], training=False))
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(losses.cross_entropy(network(x + 1e-20 * total, training=True), y))
        optimizer.apply(tape.gradient(loss, network.trainable_variables), network.trainable_variables)
        return loss

    # One batch, given again and again as `fit` would: without the Python of `train_on_batch` around it.
    step = model.make_train_function() or model.train_function
    batches = iter(tf.data.Dataset.from_tensors((x, y)).repeat())
    return alternate(lambda: float(step(batches)["loss"]), lambda: float(bare()), rounds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="convnet", choices=ARCHITECTURES, help="architecture, with random weights")
    parser.add_argument("--images", type=int, default=512, help="images of the attack")
    parser.add_argument("--steps", type=int, default=20, help="PGD steps of the attack")
    parser.add_argument("--batch-size", type=int, default=128, help="images of a training step")
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each side, at least 5 for a figure")
    args = parser.parse_args()
    network = build_model(args.model)
    rows = [(f"PGD-{args.steps} on {args.images} images", *attack_ratio(network, args.images, args.steps, args.rounds))]
    for name, objective, steps in (("FGSM-RS", FGSM(), 1), ("PGD-7", PGDTraining(steps=7), 7)):
        seconds = training_ratio(network, objective, steps, args.batch_size, 3 * args.rounds)
        rows.append((f"{name} training step, batch {args.batch_size}", *seconds))
    width = max(len(row[0]) for row in rows)
    print(f"{'':{width}}   seconds      bare   ratio (target <= {TARGET})")
    for name, taken, bare in rows:
        print(f"{name:{width}}  {taken:8.4f}  {bare:8.4f}   {taken / bare:5.3f}")
    return int(any(taken / bare > TARGET for _, taken, bare in rows))


if __name__ == "__main__":
    sys.exit(main())

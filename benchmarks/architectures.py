"""How many images a second each architecture is adversarially trained on, beside the plain convnet.

    python benchmarks/architectures.py
    python benchmarks/architectures.py "convnet 32-64-128" "resnet width=32 depth=2 stem=2 activation=silu"

PGD training steps of `AdversarialModel` on random images shaped like CIFAR-10, in the arithmetic that `auto` chooses.
The candidates take turns, round by round, and medians are compared, so that a machine which slows down in between
disfavours none of them. Multiplications are those of a forward pass on one image.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasrobust.networks.architectures import build_model
from kerasrobust.training import PGD, AdversarialModel
from kerasrobust.training.adversarial import training_precision

PLAIN = "convnet 32-64-128"
"""What all are compared with."""

CANDIDATES = (
    PLAIN,
    "convnet 32-64-128 pooling=average",
    "convnet 32-64-128 convolutions=2 pooling=average",
    "convnet 32-64-128 convolutions=2 pooling=average activation=silu",
    "convnet 32-64-128 convolutions=2 pooling=average activation=elu",
    "convnet 32-64-128 convolutions=3 pooling=average",
    "convnet 64-128-128 pooling=average",
    "convnet 64-128-128 convolutions=2 pooling=average",
    "convnet 64-128-256 convolutions=2 pooling=average",
    "convnet 64-128-256 convolutions=2 pooling=average stem=2",
    "resnet width=16 depth=2",
    "resnet width=16 depth=5",
    "resnet width=24 depth=3",
    "resnet width=32 depth=2",
    "resnet width=32 depth=2 stem=2",
    "resnet width=32 depth=2 stem=2 activation=silu",
)
"""Convnets of at most 1.2 million parameters and resnets of at most 0.8 million."""

BATCH = 128


def settings_of(candidate: str) -> dict[str, Any]:
    """Returns the arguments of `build_model` for an architecture, widths with dashes, and settings, as NAME=VALUE."""
    architecture, *words = candidate.split()
    settings: dict[str, Any] = {"architecture": architecture}
    for word in words:
        name, given, value = word.partition("=")
        if given:
            settings[name] = int(value) if value.isdigit() else value
        else:
            settings["widths"] = tuple(map(int, word.split("-")))
    return settings


def multiplications(network: keras.Model) -> int:
    """Returns the multiplications of the convolutions and dense layers in a forward pass on one image."""
    weighted = (layer for layer in network.layers if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)))
    return sum(math.prod(layer.kernel.shape) * math.prod(layer.output.shape[1:-1]) for layer in weighted)


def training_step(network: keras.Model, precision: str, steps: int) -> Callable[[], float]:
    """Returns a function that takes one training step and returns its loss."""
    draw = np.random.default_rng(0)
    x = tf.constant(draw.random((BATCH, *network.input_shape[1:]), np.float32))
    y = tf.constant(draw.integers(0, 10, BATCH))
    model = AdversarialModel(network, PGD(epsilon=8 / 255, steps=steps), precision=precision)
    # A rate of 0: no candidate learns the random images by heart while others don't.
    model.compile(keras.optimizers.SGD(0.0, momentum=0.9, nesterov=True, weight_decay=5e-4))
    # Without the Python of `train_on_batch` around it.
    step = model.make_train_function() or model.train_function
    batches = iter(tf.data.Dataset.from_tensors((x, y)).repeat())
    return lambda: float(step(batches)["loss"])


def seconds_of(work: Callable[[], object], times: int) -> float:
    began = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - began) / times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("candidates", nargs="*", default=list(CANDIDATES), help="all without them; the first is 1.00")
    parser.add_argument("--steps", type=int, nargs="+", default=[7, 2], help="PGD steps of a training step")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each candidate, at least 5 for a figure")
    parser.add_argument("--seconds", type=float, default=1.0, help="about how long a turn takes, at least one step")
    parser.add_argument("--precision", default="auto", help="of the attack's gradients")
    args = parser.parse_args()
    x = np.random.default_rng(1).random((BATCH, 32, 32, 3), np.float32)
    networks, arithmetics, work = {}, {}, {}
    for name in args.candidates:
        keras.utils.set_random_seed(0)
        networks[name] = build_model(**settings_of(name))
        arithmetics[name] = training_precision(networks[name], args.precision, x)
        for steps in args.steps:
            work[name, steps] = training_step(networks[name], arithmetics[name], steps)
            work[name, steps]()  # Traced here.
    times = {key: max(1, round(args.seconds / seconds_of(step, 1))) for key, step in work.items()}
    seconds: dict[tuple[str, int], list[float]] = {key: [] for key in work}
    for _ in range(args.rounds):
        for key, step in work.items():
            seconds[key].append(seconds_of(step, times[key]))
    width = max(map(len, networks))
    heads = "".join(f"  PGD-{steps} images/s  ratio" for steps in args.steps)
    print(f"{'':{width}}  parameters  multiplications  arithmetic{heads}")
    for name, network in networks.items():
        row = f"{name:{width}}  {network.count_params():10,}  {multiplications(network) / 1e6:13.1f} M"
        row += f"  {arithmetics[name]:>10}"
        for steps in args.steps:
            rate, first = (BATCH / statistics.median(seconds[one, steps]) for one in (name, args.candidates[0]))
            row += f"  {rate:{len(str(steps)) + 13}.0f}  {rate / first:5.2f}"
        print(row)


if __name__ == "__main__":
    main()

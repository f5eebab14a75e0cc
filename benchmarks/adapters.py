"""What it costs to take models as they are: with other ranges of pixels, orders of colours and axes, and image sizes.

    python benchmarks/adapters.py

(a) PGD of a model that needs a conversion, which the adapter makes, beside the same conversion within the model.
(b) PGD of a network that needs none, with range and order of colours left to be found out, beside both said.

Everything in float32, and with an epsilon at which no image falls. Both sides take turns, and the ratios of pairs are
compared. The exit status is 1 where a ratio is surely above the target.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import layers
from overhead import in_turn

from kerasrobust import as_classifier, evaluate
from kerasrobust.attacks import PGD
from kerasrobust.networks.architectures import ARCHITECTURES, build_model

Seconds = tuple[list[float], list[float]]

TARGET = 1.03

SHAPE = (32, 32, 3)

CAFFE = np.float32([103.939, 116.779, 123.68])
MEAN, DEVIATION = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])

NEEDS: dict[str, tuple[dict[str, Any], Callable[[Any], Any]]] = {
    "[0, 255]": ({"input_range": "0,255", "colors": "rgb"}, lambda x: 255 * x),
    "[-1, 1]": ({"input_range": "-1,1", "colors": "rgb"}, lambda x: 2 * x - 1),
    "imagenet": ({"input_range": "imagenet", "colors": "rgb"}, lambda x: (x - MEAN) / DEVIATION),
    "caffe": ({"input_range": "caffe", "colors": "bgr"}, lambda x: 255 * x[..., ::-1] - CAFFE),
    "channels first": (
        {"input_range": "0,1", "colors": "rgb", "channels": "first"},
        lambda x: keras.ops.transpose(x, (0, 3, 1, 2)),
    ),
    "48x48 pixels": (
        {"input_range": "0,1", "colors": "rgb", "resize": True},
        layers.Resizing(48, 48, antialias=True),
    ),
}
"""What is said of a model, and the conversion of images (N, 32, 32, 3) in [0, 1] that it needs."""


def needing(network: keras.Model, need: str, x: np.ndarray, work: Callable[..., object], rounds: int) -> Seconds:
    """Returns the seconds of an attack through the adapter, and with the conversion within the model."""
    said, way = NEEDS[need]
    image = keras.Input(SHAPE)
    converted = way(image)
    if need == "channels first":
        seen = keras.Input(converted.shape[1:])
        model = keras.Model(seen, network(keras.ops.transpose(seen, (0, 2, 3, 1))))
    elif converted.shape != image.shape:
        model = build_model(network.name, image_shape=converted.shape[1:])
    else:
        # What it was trained on doesn't matter for the time.
        model = network
    within = keras.Model(image, model(converted))
    y = within.predict(x, verbose=0).argmax(axis=1)
    through = as_classifier(model, image_shape=SHAPE, **said)
    plain = as_classifier(within, input_range="0,1", colors="rgb")
    return in_turn(lambda: work(through, x, y), lambda: work(plain, x, y), rounds)


def needless(network: keras.Model, x: np.ndarray, work: Callable[..., object], rounds: int) -> Seconds:
    """Returns the seconds of an evaluation with everything left to be found out, and with everything said."""
    # Copies, as what is said stays with a model.
    auto, said = (keras.models.clone_model(network) for _ in range(2))
    for copy in (auto, said):
        copy.set_weights(network.get_weights())
    told = as_classifier(said, input_range="0,1", colors="rgb", outputs="logits")
    y = network.predict(x, verbose=0).argmax(axis=1)
    return in_turn(lambda: work(auto, x, y), lambda: work(told, x, y), rounds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="lenet", choices=ARCHITECTURES, help="architecture, with random weights")
    parser.add_argument("--images", type=int, default=256, help="images of the attack")
    parser.add_argument("--steps", type=int, default=10, help="PGD steps of the attack")
    parser.add_argument("--rounds", type=int, default=80, help="pairs of measurements; on shared machines they vary")
    args = parser.parse_args()
    network = build_model(args.model)
    x = np.random.default_rng(0).random((args.images, *SHAPE), np.float32)
    settings: dict[str, Any] = {"batch_size": args.images, "precision": "float32"}
    # Too small to find anything, so that all steps are taken.
    attack = PGD(epsilon=1e-6, steps=args.steps)
    attacking = partial(attack, **settings)
    evaluating = partial(evaluate, attacks=attack, audit=False, **settings)
    width = max(map(len, NEEDS))
    print(f"{'conversion':{width}}   adapter     model   ratio with its 95 % interval (target <= {TARGET})", flush=True)
    above = False
    measured = {need: partial(needing, network, need, x, attacking, args.rounds) for need in NEEDS}
    measured["none"] = partial(needless, network, x, evaluating, args.rounds)
    for name, measure in measured.items():
        seconds = measure()
        ratios = np.divide(*seconds)
        # How many pairs lie below the true median is binomial, with a deviation of half the root of their number.
        place = max(0, int(len(ratios) / 2 - 0.98 * len(ratios) ** 0.5))
        low, middle, high = np.sort(ratios)[place], np.median(ratios), np.sort(ratios)[-1 - place]
        above |= low > TARGET
        taken, bare = np.median(seconds, axis=1)
        print(f"{name:{width}}  {taken:8.4f}  {bare:8.4f}   {middle:5.3f} ({low:5.3f}-{high:5.3f})", flush=True)
    return int(above)


if __name__ == "__main__":
    sys.exit(main())

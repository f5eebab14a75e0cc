"""What there is to say of a model beside its outputs: its noise, and layers that compute in integers."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasrobust.networks.adapters.adapter import Adapter, Conventions
from kerasrobust.networks.architectures import is_graph, predicting
from kerasrobust.networks.logits import logits_of, noise_left_out
from kerasrobust.networks.noise import is_noisy, noise_off
from kerasrobust.networks.probe import TRACED, Forward, Probed, apart, one_output, trial


def integer_layers(name: str, adapter: Adapter) -> tuple[str, str]:
    """Returns the warning of a model whose layers compute another thing in integers than in floating numbers."""
    return (
        "integer-layers",
        f"Layers of {name!r} compute in {adapter.dtype}, as normalization and resizing do with whole numbers. "
        "Answers are those of the model, gradients those of the same layers in float32. With Rescaling(1.0) as its "
        "first layer a model is trained in float32.",
    )


def about_noise(
    network: Any, inner: Forward, probed: Probed, name: str, adapter: Adapter, said: Conventions
) -> list[tuple[str, str]]:
    """Returns what there is to say of layers that draw noise in `model(x)` alone, or in `predict`."""
    found = []
    left_out = noise_left_out(network) if is_graph(network) and said.noise == "off" else []
    if left_out:  # Layers that only resize are among them.
        kept = adapter.around(logits_of(network, "on"))
        left_out = left_out if any(differ(adapter.around(inner), kept, probed.shape, name) for _ in range(3)) else []
    if left_out:
        message = (
            f"{', '.join(left_out)} of {name!r} is at work in model(x), but not in predict. It is attacked without, as "
            "predict has it. Give --noise on, or noise='on' to as_classifier, to attack it with that."
        )
        found.append(("training-noise", message))
    if isinstance(network, keras.Model) and probed.randomized and not (is_noisy(network) or predicting(network)):
        message = (
            f"{name!r} draws noise in predict: its call takes no `training`, and Keras leaves layers that augment "
            "images on then. It is attacked so. Pass `training` on to them to switch them off."
        )
        found.append(("training-noise", message))
    return found


def differ(one: Forward, other: Forward, shape: tuple[int, ...], name: str) -> bool:
    """Returns whether two passes without `RandomDropout` give different outputs, in graphs as in predict."""

    def outputs(run: Forward) -> np.ndarray:
        # Keras 3.15 resizes uint8 to uint8 outside of graphs, and to float32 inside.
        graph = tf.function(lambda x: one_output(run(x), name), autograph=False)
        return trial(lambda x: graph(tf.constant(x)).numpy(), shape, name)

    with noise_off():
        return apart(outputs(one), outputs(other)) > TRACED

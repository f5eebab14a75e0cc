"""The moving average of a network's weights, which is evaluated and saved in its place."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from kerasrobust.errors import InputError
from kerasrobust.networks.architectures import is_graph
from kerasrobust.networks.cloning import clone


def average_of(network: keras.Model) -> keras.Model:
    """Returns a copy of a network with weights of its own, equal so far, that no optimizer trains.

    Raises:
        InputError: for a network that isn't a functional or Sequential model.
    """
    if not is_graph(network):
        raise InputError(
            f"Expected a functional or Sequential network to average. Received: {network.name!r}, a subclass. "
            "Train it without averaging."
        )
    copy = clone(network, lambda layer: layer.dtype_policy.name)
    freeze(copy)
    return copy


def freeze(average: keras.Model) -> None:
    """Keeps optimizers and regularizers from an average, variable by variable: its layers stay as they are saved."""
    for variable in average.weights:
        variable.trainable = False


def update_average(average: keras.Model, network: keras.Model, decay: float, steps: Any) -> None:
    """Moves an average towards the network's weights, as part of a training step.

        average <- d average + (1 - d) weights,  d = min(decay, (1 + steps) / (10 + steps))

    so that the first steps, of an untrained network, are soon forgotten. The statistics of batch normalisation are
    averaged likewise; what isn't a floating number is copied.

    Args:
        average: from `average_of`.
        network: the one that is trained.
        decay: how much of the average is kept from step to step, in [0, 1).
        steps: updates of the average, with this one, a scalar.
    """
    done = tf.cast(steps, tf.float32)
    gain = 1.0 - tf.minimum(decay, (1.0 + done) / (10.0 + done))
    for old, new in zip(average.weights, network.weights, strict=True):
        if keras.backend.is_float_dtype(new.dtype):
            old.assign_sub(tf.cast(gain, old.dtype) * (old - new))
        else:
            old.assign(new)

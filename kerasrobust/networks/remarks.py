"""What there is to say of a model beside its outputs: its noise, and layers that compute in integers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasrobust.events import Severity
from kerasrobust.networks.adapters.adapter import Adapter, Conventions
from kerasrobust.networks.architectures import is_graph, predicting
from kerasrobust.networks.logits import logits_of, noise_left_out
from kerasrobust.networks.noise import is_noisy, noise_off
from kerasrobust.networks.probe import TRACED, Forward, Probed, apart, one_output, trial


class Doubt(str):
    """A note of what isn't clear, and was taken to be so: it warns, where other notes inform."""

    __slots__ = ()


def by_severity(notes: Iterable[str]) -> dict[Severity, str]:
    """Returns notes as one text for each severity that they have.

    Example:
        >>> by_severity(["It ends in softmax.", Doubt("Its range isn't clear.")])
        {'info': 'It ends in softmax.', 'warning': "Its range isn't clear."}
    """
    found: dict[Severity, str] = {}
    for note in notes:
        severity: Severity = "warning" if isinstance(note, Doubt) else "info"
        found[severity] = f"{found[severity]} {note}" if severity in found else str(note)
    return found


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
        with _unmoved(network):
            # Three times, as an image may be left as it is by chance.
            changes = differ(adapter.around(inner), kept, probed, name, tries=3)
        left_out = left_out if changes else []
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


@contextlib.contextmanager
def _unmoved(network: keras.Model) -> Iterator[None]:
    """Puts back what a pass in training mode moves: means of BatchNormalization, states of random generators."""
    before = [(variable, np.array(variable)) for variable in network.non_trainable_variables]
    try:
        yield
    finally:
        for variable, value in before:
            variable.assign(value)


def differ(one: Forward, other: Forward, probed: Probed, name: str, tries: int = 1) -> bool:
    """Returns whether two passes without `RandomDropout` give different outputs, in graphs as in predict.

    Args:
        one: images to outputs.
        other: likewise; it may draw noise.
        probed: what is known of the model.
        name: what error messages call it.
        tries: how often the other pass is made.
    """

    def outputs(run: Forward) -> Callable[[], np.ndarray]:
        def plain(x: tf.Tensor) -> tf.Tensor:
            return one_output(run(x), name)

        graph = probed.as_predicted(plain)
        return lambda: trial(lambda x: graph(tf.constant(x)).numpy(), probed.shape, name)

    with noise_off():
        first, again = outputs(one)(), outputs(other)
        return any(apart(first, again()) > TRACED for _ in range(tries))

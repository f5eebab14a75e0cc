"""The range of pixels that a model's first layers show."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from colours import Data
from keras import layers as L

from kerasrobust.data.load import load_data
from kerasrobust.evaluation.evaluate import evaluate
from kerasrobust.networks.adapters.first_layers import range_shown
from kerasrobust.networks.adapters.ranges import understood
from kerasrobust.networks.architectures import build_model
from kerasrobust.networks.making import as_classifier

FIRST = [
    (L.Rescaling(1 / 255), "0,255"),
    (L.Rescaling(1 / 127.5, offset=-1), "0,255"),
    (L.Rescaling(2.0, offset=-1), "0,1"),
    (L.Rescaling(4.0, offset=-2), "0,1"),
    (L.Rescaling(255.0), "0,1"),
    (L.Rescaling(1 / 16), "0,16"),
    (L.Rescaling(0.5, offset=0.5), "-1,1"),
    (L.Rescaling(127.5, offset=127.5), "-1,1"),
    (L.Rescaling([1 / 58.4, 1 / 57.1, 1 / 57.4], offset=[-2.12, -2.04, -1.8]), "0,255"),
    (L.Rescaling(1.0), ""),
    (L.Rescaling(0.25), ""),
    (L.Rescaling(4.0), ""),
    (L.Rescaling(1.0, offset=0.5), ""),
    (L.Normalization(mean=[120.0] * 3, variance=[3600.0] * 3), "0,255"),
    (L.Normalization(mean=[0.1] * 3, variance=[0.4] * 3), ""),
    (L.Conv2D(2, 3), ""),
]


@pytest.mark.parametrize(("layer", "shown"), FIRST)
def test_first_layers_show_it(layer: L.Layer, shown: str) -> None:
    model = keras.Sequential([keras.Input((8, 8, 3)), L.RandomFlip(), layer, L.Flatten(), L.Dense(3)])
    assert range_shown(model) == shown


BEFORE = [
    (lambda x: x[..., ::-1], True),
    (lambda x: keras.ops.cast(x, "float32"), True),
    (lambda x: L.Concatenate()([x[..., :1]] * 3), True),
    (keras.Sequential([L.RandomFlip(), L.Resizing(6, 6)]), True),
    (lambda x: L.ZeroPadding2D()(L.RandomBrightness(0.1)(x)), True),
    (lambda x: 255 * x, False),
    (keras.Sequential([L.RandomFlip(), L.ReLU()]), False),
    (L.Discretization(np.linspace(0.1, 0.9, 9).tolist()), False),
    (L.Lambda(lambda x: (x + 1) * 127.5), False),
    (L.LayerNormalization(), False),
    (L.Conv2D(3, 1), False),
]
"""What stands before a Rescaling, and whether that takes the pixels of the model's images."""


@pytest.mark.parametrize(("before", "kept"), BEFORE)
def test_a_rescaling_shows_nothing_behind_what_changes_pixels(before: Any, kept: bool) -> None:
    seen = keras.Input((8, 8, 3))
    model = keras.Model(seen, L.Dense(3)(L.Flatten()(keras.Sequential([L.Rescaling(1 / 255)])(before(seen)))))
    assert range_shown(model) == ("0,255" if kept else "")


@pytest.mark.parametrize(("factor", "count"), [(255.0, 12), (127.5, 400)])
def test_pixels_that_a_model_scales_before_its_own_rescaling_are_taken_so(
    factor: float, count: int, coloured: Data, colour_network: keras.Model
) -> None:
    """As where [0, 1] is given to a network of `keras.applications` that takes [0, 255]."""
    x, y = coloured[0][:count], coloured[1][:count]
    seen = keras.Input((8, 8, 3))
    offset = 255 - factor
    inner = keras.Sequential([keras.Input((8, 8, 3)), L.Rescaling(1 / 255), colour_network])
    model = keras.Model(seen, inner(factor * seen + offset))
    evaluation = evaluate(model, x, y, attacks="fgsm", epsilon=1 / 255)
    own = model.predict(x if offset == 0 else 2 * x - 1, verbose=0).argmax(axis=1)
    assert (own == y).mean() > 0.9
    assert evaluation.clean_accuracy == (own == y).mean()


@pytest.mark.parametrize(
    ("first", "low", "high"),
    [
        ([L.Rescaling(0.5, offset=0.5)], -1, 1),
        ([L.Rescaling(1 / 16)], 0, 16),
        ([L.Rescaling(1.0), L.Rescaling(1 / 255)], 0, 255),
        ([L.Normalization(mean=[-1.0] * 3, variance=[4.0] * 3)], -1, 1),
    ],
    ids=["[-1, 1] to [0, 1]", "sixteen levels", "nothing, then [0, 255] to [0, 1]", "adapted to [-1, 1]"],
)
def test_a_first_layer_that_may_take_others_proves_no_range(
    first: list[L.Layer], low: int, high: int, coloured: Data, colour_network: keras.Model
) -> None:
    x, y = coloured
    model = keras.Sequential([keras.Input((8, 8, 3)), *first, colour_network])
    evaluation = evaluate(model, x, y, attacks="fgsm", epsilon=1 / 255)
    assert evaluation.conventions["input_range"] == f"{low},{high}"
    assert not {finding.code for finding in evaluation.findings} & {"input-range", "at-chance"}
    own = model.predict(x * (high - low) + low, verbose=0).argmax(axis=1)
    assert evaluation.clean_accuracy == (own == y).mean() > 0.9


def test_few_images_are_enough_where_the_first_layer_shows_it(coloured: Data) -> None:
    x, y = coloured
    model = keras.Sequential([keras.Input((8, 8, 3)), L.Rescaling(1 / 255), L.Flatten(), L.Dense(6)])
    found = understood(as_classifier(model), x[:3], y[:3])
    assert found.conventions.input_range == "0,255"


def test_our_networks_are_asked_nothing() -> None:
    x, y = load_data("shapes", "test[:20]")
    classifier = as_classifier(build_model("lenet"))
    assert understood(classifier, x, y) is classifier

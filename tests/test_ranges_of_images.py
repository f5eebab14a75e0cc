"""What unusual images, and images of other channels, show of a model's range."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from colours import Data, taking
from keras import layers as L

from kerasrobust.errors import InputError
from kerasrobust.evaluation.evaluate import evaluate
from kerasrobust.networks.adapters.choosing import Choice
from kerasrobust.networks.adapters.ranges import understood
from kerasrobust.networks.making import as_classifier


@pytest.mark.parametrize("classes", [1, 4])
def test_images_of_one_class_raise_no_doubt(
    classes: int, monkeypatch: pytest.MonkeyPatch, coloured: Data, colour_network: keras.Model
) -> None:
    x, _ = coloured
    choice = Choice(("0,1", "rgb"), (), (0.41, 0.4), False, ("0,255", "rgb"))
    monkeypatch.setattr("kerasrobust.networks.adapters.ranges.choice_of", lambda *_: choice)
    found = understood(as_classifier(colour_network), x[:100], np.arange(100) % classes)
    assert any("isn't clear" in note for note in found.notes) is (classes > 1)


@pytest.mark.parametrize("share", [0.1, 0.4])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_images_without_numbers_hide_no_range(
    value: float, share: float, coloured: Data, colour_network: keras.Model
) -> None:
    x, y = coloured
    outer = taking(colour_network, "0,255", "rgb")
    limit = 255 * float(np.quantile(x[..., 0].mean(axis=(1, 2)), 1 - share))
    logits = outer.output + tf.constant(value) * keras.ops.zeros_like(outer.output)
    red = outer.input[..., :1]
    # Not the random images that every model is tried on.
    some = (keras.ops.mean(red, axis=(1, 2)) > limit) & (keras.ops.std(red, axis=(1, 2)) < 50)
    model = keras.Model(outer.input, keras.ops.where(some, logits, outer.output))
    evaluation = evaluate(model, x, y, attacks="fgsm", epsilon=1 / 255)
    assert evaluation.conventions["input_range"] == "0,255"
    assert "nan-logits" in {finding.code for finding in evaluation.findings}
    assert "batch-dependence" not in {finding.code for finding in evaluation.findings}


@pytest.mark.parametrize("label", [0, 1])
def test_images_without_numbers_in_one_range_alone_tell_nothing(label: int) -> None:
    """Flat images have no deviation in [0, 1]; in other ranges rounding leaves one, and any answer."""
    x = np.random.default_rng(0).random((64, 6, 6, 1)).astype(np.float32)
    x[-16:] = np.linspace(0, 1, 16, dtype=np.float32)[:, None, None, None]
    seen = keras.Input((6, 6, 1))
    mean, deviation = (way(seen, axis=(1, 2, 3), keepdims=True) for way in (keras.ops.mean, keras.ops.std))
    keras.utils.set_random_seed(0)
    model = keras.Model(seen, L.Dense(3)(L.Flatten()((seen - mean) / deviation)))
    logits = model.predict(x, verbose=0)
    y = np.nan_to_num(logits).argmax(axis=1)
    y[-16:] = label
    found = understood(as_classifier(model), x, y)
    assert found.conventions.said() == {} and found.notes == []


@pytest.mark.parametrize("place", [0, 6])
def test_a_masked_class_hides_no_range(place: int, coloured: Data, colour_network: keras.Model) -> None:
    x, y = coloured
    outer = taking(colour_network, "-1,1", "rgb")
    masked = keras.ops.full_like(outer.output[:, :1], -np.inf)
    parts = [masked, outer.output] if place == 0 else [outer.output, masked]
    model = keras.Model(outer.input, keras.ops.concatenate(parts, axis=1))
    evaluation = evaluate(model, x, y + (place == 0), attacks="fgsm", epsilon=1 / 255)
    assert evaluation.conventions["input_range"] == "-1,1"
    assert evaluation.clean_accuracy > 0.9


@pytest.mark.parametrize("input_range", ["imagenet", "caffe"])
def test_grey_images_of_a_colour_model_show_every_range(
    input_range: str, coloured: Data, colour_network: keras.Model
) -> None:
    x, y = coloured
    grey = x.mean(axis=3, keepdims=True)
    model = taking(colour_network, input_range, "bgr" if input_range == "caffe" else "rgb")
    three = understood(as_classifier(model), np.repeat(grey, 3, axis=3), y)
    one = understood(as_classifier(model), grey, y)
    assert one.conventions.said() == three.conventions.said()
    np.testing.assert_allclose(one.run(grey[:9]), three.run(np.repeat(grey[:9], 3, axis=3)), rtol=1e-5, atol=1e-5)


def test_colour_images_of_a_grey_model_are_taken(coloured: Data) -> None:
    """The model was trained on grey images in [-1, 1]."""
    x, y = coloured
    grey = x @ np.float32([[0.2989], [0.587], [0.114]])
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8, 8, 1)), L.Flatten(), L.Dense(16, activation="relu"), L.Dense(6)])
    model.compile(keras.optimizers.Adam(5e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(2 * grey - 1, y, epochs=15, verbose=0)
    found = understood(as_classifier(model), x, y)
    assert found.conventions.input_range == "-1,1"
    np.testing.assert_allclose(found.run(x[:9]), model(2 * grey[:9] - 1), rtol=1e-3, atol=1e-3)
    with pytest.raises(InputError, match=r"images of 1 channel.*MEAN/STD"):
        as_classifier(model, input_range="imagenet")


def test_fewer_images_than_classes_are_looked_at(coloured: Data, colour_network: keras.Model) -> None:
    x, y = coloured
    outer = taking(colour_network, "-1,1", "rgb")
    rest = keras.ops.zeros_like(outer.output[:, :1]) - 5 + keras.ops.zeros((1, 194))
    model = keras.Model(outer.input, keras.ops.concatenate([outer.output, rest], axis=1))
    assert understood(as_classifier(model), x[:150], y[:150]).conventions.input_range == "-1,1"


@pytest.mark.parametrize(("plain", "told"), [(0.66, True), (0.30, False)])
def test_images_that_were_changed_are_named_as_a_reason(
    plain: float, told: bool, monkeypatch: pytest.MonkeyPatch, coloured: Data, colour_network: keras.Model
) -> None:
    """A network that takes [0, 1] is right on 66 % in fog, and on 90 % where a mean is taken away."""
    x, y = coloured
    choice = Choice(("imagenet", "rgb"), (), (0.9, plain))
    monkeypatch.setattr("kerasrobust.networks.adapters.ranges.choice_of", lambda *_: choice)
    found = understood(as_classifier(taking(colour_network, "0,1", "rgb")), x[:40], y[:40])
    assert found.conventions.input_range == "imagenet"
    assert any("as by fog" in note for note in found.notes) is told


def test_a_range_in_which_all_images_are_of_one_class_is_not_advised(
    coloured: Data, colour_network: keras.Model
) -> None:
    """In [0, 1] the model says the same of all images, which is right on more of them than in its own range."""
    x = coloured[0][:200]
    model = taking(colour_network, "0,255", "rgb")
    constant = model.predict(x, verbose=0).argmax(axis=1)
    assert len(np.unique(constant)) == 1
    own = model.predict(255 * x, verbose=0).argmax(axis=1)
    y = np.where(np.arange(200) % 2 == 0, constant[0], (own + 1) % 6)
    evaluation = evaluate(as_classifier(model, input_range="0,255"), x, y, attacks="fgsm", epsilon=1 / 255)
    assert "input-range" not in {finding.code for finding in evaluation.findings}


@pytest.mark.parametrize("scale", [1, 255])
@pytest.mark.parametrize("grey", [False, True])
def test_images_less_their_own_mean_are_asked_about(
    scale: float, grey: bool, coloured: Data, colour_network: keras.Model
) -> None:
    """As in tutorials for CIFAR-10. What the message names is what the network takes."""
    x, y = coloured
    x = x.mean(axis=-1, keepdims=True) if grey else x
    seen = keras.Input(x.shape[1:])
    restored = seen / scale + x.mean(axis=(0, 1, 2))
    if grey:
        levels = np.float32([x[y == k].mean() for k in range(6)])  # The nearest of the classes' brightnesses.
        model = keras.Model(seen, -1e3 * (keras.ops.mean(restored, axis=(1, 2)) - levels) ** 2)
    else:
        model = keras.Model(seen, colour_network(restored))
    with pytest.raises(InputError, match="less their mean") as caught:
        understood(as_classifier(model), x, y)
    told = as_classifier(model, input_range=str(caught.value).rpartition(" ")[2][:-1])
    right = (model.predict((x - x.mean(axis=(0, 1, 2))) * scale, verbose=0).argmax(axis=1) == y).mean()
    assert right > 0.45
    assert (told.run(x).argmax(axis=1) == y).mean() == pytest.approx(right, abs=0.02)


def test_images_standardised_one_by_one_are_asked_about() -> None:
    """Classes are told by a tint, or none, relative to the contrast of an image, which is any."""
    draw = np.random.default_rng(7)
    y = draw.integers(0, 4, 300)
    colours = np.array([[1.0, -0.5, -0.5], [-0.5, 1.0, -0.5], [-0.5, -0.5, 1.0], [0.0, 0.0, 0.0]])
    spread = draw.uniform(0.02, 0.2, (300, 1, 1, 1))
    x = draw.uniform(0.3, 0.7, (300, 1, 1, 1)) + spread * (
        colours[y][:, None, None] + draw.normal(0, 0.7, (300, 8, 8, 3))
    )
    x = np.clip(x, 0, 1).astype(np.float32)
    seen = keras.Input((8, 8, 3))
    pooled = keras.ops.mean(seen, axis=(1, 2))
    # Right only where the images have mean 0 and deviation 1.
    model = keras.Model(seen, -20 * keras.ops.sum((pooled[:, None] - 0.8 * colours.astype(np.float32)) ** 2, axis=-1))
    own = model.predict(tf.image.per_image_standardization(x).numpy(), verbose=0).argmax(axis=1)
    assert (own == y).mean() > 0.95
    with pytest.raises(InputError, match=r"standardised one by one.*per_image_standardization"):
        understood(as_classifier(model), x, y)


@pytest.mark.parametrize("outputs", [1, 3])
def test_images_of_one_class_show_no_range(outputs: int, coloured: Data) -> None:
    """Pixels of 255 times the size drive this model to its last class, whatever the image."""
    x, _ = coloured
    bias = np.linspace(0, -1.8, outputs) if outputs > 1 else np.array([-1.8])
    head = L.Dense(outputs, "sigmoid" if outputs == 1 else None)
    model = keras.Sequential([keras.Input(x.shape[1:]), L.GlobalAveragePooling2D(), head])
    head.set_weights([np.tile(np.linspace(0, 1, max(outputs, 2))[-outputs:], (x.shape[3], 1)), bias])
    last = max(outputs, 2) - 1
    classifier = as_classifier(model)
    assert (np.asarray(classifier(tf.constant(x[:50]))).argmax(axis=1) != last).mean() > 0.5
    with pytest.raises(
        InputError, match=r"one class, of which [0-9.]+ % of \d+ images are right in \[0, 1\], and all"
    ) as error:
        understood(classifier, x, np.full(len(x), last))
    assert "--input-range" in str(error.value)
    # Of several classes the same model is asked nothing.
    y = np.asarray(classifier(tf.constant(x))).argmax(axis=1)
    y[:3] = last
    assert understood(as_classifier(model), x, y).conventions.input_range == "auto"

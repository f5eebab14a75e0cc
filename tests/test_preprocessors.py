"""Models that preprocess images in `predict` alone, as KerasHub's do: their preprocessor is put in front."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

from kerasrobust import AdversarialModel, as_classifier, evaluate
from kerasrobust.config import TrainConfig
from kerasrobust.data.dataset import Dataset
from kerasrobust.errors import InputError
from kerasrobust.jobs.train import make_network
from kerasrobust.networks.making import classifier_of
from kerasrobust.networks.saving import load_model, save_model


@keras.saving.register_keras_serializable("tests")
class Converter(L.Layer):
    """What KerasHub's `ImageConverter` does: resizes, multiplies and adds."""

    def __init__(self, image_size: Any = None, scale: Any = 1.0, offset: Any = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.image_size, self.scale, self.offset = image_size, scale, offset

    def call(self, x: Any) -> Any:
        x = x if self.image_size is None else keras.ops.image.resize(x, self.image_size)
        return x * keras.ops.array(self.scale) + keras.ops.array(self.offset)

    def compute_output_shape(self, shape: Any) -> Any:
        return (shape[0], *(self.image_size or shape[1:3]), shape[3])

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"image_size": self.image_size, "scale": self.scale, "offset": self.offset}


class Preprocessor:
    """Images to what a converter makes of them, and more if it says so."""

    def __init__(self, converter: Any = None, more: float = 0.0) -> None:
        self.image_converter, self.more = converter, more

    def __call__(self, x: Any) -> Any:
        return (x if self.image_converter is None else self.image_converter(x)) + self.more


def preprocessed(self: Any, x: Any, **kwargs: Any) -> Any:
    """What `PipelineModel` of KerasHub does in `predict`."""
    return keras.Model.predict(self, x if self.preprocessor is None else self.preprocessor(x), verbose=0, **kwargs)


class Task(keras.Model):
    """A graph of layers whose `predict` preprocesses, as that of a KerasHub task."""

    predict = preprocessed

    def __init__(self, preprocessor: Any, shape: Any = (8, 8, 3)) -> None:
        images = keras.Input(shape)
        hidden = L.GlobalAveragePooling2D()(L.Conv2D(4, 3, activation="relu", kernel_initializer="he_normal")(images))
        super().__init__(images, L.Dense(3, kernel_initializer="he_normal")(hidden), name="task")
        self.preprocessor = preprocessor


@keras.saving.register_keras_serializable("tests")
class Registered(Task):
    """One that can be saved, with its preprocessor, as KerasHub's can."""

    def get_config(self) -> dict[str, Any]:
        return {"converter": keras.saving.serialize_keras_object(self.preprocessor.image_converter)}

    @classmethod
    def from_config(cls, config: Any, custom_objects: Any = None) -> Registered:
        return cls(Preprocessor(keras.saving.deserialize_keras_object(config["converter"])))


class Own(keras.Model):
    """The same with a `call` of its own."""

    predict = preprocessed

    def __init__(self, preprocessor: Any) -> None:
        super().__init__(name="own")
        self.preprocessor = preprocessor
        self.parts = [L.Conv2D(4, 3, activation="relu"), L.Flatten(), L.Dense(3)]

    def call(self, x: Any) -> Any:
        for part in self.parts:
            x = part(x)
        return x


MEANS = {"scale": [1 / 255 / 0.2, 1 / 255 / 0.25, 1 / 255 / 0.3], "offset": [-0.5 / 0.2, -0.5 / 0.25, -0.5 / 0.3]}
X = np.random.default_rng(0).random((12, 12, 10, 3)).astype(np.float32)


def task(seed: int = 0, **kwargs: Any) -> Any:
    keras.utils.set_random_seed(seed)
    return Task(Preprocessor(Converter(**kwargs)))


@pytest.mark.parametrize(
    ("converter", "largest", "side"),
    [
        ({"image_size": (8, 8), **MEANS}, 255, (12, 10)),
        ({"scale": 1 / 127.5, "offset": -1.0}, 255, (8, 8)),
        ({"offset": [-103.9, -116.8, -123.7]}, 255, (8, 8)),
        ({"image_size": (8, 8), "scale": 4.0, "offset": -2.0}, 1, (12, 10)),
    ],
)
@pytest.mark.parametrize("kind", [Task, Own])
def test_outputs_are_those_of_predict(kind: Any, converter: dict[str, Any], largest: int, side: Any) -> None:
    keras.utils.set_random_seed(0)
    model, x = kind(Preprocessor(Converter(**converter))), X[:, : side[0], : side[1]]
    right = model.predict(x * largest)
    classifier = as_classifier(model, image_shape=x.shape[1:])
    np.testing.assert_allclose(classifier.run(x), right, rtol=1e-4, atol=1e-4 * abs(right).max())
    assert abs(model(tf.image.resize(x, (8, 8))).numpy() - right).max() > 0.05 * abs(right).max()
    assert classifier.conventions.input_range == f"0,{largest}"
    assert "through its preprocessor" in classifier.notes[0] and "in predict" in classifier.notes[0]
    assert ("resizes to 8x8" in classifier.notes[0]) == ("image_size" in converter)


def test_perturbations_are_of_the_images_that_people_hand_over() -> None:
    model = task(image_size=(8, 8), **MEANS)
    y = model.predict(X * 255).argmax(axis=1)
    y[:3] = (y[:3] + 1) % 3
    found = evaluate(model, X, y, attacks="pgd", epsilon=0.1, audit=False)
    assert found.clean_accuracy == 0.75
    attacked = found.worst.x_adv
    assert attacked.shape == X.shape and abs(attacked - X).max() <= 0.1 + 1e-6
    right = (model.predict(attacked * 255).argmax(axis=1) == y).mean()
    assert right == found.robust_accuracy < 0.75


def test_gradients_pass_the_converter() -> None:
    model = task(image_size=(8, 8), scale=1 / 255)
    x = tf.constant(X[:2])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        found = tf.reduce_sum(as_classifier(model)(x)[:, 0])
        right = tf.reduce_sum(model(tf.image.resize(x, (8, 8)))[:, 0])
    np.testing.assert_allclose(tape.gradient(found, x), tape.gradient(right, x), rtol=1e-3, atol=1e-6)


def test_what_is_said_of_the_range_counts() -> None:
    model = task(image_size=(8, 8), **MEANS)
    assert as_classifier(model, input_range=(0, 1)).run(X) == pytest.approx(model.predict(X), abs=1e-5)
    # A converter that only resizes shows no range.
    assert as_classifier(task(image_size=(8, 8))).conventions.said() == {}


def test_the_preprocessor_goes_along_into_a_saved_model(tmp_path: Path) -> None:
    model = task(image_size=(8, 8), **MEANS)
    right = model.predict(X * 255)
    save_model(model, tmp_path / "kept", {})
    assert classifier_of(load_model(tmp_path / "kept")).run(X) == pytest.approx(right, abs=1e-4)
    exported = tf.saved_model.load(str(tmp_path / "kept"))
    assert exported.serve(X * 255).numpy() == pytest.approx(right, abs=1e-4)


def test_training_goes_on_behind_the_preprocessor(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    converter = Converter(image_size=(8, 8), **MEANS)
    model = Registered(Preprocessor(converter))
    model.save(tmp_path / "task.keras")
    data = Dataset(name="own", split="all", images=X, labels=np.arange(len(X)) % 3, class_names=("a", "b", "c"))
    network = make_network(TrainConfig(model=str(tmp_path / "task.keras")), data)
    assert network.predict(X, verbose=0) == pytest.approx(model.predict(X * 255), abs=1e-4)


def test_a_classifier_is_kept_as_long_as_the_preprocessor_is_the_same() -> None:
    model = task(image_size=(8, 8), **MEANS)
    kept = classifier_of(model)
    assert classifier_of(model) is kept
    model.preprocessor = Preprocessor(Converter(scale=1 / 127.5, offset=-1.0))
    x = X[:, :8, :8]
    assert classifier_of(model).run(x) == pytest.approx(model.predict(x * 255), abs=1e-5)
    for nothing in (None, Preprocessor()):
        model.preprocessor = nothing
        assert classifier_of(model).model is model
        assert classifier_of(model).run(x) == pytest.approx(model(x).numpy(), abs=1e-5)


def test_a_preprocessor_that_predict_leaves_alone_is_a_part_like_others() -> None:
    class Plain(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.preprocessor, self.head = L.Rescaling(2.0), L.Dense(3)

        def call(self, x: Any) -> Any:
            return self.head(keras.ops.mean(self.preprocessor(x), axis=(1, 2)))

    model = Plain()
    assert as_classifier(model, image_shape=(12, 10, 3)).model is model
    # Adversarial training calls its network, so that it is one of preprocessed images.
    inner = task(**MEANS)
    trained = AdversarialModel(inner)
    assert as_classifier(trained).model is inner


@keras.saving.register_keras_serializable("tests")
class WithoutGradient(Converter):
    def call(self, x: Any) -> Any:
        return tf.stop_gradient(x / 255)


@pytest.mark.parametrize(
    ("preprocessor", "received"),
    [
        (lambda x: x / 255, "without an image_converter"),
        (Preprocessor(more=1.0), "does more than its image_converter"),
        (Preprocessor(lambda x: x / 255), "without an image_converter that is a layer"),
        (Preprocessor(Converter(scale=1 / 255), more=1.0), "does more than its image_converter"),
        (Preprocessor(WithoutGradient()), "has no gradients"),
        (Preprocessor(Converter(image_size=(2, 2))), "whose images the model doesn't take"),
        (Preprocessor(Converter(scale=[1.0, 1.0])), "fails on images"),
    ],
)
def test_what_cant_be_put_in_front_is_one_line(preprocessor: Any, received: str) -> None:
    with pytest.raises(InputError, match=received) as caught:
        as_classifier(Task(preprocessor))
    assert "Set model.preprocessor = None" in str(caught.value) and "predict=model.predict" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_classifier_of_keras_hub_is_its_predict(tmp_path: Path) -> None:
    hub = pytest.importorskip("keras_hub")
    keras.utils.set_random_seed(0)
    backbone = hub.models.ResNetBackbone(
        input_conv_filters=[64], input_conv_kernel_sizes=[3], stackwise_num_filters=[64], stackwise_num_blocks=[1],
        stackwise_num_strides=[1], block_type="basic_block", use_pre_activation=False, image_shape=(None, None, 3),
    )  # fmt: skip
    converter = hub.layers.ResNetImageConverter(image_size=(8, 8), antialias=True, **MEANS)
    preprocessor = hub.models.ResNetImageClassifierPreprocessor(image_converter=converter)
    model = hub.models.ResNetImageClassifier(backbone=backbone, preprocessor=preprocessor, num_classes=3)
    right = model.predict(X * 255, verbose=0)
    model.save(tmp_path / "hub.keras")
    save_model(model, tmp_path / "kept", {})
    for found in (model, load_model(tmp_path / "hub.keras"), load_model(tmp_path / "kept")):
        assert classifier_of(found).run(X) == pytest.approx(right, abs=1e-4)
    y = right.argmax(axis=1)
    attacked = evaluate(model, X, y, attacks="pgd", epsilon=0.1, audit=False)
    left = (model.predict(attacked.worst.x_adv * 255, verbose=0).argmax(axis=1) == y).mean()
    assert left == attacked.robust_accuracy < 1

"""Saved folders are real SavedModels; whatever can't be read or attacked is refused with one line."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers as L

from kerasrobust.errors import InputError
from kerasrobust.networks.classifier import has_gradient
from kerasrobust.networks.cloning import with_precision
from kerasrobust.networks.making import as_classifier
from kerasrobust.networks.noise import RandomDropout
from kerasrobust.networks.saving import SavedModelNetwork, load_model, save_model

SHAPE = (8, 8, 3)
X = np.random.default_rng(2).random((4, *SHAPE), np.float32)


def network(*inner: L.Layer) -> keras.Model:
    images = keras.Input(SHAPE)
    hidden = L.BatchNormalization()(L.Conv2D(4, 3, activation="relu")(images))
    for layer in inner:
        hidden = layer(hidden)
    model = keras.Model(images, L.Dense(3)(L.Flatten()(hidden)), name="net")
    # Moving statistics as training leaves them, so that a lost one is seen.
    model.set_weights([w + 0.1 * np.random.default_rng(i).random(w.shape) for i, w in enumerate(model.get_weights())])
    return model


@pytest.fixture(scope="module")
def plain() -> keras.Model:
    return network()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, plain: keras.Model) -> Path:
    """Returns a folder with the saved models `plain` and `noisy`, and the files `plain.keras` and `plain.h5`."""
    folder = tmp_path_factory.mktemp("models")
    save_model(plain, folder / "plain", {"data": "shapes", "seed": 0})
    # With the seeds that a training sets, which would be frozen into the graph of ordinary random operations.
    keras.utils.set_random_seed(7)
    save_model(network(RandomDropout(0.5)), folder / "noisy", {})
    plain.save(folder / "plain.keras")
    plain.save(folder / "plain.h5")
    return folder


@pytest.fixture(scope="module")
def exported(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a SavedModel of `plain` without this project's own files."""
    folder = tmp_path_factory.mktemp("foreign") / "plain"
    shutil.copytree(models / "plain", folder)
    (folder / "model.keras").unlink()
    (folder / "card.json").unlink()
    return folder


def refused(call: Callable[[], Any], part: str) -> str:
    with pytest.raises(InputError, match=part) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_folder_holds_all_that_is_promised(models: Path, plain: keras.Model) -> None:
    assert {"saved_model.pb", "variables", "model.keras", "card.json"} <= set(os.listdir(models / "plain"))
    assert not [name for name in os.listdir(models) if name.startswith(".")]
    card = json.loads((models / "plain" / "card.json").read_text())
    assert card["data"] == "shapes"
    assert (card["schema"], card["image_shape"], card["classes"]) == (1, [8, 8, 3], 3)
    # Convolution 3*3*3*4 + 4, normalisation 4*4, dense 6*6*4*3 + 3.
    assert card["parameters"] == sum(layer["parameters"] for layer in card["layers"]) == 112 + 16 + 435
    assert card["layers"][1] == {
        "name": plain.layers[1].name, "type": "Conv2D", "output_shape": [None, 6, 6, 4], "parameters": 112,
    }  # fmt: skip
    assert card["versions"]["tensorflow"] == tf.__version__


@pytest.mark.parametrize("name", ["plain", "plain.keras", "plain.h5"])
def test_weights_come_back_exactly(models: Path, plain: keras.Model, name: str) -> None:
    loaded = load_model(models / name)
    assert isinstance(loaded, keras.Model)
    np.testing.assert_array_equal(loaded(X), plain(X))


def test_name_is_looked_up_among_the_models(models: Path, plain: keras.Model) -> None:
    np.testing.assert_array_equal(load_model("plain", models_dir=models)(X), plain(X))


def test_saved_model_is_read_by_tensorflow_and_keras(models: Path, plain: keras.Model) -> None:
    loaded = tf.saved_model.load(str(models / "plain"))
    np.testing.assert_allclose(loaded.serve(X), plain(X), atol=1e-6)
    np.testing.assert_allclose(loaded.serve(X[:1]), plain(X[:1]), atol=1e-6)
    assert "serving_default" in loaded.signatures
    layer = keras.layers.TFSMLayer(str(models / "plain"), call_endpoint="serve")
    np.testing.assert_allclose(layer(X), plain(X), atol=1e-6)


LOADER = """
import json, sys
import numpy as np
import tensorflow as tf
loaded = tf.saved_model.load(sys.argv[1])
x = tf.constant(np.random.default_rng(2).random((4, 8, 8, 3), np.float32))
@tf.function
def gradient():
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(loaded.serve(x)[:, 0])
    return tape.gradient(loss, x)
found = gradient()
print(json.dumps([loaded.serve(x).numpy().tolist(), loaded.serve(x).numpy().tolist(),
                  None if found is None else found.numpy().tolist()]))
"""


def test_a_saved_model_holds_each_weight_once(models: Path, plain: keras.Model) -> None:
    """Keras' own export writes each of them twice (3.15)."""
    [stored] = (models / "plain" / "variables").glob("variables.data*")
    assert 4 * plain.count_params() <= stored.stat().st_size < 7 * plain.count_params()


@keras.saving.register_keras_serializable("test_saving")
class Darker(L.Layer):
    """Looks the brightness of each of 256 levels up in a table."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        levels = tf.range(256, dtype=tf.int64)
        pairs = tf.lookup.KeyValueTensorInitializer(levels, tf.cast(levels, tf.float32) ** 2 / 65025)
        self.table = tf.lookup.StaticHashTable(pairs, 0.0)

    def call(self, images: tf.Tensor) -> tf.Tensor:
        return self.table.lookup(tf.cast(255 * images, tf.int64))


def test_a_table_in_an_own_layer_is_saved(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input(SHAPE), Darker(), L.Flatten(), L.Dense(3)])
    save_model(model, tmp_path / "net", {})
    levels = (np.arange(192).reshape(1, *SHAPE) / 255 + 1e-4).astype(np.float32)
    saved = tf.saved_model.load(str(tmp_path / "net"))
    expected = (np.arange(192)[None] / 255) ** 2 @ model.layers[-1].get_weights()[0]
    np.testing.assert_allclose(saved.serve(levels), expected, rtol=1e-4, atol=1e-5)


def test_exported_noise_is_fresh_in_each_call_and_process_with_gradients(models: Path) -> None:
    command = [sys.executable, "-c", LOADER, str(models / "noisy")]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for _ in range(2)
    ]
    (a, b, gradient), (c, d, _) = (json.loads(process.communicate(timeout=120)[0]) for process in processes)
    for one, other in ((a, b), (a, c), (a, d), (b, c), (b, d), (c, d)):
        assert not np.allclose(one, other, atol=1e-3)
    assert gradient is not None
    assert np.isfinite(gradient).all()
    assert np.any(gradient)


def test_compiled_mixed_model_is_saved_in_float32_without_its_optimizer(tmp_path: Path, plain: keras.Model) -> None:
    mixed = with_precision(plain, "mixed_bfloat16")
    mixed.compile("adam", "sparse_categorical_crossentropy")
    mixed.fit(X, np.zeros(4), verbose=0)
    loaded = load_model(save_model(mixed, tmp_path / "mixed", {}))
    assert not loaded.compiled
    assert {layer.compute_dtype for layer in loaded.layers} == {"float32"}
    for kept, new in zip(mixed.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, new)
    exported = tf.saved_model.load(str(tmp_path / "mixed"))
    np.testing.assert_allclose(exported.serve(X), loaded(X), atol=1e-6)


@keras.saving.register_keras_serializable(package="test_saving")
class Subclassed(keras.Model):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.flatten = L.Flatten()
        self.head = L.Dense(3)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.head(self.flatten(inputs))


def test_subclassed_model_round_trips(tmp_path: Path) -> None:
    model = Subclassed()
    model(X)
    loaded = load_model(save_model(model, tmp_path / "sub", {}))
    np.testing.assert_array_equal(loaded(X), model(X))
    assert json.loads((tmp_path / "sub" / "card.json").read_text())["parameters"] == 192 * 3 + 3


def test_existing_folder_is_replaced_only_when_asked(tmp_path: Path, plain: keras.Model) -> None:
    folder = save_model(plain, tmp_path / "m", {"seed": 1})
    refused(lambda: save_model(plain, folder, {}), "exists")
    save_model(plain, folder, {"seed": 2}, overwrite=True)
    assert json.loads((folder / "card.json").read_text())["seed"] == 2
    assert os.listdir(tmp_path) == ["m"]


def test_what_is_no_model_is_never_overwritten(tmp_path: Path, plain: keras.Model) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "text.tex").write_text("years of work")
    refused(lambda: save_model(plain, tmp_path / "thesis", {}, overwrite=True), "something else")
    assert (tmp_path / "thesis" / "text.tex").read_text() == "years of work"


def test_unwritable_place_is_one_line(tmp_path: Path, plain: keras.Model) -> None:
    (tmp_path / "file").write_text("")
    refused(lambda: save_model(plain, tmp_path / "file" / "m", {}), "place to write")
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_full_disk_or_interrupt_leaves_nothing_behind(
    tmp_path: Path, plain: keras.Model, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(self: keras.Model, path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(keras.Model, "save", fail)
    with pytest.raises((InputError, KeyboardInterrupt)) as caught:
        save_model(plain, tmp_path / "m", {})
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_old_model_comes_back_when_the_new_one_cannot_be_put_in_place(
    tmp_path: Path, plain: keras.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_model(plain, tmp_path / "m", {"seed": 1})
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if target == folder and not self.name.endswith(".old"):
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    refused(lambda: save_model(plain, folder, {"seed": 2}, overwrite=True), "Input/output")
    assert json.loads((folder / "card.json").read_text())["seed"] == 1
    assert os.listdir(tmp_path) == ["m"]


def test_foreign_export_is_attacked_through_its_signature(exported: Path, plain: keras.Model) -> None:
    classifier = as_classifier(load_model(exported))
    np.testing.assert_allclose(classifier.run(X), plain(X), atol=1e-6)
    assert (classifier.name, classifier.image_shape, classifier.classes) == ("plain", SHAPE, 3)
    assert has_gradient(classifier)


def test_noise_inside_a_foreign_saved_model_is_said_to_be_unseeded(models: Path) -> None:
    classifier = as_classifier(SavedModelNetwork(models / "noisy"))
    assert (classifier.randomized, classifier.seedable) == (True, False)
    assert [code for code, _ in classifier.warnings] == ["unseeded-noise"]


class Module(tf.Module):
    """A SavedModel's owner of one variable, with signatures of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = tf.Variable(3.0)

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.float32)])
    def logits(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = self.scale * tf.reduce_mean(x, (1, 2))
        return {"logits": logits, "probabilities": tf.nn.softmax(logits), "label": tf.argmax(logits, -1)}

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3), tf.float32)])
    def ambiguous(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"a": self.scale * x[:, 0, 0], "b": x[:, 0, 0]}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string)])
    def encoded(self, x: tf.Tensor) -> tf.Tensor:
        return self.scale * tf.strings.to_number(x)[:, None]

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3), tf.uint8)])
    def integers(self, x: tf.Tensor) -> tf.Tensor:
        return self.scale * tf.cast(x[:, 0, 0], tf.float32)

    @tf.function(input_signature=[tf.TensorSpec((None, 15), tf.float32)])
    def vectors(self, x: tf.Tensor) -> tf.Tensor:
        return self.scale * x

    @tf.function(input_signature=[tf.TensorSpec((1, 8, 8, 3), tf.float32)])
    def single(self, x: tf.Tensor) -> tf.Tensor:
        return self.scale * x[:, 0, 0]

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3), tf.float32), tf.TensorSpec((), tf.bool)])
    def mode(self, x: tf.Tensor, training: tf.Tensor) -> tf.Tensor:
        return self.scale * x[:, 0, 0] * tf.cast(training, tf.float32)


def test_plain_tensorflow_signature_gives_its_logits(tmp_path: Path) -> None:
    module = Module()
    tf.saved_model.save(module, str(tmp_path / "m"), signatures=module.logits)
    classifier = as_classifier(load_model(tmp_path / "m"))
    np.testing.assert_allclose(classifier.run(X), 3 * X.mean((1, 2)), rtol=1e-5)
    assert (classifier.image_shape, classifier.warnings) == ((None, None, 3), [])
    assert has_gradient(classifier)


def test_signature_that_takes_images_is_chosen(tmp_path: Path) -> None:
    module = Module()
    signatures = {"serving_default": module.encoded, "images": module.logits}
    tf.saved_model.save(module, str(tmp_path / "m"), signatures=signatures)
    np.testing.assert_allclose(load_model(tmp_path / "m")(X), 3 * X.mean((1, 2)), rtol=1e-5)


@pytest.mark.parametrize(
    ("signature", "part"),
    [
        ("ambiguous", "one output"),
        ("encoded", "string"),
        ("vectors", "model of images"),
        (None, "signature"),
    ],
)
def test_saved_model_that_cannot_be_attacked_is_refused(tmp_path: Path, signature: str | None, part: str) -> None:
    module = Module()
    signatures = None if signature is None else getattr(module, signature)
    tf.saved_model.save(module, str(tmp_path / "m"), signatures=signatures)
    refused(lambda: load_model(tmp_path / "m"), part)


def test_h5_of_keras_2_is_read(tmp_path: Path) -> None:
    kernel = np.random.default_rng(0).normal(size=(192, 3)).astype(np.float32)
    bias = np.array([1, 2, 3], np.float32)
    common = {"trainable": True, "dtype": "float32"}
    config = {
        "class_name": "Sequential",
        "config": {"name": "old", "layers": [
            {"class_name": "InputLayer", "config": {
                "batch_input_shape": [None, 8, 8, 3], "dtype": "float32", "sparse": False, "ragged": False,
                "name": "i"}},
            {"class_name": "Flatten", "config": {"name": "flatten", "data_format": "channels_last", **common}},
            {"class_name": "Dense", "config": {
                "name": "dense", "units": 3, "activation": "softmax", "use_bias": True,
                "kernel_initializer": {"class_name": "GlorotUniform", "config": {"seed": None}},
                "bias_initializer": {"class_name": "Zeros", "config": {}}, **common}},
        ]},
    }  # fmt: skip
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.attrs.update(model_config=json.dumps(config), keras_version="2.15.0", backend="tensorflow")
        weights = file.create_group("model_weights")
        weights.attrs.update(layer_names=[b"flatten", b"dense"], keras_version="2.15.0", backend="tensorflow")
        weights.create_group("flatten").attrs["weight_names"] = np.array([], dtype="S1")
        dense = weights.create_group("dense")
        dense.attrs["weight_names"] = [b"dense/kernel:0", b"dense/bias:0"]
        dense["dense/kernel:0"], dense["dense/bias:0"] = kernel, bias
    classifier = as_classifier(load_model(tmp_path / "old.h5"))
    np.testing.assert_allclose(classifier.run(X), X.reshape(4, -1) @ kernel + bias, rtol=1e-4, atol=1e-5)
    assert classifier.warnings == []


def test_unknown_name_says_the_nearest(models: Path) -> None:
    assert "'plain'" in refused(lambda: load_model("plane", models_dir=models), "Did you mean")
    refused(lambda: load_model("plain", models_dir=models / "nowhere"), "neither a path nor a name")
    refused(lambda: load_model(models / "plain" / "variables"), "a folder without a model")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_lambda_layer_is_never_run(tmp_path: Path, suffix: str) -> None:
    witness = tmp_path / "ran"

    def attack(x: tf.Tensor, path: str = str(witness)) -> tf.Tensor:
        Path(path).touch()
        return x

    model = keras.Sequential([keras.Input(SHAPE), L.Lambda(lambda x: attack(x)), L.Flatten(), L.Dense(3)])
    path = tmp_path / f"m{suffix}"
    model.save(path)
    witness.unlink()
    refused(lambda: load_model(path), "Lambda")
    assert not witness.exists()


class Unregistered(L.Layer):
    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_unknown_layer_is_named(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = keras.Sequential([keras.Input(SHAPE), Unregistered(), L.Flatten(), L.Dense(3)])
    path = tmp_path / f"m{suffix}"
    model.save(path)
    monkeypatch.delattr(sys.modules[__name__], "Unregistered")
    assert "Unregistered" in refused(lambda: load_model(path), "known layers")


def test_weights_alone_are_no_model(tmp_path: Path, plain: keras.Model) -> None:
    plain.save_weights(tmp_path / "m.weights.h5")
    refused(lambda: load_model(tmp_path / "m.weights.h5"), "weights without a model")


@pytest.mark.parametrize("name", ["m.keras", "m.h5", "m/saved_model.pb", "m/model.keras"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", bytes(range(256)) * 40])
def test_garbage_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    refused(lambda: load_model(tmp_path / name.partition("/")[0]), "readable model|an empty file")


PARTS = ["saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"]


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(which=st.sampled_from(["plain.keras", "plain.h5", *PARTS]), share=st.floats(0, 0.999))
def test_truncated_files_are_refused(models: Path, exported: Path, tmp_path: Path, which: str, share: float) -> None:
    if which in PARTS:
        shutil.rmtree(tmp_path / "m", ignore_errors=True)
        shutil.copytree(exported, tmp_path / "m")
        source, broken, path = exported / which, tmp_path / "m" / which, tmp_path / "m"
    else:
        source = models / which
        broken = path = tmp_path / which
    content = source.read_bytes()
    broken.write_bytes(content[: int(share * len(content))])
    refused(lambda: load_model(path), "Expected")


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999), bit=st.integers(0, 7))
def test_flipped_bit_in_the_weights_is_found(exported: Path, tmp_path: Path, share: float, bit: int) -> None:
    """TensorFlow checks the sums of its tensors; this holds it to that."""
    shutil.rmtree(tmp_path / "m", ignore_errors=True)
    shutil.copytree(exported, tmp_path / "m")
    path = tmp_path / "m" / PARTS[2]
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 1 << bit
    path.write_bytes(content)
    refused(lambda: load_model(tmp_path / "m"), "readable model")


@pytest.mark.parametrize("part", ["variables", "saved_model.pb"])
def test_incomplete_saved_model_is_refused(exported: Path, tmp_path: Path, part: str) -> None:
    shutil.copytree(exported, tmp_path / "m")
    path = tmp_path / "m" / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    refused(lambda: load_model(tmp_path / "m"), "Expected")


def test_model_of_something_else_is_refused(tmp_path: Path) -> None:
    keras.Sequential([keras.Input((8,)), L.Dense(3)]).save(tmp_path / "m.keras")
    refused(lambda: load_model(tmp_path / "m.keras"), "images")


def test_nothing_is_said_on_standard_error(models: Path, exported: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for path in (models / "plain", models / "plain.h5", exported):
        load_model(path)
    assert capfd.readouterr() == ("", "")


def test_a_model_of_the_checkout_is_found_by_its_name_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kerasrobust.networks.saving.SHIPPED", tmp_path / "checkout")
    save_model(network(), tmp_path / "checkout" / "shipped", {})
    assert load_model("shipped").count_params() > 0
    with pytest.raises(InputError, match="come with its checkout"):
        load_model("another")
    with pytest.raises(InputError, match="Expected a model"):
        load_model("shipped", models_dir=tmp_path / "mine")

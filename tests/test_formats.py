"""Files are told apart by what is in them, whatever they are called, and each that holds no model gets its own line."""

from __future__ import annotations

import gzip
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

from kerasrobust.errors import InputError
from kerasrobust.networks.files.formats import FORMATS, Content
from kerasrobust.networks.saving import load_model

SHAPE = (8, 8, 3)
X = np.random.default_rng(7).random((4, *SHAPE), np.float32)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(4)
    return keras.Sequential([keras.Input(SHAPE), L.Conv2D(2, 3), L.Flatten(), L.Dense(3)], name="net")


def refused(path: Path, **named: Any) -> str:
    with pytest.raises(InputError) as caught:
        load_model(path, **named)
    message = str(caught.value)
    assert "\n" not in message and message.startswith("Expected ") and "Received: " in message
    assert str(path) in message
    return message


@pytest.mark.parametrize("name", ["net.model", "net", "net.keras", "net.hdf5", "net.h5.bak"])
@pytest.mark.parametrize("kind", [".keras", ".h5"])
def test_the_content_counts_and_not_the_name(name: str, kind: str, model: keras.Model, tmp_path: Path) -> None:
    model.save(tmp_path / f"m{kind}")
    (tmp_path / f"m{kind}").rename(tmp_path / name)
    np.testing.assert_array_equal(load_model(tmp_path / name)(X), model(X))


def test_an_unzipped_keras_file(model: keras.Model, tmp_path: Path) -> None:
    model.save(tmp_path / "m.keras")
    shutil.unpack_archive(tmp_path / "m.keras", tmp_path / "folder", "zip")
    np.testing.assert_array_equal(load_model(tmp_path / "folder")(X), model(X))


def zipped(*names: str) -> Callable[[Path, keras.Model], None]:
    def write(path: Path, model: keras.Model) -> None:
        with zipfile.ZipFile(path, "w") as file:
            for name in names:
                file.writestr(name, "content")

    return write


def of_bytes(content: bytes) -> Callable[[Path, keras.Model], None]:
    return lambda path, model: path.write_bytes(content) and None


def hdf5(path: Path, **members: Any) -> None:
    with h5py.File(path, "w") as file:
        for name, value in members.items():
            file[name] = value


def arrays(path: Path, model: keras.Model) -> None:
    with path.open("wb") as file:
        np.savez(file, kernel=np.ones(3), bias=np.ones(2))


def old_weights(path: Path, model: keras.Model) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"dense"]
        file.create_group("dense")


def weights(path: Path, model: keras.Model) -> None:
    model.save_weights(path.with_name("m.weights.h5"))
    path.with_name("m.weights.h5").rename(path)


def frozen(path: Path, model: keras.Model) -> None:
    with tf.Graph().as_default() as graph:
        tf.identity(tf.compat.v1.placeholder(tf.float32, (None, 8), name="images"), name="logits")
    path.write_bytes(graph.as_graph_def().SerializeToString())


def graph_alone(path: Path, model: keras.Model) -> None:
    model.export(path.parent / "exported", verbose=False)
    shutil.copy(path.parent / "exported" / "saved_model.pb", path)


def pickled(protocol: int) -> Callable[[Path, keras.Model], None]:
    return lambda path, model: path.write_bytes(pickle.dumps({"weights": [1.0]}, protocol)) and None


def folder(*names: str) -> Callable[[Path, keras.Model], None]:
    def write(path: Path, model: keras.Model) -> None:
        path.mkdir()
        for name in names:
            (path / name).write_text("{}")

    return write


TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"

OTHERS: dict[str, tuple[Callable[[Path, keras.Model], None], str, str]] = {
    "weights": (weights, "weights without a model", "load_weights"),
    "weights of Keras 2": (old_weights, "weights without a model", "load_weights"),
    "data in HDF5": (lambda path, model: hdf5(path, x=[1.0], y=[0]), "HDF5 file without a model", "--data"),
    "frozen graph": (frozen, "frozen graph of TensorFlow 1", "wrap_function"),
    "graph of a SavedModel": (graph_alone, "the graph of a SavedModel", "Give the folder"),
    "PyTorch": (zipped("net/data.pkl", "net/data/0", "net/version"), "a model of PyTorch", "as_classifier"),
    "old PyTorch": (of_bytes(TORCH), "a model of PyTorch", "channels first"),
    "pickle": (pickled(4), "a pickle", "isn't opened"),
    "old pickle": (pickled(2), "a pickle", "as_classifier"),
    "another zip": (zipped("readme.txt", "saved_model/saved_model.pb"), "a zip file, and not one of Keras", "Unpack"),
    "damaged zip": (of_bytes(b"PK\x03\x04" + bytes(90)), "cut off or damaged", "again"),
    "NumPy arrays": (arrays, "NumPy arrays", "build the model"),
    "LFS pointer": (of_bytes(LFS), "Git LFS", "git lfs pull"),
    "web page": (of_bytes(b"\n <!DOCTYPE html>\n<html><title>Not found"), "a web page", "raw file"),
    "old web page": (of_bytes(b"<HTML><body>Sign in</body></HTML>"), "a web page", "raw file"),
    "safetensors": (of_bytes((60).to_bytes(8, "little") + b'{"weight":{"dtype":"F32"}}'), "safetensors", "no model"),
    "gzip": (lambda path, model: path.write_bytes(gzip.compress(b"model")) and None, "a compressed file", "Unpack"),
    "configuration": (lambda path, model: path.write_text(model.to_json()) and None, "in JSON", "model_from_json"),
    "nothing": (of_bytes(b""), "an empty file", "again"),
    "text": (of_bytes(b"These are my notes."), "something else", "Give a readable model"),
    "empty folder": (folder(), "a folder without a model", "saved_model.pb"),
    "preset": (folder("config.json", "task.json"), "a preset of KerasHub", "from_preset"),
}


@pytest.mark.parametrize("name", ["net.keras", "net"])
@pytest.mark.parametrize("kind", OTHERS)
def test_what_holds_no_model_says_what_it_is(kind: str, name: str, model: keras.Model, tmp_path: Path) -> None:
    write, what, advice = OTHERS[kind]
    write(tmp_path / name, model)
    message = refused(tmp_path / name)
    assert what in message and advice in message


def test_each_format_is_seen_by_a_test() -> None:
    seen = {what for _, what, _ in OTHERS.values()}
    models = {"a folder of kerasrobust", "a SavedModel", "an unzipped Keras file", "a Keras file",
              "a TensorFlow Lite model", "an ONNX model"}  # fmt: skip
    assert not [known.name for known in FORMATS if known.name not in models and not any(w in known.name for w in seen)]


def test_an_onnx_model_is_told_by_its_fields(tmp_path: Path) -> None:
    """Written by hand after onnx.proto: ir_version = 1, graph = 7, opset_import = 8."""
    path = tmp_path / "net.bin"
    path.write_bytes(b"\x08\x09\x12\x01k\x3a\x02\x12\x00\x42\x02\x10\x11")
    assert next(known.name for known in FORMATS if known.shows(Content(path))) == "an ONNX model"
    path.write_bytes(path.read_bytes()[:-1])
    assert next(known.name for known in FORMATS if known.shows(Content(path))).startswith("something else")


def keras_zip(path: Path, config: dict[str, Any], version: str) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", json.dumps(config))
        file.writestr("metadata.json", json.dumps({"keras_version": version}))
        file.writestr("model.weights.h5", "")


def layer(name: str, **more: Any) -> dict[str, Any]:
    return {"class_name": name, "config": {"name": name.lower(), "trainable": True, "dtype": "float32", **more}}


def old_model(*layers: dict[str, Any]) -> dict[str, Any]:
    images = {"class_name": "InputLayer", "config": {"batch_input_shape": [None, *SHAPE], "dtype": "float32",
                                                     "sparse": False, "ragged": False, "name": "i"}}  # fmt: skip
    return {"class_name": "Sequential", "config": {"name": "old", "layers": [images, *layers]}}


@pytest.mark.parametrize("kind", ["Sequential", "Functional"])
def test_a_keras_file_of_keras_2_says_the_way(kind: str, tmp_path: Path) -> None:
    config = {"module": "keras.src.engine.functional", "class_name": kind, "config": {}, "registered_name": kind}
    path = tmp_path / "old.keras"
    keras_zip(path, config, "2.15.0")
    message = refused(path)
    assert "written by Keras 2" in message and "tf_keras.models.load_model" in message and "--model DIR" in message


@pytest.mark.parametrize("kind", ["RandomHeight", "TFOpLambda"])
def test_an_h5_file_of_keras_2_that_keras_3_cannot_read_says_the_way(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "old.h5"
    with h5py.File(path, "w") as file:
        file.attrs.update(model_config=json.dumps(old_model(layer(kind, factor=0.2))), keras_version="2.11.0")
    message = refused(path)
    assert "written by Keras 2" in message and "tf_keras.models.load_model" in message and kind in message


@pytest.mark.parametrize(("package", "install"), [("keras_hub", "keras-hub"), ("keras_cv", "keras-cv")])
def test_a_model_of_keras_hub_says_what_to_install(package: str, install: str, tmp_path: Path) -> None:
    config = {"module": f"{package}.src.models.resnet", "class_name": "ResNetImageClassifier", "config": {},
              "registered_name": f"{package}>ResNetImageClassifier"}  # fmt: skip
    path = tmp_path / "hub.keras"
    keras_zip(path, config, keras.__version__)
    assert f"pip install {install}" in refused(path)

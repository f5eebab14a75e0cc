"""TensorFlow Lite and ONNX models: right outputs, quantized ones converted, and what can't be seen of them is said."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from cli import call
from keras import layers as L

from kerasrobust.attacks import Square
from kerasrobust.errors import InputError
from kerasrobust.evaluation.evaluate import evaluate
from kerasrobust.networks.classifier import has_gradient
from kerasrobust.networks.making import as_classifier
from kerasrobust.networks.saving import load_model

SHAPE = (8, 8, 3)
X = np.random.default_rng(11).random((5, *SHAPE), np.float32)


@pytest.fixture(scope="module")
def network() -> keras.Model:
    keras.utils.set_random_seed(5)
    layers = [L.Conv2D(4, 3, activation="relu"), L.Flatten(), L.Dense(6, activation="softmax")]
    model = keras.Sequential([keras.Input(SHAPE), *layers])
    model.layers[-1].set_weights([6 * weight for weight in model.layers[-1].get_weights()])
    return model


def convert(model: keras.Model, path: Path, kind: str) -> None:
    """Writes a `.tflite`: in floats, in int8 or uint8 throughout, or for one image only."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if kind == "one":
        single = keras.Sequential([keras.Input(batch_shape=(1, *SHAPE)), *model.layers])
        converter = tf.lite.TFLiteConverter.from_keras_model(single)
    if kind in ("int8", "uint8"):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        draw = np.random.default_rng(0)

        def examples() -> Iterator[list[np.ndarray]]:
            for _ in range(50):
                yield [draw.random((1, *SHAPE), np.float32)]

        converter.representative_dataset = examples
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = getattr(tf, kind)
    path.write_bytes(converter.convert())


@pytest.fixture(scope="module")
def lite(network: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("ai_edge_litert", reason="needs kerasrobust[tflite]")
    folder = tmp_path_factory.mktemp("lite")
    for kind in ("float", "one", "int8", "uint8"):
        convert(network, folder / f"{kind}.tflite", kind)
    return folder


@pytest.mark.parametrize("kind", ["float", "one"])
def test_a_float_tflite_model_gives_the_networks_outputs(kind: str, lite: Path, network: keras.Model) -> None:
    model = load_model(lite / f"{kind}.tflite")
    for count in (5, 1):
        np.testing.assert_allclose(model(X[:count]), network(X[:count]), atol=1e-5)
    classifier = as_classifier(model)
    assert (classifier.name, classifier.image_shape, classifier.classes) == (f"{kind}.tflite", SHAPE, 6)
    assert classifier.arrays and not has_gradient(classifier) and classifier.warnings == []


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_a_quantized_tflite_model_is_converted_by_its_scales(kind: str, lite: Path, network: keras.Model) -> None:
    model = load_model(lite / f"{kind}.tflite")
    found = model(X)
    # A softmax has steps of 1/256.
    np.testing.assert_allclose(256 * found, np.round(256 * found), atol=1e-3)
    np.testing.assert_allclose(found, network(X), atol=0.1)
    assert abs(found - network(X).numpy()).mean() < 0.03
    ((code, message),) = as_classifier(model).warnings
    assert code == "quantized-outputs" and "upper bound" in message


def test_a_tflite_file_goes_by_its_content(lite: Path, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes((lite / "float.tflite").read_bytes())
    assert load_model(tmp_path / "model.bin").name == "model.bin"
    (tmp_path / "cut").write_bytes((lite / "float.tflite").read_bytes()[:200])
    with pytest.raises(InputError, match="readable model"):
        load_model(tmp_path / "cut")


def onnx_model(
    path: Path, *, first: bool, batch: Any, integers: bool = False, quantized: bool = False, dynamic: bool = False
) -> np.ndarray:
    """Writes an ONNX model of one matrix and a softmax, and returns what it gives for X, by NumPy.

    With `quantized` its probabilities have steps of 1/256; with `dynamic` its pixels have 256 steps between the least
    and the greatest of a batch, as in what `onnxruntime.quantization.quantize_dynamic` makes.
    """
    onnx = pytest.importorskip("onnx", reason="needs the package onnx")
    from onnx import TensorProto, helper, numpy_helper

    kernel = np.random.default_rng(3).normal(size=(192, 4)).astype(np.float32)
    images = np.round(255 * X) / 255 if integers else X
    nodes = []
    entry = "images"
    if integers:
        nodes += [
            helper.make_node("Cast", ["images"], ["cast"], to=TensorProto.FLOAT),
            helper.make_node("Div", ["cast", "levels"], ["float"]),
        ]
        entry = "float"
    nodes += [
        helper.make_node("Flatten", [entry], ["rows" if dynamic else "flat"]),
        helper.make_node("MatMul", ["flat", "kernel"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["smooth" if quantized else "probabilities"]),
    ]
    if dynamic:
        nodes[1:1] = [
            helper.make_node("DynamicQuantizeLinear", ["rows"], ["steps", "step", "least"]),
            helper.make_node("DequantizeLinear", ["steps", "step", "least"], ["flat"]),
        ]
    if quantized:
        nodes += [
            helper.make_node("QuantizeLinear", ["smooth", "scale", "zero"], ["int"]),
            helper.make_node("DequantizeLinear", ["int", "scale", "zero"], ["probabilities"]),
        ]
    shape = (batch, 3, 8, 8) if first else (batch, 8, 8, 3)
    constants = {"kernel": kernel, "levels": np.float32(255), "scale": np.float32(1 / 256), "zero": np.uint8(0)}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("images", TensorProto.UINT8 if integers else TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, (batch, 4))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path))
    flat = np.transpose(images, (0, 3, 1, 2)) if first else images
    scores = flat.reshape(len(X), -1) @ kernel
    exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("batch", ["N", 1, 3])
def test_an_onnx_model_of_any_layout_and_batch(first: bool, batch: Any, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs kerasrobust[onnx]")
    expected = onnx_model(tmp_path / "net.onnx", first=first, batch=batch)
    model = load_model(tmp_path / "net.onnx")
    np.testing.assert_allclose(model(X), expected, atol=1e-5)
    classifier = as_classifier(model)
    assert (classifier.name, classifier.image_shape, classifier.classes) == ("net.onnx", SHAPE, 4)
    assert classifier.arrays and classifier.warnings == []


def test_an_onnx_model_of_integers(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs kerasrobust[onnx]")
    expected = onnx_model(tmp_path / "net", first=True, batch="N", integers=True)
    np.testing.assert_allclose(load_model(tmp_path / "net")(X), expected, atol=1e-5)


def test_quantized_outputs_of_an_onnx_model_are_seen(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs kerasrobust[onnx]")
    expected = onnx_model(tmp_path / "net", first=False, batch="N", quantized=True)
    model = load_model(tmp_path / "net")
    np.testing.assert_allclose(model(X), expected, atol=1 / 255)
    assert [code for code, _ in as_classifier(model).warnings] == ["quantized-outputs"]


@pytest.mark.parametrize(("batch", "told"), [("N", True), (1, False)])
def test_an_onnx_model_quantized_as_it_runs_depends_on_the_batch(batch: Any, told: bool, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs kerasrobust[onnx]")
    images = np.random.default_rng(2).random((16, *SHAPE), np.float32)
    images[:8] *= 0.1  # Beside bright ones these get coarser steps.
    onnx_model(tmp_path / "net", first=True, batch=batch, dynamic=True)
    model = load_model(tmp_path / "net")
    alone = np.concatenate([model(image[None]) for image in images])
    assert (abs(model(images) - alone).max() > 1e-3) == told
    found = evaluate(model, images, alone.argmax(axis=1), attacks=[Square(epsilon=8 / 255, queries=5)], audit=True)
    messages = [finding.message for finding in found.findings if finding.code == "batch-dependence"]
    assert len(messages) == told
    assert all("scales found beforehand" in message for message in messages)


def test_a_black_box_is_attacked_and_not_imported(lite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "data.npz", x=(255 * X).astype(np.uint8), y=np.arange(5) % 6)
    places = ("--runs-dir", tmp_path / "runs", "--models-dir", tmp_path / "models")
    data = ("--data", tmp_path / "data.npz", "--split", "all")
    settings = ("--attack", "square", "--queries", "20", "--name", "a")
    outcome = call("attack", "--model", lite / "int8.tflite", *data, *settings, *places)
    assert (outcome.status, outcome.err) == (0, "")
    assert "quantized-outputs" in outcome.out
    assert "by its path" in call("import", "--model", lite / "int8.tflite", *places).message
    assert "Keras model to train on" in call(
        "train", "--model", lite / "int8.tflite", "--data", tmp_path / "data.npz", "--split", "all", "--test-split",
        "all", "--validation-share", "0.3", "--name", "t", *places,
    ).message  # fmt: skip


@pytest.mark.parametrize(
    ("content", "module", "extra"),
    [
        (b"\x1c\x00\x00\x00TFL3", "ai_edge_litert.interpreter", "kerasrobust[tflite]"),
        (b"\x08\x09\x12\x01k\x3a\x02\x12\x00\x42\x02\x10\x11", "onnxruntime", "kerasrobust[onnx]"),
    ],
)
def test_a_missing_package_is_named(
    content: bytes, module: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "net").write_bytes(content)
    with pytest.raises(InputError, match="no such package") as caught:
        load_model(tmp_path / "net")
    assert extra in str(caught.value) and "\n" not in str(caught.value)

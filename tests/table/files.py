"""Models in other people's files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from cli import call

from table.common import convnet, file_subject, keras_subject, photo_net, photos, trained
from table.measure import Subject, form


def _keras_2(folder: Path, name: str, depthwise: bool = False, **changes: Any) -> Subject:
    """A network of Keras 2, as tf_keras writes it; depthwise layers are among those that Keras 3 can't read."""
    import tf_keras

    x, y, images, labels = photos()
    K = tf_keras.layers
    tf_keras.utils.set_random_seed(1)
    model = tf_keras.Sequential(
        [
            K.InputLayer((32, 32, 3)),
            K.Conv2D(16, 3, strides=2, activation="relu"),
            K.BatchNormalization(momentum=0.8),
            *([K.DepthwiseConv2D(3, padding="same")] if depthwise else []),
            K.Conv2D(32, 1, activation="relu"),
            K.GlobalAveragePooling2D(),
            K.Dense(4, activation="softmax"),
        ]
    )
    model.compile(tf_keras.optimizers.Adam(5e-3), "sparse_categorical_crossentropy")
    model.fit(x / 255.0, y, epochs=8, batch_size=50, verbose=0)
    path = folder / name
    model.save(path, **({} if path.suffix else {"save_format": "tf"}))
    if "instead" in changes:  # What the line says.
        model.export(changes["instead"])
    return file_subject(
        folder, path, images, labels, lambda now: model(now, training=False), logits=False,
        predict=lambda now: model.predict(now, verbose=0), **changes,
    )  # fmt: skip


@form("tf_keras .h5", needs=("tf_keras",))
def tf_keras_h5(folder: Path) -> Subject:
    return _keras_2(folder, "theirs.h5")


@form("Keras 2 HDF5 with depthwise layers", needs=("tf_keras",))
def keras_2_hdf5(folder: Path) -> Subject:
    return _keras_2(folder, "theirs.hdf5", True, said=r"\.export\(\"DIR\"\)", instead=folder / "DIR")


@form("tf_keras .keras", needs=("tf_keras",))
def tf_keras_keras(folder: Path) -> Subject:
    return _keras_2(folder, "theirs.keras", said=r"\.export\(\"DIR\"\)", instead=folder / "DIR")


@form("tf_keras SavedModel", needs=("tf_keras",))
def tf_keras_saved(folder: Path) -> Subject:
    return _keras_2(folder, "theirs")


@form("SavedModel by model.export")
def exported(folder: Path) -> Subject:
    model = photo_net("softmax")
    model.export(folder / "theirs", verbose=False)
    return keras_subject(folder, model, *photos()[2:], logits=False, path=folder / "theirs")


@form("SavedModel of batches of one")
def batch_one(folder: Path) -> Subject:
    model = photo_net("softmax")
    module = tf.Module()
    module.net = model
    module.serve = tf.function(lambda x: model(x, training=False), input_signature=[tf.TensorSpec((1, 32, 32, 3))])
    tf.saved_model.save(module, folder / "theirs", signatures=module.serve)
    return keras_subject(folder, model, *photos()[2:], logits=False, path=folder / "theirs")


@form("SavedModel of uint8 images")
def uint8_input(folder: Path) -> Subject:
    model = photo_net("softmax")
    module = tf.Module()
    module.net = model
    module.serve = tf.function(
        lambda x: {"scores": model(tf.cast(x, tf.float32) / 255.0, training=False)},
        input_signature=[tf.TensorSpec((None, 32, 32, 3), tf.uint8, name="pixels")],
    )
    tf.saved_model.save(module, folder / "theirs", signatures=module.serve)
    return keras_subject(
        folder, model, *photos()[2:], logits=False, path=folder / "theirs", slack=2,
        predict=lambda now: module.serve(np.rint(now * 255).astype(np.uint8))["scores"].numpy(),
    )  # fmt: skip


@form("frozen .pb")
def frozen(folder: Path) -> Subject:
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    model = photo_net("softmax")
    function = tf.function(lambda x: model(x, training=False), input_signature=[tf.TensorSpec((None, 32, 32, 3))])
    graph = convert_variables_to_constants_v2(function.get_concrete_function())
    tf.io.write_graph(graph.graph, str(folder), "theirs.pb", as_text=False)
    # What the line says, with the names of this graph.
    definition = tf.compat.v1.GraphDef.FromString((folder / "theirs.pb").read_bytes())
    wrapped = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(definition, name=""), [])
    pruned = wrapped.prune(graph.inputs[0].name, graph.outputs[0].name)
    tf.saved_model.save(tf.Module(), folder / "turned", signatures=pruned)
    return keras_subject(
        folder, model, *photos()[2:], logits=False, path=folder / "theirs.pb",
        said="wrap_function", instead=folder / "turned",
    )  # fmt: skip


@form("TFLite, float", needs=("ai_edge_litert",))
def tflite(folder: Path) -> Subject:
    return _tflite(folder, None)


@form("TFLite, int8", needs=("ai_edge_litert",))
def tflite_int8(folder: Path) -> Subject:
    return _tflite(folder, tf.int8)


def _tflite(folder: Path, dtype: tf.DType | None) -> Subject:
    from ai_edge_litert.interpreter import Interpreter

    model = photo_net("softmax")
    model.export(folder / "exported", verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "exported"))
    if dtype is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        some = (photos()[0][:100] / 255.0).astype(np.float32)
        converter.representative_dataset = lambda: ([image[None]] for image in some)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = dtype
    path = folder / "theirs.tflite"
    path.write_bytes(converter.convert())
    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()

    def one(image: np.ndarray) -> np.ndarray:
        if dtype is not None:
            scale, zero = taken["quantization"]
            image = np.clip(np.round(image / scale + zero), -128, 127).astype(np.int8)
        interpreter.set_tensor(taken["index"], image[None])
        interpreter.invoke()
        return interpreter.get_tensor(given["index"])[0].astype(np.float32)

    return file_subject(
        folder, path, *photos()[2:], None, predict=lambda now: np.stack([one(image) for image in now]),
        slack=1 if dtype is None else 3, epsilon=8 / 255,
    )  # fmt: skip


@form("ONNX of a PyTorch network", needs=("torch", "onnx", "onnxruntime"))
def onnx(folder: Path) -> Subject:
    import onnxruntime
    import torch

    from table.objects import torch_net

    net = torch_net()
    path = folder / "theirs.onnx"
    torch.onnx.export(
        net, (torch.zeros(1, 3, 32, 32),), str(path), dynamo=False,
        input_names=["image"], output_names=["logits"], dynamic_axes={"image": {0: "n"}, "logits": {0: "n"}},
    )  # fmt: skip
    session = onnxruntime.InferenceSession(str(path))
    return file_subject(
        folder, path, *photos()[2:], None, epsilon=8 / 255,
        predict=lambda now: session.run(None, {"image": now.transpose(0, 3, 1, 2)})[0],
    )  # fmt: skip


@form("SavedModel with keep_prob")
def keep_prob(folder: Path) -> Subject:
    """As TensorFlow 1 had dropout: a number beside the images, which is 1 in prediction."""
    model = photo_net()
    features = keras.Model(model.inputs, model.layers[-2].output)
    module = tf.Module()
    module.net = model
    module.serve = tf.function(
        lambda image, keep_prob: {"logits": model.layers[-1](tf.nn.dropout(features(image), 1.0 - keep_prob))},
        input_signature=[tf.TensorSpec((None, 32, 32, 3), name="image"), tf.TensorSpec((), name="keep_prob")],
    )
    tf.saved_model.save(module, folder / "theirs", signatures=module.serve)
    return keras_subject(folder, model, *photos()[2:], path=folder / "theirs")


@form("imported once, then attacked by its name", process=True)
def imported(folder: Path) -> Subject:
    x, y, images, labels = photos()
    model = trained(convnet(), x * (2 / 255) - 1, y)
    subject = keras_subject(folder, model, images, labels, lambda now: 2.0 * now - 1.0)
    places = ["--runs-dir", folder / "runs", "--models-dir", folder / "saved_models"]
    outcome = call(
        "import", "--model", folder / "theirs.keras", "--name", "net", "--data", folder / "data.npz", *places
    )
    assert outcome.status == 0, outcome
    subject.words = ["--model", "net", "--data", folder / "data.npz"]
    return subject

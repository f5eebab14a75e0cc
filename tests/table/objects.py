"""Objects that only Python has."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import kerasrobust as kr
from table.common import file_subject, photo_net, photos
from table.measure import Subject, cross_entropy, form


@functools.cache
def torch_net() -> Any:
    """Returns a small network of PyTorch, trained on photos in [0, 1]."""
    import torch

    x, y, _, _ = photos()
    torch.manual_seed(0)
    torch.set_num_threads(2)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, 2), torch.nn.ReLU(), torch.nn.Conv2d(16, 32, 3, 2), torch.nn.ReLU(),
        torch.nn.AvgPool2d(7), torch.nn.Flatten(), torch.nn.Linear(32, 4),
    )  # fmt: skip
    images = torch.tensor(x.transpose(0, 3, 1, 2) / 255.0, dtype=torch.float32)
    labels = torch.tensor(y.astype(np.int64))
    steps = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(10):
        for some in torch.randperm(len(images)).split(50):
            steps.zero_grad()
            torch.nn.functional.cross_entropy(net(images[some]), labels[some]).backward()
            steps.step()
    return net.eval()


def _black_box(subject: Any, predict: Any, images: np.ndarray, labels: np.ndarray, **changes: Any) -> Subject:
    x = images.astype(np.float32) / 255
    base: dict[str, Any] = {
        "x": x, "y": np.asarray(labels).astype(int), "predict": predict, "loss": None, "epsilon": 8 / 255,
        "evaluate": lambda **attack: kr.evaluate(subject, images, labels, **attack),
    }  # fmt: skip
    return Subject(**(base | changes))


@form("PyTorch network, by function", needs=("torch",))
def torch_function(folder: Path) -> Subject:
    import torch

    net = torch_net()

    def logits(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return net(torch.tensor(x.transpose(0, 3, 1, 2))).numpy()

    return _black_box(kr.as_classifier(logits, image_shape=(32, 32, 3)), logits, *photos()[2:])


@form("PyTorch network itself", needs=("torch",))
def torch_object(folder: Path) -> Subject:
    import torch

    net = torch_net()

    def logits(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return net(torch.tensor(x.transpose(0, 3, 1, 2))).numpy()

    images, labels = photos()[2:]

    def followed(**attack: Any) -> Any:
        return kr.evaluate(kr.as_classifier(logits, image_shape=(32, 32, 3)), images, labels, **attack)

    return _black_box(net, logits, images, labels, said="as_classifier|function", then=(None, followed))


def _forest() -> Any:
    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier

    x, y = load_digits(return_X_y=True)
    return RandomForestClassifier(50, random_state=0).fit(x[:1500] / 16, y[:1500]), x[1500:1650] / 16, y[1500:1650]


@form("random forest, by function", needs=("sklearn",))
def forest(folder: Path) -> Subject:
    model, x, y = _forest()
    images = x.reshape(-1, 8, 8, 1).astype(np.float32)

    def shares(now: np.ndarray) -> np.ndarray:
        return model.predict_proba(now.reshape(len(now), -1))

    subject = kr.as_classifier(shares, image_shape=(8, 8, 1))
    return _black_box(
        subject, shares, images, y, x=images, epsilon=0.1,
        evaluate=lambda **attack: kr.evaluate(subject, images, y, **attack),
    )  # fmt: skip


@form("random forest itself", needs=("sklearn",))
def forest_itself(folder: Path) -> Subject:
    subject = forest(folder)
    model, _, y = _forest()
    subject.then = (None, subject.evaluate)
    subject.evaluate = lambda **attack: kr.evaluate(model, subject.x, y, **attack)
    subject.said = "predict_proba"
    return subject


def _streams(kind: str) -> Subject:
    images, labels = photos()[2:]
    model = photo_net()

    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, place: int) -> tuple[np.ndarray, np.ndarray]:
            part = slice(50 * place, 50 * place + 50)
            return images[part] / np.float32(255), keras.utils.to_categorical(labels[part], 4)

    made = {
        "tf.data": lambda: tf.data.Dataset.from_tensor_slices((images, labels)).batch(32),
        "PyDataset": lambda: Batches(),
        "generator": lambda: ((images[at : at + 40], labels[at : at + 40]) for at in range(0, len(images), 40)),
    }[kind]
    return _photo_subject(lambda **attack: kr.evaluate(model, made(), **attack))


def _photo_subject(evaluate: Any, **changes: Any) -> Subject:
    """Returns the subject of the network for photos, called from Python."""
    images, labels = photos()[2:]
    model = photo_net()
    base: dict[str, Any] = {
        "x": images.astype(np.float32) / 255, "y": labels.astype(int), "evaluate": evaluate,
        "predict": lambda now: model.predict(now, verbose=0),
        "loss": cross_entropy(lambda now: model(now, training=False), True),
    }  # fmt: skip
    return Subject(**(base | changes))


@form("image_dataset_from_directory (0..255)")
def from_directory(folder: Path) -> Subject:
    images, labels = photos()[2:]
    for place, (image, label) in enumerate(zip(images, labels, strict=True)):
        below = folder / "images" / f"kind{label}"
        below.mkdir(parents=True, exist_ok=True)
        (below / f"{place:04}.png").write_bytes(tf.io.encode_png(image).numpy())
    read = keras.utils.image_dataset_from_directory(folder / "images", image_size=(32, 32), shuffle=False)
    model = photo_net()

    def scaled(**attack: Any) -> Any:
        pairs = read.map(lambda x, y: (x / 255.0, y))
        x, y = (np.concatenate(parts) for parts in zip(*pairs.as_numpy_iterator(), strict=True))
        return kr.evaluate(model, pairs, **attack), x, y

    return _photo_subject(
        lambda **attack: kr.evaluate(model, read, **attack), said="Divide by 255", then=(None, scaled)
    )


@form("torch tensors", needs=("torch",))
def torch_tensors(folder: Path) -> Subject:
    import torch

    images, labels = photos()[2:]
    x, y = torch.tensor(images / np.float32(255)), torch.tensor(labels.astype(np.int64))
    model = photo_net()
    return _photo_subject(lambda **attack: kr.evaluate(model, x, y, **attack))


@form("TFSMLayer")
def tfsm_layer(folder: Path) -> Subject:
    images, labels = photos()[2:]
    photo_net().export(folder / "theirs", verbose=False)
    layer = keras.layers.TFSMLayer(folder / "theirs", call_endpoint="serve")
    model = keras.Sequential([keras.Input((32, 32, 3)), layer])
    return _photo_subject(lambda **attack: kr.evaluate(model, images, labels, **attack))


@form("tf_keras model in Python", needs=("tf_keras",))
def tf_keras_object(folder: Path) -> Subject:
    import tf_keras

    x, y, images, labels = photos()
    K = tf_keras.layers
    tf_keras.utils.set_random_seed(1)
    model = tf_keras.Sequential(
        [K.InputLayer((32, 32, 3)), K.Conv2D(16, 5, 3, activation="relu"), K.Flatten(), K.Dense(4)]
    )
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf_keras.optimizers.Adam(3e-3), loss)
    model.fit(x / 255.0, y, epochs=6, batch_size=50, verbose=0)
    return _photo_subject(
        lambda **attack: kr.evaluate(model, images, labels, **attack),
        predict=lambda now: model.predict(now, verbose=0),
        loss=cross_entropy(lambda now: model(now, training=False), True),
    )  # fmt: skip


@form("tf.data.Dataset")
def tf_data(folder: Path) -> Subject:
    return _streams("tf.data")


@form("PyDataset, one-hot")
def py_dataset(folder: Path) -> Subject:
    return _streams("PyDataset")


@form("generator of batches")
def generator(folder: Path) -> Subject:
    return _streams("generator")


@form("KerasHub classifier", needs=("keras_hub",))
def keras_hub(folder: Path) -> Subject:
    """With its preprocessor: `predict` takes pixels in 0..255 and prepares them, `model(x)` doesn't."""
    import keras_hub

    mean, deviation = np.float32([0.6, 0.5, 0.4]), np.float32([0.1, 0.15, 0.2])

    x, y, images, labels = photos()
    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64], input_conv_kernel_sizes=[3], stackwise_num_filters=[64], stackwise_num_blocks=[1],
        stackwise_num_strides=[1], block_type="basic_block", image_shape=(32, 32, 3),
    )  # fmt: skip
    prepare = keras_hub.layers.ResNetImageConverter(
        image_size=(32, 32), scale=list(1 / 255 / deviation),
        offset=list(-mean / deviation),
    )  # fmt: skip
    model = keras_hub.models.ResNetImageClassifier(
        backbone=backbone, num_classes=4, preprocessor=keras_hub.models.ResNetImageClassifierPreprocessor(prepare),
        activation="softmax",
    )  # fmt: skip
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.8
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    model.fit(x.astype(np.float32), y, epochs=6, batch_size=50, verbose=0)
    model.save(folder / "theirs.keras")
    return file_subject(
        folder, folder / "theirs.keras", images, labels, lambda now: model((now - mean) / deviation, training=False),
        logits=False, predict=lambda now: model.predict(now * 255.0, verbose=0, batch_size=200),
    )  # fmt: skip

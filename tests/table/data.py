"""Images and labels as people store them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import tensorflow as tf
from keras import layers as L

import kerasrobust as kr
from table.common import convnet, file_subject, photo_net, photos, saved_arrays, trained
from table.measure import Subject, cross_entropy, form

NAMES = ("plane", "car", "frog", "horse")


def _subject(folder: Path, model: keras.Model, images: np.ndarray, labels: np.ndarray, **changes: Any) -> Subject:
    """Returns the subject of a model of images in [0, 1], in a `.keras` file; `images` in [0, 255]."""
    model.save(folder / "theirs.keras")
    changes.setdefault("predict", lambda now: model.predict(now, verbose=0))
    return file_subject(
        folder, folder / "theirs.keras", images, labels, lambda now: model(now, training=False), **changes
    )


def _in_folder(folder: Path, model: keras.Model, images: np.ndarray, labels: np.ndarray, **changes: Any) -> Subject:
    """Returns the subject whose data is the folder `images`, from Python by `kr.load_dataset`."""
    size = changes.pop("size", None)
    subject = _subject(folder, model, images, labels, data=folder / "images", **changes)

    def reading(**how: Any) -> Callable[..., Any]:
        def evaluate(**attack: Any) -> Any:
            data = kr.load_dataset(str(folder / "images"), None, **how)
            # A folder of grey images has three equal channels until a model of one is attacked.
            return kr.evaluate(model, data, **attack), data.x[..., : images.shape[-1]], data.y

        return evaluate

    subject.evaluate = reading()
    if size is not None:
        subject.then = (*subject.words, "--size", size), reading(size=size)
    return subject


def _written(folder: Path, images: Any, labels: np.ndarray, write: Callable[[Any], tf.Tensor], suffix: str) -> None:
    """Writes images into a sub-folder for each class; those of the alphabetical order are the class indices."""
    names = sorted(NAMES[: labels.max() + 1])
    for place, (image, label) in enumerate(zip(images, labels, strict=True)):
        below = folder / names[label]
        below.mkdir(parents=True, exist_ok=True)
        (below / f"{place:04}{suffix}").write_bytes(write(image).numpy())


@form("cats and dogs: one sigmoid, folders of odd sizes", process=True)
def cats_and_dogs(folder: Path) -> Subject:
    x, y, images, labels = photos(2)
    model = trained(convnet(1, "sigmoid"), x / 255.0, y, loss="binary_crossentropy")
    draw = np.random.default_rng(3)
    sizes = [(32 + int(a), 32 + int(b)) for a, b in draw.integers(1, 40, (len(images), 2))]
    larger = [
        np.clip(np.rint(tf.image.resize(image, size, method="bicubic")), 0, 255).astype(np.uint8)
        for image, size in zip(images, sizes, strict=True)
    ]
    _written(folder / "images" / "validation", larger, labels, tf.io.encode_png, ".png")
    _written(folder / "images" / "train", [*x[:20]], y[:20], tf.io.encode_jpeg, ".jpg")

    def cropped(image: np.ndarray) -> np.ndarray:
        """To cover 32x32, cropped at the centre."""
        factor = 32 / min(image.shape[:2])
        high, wide = (max(32, round(side * factor)) for side in image.shape[:2])
        top, left = (high - 32) // 2, (wide - 32) // 2
        whole = tf.image.resize(image, (high, wide), antialias=True)[top : top + 32, left : left + 32]
        return np.clip(np.rint(whole), 0, 255).astype(np.uint8)

    return _in_folder(
        folder, model, np.stack([cropped(image) for image in larger]), labels, size="32", said="--size",
        loss=lambda now, truth: tf.keras.losses.binary_crossentropy(truth[:, None], model(now, training=False)),
        decide=lambda outputs: (outputs[:, 0] > 0.5).astype(int),
    )  # fmt: skip


@form("RGBA PNG folder")
def rgba(folder: Path) -> Subject:
    _, _, images, labels = photos()
    clear = np.full((*images.shape[:3], 1), 255, np.uint8)
    _written(folder / "images", np.concatenate([images, clear], axis=-1), labels, tf.io.encode_png, ".png")
    return _in_folder(folder, photo_net(), images, labels)


@form("16-bit PNG folder")
def sixteen_bits(folder: Path) -> Subject:
    _, _, images, labels = photos()
    fine = np.clip(images.astype(np.int64) * 257 + np.random.default_rng(0).integers(-99, 99, images.shape), 0, 65535)
    _written(folder / "images", fine.astype(np.uint16), labels, tf.io.encode_png, ".png")
    return _in_folder(folder, photo_net(), fine / 257.0, labels)


@form("grey folder for a colour model")
def grey_for_colour(folder: Path) -> Subject:
    x, y, images, labels = photos()
    grey, shown = (np.rint(part.mean(axis=-1, keepdims=True)).astype(np.uint8) for part in (x, images))
    model = trained(convnet(), np.repeat(grey, 3, axis=-1) / 255.0, y)
    _written(folder / "images", shown, labels, tf.io.encode_png, ".png")
    return _in_folder(folder, model, np.repeat(shown, 3, axis=-1), labels)


@form("grey folder for a grey model")
def grey_for_grey(folder: Path) -> Subject:
    x, y, images, labels = photos()
    grey, shown = (np.rint(part.mean(axis=-1, keepdims=True)).astype(np.uint8) for part in (x, images))
    model = trained(convnet(shape=(32, 32, 1)), grey / 255.0, y)
    _written(folder / "images", shown, labels, tf.io.encode_png, ".png")
    return _in_folder(folder, model, shown, labels)


@form("Tiny-ImageNet's layout")
def tiny_imagenet(folder: Path) -> Subject:
    x, y, images, labels = photos()
    names = [f"n0{kind}443478" for kind in range(4)]
    for part, kind in zip(x[:40], y[:40], strict=True):
        below = folder / "images" / "train" / names[kind] / "images"
        below.mkdir(parents=True, exist_ok=True)
        (below / f"{names[kind]}_{len(list(below.iterdir()))}.JPEG").write_bytes(tf.io.encode_jpeg(part).numpy())
    val = folder / "images" / "val"
    (val / "images").mkdir(parents=True)
    lines = []
    for place, (image, label) in enumerate(zip(images, labels, strict=True)):
        (val / "images" / f"val_{place}.JPEG").write_bytes(tf.io.encode_png(image).numpy())
        lines.append(f"val_{place}.JPEG\t{names[label]}\t0\t0\t62\t62\n")
    (val / "val_annotations.txt").write_text("".join(lines))
    (folder / "images" / "wnids.txt").write_text("\n".join(names))
    return _in_folder(folder, photo_net(), images, labels)


@form(".h5 under other names, --keys")
def other_names(folder: Path) -> Subject:
    _, _, images, labels = photos()
    with h5py.File(folder / "data.h5", "w") as file:
        file["features/pixels"], file["targets"] = images, labels.astype(np.float32)
    words = ["--keys", "features/pixels,targets"]
    return _subject(folder, photo_net(), images, labels, data=folder / "data.h5", said="--keys", then=words)


@form("one-hot labels")
def one_hot(folder: Path) -> Subject:
    _, _, images, labels = photos()
    rows = np.eye(4)[labels]
    data = saved_arrays(folder, images, rows)
    subject = _subject(folder, photo_net(), images, rows, data=data, y=labels)
    return subject


@form("labels from 1 on")
def from_one(folder: Path) -> Subject:
    _, _, images, labels = photos()
    subject = _subject(folder, photo_net(), images, labels + 1, y=labels, said="Subtract 1")
    np.savez(folder / "mended.npz", x=images, y=labels)
    words = ["--model", folder / "theirs.keras", "--data", folder / "mended.npz"]
    model = kr.load_model(folder / "theirs.keras")
    subject.then = words, lambda **attack: kr.evaluate(model, images, labels, **attack)
    return subject


@form("words as labels, npz")
def words(folder: Path) -> Subject:
    _, _, images, labels = photos()
    named = np.array(sorted(NAMES))[labels]
    model = photo_net()
    subject = _subject(folder, model, images, labels, said="np.unique")
    saved_arrays(folder, images, named)
    subject.evaluate = lambda **attack: kr.evaluate(model, images, named, **attack)
    followed = np.unique(named, return_inverse=True)[1]
    subject.then = None, lambda **attack: kr.evaluate(model, images, followed, **attack)
    return subject


@form("(N, 1) labels, as keras.datasets has them")
def column(folder: Path) -> Subject:
    _, _, images, labels = photos()
    return _subject(folder, photo_net(), images, labels[:, None].astype(np.uint8), y=labels)


def _mended(
    folder: Path, shown: np.ndarray, whole: np.ndarray, model: keras.Model, labels: Any, said: str, **named: Any
) -> Subject:
    """Returns the subject of images that are refused, and of those that the line leads to; `whole` in [0, 255]."""
    subject = _subject(folder, model, whole, labels, said=said, **named)
    np.savez(folder / "theirs.npz", x=shown, y=labels)
    subject.words = ["--model", folder / "theirs.keras", "--data", folder / "theirs.npz"]
    np.savez(folder / "mended.npz", x=(whole / 255).astype(shown.dtype), y=labels)
    loaded = kr.load_model(folder / "theirs.keras")
    subject.evaluate = lambda **attack: kr.evaluate(loaded, shown, labels, **attack)
    subject.then = (
        ["--model", folder / "theirs.keras", "--data", folder / "mended.npz"],
        lambda **attack: kr.evaluate(loaded, whole / 255, labels, **attack),
    )
    return subject


@form("float64 images in 0..255")
def float_255(folder: Path) -> Subject:
    _, _, images, labels = photos()
    return _mended(folder, images.astype(np.float64), images, photo_net(), labels, "Divide by 255")


@form("8x8 digits in 0..16, npz", needs=("sklearn",))
def digits_16(folder: Path) -> Subject:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = x.reshape(-1, 8, 8, 1)
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), L.Conv2D(16, 3, activation="relu"), L.Flatten(), L.Dense(32, "relu"), L.Dense(10)]
    )
    trained(model, x[:1400] / 16, y[:1400])
    few = x[1500:1650]
    return _mended(folder, few, few * (255 / 16), model, y[1500:1650], "Divide by 16", epsilon=0.1)


@form("images (N, C, H, W), npz")
def turned(folder: Path) -> Subject:
    _, _, images, labels = photos()
    subject = _mended(folder, images.transpose(0, 3, 1, 2), images, photo_net(), labels, r"transpose\(0, 2, 3, 1\)")
    np.savez(folder / "mended.npz", x=images, y=labels)
    return subject


@form("224x224, 1,000 classes")
def thousand(folder: Path) -> Subject:
    x, y, images, labels = photos()
    places = np.array([3, 404, 817, 999])
    x, images = (np.repeat(np.repeat(part, 7, axis=1), 7, axis=2) for part in (x[:800], images[:100]))
    model = keras.Sequential(
        [
            keras.Input((224, 224, 3)),
            L.Conv2D(16, 7, strides=7, activation="relu"),
            L.BatchNormalization(),
            L.Conv2D(32, 3, strides=2, activation="relu"),
            L.GlobalAveragePooling2D(),
            L.Dense(1000, activation="softmax"),
        ]
    )
    trained(model, x / np.float32(255), places[y[:800]], epochs=10, rate=1e-2)
    return _subject(folder, model, images, places[labels[:100]], logits=False)


@form("images smaller than the model's, --resize")
def resized(folder: Path) -> Subject:
    x, y, images, labels = photos()

    def larger(now: Any) -> tf.Tensor:
        return tf.image.resize(now, (48, 48), antialias=True)

    model = trained(convnet(shape=(48, 48, 3)), larger(x / 255.0), y)
    return _subject(
        folder, model, images, labels, said="--resize", then=["--resize"], then_settings={"resize": True},
        predict=lambda now: model.predict(larger(now), verbose=0),
        loss=cross_entropy(lambda now: model(larger(now)), True),
    )  # fmt: skip

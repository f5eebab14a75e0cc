"""Trains networks on pixels of every range, and asks which range is found out for each on 100, 300 and 1,000 images.

    python tests/ranges.py [NAME ...] [--folder FOLDER] [--list]

Not a part of the suite: the trainings take about twenty minutes, and need CIFAR-10 in TFDS_DATA_DIR. Networks are kept
in the folder, so that a second call trains none. A row for each network shows its accuracy on 2,000 test images, with
the pixels that it was trained on, and what was said for each number of images: "right"; "undecided", where it is asked,
said not to be clear, or found to be right no more often than by guessing; or WRONG, with the range that was taken
instead without a word of doubt. The exit status is 1 for WRONG, and where more than a tenth is undecided on 300 images.

A network that is right less than 1.5 times as often as by guessing on those 2,000 images has learned nothing by which a
range can be told. It is trained once more, with a tenth of the rate, as a person would, and then counts whatever it has
learned. Which ones differs by processor: two of 66 in November 2026, both of pixels to 255 that nothing normalizes.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # As the package has it, where TensorFlow is imported later.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import keras
import numpy as np
from keras import layers as L

from kerasrobust.data.load import load_data
from kerasrobust.errors import InputError
from kerasrobust.evaluation.evaluate import evaluate
from kerasrobust.networks.adapters.ranges import understood
from kerasrobust.networks.making import as_classifier

COUNTS = (100, 300, 1000)
MOST = 0.1
"""Of the networks may be undecided on 300 images."""

LEARNED = 1.5
"""How often as by guessing a network has to be right on images that it wasn't trained on, to count as trained."""

RATES = (1e-3, 1e-4)
"""Of Adam: as it comes, and what a person tries next where nothing was learned."""

Data = tuple[np.ndarray, np.ndarray]

TAKEN: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "0,1": lambda x: x,
    "0,255": lambda x: 255 * x,
    "-1,1": lambda x: 2 * x - 1,
    "imagenet": lambda x: (x - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225]),
    "caffe": lambda x: 255 * x[..., ::-1] - np.float32([103.939, 116.779, 123.68]),
}
"""What `keras.applications.imagenet_utils.preprocess_input` and people's own lines do to images in [0, 1]."""


def cifar10(split: str) -> Data:
    return load_data("cifar10", split)


def animals(split: str) -> Data:
    """Birds, cats, deer and dogs."""
    x, y = cifar10(split)
    some = (y >= 2) & (y <= 5)
    return x[some], y[some] - 2


def vehicles(split: str) -> Data:
    """Planes and cars."""
    x, y = cifar10(split)
    return x[y <= 1], y[y <= 1]


def grey(split: str) -> Data:
    x, y = cifar10(split)
    return x @ np.float32([[0.299], [0.587], [0.114]]), y


def stripes(split: str) -> Data:
    """Of four directions, so easy that few images are wrong, or none."""
    draw = np.random.default_rng(len(split))
    y = draw.integers(0, 4, 12000 if split.startswith("train") else 2000)
    angle, phase = y * np.pi / 4, draw.uniform(0, 2 * np.pi, len(y))
    across, along = np.meshgrid(np.arange(32), np.arange(32))
    waves = np.sin(across * np.cos(angle)[:, None, None] + along * np.sin(angle)[:, None, None] + phase[:, None, None])
    colours, contrasts = draw.uniform(0.2, 0.8, (len(y), 1, 1, 3)), draw.uniform(0.08, 0.3, (len(y), 1, 1, 1))
    x = colours + contrasts * waves[..., None] + draw.normal(0, 0.1, (len(y), 32, 32, 3))
    return np.clip(x, 0, 1).astype(np.float32), y


def lenet(x: keras.KerasTensor) -> keras.KerasTensor:
    for width in (6, 16):
        x = L.MaxPooling2D()(L.Conv2D(width, 5, activation="relu")(x))
    return L.Dense(84, activation="relu")(L.Dense(120, activation="relu")(L.Flatten()(x)))


def normalized(x: keras.KerasTensor) -> keras.KerasTensor:
    for width in (16, 32, 64):
        x = L.Conv2D(width, 3, padding="same", use_bias=False)(x)
        x = L.MaxPooling2D()(L.ReLU()(L.BatchNormalization()(x)))
    return L.Flatten()(x)


def dense(x: keras.KerasTensor) -> keras.KerasTensor:
    return L.Dense(128, activation="relu")(L.Dense(256, activation="relu")(L.Flatten()(x)))


def biasless(x: keras.KerasTensor) -> keras.KerasTensor:
    """Whose logits grow with the pixels, so that their scale alone tells [0, 1] from [0, 255]."""
    for width in (32, 64):
        x = L.MaxPooling2D()(L.Conv2D(width, 3, padding="same", use_bias=False, activation="relu")(x))
    return L.GlobalAveragePooling2D()(L.Conv2D(64, 3, use_bias=False, activation="relu")(x))


def residual(x: keras.KerasTensor) -> keras.KerasTensor:
    x = L.Conv2D(32, 3, strides=2, padding="same", activation="relu")(x)
    for _ in range(2):
        y = L.BatchNormalization()(L.Conv2D(32, 3, padding="same", activation="swish")(x))
        x = L.Add()([x, L.Conv2D(32, 3, padding="same")(y)])
    return L.GlobalAveragePooling2D()(L.ReLU()(x))


def separable(x: keras.KerasTensor) -> keras.KerasTensor:
    for width in (32, 64):
        x = L.LayerNormalization()(L.SeparableConv2D(width, 3, strides=2, padding="same", activation="gelu")(x))
    return L.Dropout(0.2)(L.GlobalAveragePooling2D()(x))


ALL = (lenet, normalized, dense, biasless, residual, separable)
CASES = {
    f"{data.__name__}-{body.__name__}-{taken}": (data, body, taken)
    for data, bodies, ranges in (
        (cifar10, ALL, tuple(TAKEN)),
        (animals, (lenet, normalized, residual), tuple(TAKEN)),
        (vehicles, (lenet, separable), tuple(TAKEN)),
        (grey, (lenet, dense), ("0,1", "0,255", "-1,1")),
        (stripes, (lenet,), tuple(TAKEN)),
    )
    for body in bodies
    for taken in ranges
}


def trained(name: str, folder: Path, images: dict[tuple[str, str], Data]) -> keras.Model:
    """Returns the network of a case, trained as people do: Adam as it comes, a few epochs.

    With a tenth of its rate, from the same seed, where that taught it nothing; whatever comes of that counts.
    """
    path = folder / f"{name}.keras"
    if path.exists():
        return keras.models.load_model(path)
    data, body, taken = CASES[name]
    x, y = images[data.__name__, "train"]
    classes = int(y.max()) + 1
    for rate in RATES:
        keras.utils.set_random_seed(zlib.crc32(name.encode()))
        seen = keras.Input(x.shape[1:])
        model = keras.Model(seen, L.Dense(classes, activation="softmax")(body(seen)))
        model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", jit_compile=False)
        # As many steps for few images as for many.
        model.fit(TAKEN[taken](x), y, batch_size=64, epochs=5 * 12000 // len(y), verbose=0)
        if accuracy(model, taken, images[data.__name__, "test"]) >= LEARNED / classes:
            break
    model.save(path)
    return model


def accuracy(model: keras.Model, taken: str, images: Data) -> float:
    """Returns how often a network is right on the last 2,000 test images, given the pixels that it takes."""
    x, y = (part[-2000:] for part in images)
    return float(np.mean(model.predict(TAKEN[taken](x), batch_size=500, verbose=0).argmax(axis=1) == y))


def said(model: keras.Model, x: np.ndarray, y: np.ndarray, taken: str) -> str:
    """Returns what is made of a model that takes that range, of which only images with labels are known."""
    classifier = as_classifier(model)
    before = set(classifier.notes)
    try:
        found = understood(classifier, x, y)
    except InputError as error:
        return "undecided" if "Expected the range of pixels" in str(error) else f"WRONG: {error}"
    if any("isn't clear" in note for note in found.notes if note not in before):
        return "undecided"
    conventions = found.conventions
    now = "0,1" if conventions.input_range == "auto" else conventions.input_range
    colors = "rgb" if conventions.colors == "auto" else conventions.colors
    if now == taken and colors == ("bgr" if taken == "caffe" else "rgb"):
        return "right"
    told = {finding.code for finding in evaluate(found, x, y, attacks="fgsm").findings}
    return "undecided" if "at-chance" in told else f"WRONG: {now} {colors}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="words in the names of the networks; all without")
    parser.add_argument("--folder", type=Path, default=Path("runs") / "ranges", help="where networks are kept")
    parser.add_argument("--list", action="store_true", help="list the networks")
    options = parser.parse_args()
    names = [name for name in CASES if not options.names or any(word in name for word in options.names)]
    if options.list:
        print(*names, sep="\n")
        return 0
    warnings.simplefilter("ignore")
    options.folder.mkdir(parents=True, exist_ok=True)
    images = {
        (data.__name__, part): data(split)
        for data in dict.fromkeys(CASES[name][0] for name in names)
        for part, split in (("train", "train[:12000]"), ("test", "test"))
    }
    counts = {count: Counter[str]() for count in COUNTS}
    print(f"{'network':32} {'right':>7}  " + "  ".join(f"{count:>9}" for count in COUNTS), flush=True)
    for name in names:
        data, _, taken = CASES[name]
        model = trained(name, options.folder, images)
        x, y = images[data.__name__, "test"]
        right = accuracy(model, taken, (x, y))
        words = [said(model, x[:count], y[:count], taken) for count in COUNTS]
        for count, word in zip(COUNTS, words, strict=True):
            counts[count][word.split(":")[0]] += 1
        print(f"{name:32} {100 * right:5.1f} %  " + "  ".join(f"{word:>9}" for word in words), flush=True)
        keras.backend.clear_session()
    for count, found in counts.items():
        print(f"{count} images: " + ", ".join(f"{number} {word}" for word, number in found.most_common()))
    wrong = any(found["WRONG"] for found in counts.values())
    return int(not names or wrong or counts[300]["undecided"] > MOST * len(names))


if __name__ == "__main__":
    sys.exit(main())

"""Random small Keras models, data and options: either one line says why not, or the figures are those of `predict`.

Outside the normal run: `python tests/fuzz.py --minutes 60 [--seed N]`. What it finds is printed with the recipe of the
model, and becomes a test of its own.
"""

from __future__ import annotations

import argparse
import collections
import os
import time
import traceback
import warnings
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # As the package has it, where TensorFlow is imported later.

import keras
import numpy as np
import tensorflow as tf
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from keras import layers as L

import kerasrobust as kr
from kerasrobust.attacks.registry import make_attack
from kerasrobust.errors import InputError
from kerasrobust.networks.adapters.adapter import Adapter, Conventions, applied, converted

COUNT = 24
OUTCOMES: collections.Counter[str] = collections.Counter()
REFUSALS: collections.Counter[str] = collections.Counter()

ACTIVATIONS = ["relu", "elu", "gelu", "tanh", "silu", "mish", "hard_sigmoid", "softplus", "selu", "relu6", None]
# Each takes and gives maps (N, H, W, C).
MAPS: dict[str, Any] = {
    "conv": lambda: L.Conv2D(4, 3, padding="same", activation="relu"),
    "conv valid": lambda: L.Conv2D(5, 3, strides=2, activation="gelu"),
    "conv dilated": lambda: L.Conv2D(4, 3, dilation_rate=2, padding="same"),
    "conv grouped": lambda: L.Conv2D(4, 1, use_bias=False),
    "depthwise": lambda: L.DepthwiseConv2D(3, padding="same", activation="relu6"),
    "separable": lambda: L.SeparableConv2D(4, 3, padding="same", activation="silu"),
    "transpose": lambda: L.Conv2DTranspose(3, 3, strides=2, padding="same"),
    "batch norm": lambda: L.BatchNormalization(),
    "batch norm renamed": lambda: L.BatchNormalization(center=False, scale=False),
    "layer norm": lambda: L.LayerNormalization(),
    "group norm": lambda: L.GroupNormalization(groups=1),
    "unit norm": lambda: L.UnitNormalization(),
    "rms norm": lambda: L.RMSNormalization(),
    "spectral norm": lambda: L.SpectralNormalization(L.Conv2D(3, 3, padding="same")),
    "prelu": lambda: L.PReLU(shared_axes=[1, 2]),
    "leaky": lambda: L.LeakyReLU(),
    "softmax map": lambda: L.Softmax(),
    "dropout": lambda: L.Dropout(0.4),
    "spatial dropout": lambda: L.SpatialDropout2D(0.3),
    "alpha dropout": lambda: L.AlphaDropout(0.2),
    "noise": lambda: L.GaussianNoise(0.3),
    "gaussian dropout": lambda: L.GaussianDropout(0.3),
    "regularized": lambda: L.ActivityRegularization(0.1),
    "max pool": lambda: L.MaxPooling2D(2, padding="same"),
    "average pool": lambda: L.AveragePooling2D(2, padding="same"),
    "pad": lambda: L.ZeroPadding2D(1),
    "crop": lambda: L.Cropping2D(1),
    "up": lambda: L.UpSampling2D(2),
    "up bilinear": lambda: L.UpSampling2D(2, interpolation="bilinear"),
    "resize": lambda: L.Resizing(6, 6),
    "resize area": lambda: L.Resizing(6, 6, interpolation="area"),
    "resize nearest": lambda: L.Resizing(5, 7, interpolation="nearest"),
    "center crop": lambda: L.CenterCrop(4, 4),
    "rescale": lambda: L.Rescaling(2.0, offset=-1.0),
    "rescale 255": lambda: L.Rescaling(1 / 255),
    "flip": lambda: L.RandomFlip(),
    "rotate": lambda: L.RandomRotation(0.2),
    "contrast": lambda: L.RandomContrast(0.3),
    "permute": lambda: L.Permute((2, 1, 3)),
    "dense map": lambda: L.Dense(5, activation="tanh"),
    "einsum": lambda: L.EinsumDense("abcd,de->abce", output_shape=(None, None, 4), bias_axes="e"),
    "reshape": lambda: L.Reshape((-1, 2, 1)),
    "identity": lambda: L.Identity(),
    "random dropout": lambda: kr.RandomDropout(0.3),
    "discretize": lambda: L.Discretization(bin_boundaries=[0.2, 0.5, 0.8]),
    "nested": lambda: keras.Sequential([L.Conv2D(4, 3, padding="same"), L.BatchNormalization(), L.ReLU()]),
}
AUGMENTING = {"flip", "rotate", "contrast"}
"""At work in `predict` of a model whose `call` takes no `training`."""
JOINS = ["none", "residual", "concatenate", "shared", "squeeze", "attention"]
HEADS: dict[str, Any] = {
    "logits": lambda: [L.Dense(4)],
    "softmax": lambda: [L.Dense(4, activation="softmax")],
    "softmax layer": lambda: [L.Dense(4), L.Softmax()],
    "sigmoids": lambda: [L.Dense(3, activation="sigmoid")],
    "one sigmoid": lambda: [L.Dense(1, activation="sigmoid")],
    "one logit": lambda: [L.Dense(1)],
    "hidden": lambda: [L.Dense(8, activation="relu"), L.Dropout(0.5), L.Dense(5)],
    "activation": lambda: [L.Dense(3), L.Activation("softmax")],
    "normalized": lambda: [L.Dense(4), L.BatchNormalization()],
}
INPUTS: dict[str, tuple[tuple[int, ...], str]] = {
    "colour": ((8, 8, 3), "float32"),
    "grey": ((8, 8, 1), "float32"),
    "no channels": ((8, 8), "float32"),
    "first": ((3, 8, 8), "float32"),
    "rows": ((64,), "float32"),
    "bytes": ((8, 8, 3), "uint8"),
    "integers": ((8, 8, 1), "int32"),
}


@dataclass(frozen=True)
class Recipe:
    """A random model, its data and the call."""

    takes: str
    maps: tuple[str, ...]
    join: str
    flat: str
    head: str
    policy: str
    form: str
    attack: str
    norm: str
    epsilon: float
    precision: str
    batch_size: int
    weights: int
    quantized: str | None
    labels: str

    def model(self) -> keras.Model:
        """Builds it, with weights that spread the classes."""
        keras.utils.set_random_seed(self.weights)
        shape, dtype = INPUTS[self.takes]
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(self.policy)
        try:
            seen = keras.Input(shape, dtype=dtype)
            hidden = seen
            if self.takes == "first":
                hidden = L.Permute((2, 3, 1))(hidden)
            elif self.takes in ("no channels", "rows"):
                hidden = L.Reshape((8, 8, 1))(hidden)
            for name in self.maps:
                hidden = MAPS[name]()(hidden)
            hidden = self._joined(hidden)
            hidden = {"flatten": L.Flatten, "average": L.GlobalAveragePooling2D, "max": L.GlobalMaxPooling2D}[
                self.flat
            ]()(hidden)
            for layer in HEADS[self.head]():
                hidden = layer(hidden)
            model = keras.Model(seen, {"answer": hidden} if self.form == "dict" else hidden)
        finally:
            keras.config.set_dtype_policy(before)
        if self.quantized:
            model.quantize(self.quantized)
        if self.form == "sequential":
            return keras.Sequential([keras.Input(shape, dtype=dtype), model])
        return Wrapped(model) if self.form == "subclass" else model

    def evaluated(self, subject: Any, x: np.ndarray, y: np.ndarray, *, audit: bool) -> kr.Evaluation:
        return kr.evaluate(
            subject, x, y, attacks=self.search(), epsilon=self.epsilon, precision=self.precision,
            batch_size=self.batch_size, passes=5, audit=audit,
        )  # fmt: skip

    def search(self) -> Any:
        """Returns the attack, of fewer steps than usual; what gives no gradients meets a black box."""
        name = "square" if self.form == "arrays" else self.attack
        budget = {"square": {"queries": 200}, "fab": {"steps": 20, "restarts": 1}}
        return make_attack(name, norm=self.norm, epsilon=self.epsilon, **budget.get(name, {}))

    def _joined(self, hidden: Any) -> Any:
        if self.join == "residual":
            return L.Add()([hidden, L.Conv2D(hidden.shape[-1], 3, padding="same", activation="relu")(hidden)])
        if self.join == "concatenate":
            return L.Concatenate()([hidden, L.Conv2D(2, 1)(hidden)])
        if self.join == "shared":
            layer = L.Conv2D(hidden.shape[-1], 3, padding="same", activation="tanh")
            return layer(layer(hidden))
        if self.join == "squeeze":
            weights = L.Dense(hidden.shape[-1], activation="sigmoid")(L.GlobalAveragePooling2D(keepdims=True)(hidden))
            return L.Multiply()([hidden, weights])
        if self.join == "attention":
            rows = L.Reshape((-1, hidden.shape[-1]))(hidden)
            rows = L.MultiHeadAttention(2, 4)(rows, rows)
            return L.Reshape((*hidden.shape[1:3], hidden.shape[-1]))(rows)
        return hidden


class Wrapped(keras.Model):
    """A subclassed model around another."""

    def __init__(self, inner: keras.Model) -> None:
        super().__init__()
        self.inner = inner

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.inner(x)


RECIPES = st.builds(
    Recipe,
    takes=st.sampled_from(list(INPUTS)),
    maps=st.lists(st.sampled_from(list(MAPS)), max_size=4).map(tuple),
    join=st.sampled_from(JOINS),
    flat=st.sampled_from(["flatten", "average", "max"]),
    head=st.sampled_from(list(HEADS)),
    policy=st.sampled_from(["float32"] * 4 + ["mixed_float16", "mixed_bfloat16", "float64", "float16"]),
    form=st.sampled_from(["functional", "functional", "sequential", "subclass", "dict", "function", "arrays"]),
    attack=st.sampled_from(["pgd", "pgd", "fgsm", "deepfool", "apgd-ce", "apgd-dlr", "square", "fab"]),
    norm=st.sampled_from(["linf", "linf", "l2"]),
    epsilon=st.sampled_from([0.0, 2 / 255, 8 / 255, 0.1, 0.5]),
    precision=st.sampled_from(["auto", "auto", "float32", "folded", "bfloat16"]),
    batch_size=st.sampled_from([256, 7, 24, 1]),
    weights=st.integers(0, 10_000),
    quantized=st.sampled_from([None] * 8 + ["int8"]),
    labels=st.sampled_from(["int64", "uint8", "int32"]),
)


def taken(recipe: Recipe, x: np.ndarray, said: Conventions) -> np.ndarray:
    """Returns what the model itself takes for images in [0, 1], computed here and in NumPy alone."""
    shape, dtype = INPUTS[recipe.takes]
    if "int" in dtype and recipe.form != "subclass":  # A subclass doesn't show it, and Keras cuts off what it gets.
        return np.round(x * 255).astype(dtype)
    changed = converted(applied(Adapter(), said), x)
    changed = changed.transpose(0, 3, 1, 2) if recipe.takes == "first" else changed
    return changed.reshape(len(x), *shape)


def answers(outputs: np.ndarray, head: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the class of each row, and how far it leads; NaN is no class."""
    outputs = np.asarray(outputs, np.float64).reshape(len(outputs), -1)
    if outputs.shape[1] == 1:
        edge = 0.5 if head == "one sigmoid" else 0.0
        return (outputs[:, 0] > edge).astype(int), abs(outputs[:, 0] - edge)
    top = np.sort(outputs, axis=1)
    bad = np.isnan(outputs).any(axis=1)
    return np.where(bad, -1, outputs.argmax(axis=1)), np.where(bad, np.inf, top[:, -1] - top[:, -2])


def held(recipe: Recipe) -> str:
    """Builds and attacks a model; returns how it ended; raises AssertionError for a figure that isn't `predict`'s."""
    try:
        model = recipe.model()
    except Exception:  # Layers that don't fit each other.
        return "not built"
    draw = np.random.default_rng(recipe.weights)
    channels = 3 if recipe.takes in ("colour", "first", "bytes") else 1
    x = draw.random((COUNT, 8, 8, channels), np.float32)
    one_sigmoid = recipe.head == "one sigmoid"

    def predicted(images: np.ndarray, said: Conventions | None = None) -> np.ndarray:
        pixels = taken(recipe, images, said or Conventions())
        # A function calls the model outside of graphs, where Keras 3.15 resizes uint8 otherwise.
        outside = recipe.form in ("arrays", "function")
        found = model(pixels, training=False) if outside else model.predict(pixels, verbose=0, batch_size=len(images))
        return np.asarray(found["answer"] if isinstance(found, dict) else found, np.float64)

    try:
        first = predicted(x)
        again = predicted(x)
    except Exception:
        return "not called"

    def depends(images: np.ndarray, said: Conventions | None = None) -> bool:
        """Returns whether the first image's answer is another alone than beside the others."""
        alone, beside = predicted(images[:1], said), predicted(images, said)[:1]
        return not np.allclose(alone, beside, rtol=2e-2, atol=1e-3, equal_nan=True)

    # Whoever calls such a model gets another answer for another batch: what counts is that it is said.
    dependent = depends(x)
    noisy = not np.allclose(first, again, rtol=1e-4, atol=1e-6, equal_nan=True)
    if not np.isfinite(first).all():
        return "not finite"
    y, _ = answers(first, recipe.head)
    y = y.astype(recipe.labels)
    subject: Any = model
    shape = x.shape[1:]
    try:
        if recipe.form == "function":
            subject = kr.as_classifier(lambda t: one(model(as_taken(recipe, t), training=False)), image_shape=shape)
        elif recipe.form == "arrays":
            subject = kr.as_classifier(
                lambda a: np.asarray(one(model(taken(recipe, a, Conventions()), training=False))), image_shape=shape
            )
        evaluation = recipe.evaluated(subject, x, y, audit=dependent or recipe.weights % 4 == 0)
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 900, f"no single line: {error}"
        REFUSALS[str(error).split(" Received:")[0]] += 1
        return "refused"
    said = Conventions(**evaluation.conventions)
    # Noise may be inside that reaches the outputs of some images only.
    hidden = "random dropout" in recipe.maps or (recipe.form == "subclass" and {*recipe.maps} & AUGMENTING)
    assert hidden or evaluation.randomized == noisy, f"randomized {evaluation.randomized}, predict is {noisy}"
    worst = evaluation.worst.x_adv
    assert worst.min() >= 0 and worst.max() <= 1, "outside [0, 1]"
    gaps = (worst - x).reshape(COUNT, -1)
    sizes = abs(gaps).max(axis=1) if recipe.norm == "linf" else np.sqrt((gaps**2).sum(axis=1))
    if recipe.attack not in ("deepfool", "fab"):
        assert (sizes <= recipe.epsilon * (1 + 1e-4) + 1e-6).all(), f"distance {sizes.max()}"
    if noisy or hidden:
        return "randomized"
    if not dependent and depends(worst, said):  # A model may say the same of all images but these.
        dependent, evaluation = True, recipe.evaluated(subject, x, y, audit=True)
    if dependent:
        assert "batch-dependence" in {code for code, _ in evaluation.warnings}, "an image's answer depends on its batch"
        return "batch-dependent"
    for what, images, rates in (("clean", x, None), ("attacked", worst, evaluation.per_example)):
        outputs = predicted(images, said)
        classes, leads = answers(outputs, recipe.head)
        right = classes == y
        scale = max(1e-6, float(np.nanmax(abs(outputs))))
        rounding = 2e-2 if "16" in recipe.policy or recipe.quantized else 1e-4
        # Below float16's smallest normal number a processor may or may not say zero.
        least = 6.2e-5 if "float16" in recipe.policy.replace("bfloat16", "") else 0.0
        close = leads <= max(least, rounding * (1.0 if one_sigmoid else scale))
        if rates is None:
            mine = round(evaluation.clean_accuracy * COUNT)
            assert abs(mine - right.sum()) <= close.sum(), f"{what}: {mine} of {COUNT} right, predict {right.sum()}"
        else:
            within = sizes <= recipe.epsilon * (1 + 1e-4) + 1e-6
            wrong = (rates > 0.5) != np.where(within, right, answers(predicted(x, said), recipe.head)[0] == y)
            assert not (wrong & ~close & within).any(), (
                f"{what}: {int((wrong & ~close).sum())} of {COUNT} differ from predict"
            )
    return "equal"


def one(outputs: Any) -> Any:
    return tf.nest.flatten(outputs)[0]


def as_taken(recipe: Recipe, x: tf.Tensor) -> tf.Tensor:
    shape, dtype = INPUTS[recipe.takes]
    if "int" in dtype:
        return tf.cast(tf.round(x * 255), dtype)
    x = tf.transpose(x, (0, 3, 1, 2)) if recipe.takes == "first" else x
    return tf.reshape(x, (-1, *shape))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--each", type=int, default=20, help="models of one round")
    parser.add_argument("--shrink", action="store_true", help="make what was found smaller, which takes minutes")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    end, number, finds = time.monotonic() + 60 * options.minutes, options.seed, 0
    while time.monotonic() < end:

        @seeded(number)
        @settings(
            max_examples=options.each,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink] if options.shrink else [Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(RECIPES)
        def trial(recipe: Recipe) -> None:
            if time.monotonic() > end + 60:
                return
            try:
                OUTCOMES[held(recipe)] += 1
            except BaseException:
                OUTCOMES["found"] += 1
                print("found", recipe, flush=True)
                raise

        try:
            trial()
        except Exception as error:
            finds += 1
            print(f"--- find {finds}, seed {number}: {type(error).__name__}: {str(error)[:600]}", flush=True)
            traceback.print_exc(limit=-6)
        keras.backend.clear_session()
        number += 1
        print(f"{time.strftime('%H:%M:%S')} {dict(OUTCOMES)}, {finds} rounds with finds", flush=True)
    for expected, count in REFUSALS.most_common():
        print(f"{count:5d} {expected}")


if __name__ == "__main__":
    main()

"""Adversarial training with PGD-7 three ways: by the project, and the same step written plainly in Keras."""

from __future__ import annotations

from functools import cache
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from protocol import Measurement, timed

import kerasrobust as kr
from kerasrobust.data.load import load_dataset
from kerasrobust.data.pipeline import train_pipeline, unwatched

EPSILON = 8 / 255
STEPS = 7
BATCH = 128
IMAGES = 5120


class PlainModel(keras.Model):
    """Adversarial training as a textbook writes it: a loop of gradients in `train_step`, then a step of the weights.

    The attack is the package's: uniform random start, steps of 2.5 epsilon / 7 along the gradient's sign, in inference
    mode, the last iterate. No accuracy on clean images is measured, which the package does on a quarter of the batch.
    """

    def __init__(self, network: keras.Model) -> None:
        super().__init__()
        self.network = network

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return self.network(x, training=training)

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y = data
        x_adv = tf.clip_by_value(x + tf.random.uniform(tf.shape(x), -EPSILON, EPSILON), 0.0, 1.0)
        for _ in range(STEPS):
            with tf.GradientTape() as tape:
                tape.watch(x_adv)
                loss = self.compute_loss(x=x_adv, y=y, y_pred=self.network(x_adv, training=False))
            x_adv = x_adv + 2.5 * EPSILON / STEPS * tf.sign(tape.gradient(loss, x_adv))
            x_adv = tf.clip_by_value(tf.clip_by_value(x_adv, x - EPSILON, x + EPSILON), 0.0, 1.0)
        x_adv = tf.stop_gradient(x_adv)
        with tf.GradientTape() as tape:
            logits = self.network(x_adv, training=True)
            loss = self.compute_loss(x=x_adv, y=y, y_pred=logits)
        variables = self.network.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, logits)
        return {metric.name: metric.result() for metric in self.metrics}


@cache
def batches(data: str = "cifar10") -> tf.data.Dataset:
    """Returns training images in batches without end, from memory and without augmentation: the step is measured."""
    x, y = kr.load_data(data, split=f"train[:{IMAGES}]")
    slices = tf.data.Dataset.from_tensor_slices((x, y))
    return unwatched(slices.batch(BATCH, drop_remainder=True).cache().repeat().prefetch(2))


OPTIONS: dict[str, dict[str, Any]] = {
    "ours": {},
    "float32": {"precision": "float32"},
    "folded": {"precision": "folded"},
    "several steps": {"steps_per_execution": 8},
    "xla": {"jit_compile": True},
    "mixed": {"dtype": "mixed_bfloat16", "precision": "float32"},
}
"""Ways of training with the project, by name: what they do otherwise than it does by default."""


@cache
def model(kind: str) -> keras.Model:
    """Returns a compiled training of one network from the same initial weights: one of `OPTIONS`, `plain` or `jit`."""
    keras.utils.set_random_seed(0)
    options = dict(OPTIONS.get(kind, {}))
    network = kr.build_model("convnet", dtype=options.pop("dtype", "float32"))
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
    if kind in OPTIONS:
        objective = kr.training.PGD(epsilon=EPSILON, steps=STEPS)
        ours = kr.AdversarialModel(network, objective, precision=options.pop("precision", "auto"))
        ours.compile(optimizer, **options)
        return ours
    plain = PlainModel(network)
    plain.compile(
        optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=kind == "jit",
    )
    return plain


@cache
def augmented() -> Any:
    """Returns an iterator over training images as a training run gets them: shuffled, flipped, cropped."""
    dataset = load_dataset("cifar10", "train")
    return iter(train_pipeline(dataset, BATCH, seed=0).repeat())


def feed(seed: int, steps: int) -> Measurement:
    """Measures the batches of so many training steps, without the steps."""
    del seed
    batches = augmented()
    _, seconds = timed(lambda: [next(batches)[1].numpy() for _ in range(steps)])
    return Measurement(seconds, figures={"images_per_second": steps * BATCH / seconds})


def train(kind: str, seed: int, steps: int) -> Measurement:
    """Measures training steps, going on from where the last call ended; beside it PGD-20 on what was learned."""
    del seed
    trained = model(kind)
    history, seconds = timed(lambda: trained.fit(batches(), steps_per_epoch=steps, epochs=1, verbose=0))
    x, y = kr.load_data("cifar10", split="test[:256]")
    attack = kr.attacks.PGD(epsilon=EPSILON, steps=20)
    result = attack(trained.network, x, y, precision="float32", batch_size=256)
    figures = {
        "images_per_second": steps * BATCH / seconds,
        "loss": float(np.asarray(history.history["loss"][-1])),
        "robust": float(1 - result.success.mean()),
        "clean": float(np.mean(result.clean_rate)),
    }
    return Measurement(seconds, figures=figures)

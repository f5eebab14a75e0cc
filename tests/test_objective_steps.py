"""One training step of each objective, against plain Keras written from the papers' equations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SHAPE
from keras import layers as L

from kerasrobust.training import OBJECTIVES, AdversarialModel, Objective

EPSILON, STEPS, RATE, SEED = 0.03, 2, 0.1, 5
CLASSES = 3
DECAY = 0.9
X = np.random.default_rng(2).uniform(0, 1, (12, *SHAPE)).astype(np.float32)
Y = np.random.default_rng(3).integers(0, CLASSES, 12)

Net = Callable[..., tf.Tensor]


def fresh() -> keras.Model:
    """Returns a network with batch normalisation whose weights and statistics are nothing special."""
    inputs = keras.Input(SHAPE)
    x = L.Conv2D(6, 3, padding="same", use_bias=False)(inputs)
    x = L.ReLU()(L.BatchNormalization()(x))
    x = L.ReLU()(L.Conv2D(8, 3, strides=2, padding="same")(x))
    network = keras.Model(inputs, L.Dense(CLASSES)(L.Flatten()(x)))
    draw = np.random.default_rng(SEED)
    network.set_weights([draw.uniform(0.5, 1.5, w.shape) if w.ndim == 1 else draw.normal(0, 0.1, w.shape)
                         for w in network.get_weights()])  # fmt: skip
    return network


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    return -tf.reduce_sum(labels * tf.nn.log_softmax(logits), axis=1)


def kl(p: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(p * (tf.math.log(p) - tf.nn.log_softmax(logits)), axis=1)


def climb(net: Net, start: tf.Tensor, cost: Callable[[tf.Tensor], tf.Tensor], *, project: bool = True) -> tf.Tensor:
    """PGD in Linf, batch normalisation in inference mode; or N-FGSM's one step."""
    x_adv, steps, length = start, STEPS, 2.5 * EPSILON / STEPS
    if not project:
        steps, length = 1, EPSILON
    for _ in range(steps):
        with tf.GradientTape() as tape:
            tape.watch(x_adv)
            loss = tf.reduce_sum(cost(net(x_adv, training=False)))
        x_adv = x_adv + length * tf.sign(tape.gradient(loss, x_adv))
        if project:
            x_adv = tf.minimum(tf.maximum(x_adv, X - EPSILON), X + EPSILON)
        x_adv = tf.clip_by_value(x_adv, 0.0, 1.0)
    return x_adv


class Plain:
    """The same training by hand, one step after another."""

    def __init__(self, kind: str, awp: float = 0.0) -> None:
        self.kind, self.awp, self.done = kind, awp, 0
        self.net, self.average = fresh(), fresh()

    def attacked(self, key: list[int]) -> tuple[tf.Tensor, tf.Tensor]:
        own = tf.one_hot(Y, CLASSES)
        uniform = tf.random.stateless_uniform(X.shape, key, -1.0, 1.0)
        near = X + 0.001 * tf.random.stateless_normal(X.shape, key)
        if self.kind == "nfgsm":
            start = X + 2 * EPSILON * uniform
            return climb(self.net, start, lambda z: cross_entropy(z, own), project=False), own
        if self.kind == "trades":
            p = tf.nn.softmax(self.net(X, training=False))
            return climb(self.net, near, lambda z: kl(p, z)), own
        if self.kind in ("mart", "alp"):
            return climb(self.net, near, lambda z: cross_entropy(z, own)), own
        if self.kind == "adr":  # At the beginning of the training: lambda 0.7, tau 2.5.
            p = tf.nn.softmax(self.average(X, training=False) / 2.5)
            gap = tf.reduce_max(p, axis=1) - tf.reduce_sum(p * own, axis=1)
            trust = tf.minimum(tf.maximum(0.7 - gap, 0.0), 1.0)[:, None]
            own = trust * p + (1 - trust) * own
        start = tf.clip_by_value(X + EPSILON * uniform, 0.0, 1.0)
        return climb(self.net, start, lambda z: cross_entropy(z, own)), own

    def loss(self, x_adv: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        if self.kind in ("pgd", "nfgsm", "adr"):
            return tf.reduce_mean(cross_entropy(self.net(x_adv, training=True), labels))
        clean = self.net(X, training=True)
        z = self.net(x_adv, training=True)
        p, q = tf.nn.softmax(clean), tf.nn.softmax(z)
        if self.kind == "trades":
            return tf.reduce_mean(cross_entropy(clean, labels) + 6.0 * kl(p, z))
        if self.kind == "alp":
            return tf.reduce_mean(cross_entropy(z, labels) + 0.5 * tf.reduce_mean((z - clean) ** 2, axis=1))
        rival = tf.reduce_max(tf.where(labels > 0, -1.0, q), axis=1)
        boosted = cross_entropy(z, labels) - tf.math.log(1.0001 - rival)
        return tf.reduce_mean(boosted + 5.0 * kl(p, z) * (1 - tf.reduce_sum(p * labels, axis=1)))

    def step(self) -> float:
        x_adv, labels = self.attacked([SEED, self.done])
        weights = self.net.trainable_variables
        before = [np.array(w) for w in weights]
        if self.awp:
            moving = [np.array(w) for w in self.net.non_trainable_variables]
            with tf.GradientTape() as tape:
                loss = self.loss(x_adv, labels)
            for weight, slope in zip(weights, tape.gradient(loss, weights), strict=True):
                if len(weight.shape) > 1:
                    scale = np.linalg.norm(np.ravel(weight)) / np.linalg.norm(np.ravel(slope))
                    weight.assign_add(self.awp * scale * slope)
            for variable, value in zip(self.net.non_trainable_variables, moving, strict=True):
                variable.assign(value)
        with tf.GradientTape() as tape:
            loss = self.loss(x_adv, labels)
        for weight, old, slope in zip(weights, before, tape.gradient(loss, weights), strict=True):
            weight.assign(old - RATE * slope)
        self.done += 1
        kept = min(DECAY, (1 + self.done) / (10 + self.done))
        self.average.set_weights([
            kept * old + (1 - kept) * new
            for old, new in zip(self.average.get_weights(), self.net.get_weights(), strict=True)
        ])  # fmt: skip
        return float(loss)


def objective(kind: str, awp: float = 0.0) -> Objective:
    steps: dict[str, Any] = {} if kind == "nfgsm" else {"steps": STEPS}
    return OBJECTIVES[kind](epsilon=EPSILON, awp=awp, **steps)


def wrapped(kind: str, awp: float = 0.0, precision: str = "float32") -> AdversarialModel:
    average = DECAY if kind == "adr" else 0.0
    model = AdversarialModel(fresh(), objective(kind, awp), seed=SEED, precision=precision, average=average)
    model.compile(keras.optimizers.SGD(RATE), jit_compile=False)
    return model


CASES = [(kind, 0.0) for kind in ("pgd", "nfgsm", "trades", "mart", "alp", "adr")]
CASES += [(kind, 0.05) for kind in ("pgd", "trades", "mart")]


@pytest.mark.parametrize(("kind", "awp"), CASES)
def test_steps_are_those_of_the_paper(kind: str, awp: float) -> None:
    """Loss, weights, and the statistics of batch normalisation; at the second step the average has moved as well."""
    model, plain = wrapped(kind, awp), Plain(kind, awp)
    # The divergence has hardly a slope where TRADES' attack starts, so what rounds otherwise soon turns signs.
    for _ in range(1 if kind == "trades" else 2):
        found = model.train_on_batch(X, Y, return_dict=True)["loss"]
        model.reset_metrics()
        assert float(found) == pytest.approx(plain.step(), rel=1e-5)
        for variable, mine, right in zip(
            model.network.weights, model.network.get_weights(), plain.net.get_weights(), strict=True
        ):
            np.testing.assert_allclose(mine, right, rtol=1e-5, atol=1e-5, err_msg=variable.path)
    if kind == "adr":
        assert model.averaged is not None
        for mine, right in zip(model.averaged.get_weights(), plain.average.get_weights(), strict=True):
            np.testing.assert_allclose(mine, right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "awp"), CASES)
def test_twins_take_the_same_step(kind: str, awp: float) -> None:
    """But for pixels whose gradient is nearly 0, the sign of which rounding decides."""
    one, two = wrapped(kind, awp), wrapped(kind, awp, "folded")
    start = one.network.get_weights()
    losses = [float(model.train_on_batch(X, Y, return_dict=True)["loss"]) for model in (one, two)]
    assert two._learner is not None
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    for before, mine, other in zip(start, one.network.get_weights(), two.network.get_weights(), strict=True):
        np.testing.assert_allclose(other, mine, rtol=1e-3, atol=0.02 * np.abs(mine - before).max() + 1e-6)

"""The attack inside a training step."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from kerasrobust.attacks.algorithm import Algorithm, Images
from kerasrobust.attacks.gradient import GradientAttack
from kerasrobust.attacks.loop import advance, noise_key
from kerasrobust.attacks.network import Forward, Network
from kerasrobust.training.step import Aim


def crafted(
    forward: Forward,
    attack: GradientAttack,
    algorithm: Algorithm[Any],
    x: tf.Tensor,
    aim: Aim,
    key: tf.Tensor,
    share: tf.Tensor | float,
    steps: Any,
) -> tf.Tensor:
    """Returns attacked images, float32 as `x`, as part of a training step that is being traced.

    Args:
        forward: images and a noise key to logits, in inference mode.
        attack: the attack.
        algorithm: what it is for the network, see `resolved`.
        x: float32 (N, H, W, C); images without channels, or in a row, are taken too.
        aim: what the attack maximises.
        key: int32 (2,), of what is random.
        share: scales its epsilon, and the step with that.
        steps: how many it takes; the length of a step follows, unless the attack states it.
    """
    numbers = {name: tf.constant(value) for name, value in algorithm.numbers().items()}
    steps = tf.convert_to_tensor(steps)
    if getattr(attack, "step_size", 1.0) is None:  # The default, which follows the number of steps.
        numbers["step_size"] *= float(attack.step_count()) / tf.cast(steps, tf.float32)
    numbers |= {name: numbers[name] * share for name in ("epsilon", "step_size")}
    numbers |= {"early_stop": tf.constant(False), "slack": tf.constant(0.0)}
    # Attacks are for four axes; images without channels, or in a row, get the missing ones.
    inside = tf.concat([[-1], tf.shape(x)[1:]], axis=0)
    flat = x.shape.rank != 4
    shaped = tf.reshape(x, [tf.shape(x)[0], -1, 1, 1]) if flat else x

    def seen(images: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
        return forward(tf.ensure_shape(tf.reshape(images, inside), x.shape) if flat else images, key)

    network = Network(seen, noise_key(key), loss=aim.loss, margin=aim.margin)
    images = Images(shaped, aim.y, key)
    state = algorithm.begin(network, images, numbers)
    state, step = advance(algorithm, network, images, state, (tf.constant(0), steps), tf.shape(x)[0], numbers)
    if algorithm is not attack:  # The best iterate counts, so the last one is looked at too.
        state = algorithm.look(network.at(step), images, state, numbers)
    x_adv, _ = algorithm.found(state, numbers)
    return tf.stop_gradient(tf.ensure_shape(tf.reshape(x_adv, tf.shape(x)), x.shape) if flat else x_adv)

"""Adversarial weight perturbation: the gradient is taken where the weights are worse than they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keras
import tensorflow as tf

from kerasrobust.training.objectives.objective import Objective
from kerasrobust.training.step import Step

_TINY = 1e-20


@contextmanager
def moved_against(
    network: keras.Model, objective: Objective, step: Step, images: tf.Tensor, labels: tf.Tensor
) -> Iterator[None]:
    """Moves a network's kernels up the objective's loss, and back at the end; a part of a step that is being traced.

        w <- w + awp |w| g / |g|,  g = gradient of the loss by w

    for the kernel of each layer by itself; what has one axis, as a bias or a normalisation, stays. 1 pass an image.

    Args:
        network: the one that the step trains.
        objective: whose loss; `awp` of it is the length of the move, relative to the kernel's.
        step: the training step.
        images: from `objective.examples`.
        labels: from `objective.labels`.

    Reference: Wu et al. 2020, equations 7, 9 and 10.
    """
    held = [tf.identity(variable.value) for variable in network.weights]
    kernels = [variable for variable in network.trainable_variables if len(variable.shape) > 1]
    with tf.GradientTape() as tape:
        loss = objective.loss(step, images, labels).loss
    for kernel, slope in zip(kernels, tape.gradient(loss, kernels), strict=True):
        if slope is not None:
            kernel.assign_add(objective.awp * tf.norm(kernel.value) / (tf.norm(slope) + _TINY) * slope)
    moved = {id(kernel) for kernel in kernels}
    for variable, value in zip(network.weights, held, strict=True):
        if id(variable) not in moved:  # The statistics that this pass has moved.
            variable.assign(value)
    yield
    for variable, value in zip(network.weights, held, strict=True):
        if id(variable) in moved:
            variable.assign(value)

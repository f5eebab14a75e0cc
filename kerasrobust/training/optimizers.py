"""Optimizers and their learning rates, by name."""

from __future__ import annotations

from typing import Any, get_args

import keras
import tensorflow as tf

from kerasrobust.errors import unknown_name
from kerasrobust.names import Optimizer, Schedule


@keras.saving.register_keras_serializable("kerasrobust")
class OneCycle(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises to its peak and falls to 0, both linearly.

    Args:
        peak: the largest rate.
        steps: training steps of the whole cycle.
        rise: share of them after which the peak is reached, between 0 and 1.

    Example:
        >>> float(OneCycle(0.2, steps=100)(40))
        0.2

    Reference: Smith and Topin 2018, as Wong et al. 2020 use it (there with a rise of 0.4).
    """

    def __init__(self, peak: float, steps: int, rise: float = 0.4) -> None:
        self.peak, self.steps, self.rise = peak, steps, rise

    def __call__(self, step: Any) -> tf.Tensor:
        done = tf.cast(step, tf.float32) / float(max(1, self.steps))
        return self.peak * tf.maximum(0.0, tf.minimum(done / self.rise, (1.0 - done) / (1.0 - self.rise)))

    def get_config(self) -> dict[str, Any]:
        return {"peak": self.peak, "steps": self.steps, "rise": self.rise}


def learning_rate(schedule: str, peak: float, steps: int) -> Any:
    """Returns a learning rate for so many training steps.

    Args:
        schedule: "cosine": it rises for a tenth of the steps and falls to 0 as a cosine; "one-cycle"; "piecewise": a
            tenth of it from half of the steps on, a hundredth from three quarters on; "constant".
        peak: the largest rate.
        steps: training steps in all.

    Raises:
        InputError: for another schedule.
    """
    if schedule == "cosine":
        rise = steps // 10
        return keras.optimizers.schedules.CosineDecay(0.0, max(1, steps - rise), warmup_target=peak, warmup_steps=rise)
    if schedule == "one-cycle":
        return OneCycle(peak, steps)
    if schedule == "piecewise":
        return keras.optimizers.schedules.PiecewiseConstantDecay(
            [steps // 2, steps * 3 // 4], [peak, peak / 10, peak / 100]
        )
    if schedule == "constant":
        return peak
    raise unknown_name("schedule", schedule, get_args(Schedule))


def optimizer_for(network: keras.Model, name: str, rate: Any, weight_decay: float = 0.0) -> keras.optimizers.Optimizer:
    """Returns an optimizer for a network, which decays its kernels only.

    What has one axis, as a bias or a normalisation's scale, isn't decayed. The decay is Keras': each step takes
    rate * weight_decay off a weight. PyTorch's SGD with momentum 0.9 takes ten times as much by the same number.

    Args:
        network: a built Keras model.
        name: "sgd" with Nesterov momentum 0.9, "adamw", or "muon", with which Keras trains kernels of two axes, and all
            others, as those of convolutions, by AdamW.
        rate: a number or a schedule.
        weight_decay: of the kernels.

    Raises:
        InputError: for another name.

    Example:
        >>> optimizer_for(build_model("convnet"), "sgd", 0.1, weight_decay=5e-4).name
        'SGD'
    """
    if name == "sgd":
        made = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=weight_decay)
    elif name == "adamw":
        made = keras.optimizers.AdamW(rate, weight_decay=weight_decay)
    elif name == "muon":
        last = network.layers[-1].name
        made = keras.optimizers.Muon(
            rate, weight_decay=weight_decay, adam_weight_decay=weight_decay, exclude_layers=[f"(^|/){last}/"]
        )
    else:
        raise unknown_name("optimizer", name, get_args(Optimizer))
    flat = [variable for variable in network.trainable_variables if len(variable.shape) < 2]
    made.exclude_from_weight_decay(var_list=flat)
    return made

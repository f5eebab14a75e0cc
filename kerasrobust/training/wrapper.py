"""A Keras model around a network: what of `compile`, `fit`, saving and metrics isn't the network's own."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import keras
import tensorflow as tf
from keras.src.trainers.compile_utils import MetricsList  # The only metrics but the compiled whose direction it reads.

from kerasrobust.networks.logits import ending
from kerasrobust.training.labels import (
    CrossEntropy,
    check_array,
    checked,
    in_one_line,
    reading_of,
    scaled,
)
from kerasrobust.training.objectives import OBJECTIVES, PGD, Objective
from kerasrobust.twins import Twin, checked_precision


class Share(keras.metrics.Mean):
    """A mean of which callbacks that choose by it know that more is better."""

    _direction = "up"


class Shares(MetricsList):
    """The shares that a step measures by itself."""

    def result(self) -> dict[str, Any]:
        return self.get_result()


class Wrapper(keras.Model):
    """What `AdversarialModel` is but for its steps; the arguments are those."""

    def __init__(
        self,
        network: keras.Model,
        objective: Objective | None = None,
        seed: int = 0,
        precision: str = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.precision = checked_precision(precision)
        self._chosen = ""
        self._twin: Twin | None = None
        self._learner: Twin | None = None
        self.network = network
        self.objective = PGD() if objective is None else objective
        self.clean_metric = Share(name="accuracy")
        self.robust_metric = Share(name="robust_accuracy")
        self.seed = seed
        # The training step calls the network, never this model, so nothing else would say so; saving weights asks.
        self.built = network.built

    def compile(self, optimizer: Any = "sgd", loss: Any = None, **kwargs: Any) -> None:
        """Configures training as `keras.Model.compile` does; without a loss, the cross-entropy that fits the labels."""
        given = tf.nest.flatten(loss)  # A dict of one, as networks with one named output have it.
        loss = given[0] if len(given) == 1 else loss
        if loss is None:
            loss = CrossEntropy(binary=ending(self.network) == "sigmoid")
        self._reading = reading_of(loss)
        scaling = keras.optimizers.LossScaleOptimizer
        if self.network.dtype_policy.name == "mixed_float16" != self.dtype_policy.name:
            # As Keras does where the model that is compiled is of that policy.
            optimizer = keras.optimizers.get(optimizer)
            optimizer = optimizer if isinstance(optimizer, scaling) else scaling(optimizer)
        # Made anew, as layers may have been frozen since.
        self._chosen, self._twin, self._learner = "", None, None
        super().compile(optimizer=optimizer, loss=loss, **kwargs)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        # Keras doesn't call a `compile` of one's own.
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        own = self.clean_metric, self.robust_metric
        rest = [metric for metric in super().metrics if not any(metric is mine for mine in own)]
        return [*rest, Shares(list(own))]

    def build(self, input_shape: Any = None) -> None:
        if not self.network.built:
            self.network.build(input_shape)
        self.built = True

    def call(self, x: tf.Tensor, training: bool | None = None) -> Any:
        return self.network(scaled(x), training=training)

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "network": keras.saving.serialize_keras_object(self.network),
            "objective": {"name": self.objective.name, **asdict(self.objective)},
            "seed": self.seed,
            "precision": self.precision,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Wrapper:
        settings = dict(config["objective"])
        objective = OBJECTIVES[settings.pop("name")](**settings)
        network = keras.saving.deserialize_keras_object(config["network"], custom_objects=custom_objects)
        return cls(**{**config, "network": network, "objective": objective})

    def save(self, filepath: Any, overwrite: bool = True, **kwargs: Any) -> None:
        """Saves the inner network, without the training around it (`.keras`, `.h5`).

        `keras.saving.save_model(model, path)` saves all of it, with the optimizer, for `keras.saving.load_model` after
        `from kerasrobust import AdversarialModel`; `save_weights` saves all that changes in training.
        """
        self.network.save(filepath, overwrite=overwrite, **kwargs)

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        validation = kwargs.get("validation_data")
        check_array(x)
        check_array(validation[0] if isinstance(validation, (tuple, list)) else None)
        with in_one_line():
            return super().fit(x, *args, **kwargs)

    def evaluate(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        check_array(x)
        with in_one_line():
            return super().evaluate(x, *args, **kwargs)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        check_array(x)
        with in_one_line():
            return super().predict(x, *args, **kwargs)

    def predict_step(self, data: Any) -> Any:
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        return self(checked(x), training=False)

    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        with in_one_line():
            return super().train_on_batch(*args, **kwargs)

    def test_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        with in_one_line():
            return super().test_on_batch(*args, **kwargs)

    @property
    def steps_done(self) -> Any:
        """The number of training steps so far, a scalar; several of them may make one update of the weights."""
        optimizer: Any = self.optimizer
        # Not `iterations`, which counts the updates.
        return getattr(optimizer, "inner_optimizer", optimizer)._iterations

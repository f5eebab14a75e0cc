"""A Keras model around a network: what of `compile`, `fit`, saving and metrics isn't the network's own."""

from __future__ import annotations

import inspect
from dataclasses import asdict
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.trainers.compile_utils import MetricsList  # The only metrics but the compiled whose direction it reads.

from kerasrobust.errors import InputError
from kerasrobust.networks.architectures import is_graph
from kerasrobust.networks.logits import ending
from kerasrobust.settings import check_made
from kerasrobust.training.averaging import average_of, freeze, update_average
from kerasrobust.training.labels import (
    CrossEntropy,
    Reading,
    check_array,
    check_classes,
    check_range,
    checked,
    in_one_line,
    name_of,
    reading_of,
    scaled,
    trust_range,
)
from kerasrobust.training.objectives import OBJECTIVES, PGD, Objective
from kerasrobust.training.schedules import Clock
from kerasrobust.twins import Twin, checked_precision


class Share(keras.metrics.Mean):
    """A mean of which callbacks that choose by it know that more is better."""

    _direction = "up"


class Shares(MetricsList):
    """The shares that a step measures by itself."""

    def result(self) -> dict[str, Any]:
        return self.get_result()


class Teacher:
    """Holds a network so that the model around it neither trains nor saves it."""

    def __init__(self, network: keras.Model) -> None:
        check_range(network)
        self.network = network
        # Read by what it gives, which the loss of the network that it teaches says nothing of.
        some = np.random.default_rng(0).random((8, *network.input_shape[1:]), np.float32)
        outputs = keras.ops.convert_to_numpy(network(some, training=False))
        shares = outputs.min() >= 0 and np.allclose(outputs.sum(axis=-1), 1, atol=1e-2)
        self.reading = Reading(probabilities=bool(shares))


class Wrapper(keras.Model):
    """What `AdversarialModel` is but for its steps; the arguments are those."""

    def __init__(
        self,
        network: keras.Model,
        objective: Objective | None = None,
        seed: int = 0,
        precision: str = "auto",
        average: float = 0.0,
        teacher: keras.Model | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_range(network)
        if not 0 <= average < 1:
            raise InputError(f"Expected average in [0, 1). Received: {average}. Try 0.999.")
        self.precision = checked_precision(precision)
        self._chosen = ""
        self._twin: Twin | None = None
        self._learner: Twin | None = None
        self._twin_of_average: Twin | None = None
        self.network = network
        check_made(objective, "an objective")
        self.objective = PGD() if objective is None else objective
        self._teacher = None if teacher is None else Teacher(teacher)
        self._twin_of_teacher: Twin | None = None
        self.average = average
        self.averaged: keras.Model | None = None
        if average and not network.built:
            raise InputError(
                f"Expected a built network to average. Received: {network.name!r}. Begin it with keras.Input."
            )
        if teacher is not None and self.objective.wants_average:
            raise InputError(f"Expected no teacher for {self.objective.name!r}, which teaches itself. Leave it out.")
        if self.objective.wants_average and not average:
            raise InputError(f"Expected an average for {self.objective.name!r}. Received: 0. Try average=0.995.")
        # Not weights of Keras: each epoch sets them, so nothing is to be kept.
        self.progress = tf.Variable(0.0, trainable=False, name="progress")
        self.budget = tf.Variable(1.0, trainable=False, name="budget")
        # TensorFlow keeps int32 of a GPU in the processor's memory, which a step that XLA compiled can't reach.
        self.attack_steps = tf.Variable(
            self.objective.attack_steps(), trainable=False, dtype=tf.int64, name="attack_steps"
        )
        self.clean_metric = Share(name="accuracy")
        self.robust_metric = Share(name="robust_accuracy")
        self.seed = seed
        # The training step calls the network, never this model, so nothing else would say so; saving weights asks.
        self.built = network.built
        if average:
            self.averaged = average_of(network)
            # Of its own, as compiling anew counts the training steps from 0.
            self.averaged_steps = self.add_weight(shape=(), dtype="int64", trainable=False, name="averaged_steps")

    def _update_average(self) -> None:
        if self.averaged is not None:
            self.averaged_steps.assign_add(1)
            update_average(self.averaged, self.network, self.average, self.averaged_steps)

    @property
    def evaluated(self) -> keras.Model:
        """The network that is evaluated and saved: the moving average where there is one."""
        return self.network if self.averaged is None else self.averaged

    def compile(self, optimizer: Any = "sgd", loss: Any = None, **kwargs: Any) -> None:
        """Configures training as `keras.Model.compile` does; without a loss, the cross-entropy that fits the labels."""
        check_range(self.network)  # Again, as layers may have been adapted since.
        given = tf.nest.flatten(loss)  # A dict of one, as networks with one named output have it.
        loss = given[0] if len(given) == 1 else loss
        if loss is None:
            loss = CrossEntropy(binary=ending(self.network) == "sigmoid")
        self._reading = reading_of(loss)
        self._check_labels(loss)
        scaling = keras.optimizers.LossScaleOptimizer
        if self.network.dtype_policy.name == "mixed_float16" != self.dtype_policy.name:
            # As Keras does where the model that is compiled is of that policy.
            optimizer = keras.optimizers.get(optimizer)
            optimizer = optimizer if isinstance(optimizer, scaling) else scaling(optimizer)
        if self.averaged is not None:
            freeze(self.averaged)  # As setting `trainable` would change it.
        # Made anew, as layers may have been frozen since.
        self._chosen, self._twin, self._learner = "", None, None
        self._twin_of_average = self._twin_of_teacher = None
        super().compile(optimizer=optimizer, loss=loss, **kwargs)

    def _check_labels(self, loss: Any) -> None:
        name = self.objective.name if self._teacher is None else "teacher"
        soft = self.objective.soft_labels or self._teacher is not None
        one = self.network.built and is_graph(self.network) and self.network.output_shape[-1] == 1
        if (self.objective.paired or soft) and (self._reading.binary or one):
            raise InputError(
                f"Expected an output for each class for {name!r}. Received: a binary loss or one output. "
                "Train with pgd."
            )
        if soft and "sparse" in name_of(loss).lower():
            raise InputError(
                f"Expected a loss that takes probabilities for {name!r}. Received: a sparse one. "
                "Compile without a loss, or with CategoricalCrossentropy."
            )

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
        return self.evaluated(scaled(x), training=training)

    def get_config(self) -> dict[str, Any]:
        if self._teacher is not None:
            raise InputError(
                "Expected no teacher in what is saved whole. Received: one. Save the network by its `save`, "
                "or what training changes by `save_weights`."
            )
        return {
            "name": self.name,
            "network": keras.saving.serialize_keras_object(self.network),
            "objective": {"name": self.objective.name, **asdict(self.objective)},
            "seed": self.seed,
            "precision": self.precision,
            "average": self.average,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Wrapper:
        settings = dict(config["objective"])
        objective = OBJECTIVES[settings.pop("name")](**settings)
        network = keras.saving.deserialize_keras_object(config["network"], custom_objects=custom_objects)
        trust_range(network)  # It was checked when it was wrapped; what was said of it then isn't saved.
        return cls(**{**config, "network": network, "objective": objective})

    def save(self, filepath: Any, overwrite: bool = True, **kwargs: Any) -> None:
        """Saves the inner network, or its moving average where there is one (`.keras`, `.h5`).

        `keras.saving.save_model(model, path)` saves all of it, with the optimizer, for `keras.saving.load_model` after
        `from kerasrobust import AdversarialModel`; `save_weights` saves all that changes in training.
        """
        self.evaluated.save(filepath, overwrite=overwrite, **kwargs)

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        given = inspect.signature(super().fit).bind(x, *args, **kwargs).arguments
        validation = given.get("validation_data")
        check_array(x)
        check_array(validation[0] if isinstance(validation, (tuple, list)) else None)
        check_classes(given.get("y"), self.network)
        own = given.get("callbacks")
        if isinstance(own, keras.callbacks.CallbackList):
            clock = Clock()
            clock.set_model(self)
            clock.set_params(own.params)
            own.callbacks.append(clock)
        else:
            given["callbacks"] = [*tf.nest.flatten(own or []), Clock()]
        with in_one_line():
            return super().fit(**given)

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

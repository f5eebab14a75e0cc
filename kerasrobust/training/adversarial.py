"""Adversarial training as a Keras model with its own `train_step`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasrobust.attacks.gradient import GradientAttack
from kerasrobust.attacks.network import Forward
from kerasrobust.errors import InputError
from kerasrobust.events import Emit
from kerasrobust.networks.architectures import is_graph
from kerasrobust.networks.making import classifier_of
from kerasrobust.networks.noise import is_noisy, keyed_noise
from kerasrobust.networks.probe import one_output
from kerasrobust.ops import draws
from kerasrobust.training.awp import moved_against
from kerasrobust.training.crafting import crafted
from kerasrobust.training.labels import unpacked
from kerasrobust.training.step import Aim, Outcome, Step
from kerasrobust.training.wrapper import Wrapper
from kerasrobust.twins import Twin, checked_precision, chosen_precision, of_model, try_out


@keras.saving.register_keras_serializable("kerasrobust")
class AdversarialModel(Wrapper):
    """A Keras model around a network that trains it against an attack. Everything else is plain Keras.

    The attack inside the step sees the network in **inference** mode (BatchNorm uses its moving statistics and doesn't
    change them, always-on noise stays on), or a twin of it that follows its weights and takes less time; the weights,
    float32 in any case, are then trained on the result in training mode. Metrics:
    `robust_accuracy` on the attacked part of the batch, `accuracy` on clean images (the clean share of the batch, or a
    quarter of it, predicted in inference mode, where all of it is attacked). In validation both are over all images.

    Args:
        network: Keras model, float32 (N, H, W, C) in [0, 1] -> logits (N, K). One that shows another range, as with its
            own `Rescaling(1 / 255)`, is refused: `Rescaling(255.0)` in front takes it to [0, 1].
        objective: an `Objective`; PGD with epsilon 8/255 by default.
        seed: of the random starts.
        precision: of the attack's gradients, as attacks take it: "auto" for what a probe finds fastest, "float32" for
            the network itself, "bfloat16". `fit` raises InputError where it is impossible for the network.
        average: how much of the moving average of the weights is kept from step to step, such as 0.999; 0 for none.
            Where there is one, `averaged` is validated, predicts and is saved in the network's place.
        teacher: a trained Keras model of the same classes, whose probabilities for the clean images are the labels
            (robust distillation, as in Zi et al. 2021); None for those of the data.

    Example:
        >>> network = AdversarialModel(build_model("convnet"), objective=PGD(epsilon=8 / 255))
        >>> network.compile(optimizer=keras.optimizers.SGD(0.1, momentum=0.9))
        >>> network.fit(x, y, validation_data=(x_val, y_val), epochs=30)
        >>> network.save("convnet-pgd.keras")  # Saves the inner network.

    Reference: Madry et al. 2018; Wong et al. 2020.
    """

    def make_train_function(self, force: bool = False) -> Any:
        self._choose_twins()
        return super().make_train_function(force)

    def make_test_function(self, force: bool = False) -> Any:
        self._choose_twins()
        return super().make_test_function(force)

    def _choose_twins(self) -> None:
        """Chooses what the attack sees. Here, as probes can't be made while a step is traced."""
        if self._chosen:
            return
        chosen = training_precision(self.network, self.precision)
        if chosen != "float32":
            # Whether XLA compiles the step, `compile` decides.
            self._twin = of_model(self.network, chosen)
            if self.averaged is not None:
                self._twin_of_average = of_model(self.averaged, chosen)
            if self._teacher is not None and is_graph(self._teacher.network):
                self._twin_of_teacher = of_model(self._teacher.network, chosen)
            # What a layer adds to the loss by itself, it would add on the twin's side.
            parts = self.network._flatten_layers()
            if not any(getattr(layer, "activity_regularizer", None) or layer._losses for layer in parts):
                self._learner = of_model(self.network, chosen, training=True)
        self._chosen = chosen  # Last, as a twin may be impossible.

    def _attacked(self, x: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
        """Returns the logits that the attack sees."""
        return self._reading.logits(_outputs(self.network if self._twin is None else self._twin.model, x, key))

    def _averaged(self, x: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
        """Returns the logits of the moving average, or where there is none of the network itself."""
        if self.averaged is None:
            return self._attacked(x, key)
        model = self.averaged if self._twin_of_average is None else self._twin_of_average.model
        return self._reading.logits(_outputs(model, x, key))

    def _taught(self, key: tf.Tensor) -> Callable[[tf.Tensor], tf.Tensor] | None:
        """Returns what gives the teacher's logits, None without a teacher."""
        if self._teacher is None:
            return None
        reading = self._teacher.reading
        network = self._teacher.network if self._twin_of_teacher is None else self._twin_of_teacher.model
        return lambda images: reading.logits(_outputs(network, images, key))

    def _refresh(self, *twins: Twin | None) -> None:
        for twin in twins:
            if twin is not None:
                twin.refresh()

    def _craft(
        self, forward: Forward, attack: GradientAttack, x: tf.Tensor, aim: Aim, key: tf.Tensor,
        share: tf.Tensor | float = 1.0, steps: tf.Tensor | None = None,
    ) -> tf.Tensor:  # fmt: skip
        """Returns attacked images; `share` scales the budget and the step with it, `steps` are the attack's if None."""
        algorithm = attack.resolved(is_noisy(self.network))
        return crafted(forward, attack, algorithm, x, aim, key, share, attack.step_count() if steps is None else steps)

    def _share(self) -> tf.Tensor:
        """Returns the share of epsilon that is in force at this training step."""
        done = tf.cast(self.steps_done, tf.float32) + 1.0
        return self.budget * tf.minimum(1.0, done / float(max(1, self.objective.warmup_steps * self.objective.replays)))

    def _key(self) -> tf.Tensor:
        """Returns a key of the random start that changes with every training step."""
        return tf.stack([tf.constant(self.seed, tf.int32), tf.cast(self.steps_done, tf.int32)])

    def _step(self, x: tf.Tensor, y: tf.Tensor, weights: tf.Tensor | None) -> Step:
        """Returns the training step as the objective sees it."""
        key, share = self._key(), self._share()
        network = self.network if self._learner is None else self._learner.model
        return Step(
            x=x,
            y=y,
            weights=weights,
            key=key,
            share=share,
            progress=tf.convert_to_tensor(self.progress),
            reading=self._reading,
            attacked=self._attacked,
            averaged=lambda images: self._averaged(images, draws.fold(key, 5)),
            taught=self._taught(draws.fold(key, 6)),
            outputs=lambda images, number: _outputs(network, images, draws.fold(key, number), training=True),
            compiled=lambda images, y, outputs: self.compute_loss(
                x=images, y=y, y_pred=outputs, sample_weight=weights, training=True
            ),
            craft=lambda attack, images, aim: self._craft(
                self._attacked, attack, images, aim, key, share, tf.cast(self.attack_steps, tf.int32)
            ),
        )

    def _learn(self, step: Step, images: tf.Tensor, labels: tf.Tensor) -> tuple[Outcome, tf.Tensor]:
        """Updates the weights once; returns what the objective made of the images, and the loss's gradient by them."""
        objective, variables = self.objective, self.network.trainable_variables
        self._refresh(self._learner)
        self._clear_losses()  # What layers have added to the loss while they were attacked.
        network = self.network if self._learner is None else self._learner.model
        learned = variables if self._learner is None else self._learner.of(variables)
        with moved_against(network, objective, step, images, labels) if objective.awp else nullcontext():
            with tf.GradientTape() as tape:
                if objective.replays > 1:
                    tape.watch(images)
                outcome = objective.loss(step, images, labels)
                scaled = self.optimizer.scale_loss(outcome.loss)
            # With a learner, the network's own variables enter by their regularizers alone.
            slopes, own, slope = tape.gradient(scaled, [learned, variables, images])
        if self._learner is not None:
            slopes = [one if other is None else one + other for one, other in zip(slopes, own, strict=True)]
            self._learner.give_back()
        self.optimizer.apply_gradients(zip(slopes, variables, strict=True))
        self._update_average()
        return outcome, slope

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y, weights = unpacked(data)
        objective, right = self.objective, self._reading.right
        self._refresh(self._twin, self._twin_of_average if objective.wants_average else None)
        step = self._step(x, y, weights)
        labels = objective.labels(step)
        images, clean = objective.examples(step, labels)
        outcome, slope = self._learn(step, images, labels)
        for _ in range(objective.replays - 1):
            images = objective.moved(step, images, slope)
            outcome, slope = self._learn(step, images, labels)
        self._loss_tracker.update_state(outcome.loss, sample_weight=tf.shape(x)[0])
        logits = self._reading.logits(outcome.outputs)
        attacks = objective.attack() is not None
        if attacks:
            self.robust_metric.update_state(right(logits[clean:], y[clean:]))
        if not attacks or objective.clean_share:
            self.clean_metric.update_state(right(logits[:clean], y[:clean]))
        elif outcome.clean is not None:
            self.clean_metric.update_state(right(self._reading.logits(outcome.clean), y))
        else:
            part = tf.shape(x)[0] // 4 + 1
            self._refresh(self._twin)  # The weights have moved.
            logits_clean = self._attacked(x[:part], draws.fold(step.key, 2))
            self.clean_metric.update_state(right(logits_clean, y[:part]))
        results = self.compute_metrics(images, y, outcome.outputs, sample_weight=weights)
        if not attacks:  # Nothing was attacked: an accuracy of 0 would be a lie.
            results.pop("robust_accuracy")
        return results

    def test_step(self, data: Any) -> dict[str, Any]:
        x, y, weights = unpacked(data)
        # A batch's own content makes the key, so that validation repeats from epoch to epoch without a counter.
        key = tf.stack([tf.constant(self.seed, tf.int32), tf.cast(tf.reduce_sum(tf.cast(y, tf.int32)), tf.int32)])
        self._refresh(self._twin if self.averaged is None else self._twin_of_average)
        aim = Aim(y, self._reading.loss, self._reading.margin)
        x_adv = self._craft(self._averaged, self.objective.validation_attack(), x, aim, key)
        # After the attack, whose loop would leave the losses that layers add by themselves out of reach.
        self._clear_losses()
        outputs = _outputs(self.evaluated, x, draws.fold(key, 1))
        self._loss_tracker.update_state(
            self.compute_loss(x=x, y=y, y_pred=outputs, sample_weight=weights, training=False),
            sample_weight=tf.shape(x)[0],
        )
        self.clean_metric.update_state(self._reading.right(self._reading.logits(outputs), y))
        attacked = self._reading.logits(_outputs(self.evaluated, x_adv, draws.fold(key, 2)))
        self.robust_metric.update_state(self._reading.right(attacked, y))
        return self.compute_metrics(x, y, outputs, sample_weight=weights)


def training_precision(
    network: keras.Model, precision: str, x: np.ndarray | None = None, emit: Emit | None = None
) -> str:
    """Returns in which arithmetic a network is trained: what `precision` means for it, see `chosen_precision`.

    Args:
        network: a Keras model.
        precision: "auto" is "float32" for a network that no twin can stand for in training.
        x: float32 (N, H, W, C), images to try it on; noise without them.
        emit: takes a `Log` line where a twin that fails is left out.

    Raises:
        InputError: for another word than those, or one that is impossible for the network.

    Example:
        >>> training_precision(build_model("convnet"), "auto")
        'bfloat16'
    """
    if checked_precision(precision) == "float32":
        return precision
    shape = network.input_shape[1:] if is_graph(network) and network.built else (None,)
    if None in shape or tf.distribute.has_strategy():
        if precision == "auto":
            return "float32"
        raise InputError(
            "Expected a functional or Sequential network for images of one size, and no distribution strategy, for "
            f"training in {precision}. Received: {network.name!r}. Use float32."
        )
    if x is None:
        x = np.random.default_rng(0).random((1024, *shape), np.float32)
    try:
        chosen = chosen_precision(classifier_of(network), precision, x, emit)
        if chosen != "float32":
            try_out(of_model(network, chosen, training=True).model, shape, training=True)
        return chosen
    except InputError:
        if precision != "auto":
            raise
        return "float32"  # It can be trained all the same, as it is.


def _outputs(network: keras.Model, x: tf.Tensor, key: tf.Tensor, training: bool = False) -> tf.Tensor:
    """Returns a network's one output, float32, under the noise of a key: so randomized ones repeat by seed too."""
    with keyed_noise(key):
        return one_output(network(x, training=training), network.name)

"""What adversarial training minimises: the contract that every objective fills in.

An objective is a frozen dataclass of settings with a name, in a file of its own, and one line in `OBJECTIVES`. It says

- `labels`: which labels are trained on, where they aren't those of the data;
- `examples`: which images;
- `loss`: what is minimised on them.

Each has a default, with which it is the cross-entropy on the images of an attack. `pgd` is the shortest example,
`trades` one with an attack and a loss of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import tensorflow as tf

from kerasrobust import attacks
from kerasrobust.attacks.gradient import GradientAttack
from kerasrobust.errors import InputError
from kerasrobust.ops import balls
from kerasrobust.settings import check_epsilon, check_numbers
from kerasrobust.training.step import Aim, Outcome, Step


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What training minimises: the cross-entropy on images that an attack has changed, on clean ones, or on both.

    Attributes:
        epsilon: radius of the ball, in units of an image in [0, 1].
        norm: "linf" or "l2".
        clean_share: share of each batch that stays clean, in [0, 1).
        warmup_steps: training steps over which epsilon grows linearly from 0; a help where training collapses early.
        awp: adversarial weight perturbation: how far the weights of each layer are moved against the loss before its
            gradient is taken, relative to their norm (Wu et al. 2020, equations 7 and 9, there 0.005); 0 for none.
        validation_steps: PGD steps of the attack in `evaluate` and in validation.
    """

    name: ClassVar[str]
    paired: ClassVar[bool] = False
    """Whether the loss compares each image with its clean one, so that no share of a batch can stay clean."""
    soft_labels: ClassVar[bool] = False
    """Whether it trains on probabilities of all classes."""
    wants_average: ClassVar[bool] = False
    """Whether it asks the network's moving average."""

    replays = 1
    """How often a batch is trained on, each time on images that `moved` makes of those before."""

    epsilon: float = 8 / 255
    norm: balls.Norm = "linf"
    clean_share: float = 0.0
    warmup_steps: int = 0
    awp: float = 0.0
    validation_steps: int = 10

    def __post_init__(self) -> None:
        check_numbers(self)
        check_epsilon(self.epsilon, self.norm)
        if not 0 <= self.clean_share < 1:
            raise InputError(
                f"Expected a share of clean examples in [0, 1). Received: {self.clean_share}. "
                "For 1 use the objective 'standard'."
            )
        if self.paired and self.clean_share:
            raise InputError(
                f"Expected no clean share for {self.name!r}, which has every image clean and attacked. "
                f"Received: {self.clean_share}. Leave it out."
            )
        if not 0 <= self.awp < 1:
            raise InputError(f"Expected a weight perturbation in [0, 1). Received: {self.awp}. Try 0.005.")

    def attack(self) -> GradientAttack | None:
        """Returns the attack of the training step, None for clean training."""
        return None

    def attack_steps(self) -> int:
        """Returns how many steps that attack takes, 0 without one."""
        attack = self.attack()
        return 0 if attack is None else attack.step_count()

    def passes(self, steps: int | None = None) -> float:
        """Returns the passes through the network per image: forward and back count 1, forward alone a third.

        Args:
            steps: of the attack; its own without it.
        """
        attacked = self.attack_steps() if steps is None else steps
        return (1 - self.clean_share) * attacked + self.learning_passes() * (2 if self.awp else 1)

    def learning_passes(self) -> float:
        """Returns the passes per image that the loss takes, without the attack."""
        return 1.0

    def validation_attack(self) -> GradientAttack:
        """Returns the attack of the validation: PGD, which single-step training can't fool."""
        return attacks.PGD(epsilon=self.epsilon, norm=self.norm, steps=self.validation_steps)

    def labels(self, step: Step) -> tf.Tensor:
        """Returns the labels that are trained on: those of the data, or a teacher's probabilities for clean images."""
        return step.y if step.taught is None else tf.stop_gradient(tf.nn.softmax(step.taught(step.x)))

    def aim(self, step: Step, labels: tf.Tensor) -> Aim:
        """Returns what the attack maximises: the loss of the labels that are trained on."""
        return step.aim(labels)

    def examples(self, step: Step, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the images that are trained on, (N, H, W, C), and how many of them, the first, are clean."""
        attack, size = self.attack(), tf.shape(step.x)[0]
        if attack is None:
            return step.x, size
        clean = tf.cast(tf.round(self.clean_share * tf.cast(size, tf.float32)), tf.int32)
        aim = self.aim(step, labels)
        x_adv = step.craft(attack, step.x[clean:], aim._replace(y=aim.y[clean:]))
        return x_adv if self.clean_share == 0 else tf.concat([step.x[:clean], x_adv], axis=0), clean

    def moved(self, step: Step, images: tf.Tensor, slope: tf.Tensor) -> tf.Tensor:
        """Returns the images of the next replay, given the loss's gradient by those of this one."""
        return images

    def loss(self, step: Step, images: tf.Tensor, labels: tf.Tensor) -> Outcome:
        """Returns what is minimised: the compiled loss on these images."""
        outputs = step.outputs(images, 1)
        return Outcome(step.compiled(images, labels, outputs), outputs)

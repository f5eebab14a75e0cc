"""Named recipes for `train --preset`, among them the trainings of the study. No TensorFlow here.

Each function's docstring says where the recipe comes from, how long it takes and what to expect.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from kerasrobust.config import DemoConfig, StudyConfig, TrainConfig
from kerasrobust.errors import unknown_name
from kerasrobust.fields import Epsilon


def lenet() -> TrainConfig:
    """Model A: LeNet-5 on clean CIFAR-10 (the study of 2023, after LeCun 1998)."""
    return TrainConfig(model="lenet", data="cifar10", epochs=40, batch_size=128, learning_rate=0.02, weight_decay=1e-4)


def convnet() -> TrainConfig:
    """Model B: three convolution blocks on clean CIFAR-10 (the study of 2023)."""
    return TrainConfig(model="convnet", data="cifar10", epochs=36, batch_size=128, learning_rate=0.05)


def convnet_pgd() -> TrainConfig:
    """Model B, adversarially trained with PGD at 8/255 (Madry 2018)."""
    return TrainConfig(
        model="convnet", data="cifar10", training="pgd", steps=3, epochs=16, batch_size=128, weight_decay=2e-4
    )


def convnet_random() -> TrainConfig:
    """Model B with dropout that stays on at inference, on clean CIFAR-10 (the study of 2023)."""
    return TrainConfig(model="convnet", data="cifar10", randomize=0.15, epochs=10, batch_size=128, learning_rate=0.05)


def convnet_random_pgd() -> TrainConfig:
    """The randomized Model B, adversarially trained with PGD at 8/255 (the study of 2023, after Madry 2018)."""
    return TrainConfig(
        model="convnet", data="cifar10", randomize=0.1, training="pgd", steps=2, epochs=22, batch_size=128,
        weight_decay=1e-4,
    )  # fmt: skip


def convnet_matched() -> TrainConfig:
    """Model B as the randomized one is adversarially trained, without its noise: what that has to beat."""
    return dataclasses.replace(convnet_random_pgd(), randomize=None)


def convnet_adr() -> TrainConfig:
    """Model B, adversarially trained on labels from its own moving average, which is what is kept (Wu 2024)."""
    return TrainConfig(
        model="convnet", data="cifar10", training="adr", steps=2, epochs=20, batch_size=128, warmup_epochs=8.0,
        weight_decay=3e-3, average=0.998,
    )  # fmt: skip


def convnet_adv() -> TrainConfig:
    """Model B by the recipe that the search found best: PGD-2, epsilon rising for long, strong decay, an average.

    Which other recipes were tried, and what helped, stands in `benchmarks/RESULTS.md`.
    """
    return TrainConfig(
        model="convnet", data="cifar10", training="pgd", steps=2, epochs=60, batch_size=128, warmup_epochs=24.0,
        weight_decay=3e-3, average=0.998,
    )  # fmt: skip


def convnet_l2() -> TrainConfig:
    """Model B, adversarially trained with PGD in L2 at 0.5 (Madry 2018)."""
    return TrainConfig(
        model="convnet", data="cifar10", training="pgd", norm="l2", epsilon=Epsilon("0.5"), steps=3, epochs=10,
        batch_size=128, weight_decay=2e-4,
    )  # fmt: skip


def convnet_gaussian() -> TrainConfig:
    """Model B, trained under Gaussian noise of deviation 0.25, for certificates by `certify` (Cohen 2019)."""
    return TrainConfig(model="convnet", data="cifar10", training="gaussian", sigma=0.25, epochs=24, batch_size=128)


PRESETS: dict[str, Callable[[], TrainConfig]] = {
    made.__name__.replace("_", "-"): made
    for made in (
        lenet,
        convnet,
        convnet_pgd,
        convnet_random,
        convnet_random_pgd,
        convnet_matched,
        convnet_adr,
        convnet_adv,
        convnet_l2,
        convnet_gaussian,
    )
}

DEMO = ("lenet", "convnet", "convnet-pgd", "convnet-random", "convnet-random-pgd")
"""The trainings of the demo, which has to be quick: the two others would take a third more of its time."""

STUDY = (*DEMO, "convnet-matched", "convnet-adr")
"""The trainings of the study, in its order."""

RANDOMIZED, MATCHED = "convnet-random-pgd", "convnet-matched"
"""The two of which the study compares the robustness, to say whether randomness helps."""


def get(name: str) -> TrainConfig:
    """Returns a preset's config.

    Raises:
        InputError: for an unknown name.
    """
    if name not in PRESETS:
        raise unknown_name("preset", name, PRESETS)
    return PRESETS[name]()


def summaries() -> dict[str, str]:
    """Returns the first line of each preset's docstring."""
    return {name: (made.__doc__ or "").splitlines()[0] for name, made in PRESETS.items()}


SHAPES: dict[str, dict[str, Any]] = {
    "lenet": {"epochs": 8, "learning_rate": 0.02},
    "convnet": {"epochs": 3},
    # Without the slow start adversarial training on this set sometimes learns nothing at all.
    "convnet-pgd": {"epochs": 4, "steps": 2, "warmup_epochs": 2.0},
    "convnet-random": {"epochs": 4},
    "convnet-random-pgd": {"epochs": 5, "steps": 2, "warmup_epochs": 2.0},
    "convnet-matched": {"epochs": 5, "steps": 2, "warmup_epochs": 2.0},
    "convnet-adr": {"epochs": 5, "warmup_epochs": 2.0, "weight_decay": 5e-4, "average": 0.98},
}
"""What the trainings of the study change on the embedded set, which is learned in seconds rather than minutes."""


def study_recipes(config: StudyConfig) -> dict[str, TrainConfig]:
    """Returns the trainings of a study or demo by name, fitted to its data, split, epochs and seed."""
    changes: dict[str, Any] = {
        "data": config.data,
        "split": config.split,
        "test_split": config.test_split,
        "keys": config.keys,
        "size": config.size,
        "seed": config.seed,
        "data_dir": config.data_dir,
        "precision": config.precision,
    }
    recipes = {}
    for name in DEMO if isinstance(config, DemoConfig) else STUDY:
        recipe = get(name)
        if config.data == "shapes":
            recipe = dataclasses.replace(recipe, **({"batch_size": 64, "learning_rate": 0.05} | SHAPES[name]))
        if config.epochs is not None:
            recipe = dataclasses.replace(recipe, epochs=config.epochs)
        recipes[name] = dataclasses.replace(recipe, **changes)
    return recipes

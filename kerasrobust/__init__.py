"""kerasrobust: train, attack, defend and compare Keras image classifiers.

Example:
    >>> import kerasrobust as kr
    >>> x, y = kr.load_data("cifar10", split="test[:1000]")
    >>> model = kr.load_model("saved_models/convnet-pgd")
    >>> kr.evaluate(model, x, y, attacks="pgd", epsilon=8 / 255).robust_accuracy
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from kerasrobust.errors import Cancelled, InputError

if TYPE_CHECKING:
    from kerasrobust import attacks, training
    from kerasrobust.data.corruptions.corrupting import corrupt
    from kerasrobust.data.load import load_data, load_dataset
    from kerasrobust.evaluation import outcome
    from kerasrobust.evaluation.assess import assess
    from kerasrobust.evaluation.autoattack import AutoAttack
    from kerasrobust.evaluation.bounds import certified_by_bounds, interval_bounds
    from kerasrobust.evaluation.corruptions import measure_corruptions
    from kerasrobust.evaluation.evaluate import evaluate
    from kerasrobust.evaluation.smoothing import certify
    from kerasrobust.networks.architectures import build_model
    from kerasrobust.networks.making import as_classifier
    from kerasrobust.networks.noise import RandomDropout
    from kerasrobust.networks.randomizing import randomize
    from kerasrobust.networks.saving import load_model, save_model
    from kerasrobust.networks.straight import straightened
    from kerasrobust.training import AdversarialModel

__version__ = "0.1.0"

_HOMES = {
    "AdversarialModel": "training",
    "AutoAttack": "evaluation.autoattack",
    "RandomDropout": "networks.noise",
    "as_classifier": "networks.making",
    "assess": "evaluation.assess",
    "build_model": "networks.architectures",
    "certified_by_bounds": "evaluation.bounds",
    "certify": "evaluation.smoothing",
    "corrupt": "data.corruptions.corrupting",
    "evaluate": "evaluation.evaluate",
    "interval_bounds": "evaluation.bounds",
    "load_data": "data.load",
    "load_dataset": "data.load",
    "load_model": "networks.saving",
    "measure_corruptions": "evaluation.corruptions",
    "randomize": "networks.randomizing",
    "save_model": "networks.saving",
    "straightened": "networks.straight",
}
_MODULES = {"attacks": "attacks", "outcome": "evaluation.outcome", "training": "training"}

__all__ = [
    "AdversarialModel",
    "AutoAttack",
    "Cancelled",
    "InputError",
    "RandomDropout",
    "as_classifier",
    "assess",
    "attacks",
    "build_model",
    "certified_by_bounds",
    "certify",
    "corrupt",
    "evaluate",
    "interval_bounds",
    "load_data",
    "load_dataset",
    "load_model",
    "measure_corruptions",
    "outcome",
    "randomize",
    "save_model",
    "straightened",
    "training",
]


def require_tensorflow() -> None:
    """Turns on TensorFlow's oneDNN, unless TensorFlow is loaded; raises InputError for another backend of Keras.

    TensorFlow 2.21 leaves oneDNN off on processors without AVX-512. On one (Zen 3), PGD took 0.54 of the time with it,
    and channels-first convolutions run with it only.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        raise InputError(
            f"Expected Keras on TensorFlow. Received: KERAS_BACKEND={backend}. Unset it, or set it to tensorflow."
        )


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first used, so that `import kerasrobust` takes no TensorFlow with it."""
    if name in _MODULES:
        require_tensorflow()
        return importlib.import_module(f"kerasrobust.{_MODULES[name]}")
    if name in _HOMES:
        require_tensorflow()
        return getattr(importlib.import_module(f"kerasrobust.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'kerasrobust' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

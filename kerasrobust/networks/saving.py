"""Saving, exporting and loading models: this project's folders, Keras files, and anyone's SavedModels."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import re
import shutil
import uuid
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasrobust.errors import InputError, unknown_name
from kerasrobust.networks.architectures import is_graph
from kerasrobust.networks.classifier import Classifier, as_classifier, classifier_of
from kerasrobust.networks.cloning import clone, with_precision
from kerasrobust.networks.probe import Shape

SCHEMA = 1
_KERAS_FILE = "model.keras"
_SIGNATURES = ("serving_default", "serve")  # TensorFlow's own name, then that of Keras 3.


def save_model(model: keras.Model, folder: str | Path, card: Mapping[str, Any], *, overwrite: bool = False) -> Path:
    """Writes a folder that is a TensorFlow SavedModel and holds `model.keras` and `card.json` as well.

    Everything is in float32 and without optimizer. The folder is written under a temporary name and renamed, so it is
    there as a whole or not at all. Always-on noise is fresh in every process that loads it.

    Args:
        model: a built Keras model, float32 (N, H, W, C) in [0, 1] to logits; an `AdversarialModel` stands for its
            network.
        folder: where to write, as `saved_models/convnet`.
        card: what is known of the model, in JSON's types: data, training, seed, accuracy. The layer table, parameters,
            image shape, classes, versions and the schema version are added.
        overwrite: whether to replace a model that is there.

    Returns:
        The folder.

    Raises:
        InputError: where a folder is there already, nothing can be written, or the model can't be attacked or saved.

    Example:
        >>> save_model(model, "saved_models/convnet", {"data": "cifar10", "seed": 0})
    """
    folder = Path(folder)
    refuse_existing(folder, overwrite)
    classifier = as_classifier(model)
    network = classifier.model
    if not isinstance(network, keras.Model):
        raise InputError(f"Expected a Keras model to save. Received: {type(network).__name__}. Save the Keras model.")
    twin = _twin(network, classifier.probed.shape)
    text = _card_text(card, classifier, _layer_table(network), network.count_params())
    signature = [keras.InputSpec(shape=(None, *classifier.image_shape), dtype="float32")]
    with _written(folder) as temporary:
        with _quiet():
            twin.export(str(temporary), format="tf_saved_model", verbose=False, input_signature=signature)
            twin.save(temporary / _KERAS_FILE)
        (temporary / "card.json").write_text(text, encoding="utf-8")
    return folder


def copy_saved_model(
    network: SavedModelNetwork, folder: str | Path, card: Mapping[str, Any], *, overwrite: bool = False
) -> Path:
    """Copies another's SavedModel as it is, and adds a `card.json`; whole or not at all, as `save_model` writes.

    The card's layer table lists the variables that the signature uses, as a graph has no layers; those of a frozen
    graph are constants and can't be told.

    Args:
        network: the loaded model.
        folder: where to write.
        card: as in `save_model`, which says what is added.
        overwrite: whether to replace a model that is there.

    Returns:
        The folder.

    Raises:
        InputError: where a folder is there already, or nothing can be written.

    Example:
        >>> copy_saved_model(load_model("exported"), "saved_models/theirs", {"source": "exported"})
    """
    folder = Path(folder)
    refuse_existing(folder, overwrite)
    variables = [
        {
            "name": variable.name.removesuffix(":0"),
            "type": "Variable",
            "shape": None if variable.shape.rank is None else variable.shape.as_list(),
            "parameters": variable.shape.num_elements() or 0,
        }
        for variable in network.variables
    ]
    parameters = sum(variable["parameters"] for variable in variables)
    text = _card_text(card, classifier_of(network), variables, parameters)
    with _written(folder) as temporary:
        shutil.copytree(network.path, temporary)
        for path in (temporary, *temporary.rglob("*")):
            path.chmod(
                path.stat().st_mode | 0o600 | (0o100 if path.is_dir() else 0)
            )  # Nobody replaces what is read-only.
        (temporary / "card.json").write_text(text, encoding="utf-8")
    return folder


def load_model(path_or_name: str | Path, *, models_dir: str | Path | None = None) -> Any:
    """Loads a model that can be attacked. Python code inside of files is never run: no Lambda layers, no pickles.

    A SavedModel is itself a TensorFlow program, which can read and write files: load those of people you trust.

    Args:
        path_or_name: a name under `models_dir`, or a path: a folder of `save_model`, a `.keras` file, an `.h5` or
            `.hdf5` file of Keras 2 or 3, or anyone's SavedModel folder with a signature from float images to logits.
        models_dir: where names are looked up; `saved_models` by default.

    Returns:
        A Keras model, or a `SavedModelNetwork` for other people's SavedModels.

    Raises:
        InputError: where there is no such model, it is corrupt, needs code that isn't known, or can't be attacked.

    Example:
        >>> model = load_model("saved_models/convnet-pgd")
    """
    path = _find(path_or_name, Path("saved_models" if models_dir is None else models_dir))
    model: Any
    if path.is_dir() and (path / _KERAS_FILE).is_file():
        model = _load_keras(path / _KERAS_FILE)
    elif path.is_dir() and any((path / name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt")):
        model = SavedModelNetwork(path)
    elif path.is_file() and path.suffix.lower() in (".keras", ".h5", ".hdf5"):
        model = _load_keras(path)
    else:
        raise InputError(
            f"Expected a .keras, .h5 or .hdf5 file, or a folder with saved_model.pb or {_KERAS_FILE}. "
            f"Received: {path}. Save the model with keras.Model.save or export."
        )
    as_classifier(model)  # Refuses what can't be attacked.
    return model


class SavedModelNetwork:
    """A SavedModel's signature as a callable from images to its outputs, for `as_classifier`.

    Attributes:
        path: the folder.
        name: the folder's name.
        variables: those that the signature uses.
        image_shape: height, width and channels; an entry is None where the signature takes any.

    Args:
        path: folder with `saved_model.pb`.

    Raises:
        InputError: for a corrupt folder, or one without a signature that maps one batch of float images to logits.

    Example:
        >>> logits = SavedModelNetwork("exported")(x)
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.name = self.path.name
        with _quiet(), _reading(Path(path)):
            # Kept: the signatures hold the variables only weakly.
            self._loaded = tf.saved_model.load(str(path))
            signatures = dict(self._loaded.signatures)
        if not signatures:
            raise InputError(
                f"Expected a SavedModel with a signature. Received: {path}, which has none. "
                "Save it with tf.saved_model.save(module, folder, signatures=...)."
            )
        # Where the usual one takes something else than images (encoded files, say), another one may do.
        order = [*(name for name in _SIGNATURES if name in signatures), *sorted(set(signatures) - set(_SIGNATURES))]
        problems = []
        for name in order:
            try:
                self._signature = signatures[name]
                self._input, spec = _image_input(self._signature, str(path))
                self._output = _logits_output(self._signature, str(path))
                break
            except InputError as error:
                problems.append(error)
        else:
            raise problems[0]
        self.variables: tuple[tf.Variable, ...] = tuple(self._signature.variables)
        self._dtype = spec.dtype
        self.image_shape: Shape = (None, None, None) if spec.shape.rank is None else tuple(spec.shape[1:])

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Returns the outputs (N, classes) for float32 images (N, H, W, C) in [0, 1]."""
        return self._signature(**{self._input: tf.cast(x, self._dtype)})[self._output]


def _image_input(signature: Any, path: str) -> tuple[str, tf.TensorSpec]:
    """Returns the name and spec of a signature's one input."""
    inputs = signature.structured_input_signature[1]
    what = ", ".join(f"{name}: {spec.dtype.name} {spec.shape}" for name, spec in sorted(inputs.items()))
    advice = "Export a signature from float32 images (None, height, width, channels) to logits."
    problem = ""
    if len(inputs) != 1:
        problem = "one input"
    else:
        name, spec = next(iter(inputs.items()))
        if not spec.dtype.is_floating:
            problem = "floating images as input, which have a gradient"
        elif spec.shape.rank not in (4, None):
            problem = "a batch of images as input"
        elif spec.shape.rank and spec.shape[0] is not None:
            problem = "a batch of any size as input"
    if problem:
        raise InputError(f"Expected a SavedModel with {problem}. Received: {path} with ({what}). {advice}")
    return name, spec


def _logits_output(signature: Any, path: str) -> str:
    """Returns the name of the output with the logits: the only one of its shape, or the one that is called so."""
    outputs = signature.structured_outputs
    fitting = [name for name, spec in outputs.items() if spec.dtype.is_floating and spec.shape.rank in (2, None)]
    named = [name for name in fitting if "logit" in name.lower()]
    chosen = named if len(named) == 1 else fitting
    if len(chosen) != 1:
        what = ", ".join(f"{name}: {spec.dtype.name} {spec.shape}" for name, spec in sorted(outputs.items()))
        raise InputError(
            f"Expected a SavedModel with one output (N, classes), or one called 'logits'. Received: {path} with "
            f"({what}). Export a signature that returns the logits alone."
        )
    return chosen[0]


def _load_keras(path: Path) -> keras.Model:
    with _quiet(), _reading(path):
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    if not isinstance(model, keras.Model):
        raise InputError(f"Expected a file with a Keras model. Received: {path} with a {type(model).__name__}.")
    return model


def _find(path_or_name: str | Path, models_dir: Path) -> Path:
    """Returns the path that is meant: a name under `models_dir` comes before a file of that name here."""
    name = str(path_or_name)
    if Path(name).name == name and name not in ("", ".", "..") and (models_dir / name).is_dir():
        return models_dir / name
    if name and Path(name).exists():
        return Path(name)
    known = [p.name for p in models_dir.iterdir() if p.is_dir() and p.name[0] != "."] if models_dir.is_dir() else []
    if not known:
        raise InputError(
            f"Expected a model. Received: {name!r}, which is neither a path nor a name under {models_dir}. "
            "Train one first, or give the path of a .keras, .h5 or SavedModel."
        )
    raise unknown_name("model", name, known, extra=f" in {models_dir}; or a path")


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns what a library raises while it reads somebody's file into one line about that file."""
    try:
        yield
    # Zip, HDF5, JSON, protobuf, Keras and TensorFlow each raise their own errors on broken files, and which they are
    # is documented nowhere; nothing of this project runs inside.
    except Exception as error:
        reason = _reason(error)
        unknown = re.search(r"Could not locate \w+ '[^']*'|Unknown (?:layer|object): '?\w+", str(error))
        if "lambda" in str(error).lower():
            problem = "a model without Lambda layers"
            advice = "They hold code that would be run: rebuild the model with ordinary layers."
        elif unknown:
            problem, reason = "a model of known layers", unknown[0]
            advice = "Register its own classes with keras.saving.register_keras_serializable before loading."
        else:
            problem = "a readable model"
            advice = "It is damaged, or of a kind or version that Keras 3 can't read: save it again."
        raise InputError(f"Expected {problem}. Received: {path} ({reason}). {advice}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the chatter of TensorFlow, Keras and absl off standard error; errors are raised all the same."""
    loggers = [logging.getLogger(name) for name in ("tensorflow", "absl")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__


def _twin(model: keras.Model, shape: tuple[int, ...]) -> keras.Model:
    """Returns an uncompiled float32 copy: compiled, a model drags its optimizer's state into the file."""
    if is_graph(model):
        twin = clone(model, lambda layer: "float32")
        # One plain tensor in and one out, whatever dict or list the model had around them.
        return (
            twin
            if isinstance(twin, keras.Sequential)
            else keras.Model(twin.inputs[0], twin.outputs[0], name=model.name)
        )
    with_precision(model, "float32")  # A subclassed model under another policy is refused here.
    try:
        twin = type(model).from_config(model.get_config())
        twin(tf.zeros((1, *shape)), training=False)
        twin.set_weights(model.get_weights())
    except (TypeError, ValueError, NotImplementedError) as error:
        raise InputError(
            f"Expected a model that can be rebuilt from get_config(). Received: {type(model).__name__} "
            f"({_reason(error)}). Give it get_config, or build a functional model."
        ) from error
    return twin


def _layer_table(model: keras.Model) -> list[dict[str, Any]]:
    """Returns one JSON object a layer, in the model's order."""
    return [
        {
            "name": layer.name,
            "type": type(layer).__name__,
            "output_shape": _output_shape(layer),
            "parameters": layer.count_params() if layer.built else 0,
        }
        for layer in model.layers
    ]


def _output_shape(layer: keras.layers.Layer) -> list[int | None] | None:
    """Returns the shape of a layer's first output, or None inside a subclassed model, which doesn't record it."""
    nodes = layer._inbound_nodes
    return list(nodes[0].output_tensors[0].shape) if nodes else None


def _card_text(card: Mapping[str, Any], classifier: Classifier, layers: list[dict[str, Any]], parameters: int) -> str:
    """Returns what `card.json` holds."""
    whole = {
        **card,
        "schema": SCHEMA,
        "layers": layers,
        "parameters": parameters,
        "image_shape": list(classifier.image_shape),
        "classes": classifier.classes,
        "versions": {**_versions(), **card.get("versions", {})},
    }
    return json.dumps(whole, indent=1, allow_nan=False) + "\n"


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
    }


def refuse_existing(folder: Path, overwrite: bool) -> None:
    """Raises InputError where something is there that a model's folder may not replace."""
    if not os.path.lexists(folder):
        return
    if not overwrite:
        raise InputError(
            f"Expected a new folder for the model. Received: {folder}, which exists. "
            "Choose another name, or overwrite it (--overwrite)."
        )
    if not folder.is_dir() or (any(folder.iterdir()) and not (folder / "saved_model.pb").is_file()):
        raise InputError(
            f"Expected a saved model to overwrite. Received: {folder}, which is something else. Choose another folder."
        )


@contextlib.contextmanager
def _written(folder: Path) -> Iterator[Path]:
    """Gives a temporary name for a folder that becomes `folder` at the end, or is removed where that fails."""
    # Beside the target, as only a rename within one file system is atomic.
    temporary = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _put(temporary, folder)
    except (OSError, tf.errors.OpError) as error:
        raise InputError(
            f"Expected a place to write the model. Received: {folder} ({_reason(error)}). "
            "Free some space or choose another folder."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put(new: Path, folder: Path) -> None:
    """Renames a finished folder into its place; the old one is moved aside first and comes back if that fails."""
    old = None
    if folder.exists():
        old = new.with_name(new.name + ".old")
        folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        if old is not None:
            old.rename(folder)
        raise
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)

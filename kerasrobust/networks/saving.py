"""Models on disk: folders that are SavedModel, Keras file and card in one."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import shutil
import uuid
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasrobust.errors import InputError, reason_of, unknown_name
from kerasrobust.events import Emit, Log
from kerasrobust.networks.adapters.adapter import Conventions, conventions_of
from kerasrobust.networks.adapters.inputs import output_of
from kerasrobust.networks.architectures import is_graph, predicting
from kerasrobust.networks.classifier import Classifier
from kerasrobust.networks.cloning import clone, rebuilt_from_config
from kerasrobust.networks.files import formats
from kerasrobust.networks.files.foreign import Loading, quiet
from kerasrobust.networks.files.formats import KERAS_FILE
from kerasrobust.networks.files.own_code import defined_by, run_code
from kerasrobust.networks.files.savedmodel import SavedModelNetwork
from kerasrobust.networks.making import classifier_of, classifier_with

SCHEMA = 1


def save_model(model: keras.Model, folder: str | Path, card: Mapping[str, Any], *, overwrite: bool = False) -> Path:
    """Writes a folder that is a TensorFlow SavedModel and holds `model.keras` and `card.json` as well.

    Both are the same network in inference mode, in float32 and without optimizer; layers that Keras has quantized stay
    as they are. What would be another network after being rebuilt is refused. The folder is written under a temporary
    name and renamed, so it is there as a whole or not at all. Always-on noise is fresh in every process that loads it.

    Args:
        model: a built Keras model, float32 (N, H, W, C) in [0, 1] to logits; an `AdversarialModel` stands for its
            network.
        folder: where to write, as `saved_models/convnet`.
        card: what is known of the model, as JSON: data, training, seed, accuracy. The layer table, parameters, image
            shape, classes, versions and the schema version are added.
        overwrite: whether to replace an existing model.

    Returns:
        The folder.

    Raises:
        InputError: if the folder exists, nothing can be written, or the model can't be attacked or saved.

    Example:
        >>> save_model(model, "saved_models/convnet", {"data": "cifar10", "seed": 0})
    """
    folder = Path(folder)
    refuse_existing(folder, overwrite)
    # Anew, as its layers may have changed, but of what was said of it.
    classifier = classifier_with(model, classifier_of(model).conventions)
    network = classifier.model
    if not isinstance(network, keras.Model):
        raise InputError(f"Expected a Keras model to save. Received: {type(network).__name__}. Save the Keras model.")
    copy = _copy(network, classifier.probed.shape)
    text = _card_text(card, classifier, _layer_table(network), network.count_params())
    signature = _signature(copy, classifier)
    with _written(folder) as temporary:
        with quiet():
            try:
                _export(copy, signature, temporary, tracked=False)
            except AssertionError:  # The table of an own layer is found through the model only.
                _export(copy, signature, temporary, tracked=True)
            copy.save(temporary / KERAS_FILE)
        (temporary / "card.json").write_text(text, encoding="utf-8")
    return folder


def _export(copy: keras.Model, signature: keras.InputSpec, folder: Path, tracked: bool) -> None:
    """Writes a SavedModel; of a model that is tracked, each weight twice (Keras 3.15, as in `Model.export`)."""
    archive = keras.export.ExportArchive()
    if tracked:
        archive.track(copy)
    # `model.export` leaves `training` open, and layers that augment images are on by default.
    archive.add_endpoint("serve", lambda x: copy(x, **predicting(copy)), [signature])
    archive.write_out(str(folder), verbose=False)


def _signature(copy: keras.Model, classifier: Classifier) -> keras.InputSpec:
    """Returns what the model itself takes, whatever stands between it and images."""
    if is_graph(copy):
        return keras.InputSpec(shape=copy.inputs[0].shape, dtype=copy.inputs[0].dtype)
    return keras.InputSpec(shape=(None, *classifier.image_shape), dtype="float32")


def copy_saved_model(
    network: SavedModelNetwork, folder: str | Path, card: Mapping[str, Any], *, overwrite: bool = False
) -> Path:
    """Copies another's SavedModel as it is, and adds a `card.json`; whole or not at all, as `save_model` writes.

    The card's layer table lists the variables that the signature uses, as a graph has no layers. A frozen graph has
    constants instead, which can't be listed.

    Arguments, return value and errors are those of `save_model`.

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
        for path in (temporary, *temporary.rglob("*")):  # What is read-only couldn't be replaced later.
            path.chmod(path.stat().st_mode | (0o700 if path.is_dir() else 0o600))
        (temporary / "card.json").write_text(text, encoding="utf-8")
    return folder


SHIPPED = Path(__file__).parents[2] / "saved_models"
"""The models that come with a checkout; a package that was installed hasn't got them."""


def load_model(
    path_or_name: str | Path,
    *,
    models_dir: str | Path | None = None,
    code: str | Path | None = None,
    output: str | None = None,
    said: Conventions | None = None,
    emit: Emit | None = None,
) -> Any:
    """Loads a model that can be attacked. Python code inside of files is only run with consent (`code`).

    What a file is, is told by its content. A SavedModel is itself a TensorFlow program, which can read and write files:
    load those of people you trust.

    Args:
        path_or_name: a name under `models_dir`, or a path: a folder of `save_model`, a `.keras` file, an HDF5 file of
            Keras 2 or 3, anyone's SavedModel folder, or, as black boxes, a `.tflite` or `.onnx` file.
        models_dir: where names are looked up; by default `saved_models` here, then, in a checkout of the project, the
            models that it has. Nothing is downloaded.
        code: a Python file with the classes and functions that the model is made of. It is run, and Lambda layers in
            the model are allowed to.
        output: the name of the output with the logits, for a model of several; by default, that in its card.
        said: what is said of the model beyond its card: see `as_classifier`, which keeps it with the model.
        emit: gets a line for the log about code that was run, and about a SavedModel taken instead of a Keras file that
            needs code; the latter is a warning of Python without it.

    Returns:
        A Keras model, or a callable for other people's SavedModels (`SavedModelNetwork`) and black boxes.

    Raises:
        InputError: if there is no such model, or it is corrupt, needs unknown code, or can't be attacked.

    Example:
        >>> model = load_model("saved_models/convnet-pgd")
        >>> theirs = load_model("theirs.keras", code="their_layers.py")
    """
    path = find_model(path_or_name, _folder_of(path_or_name) if models_dir is None else Path(models_dir))

    def say(message: str) -> None:
        if emit is None:
            warnings.warn(message, stacklevel=5)  # Past `formats`, at the call of `load_model`.
        else:
            emit(Log(level="info", message=message))

    own = None if code is None else run_code(Path(code))
    if own is not None and emit is not None:
        say(f"Ran {code}, which defines {', '.join(sorted(defined_by(own))) or 'nothing'}.")
    card = _card_beside(path)
    # A Keras file beside it has that output alone.
    kept = None if (path / KERAS_FILE).exists() else card.get("output")
    said = said or Conventions()
    output = output or said.output
    chosen = output or (kept if isinstance(kept, str) else None)
    model = formats.load(path, Loading(say=say, code=own, output=chosen))
    if output is not None and isinstance(model, keras.Model):
        model = keras.Model(model.inputs, output_of(model, output), name=model.name)
    # Refuses what can't be attacked.
    before = card.get("conventions")
    classifier_with(
        model, dataclasses.replace(said, output=None).over(conventions_of(before if isinstance(before, dict) else {}))
    )
    return model


def _card_beside(path: Path) -> dict[str, Any]:
    """Returns the card in a model's folder; empty where there is none."""
    try:
        card = json.loads((path / "card.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # Somebody's folder, with no card or another's.
        return {}
    return card if isinstance(card, dict) else {}


def _folder_of(name: str | Path) -> Path:
    """Returns the folder of saved models here, or that of the checkout where only it has a model of this name."""
    here = Path("saved_models")
    alone = Path(name).name == str(name) and not (here / name).is_dir() and not Path(name).exists()
    return SHIPPED if alone and (SHIPPED / name).is_dir() else here


def find_model(path_or_name: str | Path, models_dir: Path) -> Path:
    """Returns the path of a model: a name under `models_dir` comes before a file of that name here."""
    name = str(path_or_name)
    if Path(name).name == name and name not in ("", ".", "..") and (models_dir / name).is_dir():
        return models_dir / name
    if name and Path(name).exists():
        return Path(name)
    known = [p.name for p in models_dir.iterdir() if p.is_dir() and p.name[0] != "."] if models_dir.is_dir() else []
    if not known:
        raise InputError(
            f"Expected a model. Received: {name!r}, which is neither a path nor a name under {models_dir}. "
            "Train one first, or give the path of a .keras, .h5 or SavedModel; the models of the project come with its "
            "checkout, not with its package."
        )
    raise unknown_name("model", name, known, extra=f" in {models_dir}; or a path")


def _copy(model: keras.Model, shape: tuple[int, ...]) -> keras.Model:
    """Returns an uncompiled float32 copy: a compiled model would drag its optimizer's state into the file."""
    if is_graph(model):
        copy = clone(model, lambda layer: "float32")
        if isinstance(copy, keras.Sequential):
            return copy
        # One plain tensor in and one out, whatever dict or list the model had around them.
        return keras.Model(copy.inputs[0], copy.outputs[0], name=model.name)
    return rebuilt_from_config(model, shape)


def _layer_table(model: keras.Model) -> list[dict[str, Any]]:
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
    whole = {
        **card,
        "schema": SCHEMA,
        "layers": layers,
        "parameters": parameters,
        "image_shape": list(classifier.image_shape),
        "classes": classifier.classes if classifier.labels is None else classifier.labels.count,
        "conventions": classifier.conventions.said(),
        "versions": {
            "python": platform.python_version(),
            **{library.__name__: library.__version__ for library in (tf, keras, np)},
            **card.get("versions", {}),
        },
    }
    return json.dumps(whole, indent=1, allow_nan=False) + "\n"


def refuse_existing(folder: Path, overwrite: bool) -> None:
    """Raises InputError if something exists that a model's folder may not replace."""
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
    """Yields a temporary name; the folder written there becomes `folder` at the end, or is removed after a failure."""
    # Beside the target, as only a rename within one file system is atomic.
    temporary = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _put(temporary, folder)
    except (OSError, tf.errors.OpError) as error:
        raise InputError(
            f"Expected a place to write the model. Received: {folder} ({reason_of(error)}). "
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

"""Keras files, `.keras` and HDF5."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import keras

from kerasrobust.errors import InputError, reason_of
from kerasrobust.networks.files.foreign import Loading, NeedsCodeError, quiet, reading
from kerasrobust.networks.files.own_code import defined_by, with_code

_LAMBDAS = ("a Lambda layer", "a lambda")
_HUBS = ("keras_hub", "keras_cv", "keras_nlp")
_NAMESPACES = (
    keras.layers, keras.models, keras.initializers, keras.regularizers, keras.constraints, keras.activations,
    keras.optimizers, keras.losses, keras.metrics, keras.dtype_policies,
)  # fmt: skip


def load_keras(path: Path, loading: Loading) -> keras.Model:
    """Reads a `.keras` file, its unzipped folder or an HDF5 file.

    Raises:
        NeedsCodeError: for one with own classes or Lambda layers, without consent to run code.
        InputError: for one that can't be read.
    """
    with reading(path):
        config, version = _described(path)
    needed = sorted(set(_own_names(config)))
    _import_hubs(path, json.dumps(config))
    if path.is_dir() or zipfile.is_zipfile(path):
        _refuse_keras_2(path, version)
    try:
        with quiet(), _as_called(path) as file, with_code(loading.code):
            model = keras.saving.load_model(file, compile=False, safe_mode=loading.code is None)
    except InputError:
        raise
    # See `reading`.
    except Exception as error:
        if loading.code is None and "a Lambda layer" not in needed:
            _refuse_keras_2(path, version, error)
        if not needed:
            with reading(path):
                raise
        if loading.code is None:
            raise NeedsCodeError(
                f"Expected a model of known layers. Received: {path} with {', '.join(needed)}. Name the Python file "
                'that defines them by --code FILE.py (load_model(..., code="FILE.py")), which runs it; or call '
                'model.export("folder") where the model was made, and give that folder.'
            ) from error
        known = defined_by(loading.code)
        lacking = [name for name in needed if name not in known and name not in _LAMBDAS]
        raise InputError(
            f"Expected code that defines what the model is made of. Received: {path} with "
            f"{', '.join(lacking or needed)} "
            f"({reason_of(error)}). Put all of its classes and functions into the file of --code; or call "
            'model.export("folder") where it was made, and give that folder.'
        ) from error
    if not isinstance(model, keras.Model):
        raise InputError(f"Expected a file with a Keras model. Received: {path} with a {type(model).__name__}.")
    return model


@contextlib.contextmanager
def _as_called(path: Path) -> Iterator[Path]:
    """Yields a name of a file by which Keras knows its kind, as it goes by the name."""
    suffix = ".keras" if zipfile.is_zipfile(path) else ".h5"
    if path.is_dir() or path.suffix == suffix:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / f"model{suffix}"
        link.symlink_to(path.resolve())
        yield link


def _described(path: Path) -> tuple[Any, str]:
    """Returns the configuration of the model in a file, and the version of Keras that wrote it."""
    if path.is_dir():
        parts = {name: (path / name).read_bytes() for name in ("config.json", "metadata.json")}
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            parts = {name: file.read(name) for name in ("config.json", "metadata.json")}
    else:
        with h5py.File(path) as file:
            return json.loads(file.attrs["model_config"]), _text(file.attrs.get("keras_version", ""))
    return json.loads(parts["config.json"]), str(json.loads(parts["metadata.json"]).get("keras_version", ""))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _own_names(config: Any) -> Iterator[str]:
    """Yields the classes and functions in a configuration that neither Keras nor this program knows."""
    if isinstance(config, list):
        for item in config:
            yield from _own_names(item)
    if not isinstance(config, dict):
        return
    kind = config.get("class_name")
    if isinstance(kind, str):
        if kind in ("Lambda", "__lambda__"):
            yield _LAMBDAS[kind == "__lambda__"]
        elif kind == "function":
            name = str(config.get("config"))
            if not str(config.get("module")).startswith("keras") and not hasattr(keras.activations, name):
                yield name
        elif not kind.startswith("__") and kind != "Functional":  # For which there is no public name.
            name = str(config.get("registered_name") or kind)
            module = config.get("module", "")
            known = any(hasattr(space, kind) for space in _NAMESPACES) if not module else _of_keras(module)
            if not known and keras.saving.get_registered_object(name) is None:
                yield name
    for item in config.values():
        yield from _own_names(item)


def _of_keras(module: str) -> bool:
    return module.partition(".")[0] == "keras"


def _import_hubs(path: Path, config: str) -> None:
    """Imports KerasHub for a model that is made of it; raises InputError where it isn't installed."""
    for hub in _HUBS:
        if f'"{hub}' in config:
            if importlib.util.find_spec(hub) is None:
                package = hub.replace("_", "-")
                raise InputError(
                    f"Expected the package {package} for a model that is made of it. Received: {path}, and no such "
                    f"package. Install it: pip install {package}."
                )
            importlib.import_module(hub)


def _refuse_keras_2(path: Path, version: str, error: Exception | None = None) -> None:
    """Raises InputError for a file of Keras 2 that Keras 3 can't read."""
    if version.startswith("2."):
        reason = "" if error is None else f", and Keras 3 can't read it ({reason_of(error, 100)})"
        raise InputError(
            f"Expected a model that Keras 3 can read. Received: {path}, written by Keras 2 ({version}){reason}. Turn "
            "it into a SavedModel by Keras 2: pip install tf_keras, call "
            f'tf_keras.models.load_model("{path}").export("DIR") in Python, and give --model DIR.'
        ) from error

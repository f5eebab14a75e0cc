"""Keras files, `.keras` and HDF5, and the Python code that some of them need."""

from __future__ import annotations

import builtins
import contextlib
import dis
import importlib
import importlib.util
import json
import sys
import tempfile
import traceback
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import keras

from kerasrobust.errors import InputError, reason_of
from kerasrobust.networks.files.foreign import Loading, NeedsCodeError, quiet, reading

_LAMBDAS = ("a Lambda layer", "a lambda")
_HUBS = ("keras_hub", "keras_cv", "keras_nlp")
_NAMESPACES = (
    keras.layers, keras.models, keras.initializers, keras.regularizers, keras.constraints, keras.activations,
    keras.optimizers, keras.losses, keras.metrics, keras.dtype_policies,
)  # fmt: skip


def run_code(path: Path) -> types.ModuleType:
    """Runs a Python file as a module of its own, and returns it with what it defines.

    Modules in the file's folder can be imported by it.

    Args:
        path: the file, which can do whatever the person who started this program can do.

    Raises:
        InputError: if there is no such file, or it raises; with the line.

    Example:
        >>> model = load_model("theirs.keras", code="their_layers.py")
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"Expected a Python file. Received: {path}, where there is none. Check the path.")
    module = types.ModuleType(f"kerasrobust_code_{path.stem}")
    module.__file__ = str(path)
    folder = str(path.resolve().parent)
    sys.modules[module.__name__] = module  # Where classes look up their own module.
    sys.path.insert(0, folder)
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), vars(module))
    except (Exception, SystemExit) as error:  # Somebody's own code may raise anything.
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) and not lines else (lines or [None])[-1]
        place = str(path) if line is None else f"{path}, line {line}"
        raise InputError(
            f"Expected a Python file that runs. Received: {place} ({reason_of(error)}). Mend it; it only has to define "
            "the model's own classes and functions."
        ) from error
    finally:
        sys.path.remove(folder)
    return module


def defined_by(code: types.ModuleType) -> dict[str, Any]:
    """Returns classes and functions by their names in a file, their own names and those they were registered under."""
    found: dict[str, Any] = {}
    for name, value in vars(code).items():
        if isinstance(value, (type, types.FunctionType)):
            found |= dict.fromkeys((value.__name__, keras.saving.get_registered_name(value), name), value)
    return found


@contextlib.contextmanager
def _with_code(code: types.ModuleType | None) -> Iterator[None]:
    """Has Keras find what a file defines, for lambdas too.

    A model's file holds the code of a lambda without what stood around it. Keras 3.15 lets it run among the names of a
    module of its own, where `tf` is none, and then says that the shape of the output can't be inferred, or nothing.
    """
    if code is None:
        yield
        return
    kept = vars(keras.layers.Lambda)["from_config"]

    def from_config(cls: Any, config: dict[str, Any], *arguments: Any, **options: Any) -> keras.layers.Lambda:
        layer = kept.__func__(cls, config, *arguments, **options)
        if isinstance(layer.function, types.FunctionType) and layer.function.__name__ == "<lambda>":
            layer.function = _placed(layer.function, code)
        return layer

    keras.layers.Lambda.from_config = classmethod(
        from_config
    )  # Only registered classes can be replaced by a custom object.
    try:
        with keras.saving.custom_object_scope(defined_by(code)):
            yield
    finally:
        keras.layers.Lambda.from_config = kept


def _placed(function: types.FunctionType, code: types.ModuleType) -> types.FunctionType:
    """Returns a function with a file's names around it; raises InputError for one that it uses and that isn't there."""
    names = vars(code)
    lacking = [name for name in _globals_of(function.__code__) if name not in names and not hasattr(builtins, name)]
    if lacking:
        raise InputError(
            f"Expected the names in {code.__file__} that the model's lambda uses. Received: none for "
            f"{' and '.join(lacking)}. Import or define it there, as where the model was made."
        )
    return types.FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)


def _globals_of(code: types.CodeType) -> list[str]:
    """Returns the names that code looks up outside of itself."""
    own = [item.argval for item in dis.get_instructions(code) if item.opname in ("LOAD_GLOBAL", "LOAD_NAME")]
    inner = [name for part in code.co_consts if isinstance(part, types.CodeType) for name in _globals_of(part)]
    return list(dict.fromkeys([*own, *inner]))


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
        with quiet(), _as_called(path) as file, _with_code(loading.code):
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

"""The Python code that a model's file needs and doesn't hold: run with consent, and found by Keras while it loads."""

from __future__ import annotations

import builtins
import contextlib
import dis
import sys
import traceback
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from kerasrobust.errors import InputError, reason_of


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
def with_code(code: types.ModuleType | None) -> Iterator[None]:
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

    # Only registered classes can be replaced by a custom object.
    keras.layers.Lambda.from_config = classmethod(from_config)
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

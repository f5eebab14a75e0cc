"""Which kind of file holds a model, told by what is in it and not by its name: the registry of formats."""

from __future__ import annotations

import functools
import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from kerasrobust.errors import InputError
from kerasrobust.networks.files.foreign import Loading, NeedsCodeError
from kerasrobust.networks.files.keras_files import load_keras
from kerasrobust.networks.files.onnx import OnnxNetwork
from kerasrobust.networks.files.savedmodel import SavedModelNetwork
from kerasrobust.networks.files.tflite import TFLiteNetwork

KERAS_FILE = "model.keras"
_HEAD = 4096


class Content:
    """What a file or folder shows of itself.

    Attributes:
        path: where it is.
        head: the first bytes of a file; empty for a folder.
        names: the names in a folder or in a zip file.
        fields: the top-level fields of a protobuf message, as (number, wire type); empty for anything else.
        keys: the attributes and members of an HDF5 file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.head = b""
        if path.is_file():
            with path.open("rb") as file:
                self.head = file.read(_HEAD)

    @functools.cached_property
    def names(self) -> list[str]:
        if self.path.is_dir():
            return sorted(path.name for path in self.path.iterdir())
        if not zipfile.is_zipfile(self.path):
            return []
        with zipfile.ZipFile(self.path) as file:
            return file.namelist()

    @functools.cached_property
    def fields(self) -> set[tuple[int, int]]:
        return _protobuf_fields(self.path) if self.head else set()

    @functools.cached_property
    def keys(self) -> set[str]:
        try:
            with h5py.File(self.path) as file:
                return {*file.attrs, *file}
        except OSError:  # Cut off, so that nothing can be said of it.
            return {"model_config"}

    @property
    def is_hdf5(self) -> bool:
        return self.head.startswith(b"\x89HDF\r\n\x1a\n")

    @property
    def is_zip(self) -> bool:
        return self.head.startswith(b"PK\x03\x04")

    @property
    def start(self) -> bytes:
        """The first bytes of a text, without what may stand before it."""
        return self.head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()


@dataclass(frozen=True)
class Format:
    """A kind of file or folder.

    Attributes:
        name: what it is.
        shows: whether a file is of this kind, once those before it in the registry are ruled out.
        load: reads the model, or raises InputError.
    """

    name: str
    shows: Callable[[Content], bool]
    load: Callable[[Path, Loading], Any]


def _refused(name: str, shows: Callable[[Content], bool], advice: str) -> Format:
    """Returns the format of files that hold no model that can be attacked, with what to do instead."""

    def load(path: Path, loading: Loading) -> Any:
        raise InputError(f"Expected a model. Received: {path}, {name}. {advice}")

    return Format(name, shows, load)


def _load_folder(path: Path, loading: Loading) -> Any:
    """Reads a folder of `save_model`: its Keras file, or the SavedModel beside it where that needs code."""
    try:
        return load_keras(path / KERAS_FILE, loading)
    except NeedsCodeError as error:
        if not (path / "saved_model.pb").is_file():
            raise
        needed = str(error).partition(f"{KERAS_FILE} with ")[2].partition(". Name the")[0]
        loading.say(
            f"{path / KERAS_FILE} needs code ({needed}), so the SavedModel beside it is taken: the same network, as a "
            "fixed graph. --code FILE.py takes the Keras model."
        )
        return SavedModelNetwork(path, output=loading.output)


def _with_output(network: Callable[..., Any]) -> Callable[[Path, Loading], Any]:
    return lambda path, loading: network(path, output=loading.output)


_AS_FUNCTION = "Give it to kerasrobust.as_classifier in Python as a function from images to logits."
_PYTORCH = f"{_AS_FUNCTION} Transpose the images there, as PyTorch puts the channels first."

FORMATS = (
    Format("a folder of kerasrobust", lambda c: c.path.is_dir() and KERAS_FILE in c.names, _load_folder),
    Format(
        "a SavedModel",
        lambda c: c.path.is_dir() and bool({"saved_model.pb", "saved_model.pbtxt"} & set(c.names)),
        _with_output(SavedModelNetwork),
    ),
    _refused(
        "a preset of KerasHub",
        lambda c: c.path.is_dir() and {"config.json", "task.json"} <= set(c.names),
        "Load it in Python by keras_hub.models.ImageClassifier.from_preset(FOLDER), and save that to a .keras file.",
    ),
    Format(
        "an unzipped Keras file",
        lambda c: c.path.is_dir() and {"config.json", "metadata.json"} <= set(c.names),
        load_keras,
    ),
    _refused(
        "a folder without a model",
        lambda c: c.path.is_dir(),
        "Give a .keras, .h5, .tflite or .onnx file, or the folder that holds saved_model.pb.",
    ),
    _refused("an empty file", lambda c: not c.head, "Copy or download it again."),
    _refused(
        "a pointer of Git LFS",
        lambda c: c.head.startswith(b"version https://git-lfs"),
        "The model itself wasn't downloaded: call git lfs pull in that checkout.",
    ),
    _refused(
        "a web page",
        lambda c: c.start.startswith((b"<!doctype html", b"<html")),
        "The download gave a page instead of the file: download it again, by the link to the raw file.",
    ),
    Format("a Keras file", lambda c: c.is_zip and {"config.json", "metadata.json"} <= set(c.names), load_keras),
    _refused("a model of PyTorch", lambda c: c.is_zip and any(n.endswith("data.pkl") for n in c.names), _PYTORCH),
    _refused(
        "a file of NumPy arrays",
        lambda c: c.is_zip and bool(c.names) and all(name.endswith(".npy") for name in c.names),
        "It holds weights or data without a model: build the model, give it the weights, and save it.",
    ),
    _refused(
        "a zip file, and not one of Keras",
        lambda c: c.is_zip and bool(c.names),
        "Unpack it, and give the model in it: a .keras or .h5 file, or the folder with saved_model.pb.",
    ),
    _refused("a zip file that is cut off or damaged", lambda c: c.is_zip, "Copy or download a readable model again."),
    Format("a Keras file", lambda c: c.is_hdf5 and "model_config" in c.keys, load_keras),
    _refused(
        "an HDF5 file of weights without a model",
        lambda c: (
            c.is_hdf5
            and bool({"layer_names", "layers", "_layer_checkpoint_dependencies", "vars", "model_weights"} & c.keys)
        ),
        "Build the model in Python, call model.load_weights on it, and save it whole by model.save.",
    ),
    _refused("an HDF5 file without a model", lambda c: c.is_hdf5, "It may be data: give those by --data."),
    Format(
        "a TensorFlow Lite model",
        lambda c: c.head[4:8] == b"TFL3",
        _with_output(TFLiteNetwork),
    ),
    Format(
        "an ONNX model",
        lambda c: {(1, 0), (7, 2)} <= c.fields,
        _with_output(OnnxNetwork),
    ),
    _refused("the graph of a SavedModel", lambda c: {(1, 0), (2, 2)} == c.fields, "Give the folder that it is in."),
    _refused(
        "a frozen graph of TensorFlow 1",
        lambda c: (1, 2) in c.fields and c.fields <= {(1, 2), (2, 2), (3, 0), (4, 2)},
        "Turn it into a SavedModel in Python: import it by tf.compat.v1.wrap_function and tf.import_graph_def, prune "
        "it from the input to the logits, and call tf.saved_model.save.",
    ),
    _refused("a model of PyTorch", lambda c: c.head.startswith(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"), _PYTORCH),
    _refused(
        "a pickle of Python, which could run any code",
        lambda c: c.head[:1] == b"\x80" and c.head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"),
        f"It isn't opened. {_AS_FUNCTION}",
    ),
    _refused(
        "weights in the format safetensors",
        lambda c: c.head[8:10] == b'{"' and int.from_bytes(c.head[:8], "little") < 10**8,
        "It holds no model: build the model, give it the weights, and save it.",
    ),
    _refused(
        "a compressed file",
        lambda c: c.head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf")) or c.head[257:262] == b"ustar",
        "Unpack it, and give the model in it.",
    ),
    _refused(
        "a configuration in JSON",
        lambda c: c.start.startswith(b"{") and b'"class_name"' in c.head,
        "It holds no weights: build the model by keras.models.model_from_json, call load_weights, and save it.",
    ),
    _refused(
        "something else, or a damaged file",
        lambda c: True,
        "Give a readable model: a .keras, .h5, .tflite or .onnx file, or a folder with saved_model.pb; "
        "keras.Model.save and export write them.",
    ),
)
"""The kinds of files, in the order in which they are tried."""


def load(path: Path, loading: Loading) -> Any:
    """Reads the model in a file or folder of any known format.

    Raises:
        InputError: for one that holds no model, or none that can be read.

    Example:
        >>> load(Path("net.model"), Loading(say=print))
    """
    try:
        content = Content(path)
        found = next(known for known in FORMATS if known.shows(content))
    except OSError as error:
        raise InputError(f"Expected a readable model. Received: {path} ({error}). Check its permissions.") from error
    return found.load(path, loading)


def _protobuf_fields(path: Path) -> set[tuple[int, int]]:
    """Returns the top-level fields of a protobuf message; none if a file isn't one."""
    found = set()
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        while file.tell() < size:
            key = _varint(file)
            number, kind = key >> 3, key & 7
            if number == 0 or kind not in (0, 1, 2, 5):
                return set()
            found.add((number, kind))
            if kind == 0:
                _varint(file)
            else:
                file.seek({1: 8, 5: 4}[kind] if kind != 2 else _varint(file), io.SEEK_CUR)
        return found if file.tell() == size else set()


def _varint(file: io.BufferedReader) -> int:
    """Reads a number of a protobuf message; a file that ends inside one gives 0."""
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            return 0
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            break
    return value

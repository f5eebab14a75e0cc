"""Files of adversarial examples: written whole or not at all, read without loading the images. No TensorFlow here.

An HDF5 file with one entry per attacked image, in the order of the data; several attacks stand one after the other.
Datasets: `x` and `x_adv` (float32, (N, H, W, C) in [0, 1]), and of shape (N,) `y`, `prediction`, `prediction_adv`,
`confidence`, `confidence_adv`, `success`, `correct_rate`, `distance`, `attack`, `epsilon` (NaN where the attack seeks
the smallest distance) and `eot`. Attributes: `model`, `norm`, `class_names`.

h5py and NumPy are imported where they are used: the terminal UI imports this module before its first picture.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kerasrobust.errors import InputError

if TYPE_CHECKING:
    import numpy as np

COLUMNS = {
    "y": "int64", "prediction": "int64", "prediction_adv": "int64", "success": "bool", "correct_rate": "float64",
    "distance": "float32",
}  # fmt: skip
"""What every file holds of each example, beside the images and the attack's name, and its type."""

_LATER = {"confidence": "float32", "confidence_adv": "float32", "epsilon": "float64", "eot": "int64"}
"""What files of older runs lack."""

_CHUNK = 512  # Images that are in memory at once when two files are compared, or one is read from end to end.


class Block(NamedTuple):
    """The examples of one attack: which they are, and the attack's settings."""

    examples: Sequence[int]
    attack: str
    epsilon: float | None
    eot: int


@dataclass(frozen=True, kw_only=True)
class Index:
    """All that a file says but the images: one entry per example in the order of the file.

    Attributes:
        y: int64 (N,), the true classes.
        prediction: int64 (N,), what the model says of the image; `prediction_adv`, after the attack.
        confidence: float32 (N,), the probability that it gives to `prediction`; NaN in files of older runs.
            `confidence_adv` is that of `prediction_adv`.
        success: bool (N,), wrong after the attack, also where it was wrong from the start.
        correct_rate: float64 (N,), share of passes that are right after the attack.
        distance: float32 (N,), in `norm`.
        attack: str (N,), registered names.
        epsilon: float64 (N,), the attack's radius; NaN where it seeks the smallest distance, and in older files.
        eot: int64 (N,), passes that each gradient was averaged over.
        image_shape: height, width, channels.
        class_names: one name a class of the data; none in older files.
        model: the model's name, "" in older files.
        norm: `linf` or `l2`, "" in older files.
    """

    y: np.ndarray
    prediction: np.ndarray
    prediction_adv: np.ndarray
    confidence: np.ndarray
    confidence_adv: np.ndarray
    success: np.ndarray
    correct_rate: np.ndarray
    distance: np.ndarray
    attack: np.ndarray
    epsilon: np.ndarray
    eot: np.ndarray
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    model: str
    norm: str

    def __len__(self) -> int:
        return len(self.y)

    @property
    def correct(self) -> np.ndarray:
        """Bool (N,): the model was right before the attack."""
        return self.prediction == self.y

    def class_name(self, number: int) -> str:
        """Returns a class' name; a model may know more classes than the data have names."""
        return self.class_names[number] if 0 <= number < len(self.class_names) else f"class {number}"

    def blocks(self) -> list[Block]:
        """Returns the attacks in the order of their first examples, each with all of its examples."""

        def settings(place: int) -> tuple[str, float | None, int]:
            epsilon = float(self.epsilon[place])
            return str(self.attack[place]), None if epsilon != epsilon else epsilon, int(self.eot[place])

        found: dict[tuple[str, float | None, int], list[int]] = {}
        for place in range(len(self)):
            found.setdefault(settings(place), []).append(place)
        return [Block(_places(places), *key) for key, places in found.items()]


def _places(places: list[int]) -> Sequence[int]:
    """Returns places as a range where they are one."""
    whole = range(places[0], places[-1] + 1)
    return whole if len(whole) == len(places) else tuple(places)


def write_examples(
    path: Path, parts: Sequence[Mapping[str, Any]], *, model: str, norm: str, class_names: Sequence[str]
) -> None:
    """Writes a file of examples under a temporary name and renames it.

    Args:
        path: the file, ending in `.h5`; its folder is made if needed.
        parts: one mapping an attack: `x`, `x_adv`, `COLUMNS`, `confidence`, `confidence_adv` as arrays of N entries,
            `attack` (its name), `epsilon` (or None) and `eot`, for all examples or one each.
        model: the model's name.
        norm: of all the attacks.
        class_names: one name a class.

    Raises:
        OSError: where the file can't be written; nothing is left of it.
    """
    import h5py
    import numpy as np

    arrays = ("x", "x_adv", *COLUMNS, "confidence", "confidence_adv")
    counts = [len(part["y"]) for part in parts]
    ends = list(itertools.accumulate(counts))

    def column(name: str, kind: Any) -> np.ndarray:
        each = zip(parts, counts, strict=True)
        return np.concatenate([np.broadcast_to(np.array(part[name], kind), count) for part, count in each])

    attacks, classes = _fixed_length(column("attack", str)), _fixed_length([_printable(name) for name in class_names])
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".part")
    try:
        # Radii and the like take below 128 bytes an example, HDF5's own tables some kB.
        size = sum(part[name].nbytes for part in parts for name in arrays) + attacks.nbytes + classes.nbytes
        _check_room(temporary, size + 128 * ends[-1] + 2**18)
        # As of HDF5 1.8, with room for more than 64 kB of class names.
        with h5py.File(temporary, "w", libver="v108") as file:
            for name in arrays:
                first = parts[0][name]
                target = file.create_dataset(name, (ends[-1], *first.shape[1:]), first.dtype)
                # One after the other into the file, as a copy of all images may not fit into memory.
                for part, count, end in zip(parts, counts, ends, strict=True):
                    target[end - count : end] = part[name]

            file["attack"] = attacks
            file["epsilon"] = column("epsilon", np.float64)  # None becomes NaN.
            file["eot"] = column("eot", np.int64)
            for name, word in (("model", _printable(model)), ("norm", norm)):
                file.attrs[name] = _fixed_length([word]).reshape(())
            file.attrs["class_names"] = classes
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _fixed_length(words: Iterable[str]) -> np.ndarray:
    """Returns words as fixed-length strings, each as long as the longest.

    HDF5 1.14, which h5py 3.14 brings, may never finish reading variable-length ones from a damaged file.
    """
    import h5py
    import numpy as np

    coded = [word.encode() for word in words]
    return np.array(coded, h5py.string_dtype("utf-8", max(map(len, coded), default=0) or 1))


def _check_room(path: Path, size: int) -> None:
    """Raises OSError where a file of this size can't be written: HDF5 may crash the process when a disk is full."""
    with path.open("wb") as file:
        for _ in range(size // 2**16 + 1):
            file.write(bytes(2**16))


def _printable(name: str) -> str:
    """Returns a name in UTF-8; those of folders may be in anything."""
    return name.encode("utf-8", "backslashreplace").decode()


def list_examples(folder: Path) -> list[Path]:
    """Returns the files of examples in a run's folder: `examples.h5`, and those of a study's networks.

    Example:
        >>> for path in list_examples(Path("runs/demo")):
        ...     print(path.name, len(read_index(path)))
    """
    found = sorted((folder / "examples").glob("*.h5"), key=lambda path: path.stem)
    single = folder / "examples.h5"
    return [single, *found] if single.is_file() else found


def read_index(path: Path) -> Index:
    """Returns what a file says of its examples, without the images.

    Raises:
        InputError: for a file that isn't there, is damaged, or is something else.
    """
    import numpy as np

    with _open(path) as file:
        shape = file["x"].shape
        count = shape[0]
        columns = {name: file[name][()].astype(kind) for name, kind in COLUMNS.items()}
        for name, kind in _LATER.items():
            lacking = np.full(count, 1 if name == "eot" else np.nan)
            columns[name] = (file[name][()] if name in file else lacking).astype(kind)
        columns["attack"] = np.array(file["attack"].asstr()[()], dtype=str)
        if any(column.shape != (count,) for column in columns.values()):
            raise ValueError("columns of other lengths than the images")
        return Index(
            **columns,
            image_shape=tuple(shape[1:]),
            class_names=tuple(_decoded(name) for name in file.attrs.get("class_names", ())),
            model=_decoded(file.attrs.get("model", "")),
            norm=_decoded(file.attrs.get("norm", "")),
        )


def _decoded(value: Any) -> str:
    """Returns a string that h5py has read: bytes if it is a fixed-length one. Older files have variable-length ones."""
    return value.decode() if isinstance(value, bytes) else str(value)


def read_pair(path: Path, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns one image before and after the attack, float32 (H, W, C) in [0, 1]; reads no other.

    Raises:
        InputError: for a file as in `read_index`, and where it has no example of this number.
    """
    import numpy as np

    with _open(path) as file:
        if not 0 <= index < len(file["x"]):
            raise ValueError(f"{len(file['x'])} examples, none of number {index}")
        return file["x"][index].astype(np.float32), file["x_adv"][index].astype(np.float32)


def read_blocks(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the images before and after the attack, some hundred at once: float32 (n, H, W, C) in [0, 1].

    Raises:
        InputError: for a file as in `read_index`.
    """
    import numpy as np

    with _open(path) as file:
        for start in range(0, len(file["x"]), _CHUNK):
            block = slice(start, start + _CHUNK)
            yield file["x"][block].astype(np.float32), file["x_adv"][block].astype(np.float32)


def same_images(first: Path, second: Path) -> bool:
    """Returns whether two files hold the same images with the same labels in the same order.

    Raises:
        InputError: for files as in `read_index`.
    """
    import numpy as np

    with _open(first) as one, _open(second) as two:
        if one["x"].shape != two["x"].shape or not np.array_equal(one["y"][()], two["y"][()]):
            return False
        starts = range(0, len(one["x"]), _CHUNK)
        return all(
            np.array_equal(one["x"][start : start + _CHUNK], two["x"][start : start + _CHUNK]) for start in starts
        )


@contextlib.contextmanager
def _open(path: Path) -> Iterator[Any]:
    """Opens a file of examples, and turns whatever is wrong with it into one line."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            for name in ("x", "x_adv", *COLUMNS, "attack"):
                if not isinstance(file.get(name), h5py.Dataset):
                    raise ValueError(f"no dataset {name!r}")
            if file["x"].ndim != 4 or file["x"].shape != file["x_adv"].shape:
                raise ValueError(f"images of shapes {file['x'].shape} and {file['x_adv'].shape}")
            yield file
    except InputError:  # Of another file, opened in the meantime.
        raise
    # What h5py and NumPy raise where a file is damaged (also in its sizes), or its datasets are of other types.
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, MemoryError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"Expected a file of adversarial examples. Received: {path} ({reason}). "
            "Run the attack again, or choose another run."
        ) from error

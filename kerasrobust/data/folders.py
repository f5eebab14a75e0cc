"""Data sets of one's own in folders of images, as people lay them out."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kerasrobust.data.dataset import Dataset, Source
from kerasrobust.data.exif import orientation
from kerasrobust.data.files import names_arrays
from kerasrobust.data.split import PARTS, default_split, parts_of
from kerasrobust.errors import InputError
from kerasrobust.events import Emit, Log

IMAGE_FILES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")

Found = dict[str, list[tuple[Path, str]]]
"""The files of each part, "all" where there are none, with the names of their classes."""


def load_folder(
    name: str, split: str | None, *, most: int, size: str | None = None, emit: Emit | None = None, **unused: Any
) -> Dataset:
    """Reads a split of a folder of images; see `load.load_dataset`."""
    wanted = None if size is None else _wanted(size)
    found, names = _readable(name, emit)
    sizes = {part: len(files) for part, files in found.items()}
    if "all" in sizes:
        sizes = dict.fromkeys(("all", "train", "test"), sizes["all"])
    split = default_split(sizes, most) if split is None else split
    chosen = []
    for part, first, end in parts_of(split, sizes):
        files = found.get(part) or found["all"]
        # In the order of the classes, a slice would hold one class only.
        order = np.random.default_rng(0).permutation(len(files))
        chosen += [files[place] for place in order[first:end]]
    if wanted is not None and emit is not None:
        emit(Log(level="info", message=_brought_to(wanted)))
    with ThreadPoolExecutor() as pool:  # TensorFlow's decoders let other threads run.
        read = list(pool.map(lambda pair: _decoded(pair[0], wanted), chosen))
    images = [image for image, _ in read]
    _say_turned(name, sum(turned for _, turned in read), len(read), emit)
    for (file, _), image in zip(chosen, images, strict=True):
        if image.shape != images[0].shape:
            raise InputError(
                f"Expected images of one size. Received: {images[0].shape[:2]} ({chosen[0][0]}) and {image.shape[:2]} "
                f"({file}). Give --size, or size=, such as {min(image.shape[:2])}, to resize and crop them."
            )
    return Dataset(
        name=name,
        split=split,
        images=np.stack(images),
        labels=np.array([names.index(label) for _, label in chosen], dtype=np.int64),
        class_names=tuple(names),
    )


def _readable(name: str, emit: Emit | None) -> tuple[Found, list[str]]:
    """Returns the images of each part with their classes, and all classes; says which files are left out."""
    everything, names = _found(_root(Path(name).expanduser()))
    found, left_out = {}, Counter[str]()
    for part, files in everything.items():
        images = [(file, label) for file, label in files if _is_image(file)]
        left_out.update(file.suffix.lower() or file.name for file, _ in files if not _is_image(file))
        if images:
            found[part] = images
    if not found:
        raise InputError(
            f"Expected a folder with a sub-folder of images ({', '.join(IMAGE_FILES)}) for each class. "
            f"Received: {name!r} with {len(names)} sub-folders and no image. Give the folder above the classes."
        )
    listed = ", ".join(f"{count} {ending}" for ending, count in left_out.most_common(5))
    if empty := names - {label for files in found.values() for _, label in files}:
        raise InputError(
            f"Expected images ({', '.join(IMAGE_FILES)}) of each class. Received: none of {min(empty)!r} in {name!r}"
            f"{f' (other files: {listed})' if left_out else ''}. Convert its files, or take it away."
        )
    if left_out and emit is not None:
        message = f"Left out {left_out.total()} files of {name} that are no images that can be read: {listed}."
        emit(Log(level="warning", message=message))
    return found, sorted(names)


class Wanted(NamedTuple):
    """The size that images are brought to: stretched, or else resized to cover it and cropped at the centre."""

    high: int
    wide: int
    stretched: bool


def _wanted(size: str) -> Wanted:
    """Returns what "32", "32x48" or "stretch:32x48" says."""
    match = re.fullmatch(r"\s*(stretch:)?\s*([1-9]\d{0,4})(?:\s*x\s*([1-9]\d{0,4}))?\s*", str(size))
    if match is None:
        raise InputError(
            f"Expected a size in pixels, N or HEIGHTxWIDTH, or stretch:SIZE. Received: {size!r}. Give for instance 32."
        )
    return Wanted(int(match[2]), int(match[3] or match[2]), match[1] is not None)


def _brought_to(wanted: Wanted) -> str:
    pixels = f"{wanted.high}x{wanted.wide}"
    if wanted.stretched:
        return f"Images were stretched to {pixels} pixels, as the loaders of Keras do."
    return (
        f"Images were resized to cover {pixels} pixels, and cropped at the centre. --size stretch:{pixels} stretches "
        "them, as the loaders of Keras do."
    )


def _say_turned(name: str, turned: int, count: int, emit: Emit | None) -> None:
    """Warns of photographs that their cameras marked as turned, which the decoders of TensorFlow don't turn back."""
    if turned:
        message = (
            f"{turned} of {count} images of {name} are marked as turned (EXIF), and were read as they are stored, "
            "as the loaders of Keras do. Turn the files upright if the model was trained on upright ones."
        )
        if emit is None:
            warnings.warn(message, stacklevel=4)
        else:
            emit(Log(level="warning", message=message))


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in IMAGE_FILES


def _folders(folder: Path) -> list[Path]:
    hidden = (".", "__")  # As __MACOSX, which comes with some archives.
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(hidden))


def _files(folder: Path) -> list[Path]:
    """Returns the files in a folder and below it, but hidden ones."""
    inside = [file for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith(".")]
    return inside + [file for below in _folders(folder) for file in _files(below)]


def _root(folder: Path) -> Path:
    """Returns the folder of the classes or parts, where others of one entry are around it."""
    while len(inside := _folders(folder)) == 1 and _folders(inside[0]) and not any(map(_is_image, folder.iterdir())):
        if _part(inside[0]) or any(map(_is_image, inside[0].iterdir())):
            break
        folder = inside[0]
    return folder


def _part(folder: Path) -> str | None:
    """Returns the part of a data set that a folder's name says, or None."""
    return next((part for part, words in PARTS.items() if folder.name.lower() in words), None)


def _found(root: Path) -> tuple[Found, set[str]]:
    """Returns the files of each part with their classes, and the names of all classes."""
    folders = _folders(root)
    if not folders or not all(_part(folder) and _folders(folder) for folder in folders):
        return {"all": [(file, inside.name) for inside in folders for file in _files(inside)]}, {
            inside.name for inside in folders
        }
    found: Found = {}
    names: set[str] = set()
    for folder in folders:
        inside, notes = _folders(folder), sorted(folder.glob("*annotations*.txt"))
        part = str(_part(folder))
        if [entry.name.lower() for entry in inside] != ["images"]:
            found[part] = [(file, below.name) for below in inside for file in _files(below)]
            names |= {below.name for below in inside}
        elif notes:
            # As in Tiny-ImageNet: a line for each file, its name and its class. Without, nothing can be judged.
            lines = [line.split() for line in notes[0].read_text(encoding="utf-8").splitlines()]
            known = {words[0]: words[1] for words in lines if len(words) > 1}
            found[part] = [(file, known[file.name]) for file in _files(inside[0]) if file.name in known]
            names |= set(known.values())
    return found, names


def _decoded(file: Path, wanted: Wanted | None) -> tuple[np.ndarray, bool]:
    """Returns an image, uint8 (H, W, 3), brought to the size that is wanted, and whether it is marked as turned."""
    import tensorflow as tf

    try:
        content = file.read_bytes()
        # Of WebP the decoder leaves no alpha out.
        channels = 0 if content[8:12] == b"WEBP" else 3
        image = tf.io.decode_image(content, channels=channels, expand_animations=False)[..., :3]
    except (OSError, tf.errors.InvalidArgumentError) as error:
        raise InputError(
            f"Expected an image that can be decoded. Received: {str(file)!r} ({type(error).__name__}). "
            "Replace it or take it away."
        ) from error
    turned = orientation(content) != 1
    if wanted is None or tuple(image.shape[:2]) == wanted[:2]:
        return image.numpy(), turned
    high, wide, stretched = wanted
    if stretched:  # Without antialiasing, as `image_dataset_from_directory` does.
        return _whole(tf.image.resize(image, (high, wide)).numpy()), turned
    factor = max(high / image.shape[0], wide / image.shape[1])
    cover = max(high, round(image.shape[0] * factor)), max(wide, round(image.shape[1] * factor))
    resized = tf.image.resize(image, cover, antialias=True).numpy()
    top, left = (cover[0] - high) // 2, (cover[1] - wide) // 2
    return _whole(resized[top : top + high, left : left + wide]), turned


def _whole(pixels: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


# Without a slash it is the name of a set.
FOLDER = Source(
    lambda name: "/" in name and Path(name).expanduser().is_dir() and not names_arrays(name),
    load_folder,
    options=("size",),
)

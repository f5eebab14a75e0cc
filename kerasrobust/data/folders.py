"""Data sets of one's own in folders of images, as people lay them out."""

from __future__ import annotations

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from kerasrobust.data.dataset import Dataset, Source
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
    shape = None if size is None else _shape(size)
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
    if shape is not None and emit is not None:
        pixels = f"{shape[0]}x{shape[1]}"
        emit(Log(level="info", message=f"Images were resized to cover {pixels} pixels, and cropped at the centre."))
    with ThreadPoolExecutor() as pool:  # TensorFlow's decoders let other threads run.
        images = list(pool.map(lambda pair: _decoded(pair[0], shape), chosen))
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


def _shape(size: str) -> tuple[int, int]:
    """Returns height and width of "32" or "32x48"."""
    match = re.fullmatch(r"\s*([1-9]\d{0,4})(?:\s*x\s*([1-9]\d{0,4}))?\s*", str(size))
    if match is None:
        raise InputError(f"Expected a size in pixels, N or HEIGHTxWIDTH. Received: {size!r}. Give for instance 32.")
    return int(match[1]), int(match[2] or match[1])


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


def _decoded(file: Path, shape: tuple[int, int] | None) -> np.ndarray:
    """Returns an image, uint8 (H, W, 3), resized to cover a height and width and cropped at its centre."""
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
    if shape is None or tuple(image.shape[:2]) == shape:
        found: np.ndarray = image.numpy()
        return found
    high, wide = shape
    factor = max(high / image.shape[0], wide / image.shape[1])
    cover = max(high, round(image.shape[0] * factor)), max(wide, round(image.shape[1] * factor))
    resized = tf.image.resize(image, cover, antialias=True).numpy()
    top, left = (cover[0] - high) // 2, (cover[1] - wide) // 2
    return np.clip(np.rint(resized[top : top + high, left : left + wide]), 0, 255).astype(np.uint8)


# Without a slash it is the name of a set.
FOLDER = Source(
    lambda name: "/" in name and Path(name).expanduser().is_dir() and not names_arrays(name),
    load_folder,
    options=("size",),
)

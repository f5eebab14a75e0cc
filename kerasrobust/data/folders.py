"""Data sets of one's own in folders of images, as people lay them out."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kerasrobust.data.bmp import palette_bits
from kerasrobust.data.dataset import Dataset, Source
from kerasrobust.data.exif import orientation
from kerasrobust.data.files import names_arrays
from kerasrobust.data.split import default_split, parts_named, parts_of
from kerasrobust.errors import InputError
from kerasrobust.events import Emit, Log

IMAGE_FILES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")

_IMAGES = {"images"}

SHOWN = 5
"""Folders that a sentence lists."""

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
    everything, names, beside = _found(_root(Path(name).expanduser()))
    if beside:
        _warn(f"Left out what lies beside the parts of {name} ({_listed(everything)}): {_listed(beside)}.", emit)
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
    if left_out:
        _warn(f"Left out {left_out.total()} files of {name} that are no images that can be read: {listed}.", emit)
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
        _warn(
            f"{turned} of {count} images of {name} are marked as turned (EXIF), and were read as they are stored, "
            "as the loaders of Keras do. Turn the files upright if the model was trained on upright ones.",
            emit,
        )


def _warn(message: str, emit: Emit | None) -> None:
    """Says it in the log, or, without one, as a warning of Python."""
    if emit is None:
        warnings.warn(message, stacklevel=5)  # Past what calls this and `load_folder`, at the call of `load_dataset`.
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


def _has_image(folder: Path, below: bool = False) -> bool:
    """Returns whether there is an image in a folder, or also below it."""
    inside = any(_is_image(entry) for entry in folder.iterdir() if not entry.name.startswith("."))
    return inside or (below and any(_has_image(entry, below) for entry in _folders(folder)))


def _listed(names: Iterable[str]) -> str:
    """Returns a few of the names, for a sentence."""
    known = list(names)
    return ", ".join(known[:SHOWN]) + (", ..." if known[SHOWN:] else "")


def _root(folder: Path) -> Path:
    """Returns the folder of the classes or parts, where others of one entry are around it."""
    while len(inside := _folders(folder)) == 1 and _folders(inside[0]) and not _has_image(folder):
        if parts_named([inside[0].name]) or _has_image(inside[0]):
            break
        folder = inside[0]
    return folder


def _within(folder: Path) -> Path:
    """Returns the folder of a part's classes, where the part is wrapped once more, as in seg_train/seg_train."""
    while len(inside := _folders(folder)) == 1 and _folders(inside[0]) and not _has_image(folder):
        name = inside[0].name
        if name.lower() not in (folder.name.lower(), "images") and not parts_named([name]):
            break
        folder = inside[0]
    return folder


def _alike(classes: list[set[str]]) -> bool:
    """Returns whether several parts have the same classes, or some of those of one of them."""
    labelled = [names for names in classes if names != _IMAGES]
    return len(labelled) > 1 and all(names <= max(labelled, key=len) for names in labelled)


def _parts(root: Path, folders: list[Path]) -> dict[Path, str]:
    """Returns the folders that are parts of the data, or none where all of them are classes.

    A class may be called like a part, and other things may lie beside the parts: what counts is which have classes.

    Raises:
        InputError: where it isn't clear, or one part is there twice.
    """
    named = parts_named(folder.name for folder in folders)
    classes = {
        folder: {entry.name for entry in _folders(_within(folder))} for folder in folders if folder.name in named
    }
    parts = {folder: named[folder.name] for folder, inside in classes.items() if inside}
    beside = [folder for folder in folders if folder not in parts]
    if beside and not _alike([classes[folder] for folder in parts]):
        # With images of its own, or a single folder around them, it may as well be a class.
        parts = {folder: part for folder, part in parts.items() if len(classes[folder]) > 1 and not _has_image(folder)}
        beside = [folder for folder in folders if folder.name not in named and _has_image(folder, below=True)]
        if parts and beside:
            first = next(iter(parts))
            raise InputError(
                f"Expected sub-folders that are all classes, or all parts of the data. Received: in {str(root)!r} "
                f"{_listed(folder.name for folder in parts)}, with sub-folders {_listed(sorted(classes[first]))}, "
                f"beside {_listed(folder.name for folder in beside)}. Give one part, as {first}, or move away what "
                "isn't of the data."
            )
    if len(set(parts.values())) < len(parts):
        raise InputError(
            f"Expected each part of the data once. Received: {_listed(folder.name for folder in parts)} in "
            f"{str(root)!r}. Give one of them, or move those away that aren't of the data."
        )
    return parts


def _check_classes(root: Path, folders: list[Path]) -> None:
    """Raises InputError where one of several classes holds a data set in parts."""
    whole = [folder for folder in folders if len(set(_parts_below(folder))) > 1]
    if whole and len(whole) < len(folders):
        raise InputError(
            f"Expected a folder of images for each class. Received: in {str(root)!r} {whole[0].name}, with parts of "
            f"its own ({_listed(sorted(set(_parts_below(whole[0]))))}), beside "
            f"{_listed(folder.name for folder in folders if folder not in whole)}. Give {whole[0]}."
        )


def _parts_below(folder: Path) -> list[str]:
    """Returns the parts that have classes in a folder."""
    inside = _folders(_root(folder))
    named = parts_named(below.name for below in inside)
    return [named[below.name] for below in inside if below.name in named and _folders(_within(below))]


def _found(root: Path) -> tuple[Found, set[str], list[str]]:
    """Returns the files of each part with their classes, the names of all classes, and of folders that are neither."""
    folders = _folders(root)
    parts = _parts(root, folders)
    if not parts:
        _check_classes(root, folders)
        everything = [(file, inside.name) for inside in folders for file in _files(inside)]
        return {"all": everything}, {inside.name for inside in folders}, []
    found: Found = {}
    names: set[str] = set()
    for outer, part in parts.items():
        folder = _within(outer)
        inside, notes = _folders(folder), sorted(folder.glob("*annotations*.txt"))
        if {entry.name.lower() for entry in inside} != _IMAGES:
            found[part] = [(file, below.name) for below in inside for file in _files(below)]
            names |= {below.name for below in inside}
        elif notes:
            # As in Tiny-ImageNet: a line for each file, its name and its class. Without, nothing can be judged.
            lines = [line.split() for line in notes[0].read_text(encoding="utf-8").splitlines()]
            known = {words[0]: words[1] for words in lines if len(words) > 1}
            found[part] = [(file, known[file.name]) for file in _files(inside[0]) if file.name in known]
            names |= set(known.values())
    return found, names, [folder.name for folder in folders if folder not in parts]


def _decoded(file: Path, wanted: Wanted | None) -> tuple[np.ndarray, bool]:
    """Returns an image, uint8 (H, W, 3), brought to the size that is wanted, and whether it is marked as turned."""
    import tensorflow as tf

    try:
        content = file.read_bytes()
        if bits := palette_bits(content):
            raise InputError(
                f"Expected an image file that holds the colours of its pixels. Received: {str(file)!r}, a BMP file of "
                f"{bits} bits a pixel with a palette, which TensorFlow doesn't apply. Save it as PNG."
            )
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

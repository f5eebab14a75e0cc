"""Adversarial images: as a folder of PNG files, two an image, and as arrays in an .npz file."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from kerasrobust.show.examples import Index, list_examples, read_blocks, read_index
from kerasrobust.show.export.sheets import to_csv
from kerasrobust.show.export.subject import Part, Subject
from kerasrobust.show.png import encode_png

_INDEX = "images.csv"
_COLUMNS = (
    "y", "prediction", "prediction_adv", "confidence", "confidence_adv", "success", "correct_rate", "distance",
    "attack", "epsilon", "eot",
)  # fmt: skip


def image_parts(subject: Subject) -> list[Part]:
    """Returns a folder of PNG files for each file of examples whose images have one, three or four channels.

    `0001-clear.png` and `0001-adversarial.png` are one image before and after the attack; `images.csv` says what the
    model made of each.
    """
    return [
        Part(
            name=_name(path, "images", ""),
            what=f"{len(index):,} images before and after {_attacks(index)}, rounded to 8 bits",
            write=partial(_write_folder, path=path, index=index),
        )
        for path, index in _files(subject)
        if index.image_shape[-1] in (1, 3, 4)
    ]


def array_parts(subject: Subject) -> list[Part]:
    """Returns an .npz file for each file of examples: `x` and `x_adv`, float32 (N, H, W, C) in [0, 1], and what the
    model made of each image, one entry an image.

    With `--data FILE.npz --keys x_adv,y` other models are measured on the same adversarial images.
    """
    return [
        Part(
            name=_name(path, "examples", ".npz"),
            what=f"{len(index):,} images before and after {_attacks(index)}, float32",
            write=partial(_write_npz, path=path, index=index),
        )
        for path, index in _files(subject)
    ]


def _files(subject: Subject) -> Iterator[tuple[Path, Index]]:
    for path in list_examples(subject.folder):
        if len(index := read_index(path)):
            yield path, index


def _name(path: Path, name: str, ending: str) -> str:
    """Returns the name of what is made of a file of examples: those of a study are one a network."""
    return f"{name}{ending}" if path.stem == "examples" else f"{name}/{path.stem}{ending}"


def _attacks(index: Index) -> str:
    return ", ".join(dict.fromkeys(map(str, index.attack)))


def _pairs(path: Path, index: Index) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields each image before and after the attack, with progress and the time left where a person looks on."""
    console = Console(stderr=True)  # What is printed on standard output may be read by a program.
    pairs = (pair for block in read_blocks(path) for pair in zip(*block, strict=True))
    title, hidden = f"Images of {path.name}", not console.is_terminal
    yield from track(pairs, title, total=len(index), console=console, transient=True, disable=hidden)


def _write_folder(folder: Path, path: Path, index: Index) -> None:
    folder.mkdir()
    digits = max(4, len(str(len(index) - 1)))
    records = []
    for place, pair in enumerate(_pairs(path, index)):
        names = [f"{place:0{digits}}-{kind}.png" for kind in ("clear", "adversarial")]
        for name, image in zip(names, pair, strict=True):
            (folder / name).write_bytes(encode_png(image))
        classes = {name: index.class_name(int(getattr(index, name)[place])) for name in _COLUMNS[:3]}
        values = {name: getattr(index, name)[place].item() for name in _COLUMNS[3:]}
        records.append({"clear": names[0], "adversarial": names[1], **classes, **values})
    (folder / _INDEX).write_text(to_csv(records), encoding="utf-8", newline="")


def are_images(folder: Path) -> bool:
    """Returns whether a folder holds what an export has written, and nothing else."""
    names = {item.name for item in folder.iterdir()}
    return _INDEX in names and all(re.fullmatch(r"\d{4,}-(clear|adversarial)\.png", name) for name in names - {_INDEX})


def _write_npz(target: Path, path: Path, index: Index) -> None:
    """Writes the arrays one after the other, a block of images at a time: all of them may not fit into memory."""
    columns: dict[str, np.ndarray] = {name: getattr(index, name) for name in _COLUMNS}
    columns |= {name: np.array(getattr(index, name)) for name in ("model", "norm")}
    columns["class_names"] = np.array(index.class_names, dtype=str)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for place, name in enumerate(("x", "x_adv")):
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                shape = (len(index), *index.image_shape)
                kind = np.lib.format.dtype_to_descr(np.dtype(np.float32))
                header = {"descr": kind, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(member, header)
                for block in read_blocks(path):
                    member.write(np.ascontiguousarray(block[place]).tobytes())
        for name, values in columns.items():
            with file.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, values, allow_pickle=False)

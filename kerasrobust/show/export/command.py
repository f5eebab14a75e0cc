"""The command `export`: what a run or a saved model has, as files for other programs."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kerasrobust.errors import InputError
from kerasrobust.exporting import ExportConfig
from kerasrobust.runs import find
from kerasrobust.show.export.images import are_images, array_parts, image_parts
from kerasrobust.show.export.latex import latex_parts
from kerasrobust.show.export.model_card import section_parts
from kerasrobust.show.export.pictures import png_parts, svg_parts
from kerasrobust.show.export.sheets import csv_parts
from kerasrobust.show.export.subject import Part, Subject
from kerasrobust.show.export.tensorboard import log_parts


@dataclass(frozen=True)
class Format:
    """A form in which something of a run is written: what it takes of a run, and the files that it makes of that."""

    takes: str
    parts: Callable[[Subject], list[Part]]


FORMATS: dict[str, Format] = {
    "csv": Format("tables", csv_parts),
    "latex": Format("tables", latex_parts),
    "markdown": Format("a result", section_parts),
    "svg": Format("figures", svg_parts),
    "png": Format("figures or images", lambda subject: [*image_parts(subject), *png_parts(subject)]),
    "npz": Format("adversarial images", array_parts),
    "tensorboard": Format("curves of a training or an attack", log_parts),
}
"""The formats of `--format`."""


def export(config: ExportConfig) -> int:
    """Writes what a config asks for, prints a line a file, and returns the exit status.

    Raises:
        InputError: where the run isn't there, has nothing of that kind, or the files can't be written.
    """
    subject = Subject.read(find(config.run, config))
    parts = FORMATS[config.format].parts(subject)
    if not parts:
        raise _nothing(subject, config)
    lacking, parts = [part.lacks for part in parts if part.lacks], [part for part in parts if not part.lacks]
    if lacking and not parts:
        raise InputError(lacking[0])
    folder = config.to or (Path(f"{subject.name}-export") if subject.is_model else subject.folder / "export")
    present = [part.name for part in parts if (folder / part.name).exists()]
    if present and not config.overwrite:
        raise InputError(
            f"Expected a folder without earlier exports. Received: {folder}, which has {', '.join(present[:3])}. "
            "Choose another with --to, or replace them with --overwrite."
        )
    for part in parts:
        _check_ours(folder / part.name)
    try:
        for part in parts:
            _write(part, folder / part.name)
            if not config.json:
                print(f"{folder / part.name}: {part.what}", flush=True)
    except BrokenPipeError:  # Of who reads the lines, not of a file.
        raise
    except OSError as error:
        raise InputError(
            f"Expected a folder that can be written. Received: {folder} ({error.strerror or error}). "
            "Free some space, or choose another with --to."
        ) from error
    if lacking:
        print(f"{len(lacking)} left out. {lacking[0]}", file=sys.stderr)
    if config.json:
        print(json.dumps([{"path": str(folder / part.name), "what": part.what} for part in parts], ensure_ascii=False))
    return 0


def _nothing(subject: Subject, config: ExportConfig) -> InputError:
    """Returns the error for a run without what was asked for: what it has instead."""
    has: dict[str, list[str]] = {}
    for name, known in FORMATS.items():
        if name != config.format and known.parts(subject):
            has.setdefault(known.takes, []).append(name)
    words = ", ".join(f"{takes} ({', '.join(names)})" for takes, names in has.items())
    what = "a saved model" if subject.is_model else "a run" if subject.raw else "a run without a result"
    return InputError(
        f"Expected a run with {FORMATS[config.format].takes}. Received: {subject.folder}, {what} that has "
        f"{f'only {words}' if words else 'nothing to export yet'}. Choose "
        f"{'one of these with --format' if words else 'another run'}."
    )


def _check_ours(path: Path) -> None:
    """Raises InputError for a folder that would be replaced and holds anything that no export has written."""
    if path.is_dir() and not are_images(path):
        raise InputError(
            f"Expected a folder of an earlier export to replace. Received: {path}, which holds something else. "
            "Choose another with --to."
        )


def _write(part: Part, path: Path) -> None:
    """Writes a file or folder under another name and renames it, so that nobody reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write(temporary)
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        temporary.unlink(missing_ok=True)

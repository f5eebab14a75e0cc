"""What a person says of a run: tags, a note, a star, and whether it is archived. No TensorFlow here.

It lies in `marks.json` in the run's folder. Who works in the folder writes it at the start only, so that others may
write it while the run is under way.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from kerasrobust.errors import InputError
from kerasrobust.runs import MARKS, Run, read_json, write_json
from kerasrobust.settings import RunConfig


@dataclass(frozen=True, kw_only=True)
class Marks:
    """What is said of a run; nothing by default.

    Attributes:
        archived: whether lists leave it out, until somebody asks for those that are archived.
    """

    tags: tuple[str, ...] = ()
    note: str = ""
    starred: bool = False
    archived: bool = False


def tags_of(words: str | None) -> tuple[str, ...]:
    """Returns the tags in a text with commas between them, each once.

    Example:
        >>> tags_of("baseline, my thesis,")
        ('baseline', 'my thesis')
    """
    return tuple(dict.fromkeys(" ".join(word.split()) for word in (words or "").split(",") if word.strip()))


def read_marks(run: Path) -> Marks:
    """Returns what is said of the run in a folder; nothing where no file says anything, or none that can be read."""
    found = read_json(run / MARKS) or {}
    tags, note = found.get("tags"), found.get("note")
    return Marks(
        tags=tags_of(",".join(tag for tag in tags if isinstance(tag, str))) if isinstance(tags, list) else (),
        note=note if isinstance(note, str) else "",
        starred=found.get("starred") is True,
        archived=found.get("archived") is True,
    )


def write_marks(run: Path, marks: Marks) -> None:
    """Writes what is said of the run in a folder, whether it is under way or not.

    Raises:
        InputError: where there is no run, or it can't be written.

    Example:
        >>> write_marks(Path("runs/one"), dataclasses.replace(read_marks(Path("runs/one")), starred=True))
    """
    if not (run / "config.json").is_file():
        raise InputError(f"Expected a run's folder to mark. Received: {run}, which is not one. Choose a run.")
    try:
        write_json(run / MARKS, {"schema": 1, **dataclasses.asdict(marks)})
    except OSError as error:
        raise InputError(
            f"Expected a folder that can be written. Received: {run} ({error.strerror}). Free some space, or see who "
            "owns it."
        ) from error


def mark_at_start(run: Run, config: RunConfig) -> None:
    """Marks a run that begins as its settings say, and takes it out of the archive.

    What was said since it began for the first time stays, unless it is asked for other tags or another note now.

    Raises:
        InputError: where it can't be written.
    """
    marks = read_marks(run.path)
    said = {name: value for name in ("tags", "note") if (value := getattr(config, name)) != run.before.get(name)}
    if "tags" in said:
        marks = dataclasses.replace(marks, tags=tags_of(config.tags))
    if "note" in said:
        marks = dataclasses.replace(marks, note=config.note or "")
    marks = dataclasses.replace(marks, archived=False)
    if marks != read_marks(run.path):
        write_marks(run.path, marks)

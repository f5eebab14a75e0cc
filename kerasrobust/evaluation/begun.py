"""What unfinished work was begun with, so that a folder resumes the same and nothing else."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from kerasrobust.attacks.checkpoint import Checkpoints
from kerasrobust.attacks.task import Task
from kerasrobust.attacks.verdict import predict
from kerasrobust.errors import InputError
from kerasrobust.evaluation.chain import PROBES
from kerasrobust.networks.classifier import Classifier
from kerasrobust.runs import read_json, write_json

ANEW = "begin anew: by another --name, by --overwrite, or in an empty folder."


def agree(checkpoints: Checkpoints, work: str, now: Mapping[str, Any]) -> None:
    """Notes what work is begun with, or compares that with what is noted already.

    Args:
        checkpoints: of the work.
        work: what it is called.
        now: what makes it this work and no other, as JSON has it.

    Raises:
        InputError: where the folder was begun with something else.

    Example:
        >>> agree(checkpoints, "certificate", {"seed": 0, **marks_of(task)})
    """
    if checkpoints.folder is None:
        return
    path = checkpoints.folder / f"{work}.json"
    before, now = read_json(path), {name: _plain(value) for name, value in now.items()}
    if before is None:
        if next(checkpoints.folder.rglob("*.npz"), None) is not None:
            raise InputError(
                f"Expected a folder where the {work} was begun, or an empty one. Received: {checkpoints.folder}, with "
                f"work of which nothing is known, such as an older version's. Instead {ANEW}"
            )
        checkpoints.folder.mkdir(parents=True, exist_ok=True)
        write_json(path, now)
        return
    # What only one of them has is another one, too.
    other = [name for name in {**now, **before} if before.get(name) != now.get(name)]
    if other:
        raise InputError(
            f"Expected the {work} that {checkpoints.folder} was begun with. Received: another in {', '.join(other)}. "
            f"Resume the same, or {ANEW}"
        )


def _plain(value: Any) -> Any:
    """Returns a number of NumPy as one of Python, which JSON takes."""
    return value.item() if isinstance(value, np.generic) else value


def marks_of(task: Task) -> dict[str, int]:
    """Returns numbers that another model, other images or other labels hardly have."""
    data = zlib.crc32(task.y.tobytes(), zlib.crc32(task.x.tobytes()))
    return {"model": mark_of(task.classifier, task), "data": data}


def mark_of(classifier: Classifier, task: Task) -> int:
    """Returns a number that another model than this one hardly has."""
    # Not Keras' `variables`, among which are the states of random generators.
    variables = getattr(classifier.model, "weights", getattr(classifier.model, "variables", ()))
    arrays = [np.asarray(variable) for variable in variables]
    if classifier.repeats:  # A function's only mark is what it says.
        key = tf.constant([0, 6]) if classifier.seedable else None
        arrays.append(predict(classifier, task.x[:PROBES], batch_size=task.batch_size, key=key))
    return zlib.crc32(b"".join(part.tobytes() for part in arrays))

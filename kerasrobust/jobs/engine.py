"""run(config, emit, should_stop): the one path through everything that computes."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Callable
from typing import Any

from kerasrobust import __version__
from kerasrobust.commands import COMMANDS, load
from kerasrobust.errors import Cancelled, InputError
from kerasrobust.events import Emit, Log, RunFinished, RunStarted, Status
from kerasrobust.jobs.context import Context
from kerasrobust.jobs.job import Job
from kerasrobust.marks import mark_at_start
from kerasrobust.runs import open_run
from kerasrobust.settings import RunConfig, to_dict


def versions() -> dict[str, str]:
    """Returns the versions that figures depend on."""
    packages = {name: importlib.metadata.version(name) for name in ("tensorflow", "keras", "numpy")}
    found = {"python": platform.python_version(), "kerasrobust": __version__, **packages}
    return found | ({"commit": commit} if (commit := _commit()) else {})


def _commit() -> str:
    """Returns the commit of the Git repository that one is in, with `-dirty` where files differ from it; or nothing."""
    words = ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run(words, capture_output=True, text=True, timeout=2).stdout.strip()
    return ""


def select_device(choice: str) -> list[str]:
    """Sets up the device before its first use, and returns its name for people.

    GPUs grow their memory use as needed, so that two programs can share one.

    Raises:
        InputError: if a GPU is asked for and there is none.
    """
    import tensorflow as tf

    found = tf.config.list_physical_devices("GPU")
    if choice == "gpu" and not found:
        raise InputError(
            "Expected a GPU that TensorFlow can use. Received: none. Install the extra 'gpu' and its driver, "
            "or use --device cpu."
        )
    if choice == "cpu" or not found:
        with contextlib.suppress(RuntimeError):  # Already in use by this process: what is visible stays so.
            tf.config.set_visible_devices([], "GPU")
        return [f"CPU ({os.cpu_count()} cores)"]
    for gpu in found:
        with contextlib.suppress(RuntimeError):
            tf.config.experimental.set_memory_growth(gpu, True)
    return [f"GPU {tf.config.experimental.get_device_details(gpu).get('device_name', gpu.name)}" for gpu in found]


def run(config: RunConfig, emit: Emit, should_stop: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """Does what a config asks for, in a run folder of its own, and returns what `result.json` holds.

    Args:
        config: the run.
        emit: called with every event, after it was written to `events.jsonl`.
        should_stop: asked about every half second; True cancels the run.

    Raises:
        InputError: for input that can't be used; a folder that was made for it is removed again.
        Cancelled: when `should_stop` returned True; the folder records it too.

    Example:
        >>> run(AttackConfig(model="convnet-pgd", data="cifar10"), emit=print)
    """
    began = time.monotonic()
    folder = open_run(config)
    context = Context(config, folder, emit, should_stop, versions())

    def finish(status: Status, message: str) -> None:
        context.emit(RunFinished(status=status, seconds=time.monotonic() - began, message=message))

    try:
        _begin(context)
        with context.stage("prepare", "Reading data and model"):
            job: Job[Any] = load(COMMANDS[config.kind].job)(context, config)
            job.check()
        context.prepared = True
        context.check()
        result = job.run()
        folder.settle()
        report = folder.path / "report.html"
        where = f"Everything is in {folder.path}"
        finish("done", f"{where}, the report in {report}." if report.exists() else f"{where}.")
        return result
    except (Cancelled, KeyboardInterrupt) as error:
        kept = f"What is done so far is in {folder.path}; {config.again(folder.name)}"
        finish("cancelled", "Nothing was done yet; the earlier run stays." if folder.replaces else kept)
        raise Cancelled from error
    except BaseException as error:
        is_plain = isinstance(error, InputError | OSError)
        if is_plain and folder.is_new and not folder.is_settled:
            folder.discard()
        else:
            with contextlib.suppress(OSError):  # The error may be a full disk.
                if not is_plain:  # Its traceback is to be found in the folder.
                    folder.settle()
                finish("failed", str(error) if is_plain else f"{type(error).__name__}: {error}")
        raise
    finally:
        with contextlib.suppress(OSError):
            folder.close()


def _begin(context: Context) -> None:
    """Emits what runs, and on what; marks it with its tags and note, and prepares the device."""
    mark_at_start(context.run, context.config)
    context.devices = select_device(context.config.device)
    context.emit(
        RunStarted(
            run=context.run.name,
            kind=context.config.kind,
            devices=context.devices,
            config=to_dict(context.config),
            command=context.command,
            versions=context.versions,
            pid=os.getpid(),
        )
    )
    if not context.run.is_new:
        context.emit(Log(level="info", message=f"Resuming {context.run.path}."))
    context.check()

"""run(config, emit, should_stop): the one path through everything that computes."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable
from typing import Any

from kerasrobust import __version__
from kerasrobust.config import (
    AttackConfig,
    AuditConfig,
    ImportConfig,
    RandomnessConfig,
    RunConfig,
    StudyConfig,
    TrainConfig,
    command_line,
    to_dict,
)
from kerasrobust.errors import Cancelled, InputError
from kerasrobust.events import Emit, Event, Finding, Log, RunFinished, RunStarted, finite
from kerasrobust.jobs.context import Context
from kerasrobust.runs import RESUMED, Run, open_run


def versions() -> dict[str, str]:
    """Returns the versions that figures depend on."""
    packages = {name: importlib.metadata.version(name) for name in ("tensorflow", "keras", "numpy")}
    return {"python": platform.python_version(), "kerasrobust": __version__, **packages}


def select_device(choice: str) -> list[str]:
    """Sets up the device before its first use, and returns what people call it.

    GPUs grow their memory use as needed, so that two programs can share one. Not verified on a GPU.

    Raises:
        InputError: where a GPU is asked for and there is none.
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
        Cancelled: when `should_stop` said so; the folder says it too.

    Example:
        >>> run(AttackConfig(model="convnet-pgd", data="cifar10"), emit=print)
    """
    began = time.monotonic()
    folder = open_run(config)

    def both(event: Event) -> None:
        folder.write(event)
        emit(event)
        if isinstance(event, Finding):
            fields = ("code", "message", "severity", "evidence")
            context.findings.append(finite({name: getattr(event, name) for name in fields}))

    context = Context(config, folder, both, should_stop, command_line(config), versions())
    prepared = refused = False

    def finish(status: Any, message: str) -> None:
        context.emit(RunFinished(status=status, seconds=time.monotonic() - began, message=message))

    try:
        devices = select_device(config.device)
        context.emit(
            RunStarted(
                run=folder.name,
                kind=config.kind,
                config=to_dict(config),
                command=context.command,
                versions=context.versions,
                devices=devices,
                pid=os.getpid(),
            )
        )
        if not folder.is_new:
            context.emit(Log(level="info", message=f"Going on with {folder.path}, which was begun before."))
        context.check()
        with context.stage("prepare", "Reading data and model"):
            work = _prepare(context)
        prepared = True
        folder.settle()
        context.check()
        result = work()
        finish("done", f"Everything is in {folder.path}.")
        return result
    except (InputError, OSError) as error:
        refused = folder.is_new and not prepared
        if not refused:
            with contextlib.suppress(OSError):  # A full disk may be what has brought us here.
                finish("failed", str(error))
        raise
    except (Cancelled, KeyboardInterrupt) as error:
        finish("cancelled", f"What is done so far is in {folder.path}; {_going_on(config, folder)}")
        raise Cancelled from error
    except BaseException as error:
        with contextlib.suppress(OSError):
            finish("failed", f"{type(error).__name__}: {error}")
        raise
    finally:
        if not prepared and (refused or folder.replaces):
            folder.discard()
        else:
            with contextlib.suppress(OSError):
                folder.close()


def _prepare(context: Context) -> Callable[[], dict[str, Any]]:
    """Loads and checks what the run needs, before anything is computed; returns the work."""
    config = context.config
    if isinstance(config, StudyConfig):
        from kerasrobust.jobs import study

        return study.prepare(context, config)
    if isinstance(config, TrainConfig):
        from kerasrobust.jobs import train

        return train.prepare(context, config)
    if isinstance(config, AttackConfig):
        from kerasrobust.jobs import attack

        return attack.prepare(context, config)
    if isinstance(config, AuditConfig):
        from kerasrobust.jobs import attack

        return attack.prepare_audit(context, config)
    if isinstance(config, RandomnessConfig):
        from kerasrobust.jobs import randomness

        return randomness.prepare(context, config)
    if isinstance(config, ImportConfig):
        from kerasrobust.jobs import import_model

        return import_model.prepare(context, config)
    raise TypeError(f"No work for {type(config).__name__}")


def _going_on(config: RunConfig, folder: Run) -> str:
    """Returns the sentence on how to go on with a cancelled run."""
    if isinstance(config, ImportConfig):
        return "start the import again."
    if isinstance(config, RandomnessConfig):
        return f"start it again with --name {folder.name} to repeat it."
    if config.kind in RESUMED and config.name is None:
        return "the same command goes on from there."
    return f"the same command with --name {folder.name} goes on from there."

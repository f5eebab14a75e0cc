"""How the driver and its workers talk: a line of JSON each way, and arrays in files beside it.

A worker is a program in the environment of one peer. It reads requests from its standard input, runs the function that
a request names, and answers on what was its standard output; what libraries print goes to its log instead. This module
needs NumPy alone, so every environment can import it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Measurement:
    """What one run of a task gave.

    Attributes:
        seconds: wall time, without loading and saving.
        arrays: what the referee looks at, by name: `x_adv` is (N, H, W, C).
        figures: other numbers and words for the table.
    """

    seconds: float
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)


class PeerError(RuntimeError):
    """What went wrong in a worker, with its traceback."""


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Returns what a function returns, and the seconds it took."""
    began = time.perf_counter()
    result = work()
    return result, time.perf_counter() - began


def in_batches(attack: Callable[[Any, Any], Any], x: Any, y: Any, size: int) -> np.ndarray:
    """Returns the images that an attack makes of slices of `size` images, as one array."""
    parts = [attack(x[first : first + size], y[first : first + size]) for first in range(0, len(x), size)]
    return np.concatenate([np.asarray(part) for part in parts])


def serve(functions: dict[str, Callable[..., Measurement]]) -> None:
    """Answers requests until the input ends.

    Args:
        functions: by the names that requests call them by. They take a request's `arguments`.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # What libraries print must not stand between the answers.
    for line in sys.stdin:
        request = json.loads(line)
        try:
            measured = functions[request["function"]](**request["arguments"])
            if request["save"] and measured.arrays:
                np.savez(request["save"], **measured.arrays)  # type: ignore[arg-type]
            answer = {"seconds": measured.seconds, "figures": measured.figures}
        except Exception as error:  # The driver reports it, and goes on with the other peers.
            text = traceback.format_exc()
            print(text, file=sys.stderr, flush=True)
            answer = {"error": f"{type(error).__name__}: {error}".strip(), "traceback": text}
        answers.write(json.dumps(answer) + "\n")


class Worker:
    """A worker's process, as the driver sees it.

    Args:
        name: of the peer.
        python: of its environment.
        script: the program.
        arguments: of the program.
        log: what it says on its standard error.
    """

    def __init__(self, name: str, python: str | Path, script: Path, arguments: list[str], log: Path) -> None:
        self.name, self.log = name, log
        # Only what its environment holds: no package of ours may stand in for one of its own.
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        if name == "ours":
            environment["PYTHONPATH"] = str(script.resolve().parents[1])
        environment |= {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "", "KERAS_BACKEND": "tensorflow"}
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                [str(python), str(script), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
            )

    def call(self, function: str, arguments: dict[str, Any], save: Path | None = None) -> Measurement:
        """Runs a function in the worker; waits for it.

        Raises:
            PeerError: where the function or the worker fails.
        """
        assert self.process.stdin and self.process.stdout
        request = {"function": function, "arguments": arguments, "save": str(save) if save else None}
        if save:
            save.unlink(missing_ok=True)
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self.process.wait()
            tail = self.log.read_text()[-1500:].strip()
            raise PeerError(f"the worker ended with {code}. Its last words, of {self.log}:\n{tail}")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"])
        arrays: dict[str, np.ndarray] = {}
        if save and save.exists():
            with np.load(save) as stored:
                arrays = dict(stored)
        return Measurement(answer["seconds"], arrays, answer["figures"])

    def close(self) -> None:
        """Ends the process, by itself where it can."""
        assert self.process.stdin
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

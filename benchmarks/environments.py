"""The peers' environments: one virtual environment for each, with pinned packages, made once and kept in a cache.

The peers on TensorFlow get the TensorFlow, Keras and NumPy of the environment that runs the benchmark, so that all of
them compute with the same kernels and a ratio tells of the attacks alone.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
"""PyTorch built for CPUs, a tenth of the size of what PyPI has."""


def shared(*names: str) -> list[str]:
    """Returns requirements for the versions of packages that are installed here."""
    return [f"{name}=={importlib.metadata.version(name)}" for name in names]


def requirements(peer: str) -> list[list[str]]:
    """Returns what `pip install` is called with for a peer, call by call.

    A package that comes with `--no-deps` asks for versions that don't go with the others; what it needs stands beside.
    """
    tensorflow = shared("tensorflow", "keras", "numpy")
    if peer == "cleverhans":
        return [[*tensorflow, "scipy==1.17.1"], ["--no-deps", "cleverhans==4.0.0"]]
    if peer == "foolbox":
        return [[*tensorflow, "eagerpy==0.30.0", "foolbox==3.3.4", "setuptools==80.9.0"]]
    if peer == "art":
        # Its smoothing imports statsmodels, which it doesn't ask for.
        return [[*tensorflow, "adversarial-robustness-toolbox==1.20.1", "setuptools==80.9.0", "statsmodels==0.15.0"]]
    if peer == "torch":
        # torchattacks asks for requests 2.25 and torchvision, and imports neither.
        return [
            ["torch==2.13.0", *shared("numpy"), "scipy==1.17.1", "tqdm==4.70.1"],
            ["--no-deps", "torchattacks==3.5.1"],
        ]
    if peer == "nearest":
        # adv-lib asks for torchvision and visdom, for a distance and for curves that nobody asks for here.
        return [
            ["torch==2.13.0", *shared("numpy"), "scipy==1.17.1", "tqdm==4.70.1", "eagerpy==0.30.0", "foolbox==3.3.4",
             "setuptools==80.9.0"],
            ["--no-deps", "adv-lib==0.2.8"],
        ]  # fmt: skip
    if peer == "published":
        # The last versions that have the old names which the published corruptions use, but for one: worker_published.
        return [[
            "numpy==1.26.4", "scipy==1.11.4", "scikit-image==0.22.0", "opencv-python-headless==4.10.0.84",
            "pillow==10.4.0", "wand==0.6.13",
        ]]  # fmt: skip
    raise KeyError(peer)


def python_of(environment: Path) -> Path:
    return environment / "bin" / "python"


def make_environment(peer: str, folder: Path, tell: Callable[[str], None]) -> Path:
    """Returns the Python of a peer's environment, which is made where it isn't there with these packages yet.

    Raises:
        RuntimeError: where `venv` or `pip` fail, with the end of what they said.
    """
    environment, mark = folder / peer, folder / peer / "requirements.txt"
    wanted = "\n".join(" ".join(call) for call in requirements(peer))
    if mark.exists() and mark.read_text() == wanted:
        return python_of(environment)
    tell(f"{peer}: making {environment}")
    run([sys.executable, "-m", "venv", "--clear", str(environment)])
    pip = [str(python_of(environment)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # Of a version that both have, pip takes the build for CPUs, as its name is the longer; where that index can't be
    # reached, pip says so and takes PyPI's.
    index = ["--retries", "1", "--extra-index-url", TORCH_INDEX] if peer in ("torch", "nearest") else []
    for call in requirements(peer):
        run([*pip, *index, *call])
    mark.write_text(wanted)
    return python_of(environment)


def run(command: list[str]) -> None:
    """Runs a command.

    Raises:
        RuntimeError: where it fails, with the end of what it said.
    """
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed with {done.returncode}:\n{done.stdout[-2000:].strip()}")

"""The worker of the reference AutoAttack, the program of its authors as it stands in a folder that is given.

It runs on PyTorch with the weights of our Keras models. Images cross from and to NHWC.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from functools import cache
from pathlib import Path

import numpy as np
import torch
from protocol import Measurement, serve, timed
from torch_convnet import ConvNet

PROGRAM, FOLDER = Path(sys.argv[1]), Path(sys.argv[2])
sys.path.insert(0, str(PROGRAM))
NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}


@cache
def network(name: str) -> ConvNet:
    """Returns a network, checked to say what the Keras model says."""
    with np.load(FOLDER / f"{name}.npz") as stored:
        weights = dict(stored)
    net = ConvNet(weights)
    with np.load(FOLDER / "data.npz") as stored:
        x = torch.tensor(stored["x"][: len(weights["logits"])].transpose(0, 3, 1, 2)).contiguous()
    gap = float(np.abs(net(x).numpy() - weights["logits"]).max())
    if gap >= 1e-4:
        raise ValueError(f"The logits of {name} differ from the Keras model's by {gap:.2g}, more than 1e-4.")
    return net


def versions() -> Measurement:
    figures = {name: importlib.metadata.version(name) for name in ("torch", "numpy")}
    return Measurement(0.0, figures=figures | {"threads": torch.get_num_threads()})


def autoattack(model: str, count: int, norm: str, epsilon: float, seed: int, batch_size: int) -> Measurement:
    """Runs the version `standard`; `after` is the accuracy once each of its attacks has run, in their order."""
    from autoattack import AutoAttack

    with np.load(FOLDER / "data.npz") as stored:
        x = torch.tensor(stored["x"][:count].transpose(0, 3, 1, 2)).contiguous()
        y = torch.tensor(stored["y"][:count].astype(np.int64))
    log = FOLDER / "reference-says.log"
    log.unlink(missing_ok=True)
    attack = AutoAttack(
        network(model), norm=NORMS[norm], eps=epsilon, seed=seed, version="standard", device="cpu", log_path=str(log)
    )
    x_adv, seconds = timed(lambda: attack.run_standard_evaluation(x, y, bs=batch_size))
    said = re.findall(r"robust accuracy after (\S+): (\S+)% \(total time (\S+) s\)", log.read_text())
    after = {name.lower(): [float(share) / 100, float(passed)] for name, share, passed in said}
    x_adv = np.ascontiguousarray(x_adv.numpy().transpose(0, 2, 3, 1))
    return Measurement(seconds, {"x_adv": x_adv}, {"after": after})


if __name__ == "__main__":
    serve({"versions": versions, "autoattack": autoattack})

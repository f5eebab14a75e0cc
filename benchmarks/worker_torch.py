"""The worker of torchattacks 3.5.1, on PyTorch with the weights of our Keras models.

Modes: `eager`, `channels_last` (the memory layout that convolutions on a CPU prefer) and `compile` (`torch.compile`).
Images cross from and to NHWC outside the measured time. Weights need no gradients, so none are taken of them.
"""

from __future__ import annotations

import importlib.metadata
import sys
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchattacks
from protocol import Measurement, serve, timed
from torch_convnet import ConvNet

EPSILON = 8 / 255
FOLDER = Path(sys.argv[1])


@cache
def data(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    with np.load(FOLDER / "data.npz") as stored:
        x, y = stored["x"][:count], stored["y"][:count].astype(np.int64)
    return torch.tensor(x.transpose(0, 3, 1, 2)).contiguous(), torch.tensor(y)


@cache
def network(name: str, mode: str) -> Any:
    """Returns a network, checked to say what the Keras model says."""
    with np.load(FOLDER / f"{name}.npz") as stored:
        weights = dict(stored)
    net: Any = ConvNet(weights)
    if mode == "channels_last":
        net = net.to(memory_format=torch.channels_last)
    if mode == "compile":
        net = torch.compile(net)
    with torch.no_grad():
        gap = float(np.abs(net(images(64, mode)).numpy() - weights["logits"]).max())
    if gap >= 1e-4:
        raise ValueError(f"The logits of {name} differ from the Keras model's by {gap:.2g}, more than 1e-4.")
    return net


def images(count: int, mode: str) -> torch.Tensor:
    x, _ = data(count)
    return x.contiguous(memory_format=torch.channels_last) if mode == "channels_last" else x


def to_numpy(x: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(x.detach().numpy().transpose(0, 2, 3, 1))


def versions() -> Measurement:
    figures = {name: importlib.metadata.version(name) for name in ("torchattacks", "torch", "numpy")}
    return Measurement(0.0, figures=figures | {"threads": torch.get_num_threads()})


def run(attack: Any, x: torch.Tensor, y: torch.Tensor, batch_size: int) -> torch.Tensor:
    """Returns what an attack makes of batches of the images."""
    parts = [attack(x[first : first + batch_size], y[first : first + batch_size]).detach()
             for first in range(0, len(x), batch_size)]  # fmt: skip
    return torch.cat(parts) if parts else x.clone()


def pgd(model: str, count: int, seed: int, batch_size: int, mode: str) -> Measurement:
    x, (_, y) = images(count, mode), data(count)
    attack = torchattacks.PGD(network(model, mode), eps=EPSILON, alpha=2.5 * EPSILON / 20, steps=20, random_start=True)
    torch.manual_seed(seed)
    x_adv, seconds = timed(lambda: run(attack, x, y, batch_size))
    return Measurement(seconds, {"x_adv": to_numpy(x_adv)})


def deepfool(model: str, count: int, seed: int, batch_size: int, mode: str) -> Measurement:
    x, (_, y) = images(count, mode), data(count)
    torch.manual_seed(seed)
    attack = torchattacks.DeepFool(network(model, mode), steps=50, overshoot=0.02)
    x_adv, seconds = timed(lambda: run(attack, x, y, batch_size))
    return Measurement(seconds, {"x_adv": to_numpy(x_adv)})


def autoattack(model: str, count: int, seed: int, batch_size: int, mode: str) -> Measurement:
    """Measures the four attacks of `standard`, each on what those before have left.

    `torchattacks.AutoAttack` isn't it: it runs 10 steps where the paper has 100, and Square on another schedule.
    """
    net = network(model, mode)
    x, (_, y) = images(count, mode), data(count)
    common: dict[str, Any] = {"norm": "Linf", "eps": EPSILON, "n_restarts": 1, "seed": seed}
    attacks = {
        "apgd-ce": torchattacks.APGD(net, steps=100, loss="ce", eot_iter=1, rho=0.75, **common),
        "apgd-t": torchattacks.APGDT(net, steps=100, eot_iter=1, rho=0.75, n_classes=10, **common),
        "fab-t": torchattacks.FAB(
            net, steps=100, alpha_max=0.1, eta=1.05, beta=0.9, multi_targeted=True, n_classes=10, **common
        ),
        "square": torchattacks.Square(net, n_queries=5000, p_init=0.8, loss="margin", resc_schedule=False, **common),
    }
    parts: dict[str, float] = {}

    def right(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            predicted = [
                net(images[first : first + batch_size]).argmax(1) for first in range(0, len(images), batch_size)
            ]
        return torch.cat(predicted) == y

    def chain() -> torch.Tensor:
        x_adv, left = x.clone(), right(x)
        for name, attack in attacks.items():
            chosen = torch.nonzero(left).flatten()
            made, seconds = timed(partial(run, attack, x[chosen], y[chosen], batch_size))
            parts[name] = round(seconds, 1)
            tried = x.clone()
            tried[chosen] = made
            fallen = left & ~right(tried) & ((tried - x).abs().flatten(1).amax(1) <= EPSILON + 1e-6)
            x_adv[fallen] = tried[fallen]
            left &= ~fallen
        return x_adv

    x_adv, seconds = timed(chain)
    return Measurement(seconds, {"x_adv": to_numpy(x_adv)}, {"parts": parts})


if __name__ == "__main__":
    serve({"versions": versions, "pgd": pgd, "deepfool": deepfool, "autoattack": autoattack})

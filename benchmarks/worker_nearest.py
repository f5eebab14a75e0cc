"""The worker of adv-lib 0.2.8 and Foolbox 3.3.4, on PyTorch with the weights of our Keras models.

Gradients are counted where they are taken: an identity in front of the network counts the images whose gradient passes
through it. Images cross from and to NHWC outside the measured time. Weights need no gradients, so none are taken of
them.
"""

from __future__ import annotations

import importlib.metadata
import sys
import types
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from protocol import Measurement, serve, timed
from torch import nn
from torch_convnet import ConvNet
from torch_resnet import ResNet

FOLDER = Path(sys.argv[1])
ORDERS = {"l0": 0, "l1": 1, "l2": 2, "linf": float("inf")}

# adv-lib imports them for curves and for a distance that aren't asked for here.
sys.modules["visdom"] = types.ModuleType("visdom")
sys.modules["torchvision"] = torchvision = types.ModuleType("torchvision")
vars(torchvision)["models"] = None


class Count(torch.autograd.Function):
    """The identity, which counts the images whose gradient passes through it."""

    images = 0

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> torch.Tensor:
        Count.images += len(slope)
        return slope


class Counted(nn.Module):
    """A network whose gradients are counted."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(Count.apply(x))


@cache
def data() -> tuple[torch.Tensor, torch.Tensor]:
    with np.load(FOLDER / "data.npz") as stored:
        x, y = stored["x"], stored["y"].astype(np.int64)
    return torch.tensor(x.transpose(0, 3, 1, 2)).contiguous(), torch.tensor(y)


@cache
def network(name: str, mode: str) -> Any:
    """Returns a network, checked to say what the Keras model says."""
    with np.load(FOLDER / f"{name}.npz") as stored:
        weights = dict(stored)
    net: nn.Module = ResNet(weights) if "batchnormalization.6.0" in weights else ConvNet(weights)
    if mode == "channels_last":
        net = net.to(memory_format=torch.channels_last)
    with torch.no_grad():
        gap = float(np.abs(net(images(mode)[:64]).numpy() - weights["logits"]).max())
    if gap >= 1e-4:
        raise ValueError(f"The logits of {name} differ from the Keras model's by {gap:.2g}, more than 1e-4.")
    return Counted(net)


def images(mode: str) -> torch.Tensor:
    x, _ = data()
    return x.contiguous(memory_format=torch.channels_last) if mode == "channels_last" else x


def versions() -> Measurement:
    figures: dict[str, Any] = {name: importlib.metadata.version(name) for name in ("adv-lib", "foolbox", "torch")}
    return Measurement(0.0, figures=figures | {"threads": torch.get_num_threads()})


def adv_lib(attack: str, norm: str, settings: dict[str, Any]) -> Callable[[Any, torch.Tensor, torch.Tensor], Any]:
    from adv_lib import attacks

    takes_norm = {"norm": ORDERS[norm]} if attack in ("fmn", "pdpgd", "fab") else {}
    takes_norm |= {"distance": norm} if attack == "alma" else {}
    return lambda net, x, y: getattr(attacks, attack)(net, x, y, **takes_norm, **settings)


def foolbox(attack: str, norm: str, settings: dict[str, Any]) -> Callable[[Any, torch.Tensor, torch.Tensor], Any]:
    import foolbox

    made = getattr(foolbox.attacks, attack)(**settings)
    del norm

    def run(net: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
        return made.run(model, x, foolbox.Misclassification(y))

    return run


def attack(
    library: str, attack: str, norm: str, settings: dict[str, Any], model: str, seed: int, count: int, mode: str
) -> Measurement:
    """Measures an attack on the first `count` images, all in one batch."""
    run = {"adv-lib": adv_lib, "foolbox": foolbox}[library](attack, norm, settings)
    net, x, y = network(model, mode), images(mode)[:count], data()[1][:count]
    Count.images = 0
    torch.manual_seed(seed)
    made, seconds = timed(lambda: run(net, x, y).detach())
    found = np.ascontiguousarray(made.numpy().transpose(0, 2, 3, 1))
    return Measurement(seconds, {"x_adv": found}, {"gradients": Count.images / count})


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    serve({"versions": versions, "attack": attack})

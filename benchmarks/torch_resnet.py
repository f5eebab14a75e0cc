"""The project's pre-activation ResNet in PyTorch, with the weights of a Keras model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn


class Block(nn.Module):
    """One residual block.

    Args:
        convolutions: takes them in the order in which Keras lists them.
        norms: likewise.
        strides: of the first convolution.
        shortcut: whether the way around has a convolution.
    """

    def __init__(
        self, convolutions: Iterator[np.ndarray], norms: Iterator[nn.Module], strides: int, shortcut: bool
    ) -> None:
        super().__init__()
        self.first_norm, self.second_norm = next(norms), next(norms)
        self.first = convolution(next(convolutions), strides)
        # Keras lists both branches' last convolutions in the order of its graph; that of the way around is 1x1.
        rest = sorted((next(convolutions) for _ in range(1 + shortcut)), key=lambda kernel: -kernel.shape[0])
        self.second, self.shortcut = convolution(rest[0], 1), convolution(rest[1], strides) if shortcut else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        activated = torch.relu(self.first_norm(x))
        branch = self.second(torch.relu(self.second_norm(self.first(activated))))
        return branch + (x if self.shortcut is None else self.shortcut(activated))


class ResNet(nn.Module):
    """The project's ResNet with the weights that the driver wrote.

    Args:
        stored: weights by layer, as `convnet_weights` writes them.
    """

    def __init__(self, stored: dict[str, np.ndarray]) -> None:
        super().__init__()
        kernels = [stored[f"conv2d.{number}.0"] for number in range(counted(stored, "conv2d"))]
        norms = [norm(stored, number) for number in range(counted(stored, "batchnormalization"))]
        self.blocks = nn.ModuleList()
        waiting, norms_waiting = iter(kernels), iter(norms)
        self.stem = convolution(next(waiting), 1)
        width = channels = kernels[0].shape[3]
        depth = (len(norms) - 1) // 6
        for stage in range(3):
            for block in range(depth):
                filters = width * 2**stage
                strides = 2 if stage and not block else 1
                self.blocks.append(Block(waiting, norms_waiting, strides, strides > 1 or channels != filters))
                channels = filters
        self.norm = next(norms_waiting)
        self.logits = nn.Linear(channels, stored["dense.0.0"].shape[1])
        self.logits.weight.data = torch.tensor(stored["dense.0.0"].T).contiguous()
        self.logits.bias.data = torch.tensor(stored["dense.0.1"])
        self.eval()
        self.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x * 4 - 2)
        for block in self.blocks:
            x = block(x)
        return self.logits(torch.relu(self.norm(x)).mean((2, 3)))


def counted(stored: dict[str, np.ndarray], kind: str) -> int:
    return sum(key.startswith(f"{kind}.") and key.endswith(".0") for key in stored)


def convolution(kernel: np.ndarray, strides: int) -> nn.Module:
    """Returns a convolution with TensorFlow's padding, which is longer at the end where strides are 2."""
    height, _, inputs, outputs = kernel.shape
    layer = nn.Conv2d(inputs, outputs, height, strides, padding=height // 2 if strides == 1 else 0, bias=False)
    layer.weight.data = torch.tensor(kernel.transpose(3, 2, 0, 1)).contiguous()
    return layer if strides == 1 or height == 1 else nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), layer)


def norm(stored: dict[str, np.ndarray], number: int) -> nn.Module:
    gamma, beta, mean, variance = (torch.tensor(stored[f"batchnormalization.{number}.{part}"]) for part in range(4))
    layer = nn.BatchNorm2d(len(gamma), eps=float(stored[f"epsilon.{number}"]))
    layer.weight.data, layer.bias.data, layer.running_mean, layer.running_var = gamma, beta, mean, variance
    return layer

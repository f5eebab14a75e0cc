"""The project's ConvNet in PyTorch, with the weights of a Keras model."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


class ConvNet(nn.Module):
    """The project's ConvNet with the weights that the driver wrote.

    Args:
        stored: weights by layer, as Keras has them.
    """

    def __init__(self, stored: dict[str, np.ndarray]) -> None:
        super().__init__()
        self.blocks, self.dense = nn.ModuleList(), nn.ModuleList()
        position = 0
        while f"conv2d.{position}.0" in stored:
            kernel = torch.tensor(stored[f"conv2d.{position}.0"].transpose(3, 2, 0, 1)).contiguous()
            convolution = nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, padding=1, bias=False)
            convolution.weight.data = kernel
            norm = nn.BatchNorm2d(kernel.shape[0], eps=float(stored[f"epsilon.{position}"]))
            gamma, beta, mean, variance = (
                torch.tensor(stored[f"batchnormalization.{position}.{number}"]) for number in range(4)
            )
            norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var = gamma, beta, mean, variance
            self.blocks.append(nn.Sequential(convolution, norm, nn.ReLU(), nn.MaxPool2d(2)))
            position += 1
        side, filters = 32 // 2**position, kernel.shape[0]
        position = 0
        while f"dense.{position}.0" in stored:
            weight = stored[f"dense.{position}.0"]
            if position == 0:  # Keras flattens height, width, channels; PyTorch channels, height, width.
                weight = weight.reshape(side, side, filters, -1).transpose(2, 0, 1, 3).reshape(weight.shape)
            linear = nn.Linear(*weight.shape)
            linear.weight.data = torch.tensor(weight.T).contiguous()
            linear.bias.data = torch.tensor(stored[f"dense.{position}.1"])
            self.dense.append(linear)
            position += 1
        self.eval()
        self.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * 4 - 2
        for block in self.blocks:
            x = block(x)
        x = x.flatten(1)
        for layer in self.dense[:-1]:
            x = torch.relu(layer(x))
        return self.dense[-1](x)

"""Objects that only Python has."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

import kerasrobust as kr
from table.common import photos
from table.measure import Subject, form


@functools.cache
def torch_net() -> Any:
    """Returns a small network of PyTorch, trained on photos in [0, 1]."""
    import torch

    x, y, _, _ = photos()
    torch.manual_seed(0)
    torch.set_num_threads(2)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, 2), torch.nn.ReLU(), torch.nn.Conv2d(16, 32, 3, 2), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(128, 4),
    )  # fmt: skip
    images = torch.tensor(x.transpose(0, 3, 1, 2) / 255.0, dtype=torch.float32)
    labels = torch.tensor(y.astype(np.int64))
    steps = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(10):
        for some in torch.randperm(len(images)).split(50):
            steps.zero_grad()
            torch.nn.functional.cross_entropy(net(images[some]), labels[some]).backward()
            steps.step()
    return net.eval()

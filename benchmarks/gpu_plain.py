"""PGD-20 written plainly in PyTorch or JAX, as `gpu.py` compares the project with.

    python benchmarks/gpu_plain.py torch|jax FOLDER BATCH [BATCH ...]

FOLDER holds `data.npz` (x, y) and `network.npz`, the weights by layer. Prints a line of JSON: the seconds for all
images by batch size, numpy to numpy. The images go to a file beside the data. Runs in a process without TensorFlow.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

EPSILON, STEPS = 8 / 255, 20
ALPHA = 2.5 * EPSILON / STEPS

Attack = Callable[[np.ndarray, np.ndarray], np.ndarray]


def in_torch(weights: dict[str, np.ndarray]) -> tuple[Attack, str]:
    """Returns the attack on a batch, images beside labels; the arithmetic is PyTorch's default."""
    import torch
    from torch_convnet import ConvNet

    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = ConvNet(weights).to(device).to(memory_format=torch.channels_last)

    def attack(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        clean = torch.from_numpy(x).to(device).permute(0, 3, 1, 2)
        labels = torch.from_numpy(y).to(device)
        x_adv = (clean + torch.empty_like(clean).uniform_(-EPSILON, EPSILON)).clamp(0, 1)
        for _ in range(STEPS):
            x_adv.requires_grad_()
            loss = torch.nn.functional.cross_entropy(net(x_adv), labels, reduction="sum")
            (slope,) = torch.autograd.grad(loss, x_adv)
            moved = x_adv.detach() + ALPHA * slope.sign()
            x_adv = torch.minimum(torch.maximum(moved, clean - EPSILON), clean + EPSILON).clamp(0, 1)
        return x_adv.permute(0, 2, 3, 1).contiguous().cpu().numpy()

    return attack, f"torch {torch.__version__} on {device}"


def in_jax(weights: dict[str, np.ndarray]) -> tuple[Attack, str]:
    """Returns the attack on a batch, compiled as a whole; the arithmetic is JAX's default."""
    import jax
    from jax import lax
    from jax import numpy as jnp

    count = sum(name.startswith("conv2d.") for name in weights)
    layers = sum(name.startswith("dense.") and name.endswith(".0") for name in weights)
    net = {name: jnp.asarray(value) for name, value in weights.items()}

    def logits(x: Any) -> Any:
        x = x * 4 - 2
        for block in range(count):
            x = lax.conv_general_dilated(
                x, net[f"conv2d.{block}.0"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            gamma, beta, mean, variance = (net[f"batchnormalization.{block}.{number}"] for number in range(4))
            scale = gamma / jnp.sqrt(variance + float(weights[f"epsilon.{block}"]))
            x = jax.nn.relu((x - mean) * scale + beta)
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        x = x.reshape(len(x), -1)
        for number in range(layers):
            x = x @ net[f"dense.{number}.0"] + net[f"dense.{number}.1"]
            x = jax.nn.relu(x) if number < layers - 1 else x
        return x

    def loss(x: Any, y: Any) -> Any:
        return -jnp.take_along_axis(jax.nn.log_softmax(logits(x)), y[:, None], axis=1).sum()

    @jax.jit
    def whole(x: Any, y: Any, key: Any) -> Any:
        start = jnp.clip(x + jax.random.uniform(key, x.shape, minval=-EPSILON, maxval=EPSILON), 0, 1)

        def step(_: Any, x_adv: Any) -> Any:
            moved = x_adv + ALPHA * jnp.sign(jax.grad(loss)(x_adv, y))
            return jnp.clip(jnp.clip(moved, x - EPSILON, x + EPSILON), 0, 1)

        return lax.fori_loop(0, STEPS, step, start)

    key = jax.random.PRNGKey(0)
    return lambda x, y: np.asarray(whole(x, y, key)), f"jax {jax.__version__} on {jax.devices()[0].device_kind}"


def main() -> None:
    kind, folder, *sizes = sys.argv[1:]
    with np.load(Path(folder) / "data.npz") as stored:
        x, y = stored["x"], stored["y"].astype(np.int64)
    with np.load(Path(folder) / "network.npz") as stored:
        attack, name = {"torch": in_torch, "jax": in_jax}[kind](dict(stored))

    def everything(size: int) -> np.ndarray:
        return np.concatenate([attack(x[at : at + size], y[at : at + size]) for at in range(0, len(x), size)])

    seconds = {}
    for size in map(int, sizes):
        everything(size)  # Compiles, and chooses the algorithms of convolutions.
        taken = []
        for _ in range(3):
            began = time.perf_counter()
            x_adv = everything(size)
            taken.append(time.perf_counter() - began)
        seconds[size] = min(taken)
    np.save(Path(folder) / f"{kind}.npy", x_adv)
    print(json.dumps({"name": name, "seconds": seconds}))


if __name__ == "__main__":
    main()

"""What objectives and averaging cost beside PGD-7: training steps of each in turn, on the same images.

    python benchmarks/objectives.py [--rounds 9] [--steps 12]

Medians of the rounds, as ratios to `pgd`. The exit status is 1 where one is above its target.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from typing import Any

import keras
import numpy as np

import kerasrobust as kr
from kerasrobust.training import ADR, ALP, MART, NFGSM, PGD, TRADES, Objective

STEPS, BATCH = 7, 128

KINDS: dict[str, tuple[Objective, dict[str, Any], float | None]] = {
    "pgd": (PGD(steps=STEPS), {}, None),
    "pgd, averaged": (PGD(steps=STEPS), {"average": 0.999}, 1.03),
    "adr": (ADR(steps=STEPS), {"average": 0.995}, 1.15),
    "trades": (TRADES(steps=STEPS), {}, 1.35),
    "mart": (MART(steps=STEPS), {}, None),
    "alp": (ALP(steps=STEPS), {}, None),
    "pgd, awp": (PGD(steps=STEPS, awp=0.005), {}, None),
    "nfgsm": (NFGSM(), {}, None),
    "pgd-2": (PGD(steps=2), {}, None),
    "adr-2": (ADR(steps=2), {"average": 0.995}, None),
}
"""Objective, how it is trained, and the largest ratio that is wanted."""


def compiled(name: str) -> kr.AdversarialModel:
    """Returns a training of the ConvNet, compiled."""
    keras.utils.set_random_seed(0)
    objective, options, _ = KINDS[name]
    model = kr.AdversarialModel(kr.build_model("convnet"), objective, **options)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9))
    return model


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(KINDS)}; all without any")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=12)
    given = parser.parse_args()
    draw = np.random.default_rng(0)
    x, y = draw.random((given.steps * BATCH, 32, 32, 3), np.float32), draw.integers(0, 10, given.steps * BATCH)
    names = list(dict.fromkeys(["pgd", *(given.names or KINDS)]))
    models = {name: compiled(name) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(given.rounds + 1):
        for name, model in models.items():
            began = time.perf_counter()
            model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
            if turn:  # The first one traces.
                seconds[name].append(time.perf_counter() - began)
    missed = False
    for name in names:
        ratios = [mine / base for mine, base in zip(seconds[name], seconds["pgd"], strict=True)]
        ratio, target = statistics.median(ratios), KINDS[name][2]
        missed |= target is not None and ratio > target
        rate = len(x) / statistics.median(seconds[name])
        wanted = "" if target is None else f"  (at most {target})"
        print(f"{name:14} {rate:6.0f} images/s  {ratio:5.3f}{wanted}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())

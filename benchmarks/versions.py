"""AutoAttack's version `adaptive` beside `standard`, on five networks.

    python benchmarks/versions.py /tmp/versions
    python benchmarks/versions.py /tmp/versions --networks convnet-pgd,rounded --images 200

The networks are three of `saved_models` that were trained adversarially (`convnet-pgd`, `convnet-adv`, `convnet-l2`),
the undefended `convnet`, and `rounded`: that one behind a rounding of its images to 8 levels, which lets no gradient
through. Each is attacked in Linf at 8/255 on the first test images of CIFAR-10: `adaptive` first, which so pays for the
graphs that `standard` finds made, in one process. What each comes to stays in FOLDER, and isn't run again.

robust      accuracy that each leaves, and how many images only one of them broke.
points      by how much `adaptive` leaves more.
seconds     of processor time, which doesn't depend on who else uses the machine, and of the clock; their ratios.
gradients   that each has taken, forward passes beyond those, and their ratios.

The exit status is 1 where `adaptive` leaves more than `POINTS` more on a network, more than `MEAN` more in the mean, or
takes more than `SHARE` of the processor time, of the gradients or of the forward passes where `standard` has left
images. Where it has left none, all fell to its first attack, and nothing after that was there to be saved.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
from machine import describe

import kerasrobust as kr

ROOT = Path(__file__).resolve().parents[1]
NETWORKS = ("convnet-pgd", "convnet-adv", "convnet-l2", "convnet", "rounded")
VERSIONS = ("adaptive", "standard")
LEVELS = 8
POINTS, MEAN, SHARE = 0.2, 0.05, 1 / 6


@keras.saving.register_keras_serializable("benchmarks")
class Rounding(keras.layers.Layer):
    """Rounds images in [0, 1] to a few levels."""

    def call(self, images: Any) -> Any:
        return keras.ops.round(images * (LEVELS - 1)) / (LEVELS - 1)


def network(name: str) -> keras.Model:
    if name != "rounded":
        return kr.load_model(str(ROOT / "saved_models" / name))
    inner = kr.load_model(str(ROOT / "saved_models" / "convnet"))
    images = keras.Input(inner.input_shape[1:])
    return keras.Model(images, inner(Rounding()(images)), name="rounded")


def asked(args: argparse.Namespace) -> dict[str, Any]:
    """Returns what a result depends on, beside network and version."""
    chosen = {name: getattr(args, name) for name in ("images", "seed", "precision", "batch_size")}
    return chosen | {"commit": describe(ROOT)["commit"]}


def known(file: Path, args: argparse.Namespace) -> dict[str, Any] | None:
    """Returns what a run that was asked the same has found; None where there is none."""
    found = json.loads(file.read_text()) if file.exists() else None
    return found if found and found.get("asked") == asked(args) else None


def measured(
    model: keras.Model, version: Any, x: np.ndarray, y: np.ndarray, args: argparse.Namespace
) -> dict[str, Any]:
    """Runs a version, and returns what it comes to."""
    began, worked = time.perf_counter(), time.process_time()
    attack = kr.AutoAttack(epsilon=8 / 255, version=version)
    found = kr.evaluate(
        model, x, y, attacks=attack, audit=False, seed=args.seed, precision=args.precision, batch_size=args.batch_size
    )
    seconds, worked = time.perf_counter() - began, time.process_time() - worked
    return {
        "asked": asked(args),
        "images": len(x),
        "precision": found.precision,
        "clean": found.clean_accuracy,
        "robust": found.robust_accuracy,
        "kept": np.flatnonzero(found.per_example > 0.5).tolist(),
        "seconds": seconds,
        "processor": worked,
        "load": os.getloadavg()[1],
        "gradients": sum(report.result.gradients for report in found.attacks),
        "forwards": sum(report.result.forwards for report in found.attacks),
        "findings": [code for code, _ in found.warnings],
        "parts": [
            [report.attack.name, report.robust_accuracy, report.result.seconds, report.result.gradients,
             report.result.forwards, int(report.attacked.sum())]
            for report in found.attacks
        ],
    }  # fmt: skip


def table(found: dict[str, dict[str, Any]]) -> bool:
    """Prints what both versions come to, and returns whether `adaptive` is within its bounds."""
    columns = (
        "network", "images", "standard", "adaptive", "points", "only one broke", "processor s", "ratio", "clock s",
        "gradients", "ratio", "forward passes", "ratio",
    )  # fmt: skip
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    apart, fine = [], True
    for name, both in found.items():
        own, full = (both[version] for version in VERSIONS)
        kept, kept_full = set(own["kept"]), set(full["kept"])
        points = 100 * (own["robust"] - full["robust"])
        apart.append(points)
        worked, gradients, forwards = (own[key] / full[key] for key in ("processor", "gradients", "forwards"))
        fine &= points <= POINTS + 1e-9 and (not kept_full or max(worked, gradients, forwards) <= SHARE)
        print(
            f"| {name} | {own['images']} | {full['robust']:.1%} | {own['robust']:.1%} | {points:+.1f} | "
            f"{len(kept - kept_full)} and {len(kept_full - kept)} | "
            f"{full['processor']:.1f} and {own['processor']:.1f} | "
            f"{worked:.3f} | {full['seconds']:.1f} and {own['seconds']:.1f} | {full['gradients']:,} and "
            f"{own['gradients']:,} | {gradients:.3f} | {full['forwards']:,} and {own['forwards']:,} | {forwards:.3f} |"
        )
    print(f"\nIn the mean {np.mean(apart):+.3f} points.")
    for name, both in found.items():
        for version in VERSIONS:
            parts = [f"{part} {seconds:.1f} s, {attacked} images, {share:.1%}"
                     for part, share, seconds, _, _, attacked in both[version]["parts"]]  # fmt: skip
            words = "; ".join(parts)
            print(f"- {name}, {version} ({both[version]['precision']}, load {both[version]['load']:.1f}): {words}.")
    return fine and float(np.mean(apart)) <= MEAN + 1e-9


def main() -> int:
    parser = argparse.ArgumentParser(
        usage=argparse.SUPPRESS, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shown = " (default: %(default)s)"
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where results stay")
    parser.add_argument("--networks", default=",".join(NETWORKS), help="which, separated by commas" + shown)
    parser.add_argument("--versions", default=",".join(VERSIONS), help="which" + shown)
    parser.add_argument("--images", type=int, default=1000, help="how many, from the first on" + shown)
    parser.add_argument("--batch-size", type=int, default=256, help="images at once" + shown)
    parser.add_argument("--precision", default="auto", help="of gradients" + shown)
    parser.add_argument("--seed", type=int, default=0, help="of both" + shown)
    args = parser.parse_args()
    names = args.networks.split(",")
    if unknown := [name for name in names if name not in NETWORKS]:
        parser.error(f"unknown networks: {', '.join(unknown)}; there are {', '.join(NETWORKS)}")
    args.folder.mkdir(parents=True, exist_ok=True)
    x, y = kr.load_data("cifar10", split=f"test[:{args.images}]")
    for name in names:
        model = None
        for version in args.versions.split(","):
            file = args.folder / f"{name}-{version}.json"
            if known(file, args):
                continue
            model = model or network(name)
            print(f"{time.strftime('%H:%M:%S')} {name}, {version}", file=sys.stderr, flush=True)
            file.write_text(json.dumps(measured(model, version, x, y, args)))
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        both = {version: known(args.folder / f"{name}-{version}.json", args) or {} for version in VERSIONS}
        if all(both.values()):
            found[name] = both
    return int(not (found and table(found)))


if __name__ == "__main__":
    sys.exit(main())

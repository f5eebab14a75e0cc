"""The project's AutoAttack beside the reference program of its authors, Croce and Hein.

    python benchmarks/reference.py ~/auto-attack
    python benchmarks/reference.py ~/auto-attack --norm linf --epsilon 0.0314 --images 200 --keep /tmp/kept

FOLDER is github.com/fra31/auto-attack, with its folder `autoattack`. None of it is in this project. It runs as it is
in the environment "torch" of `environments.py`, on the weights of one of `saved_models`, and says the same logits to
1e-4.

Both run the version `standard` on the same first test images of CIFAR-10: four attacks, each on what those before have
left. One referee, the Keras model in float32, judges the images of both: one is broken if the network is wrong on it,
in the box and inside the ball. What is wrong as it is counts as broken.

after       accuracy once each attack has run, as each program says itself, and its seconds.
robust      accuracy that the referee gives both programs' images, and the images that only one of them broke.

The exit status is 1 where the accuracies are further apart, or agree on fewer images, than stands in this file.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from convnet_weights import weights_of
from environments import make_environment
from protocol import Worker, timed

import kerasrobust as kr

HERE = Path(__file__).resolve().parent
APART, AGREED = 0.004, 0.99
"""Accuracy that the programs may be apart, and the share of the images on which they have to agree."""

OVER = 1e-4
"""Share of the radius by which an image may be outside the ball: sums of 3,072 values in float32 are no nearer."""

RADII = {"linf": 8 / 255, "l2": 0.5, "l1": 12.0}
ORDERS = {"linf": np.inf, "l2": 2, "l1": 1}


def distances(x_adv: np.ndarray, x: np.ndarray, norm: str) -> np.ndarray:
    gap = x_adv.astype(np.float64) - x
    return np.linalg.norm(gap.reshape(len(gap), -1), ord=ORDERS[norm], axis=1)


def right(model: keras.Model, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return model.predict(x, batch_size=250, verbose=0).argmax(axis=1) == y


def robust(model: keras.Model, x_adv: np.ndarray, x: np.ndarray, y: np.ndarray, args: argparse.Namespace) -> np.ndarray:
    """Returns which images the network keeps, bool (N,); prints how far the others went."""
    distance = distances(x_adv, x, args.norm)
    inside = (x_adv.min(axis=(1, 2, 3)) >= -1e-6) & (x_adv.max(axis=(1, 2, 3)) <= 1 + 1e-6)
    inside &= distance <= args.epsilon * (1 + OVER)
    print(f"  {int((~inside).sum())} images outside ball or box, distance {distance.max():.6f} at most")
    return right(model, x, y) & ~(inside & ~right(model, x_adv, y))


def theirs(args: argparse.Namespace, folder: Path, tell: Callable[[str], None]) -> dict[str, Any]:
    """Returns what the reference program found."""
    tell(f"the reference program; see {folder / 'reference-says.log'}")
    python = make_environment("torch", args.envs.expanduser().absolute(), tell)
    program = str(args.folder.expanduser().absolute())
    worker = Worker("reference", python, HERE / "worker_reference.py", [program, str(folder)], folder / "reference.log")
    try:
        stated = worker.call("versions", {}).figures
        print(", ".join(f"{name} {version}" for name, version in stated.items()), flush=True)
        asked = {
            "model": args.model, "count": args.images, "norm": args.norm, "epsilon": args.epsilon, "seed": args.seed,
            "batch_size": args.batch_size,
        }  # fmt: skip
        found = worker.call("autoattack", asked, save=folder / "their-images.npz")
    finally:
        worker.close()
    return {"x_adv": found.arrays["x_adv"], "seconds": found.seconds, "after": found.figures["after"]}


def ours(
    model: keras.Model,
    x: np.ndarray,
    y: np.ndarray,
    args: argparse.Namespace,
    folder: Path,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Returns what ours found."""
    tell("ours")
    attack = kr.AutoAttack(norm=args.norm, epsilon=args.epsilon, version="standard")
    found, seconds = timed(
        lambda: kr.evaluate(
            model, x, y, attacks=attack, audit=False, seed=args.seed, batch_size=args.batch_size,
            precision=args.precision, resume_dir=folder / "ours",
        )
    )  # fmt: skip
    after, passed = {}, 0.0
    for report in found.attacks:
        passed += report.result.seconds
        after[report.attack.name] = [report.robust_accuracy, passed]
    return {"x_adv": found.worst.x_adv, "seconds": seconds, "after": after}


def kept(folder: Path, name: str, asked: dict[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Returns what a program found, from its files where those are of the same question."""
    stated, images = folder / f"{name}.json", folder / f"{name}.npy"
    if stated.exists() and (said := json.loads(stated.read_text()))["asked"] == asked:
        return said | {"x_adv": np.load(images)}
    found = make()
    np.save(images, found["x_adv"])
    stated.write_text(json.dumps({"asked": asked, "seconds": found["seconds"], "after": found["after"]}))
    return found


def compared(args: argparse.Namespace, folder: Path, tell: Callable[[str], None]) -> bool:
    """Runs both, prints, and returns whether they agree."""
    x, y = kr.load_data("cifar10", split=f"test[:{args.images}]")
    model = kr.load_model(str(HERE.parent / "saved_models" / args.model))
    np.savez(folder / "data.npz", x=x, y=y)
    logits = model.predict(x[:64], verbose=0)
    np.savez(folder / f"{args.model}.npz", logits=logits, **weights_of(model))
    asked = {name: getattr(args, name) for name in ("model", "images", "norm", "epsilon", "seed")}
    reference = kept(folder, "theirs", asked, lambda: theirs(args, folder, tell))
    own = kept(folder, "ours", asked | {"precision": args.precision}, lambda: ours(model, x, y, args, folder, tell))

    print(
        f"\n{args.images} images, {args.model}, {args.norm} {args.epsilon:.6g}, {right(model, x, y).mean():.1%} clean"
    )
    print(f"\nafter         theirs           ours  (seconds are {os.cpu_count()} cores' at most)")
    for name, (share, passed) in reference["after"].items():
        share_own, passed_own = own["after"].get(name, (float("nan"), 0.0))
        print(f"{name:10}{share:7.1%} {passed:7.0f} s{share_own:7.1%} {passed_own:7.0f} s")
    print("\ntheirs")
    left = robust(model, reference["x_adv"], x, y, args)
    print("ours")
    left_own = robust(model, own["x_adv"], x, y, args)
    apart, agreed = float(left_own.mean() - left.mean()), float((left == left_own).mean())
    print(f"robust    {left.mean():.1%} and {left_own.mean():.1%}, {apart * 100:+.1f} points; agree on {agreed:.1%}")
    alone = [np.flatnonzero(one & ~other).tolist() for one, other in ((left_own, left), (left, left_own))]
    print(f"only theirs broke {alone[0]}, only ours {alone[1]}")
    return abs(apart) <= APART + 1e-9 and agreed >= AGREED


def main() -> int:
    parser = argparse.ArgumentParser(
        usage=argparse.SUPPRESS, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shown = " (default: %(default)s)"
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of the reference program")
    parser.add_argument("--model", default="convnet-pgd", help="a ConvNet of saved_models" + shown)
    parser.add_argument("--norm", default="l1", choices=RADII, help="of the ball" + shown)
    parser.add_argument("--epsilon", type=float, help="its radius (default: 8/255, 0.5 or 12)")
    parser.add_argument("--images", type=int, default=500, help="how many, from the first on" + shown)
    parser.add_argument("--batch-size", type=int, default=250, help="images at once" + shown)
    parser.add_argument("--precision", default="auto", help="of our gradients" + shown)
    parser.add_argument("--seed", type=int, default=0, help="of both programs" + shown)
    parser.add_argument("--keep", type=Path, help="a folder where results stay, and are found again")
    parser.add_argument("--envs", type=Path, default=Path("~/.cache/kerasrobust-benchmarks"),
                        help="where its environment is, or is made: 1 GB" + shown)  # fmt: skip
    args = parser.parse_args()
    args.epsilon = args.epsilon or RADII[args.norm]
    if not (args.folder.expanduser() / "autoattack").is_dir():
        parser.error("FOLDER has to hold the folder autoattack")

    def tell(text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)

    args.envs.expanduser().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="kerasrobust-benchmarks-") as passing:
        folder = args.keep.expanduser().absolute() if args.keep else Path(passing)
        folder.mkdir(parents=True, exist_ok=True)
        return int(not compared(args, folder, tell))


if __name__ == "__main__":
    sys.exit(main())

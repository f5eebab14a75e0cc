"""The attacks that look for the nearest adversarial example beside those of adv-lib 0.2.8 and Foolbox 3.3.4.

    taskset -c 0 python benchmarks/nearest.py convnet-pgd
    taskset -c 0 python benchmarks/nearest.py convnet-pgd ~/models/resnet --images 100 --norms l2,l1 --only "*fmn,*ddn"

Networks are names in `saved_models` or paths: those of `convnet` and `resnet` as this project builds them. All get the
same test images of CIFAR-10, those that the network is right on, the same number of gradients an image, and one thread.
Settings that aren't defaults were the better ones on test[1000:1100] with `convnet-pgd`.

median      distance of the example found from the image; infinite where our Keras model in float32 isn't wrong about
            it, or where it lies outside the box. In L0 the number of values that differ by more than 1e-6.
failures    how often it is infinite.
gradients   an image, as counted: of a step of DeepFool, SuperDeepFool and FAB one for each class it looks at. Forward
            passes beyond those are not counted. What took more than the budget is out of the comparison (`-`).
seconds     after a call that isn't measured, in which graphs are traced; the least of `--rounds`.
ratio       of medians: to the least of theirs.
time        of seconds: to the least of theirs in that norm.

The exit status is 1 where our least median is more than 1 % above the least of theirs, where there is nothing to
compare, and where a contender failed.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from convnet_weights import weights_of
from environments import make_environment
from machine import busy, describe, used
from protocol import PeerError, Worker

import kerasrobust as kr
from kerasrobust.names import Norm

HERE = Path(__file__).resolve().parent
NORMS: tuple[Norm, ...] = ("linf", "l2", "l1", "l0")
ABOVE = 1.01
"""What our least median may be of theirs."""

FOOLBOX = {"linf": "LInf", "l2": "L2", "l1": "L1", "l0": "L0"}

Settings = dict[str, Any]


@dataclass(frozen=True)
class Contender:
    """Someone's attack in a norm, with its settings."""

    library: str
    attack: str
    norm: Norm
    settings: Settings
    note: str = ""

    @property
    def name(self) -> str:
        return f"{self.library} {self.attack}{self.note}"


@dataclass(frozen=True)
class Found:
    """What a contender made: the distances of its examples, infinite where it failed; gradients an image; seconds."""

    distance: np.ndarray
    gradients: float
    seconds: float

    @property
    def median(self) -> float:
        return float(np.median(self.distance))


def contenders(norm: Norm, budget: int, classes: int = 10) -> Iterator[Contender]:
    """Yields all who have an attack in a norm, with that many gradients an image."""
    few, steps = max(budget // (classes - 1), 1), {"steps": budget}
    size = 10.0 if norm == "linf" else 1.0
    yield Contender("adv-lib", "fmn", norm, steps | {"α_init": size})
    yield Contender("foolbox", f"{FOOLBOX[norm]}FMNAttack", norm, steps | {"max_stepsize": size})
    beginning = classes - 1 if norm in ("linf", "l2") else 0
    yield Contender("ours", "FMN", norm, {"steps": max(budget - beginning, 1)})
    proximal = {"proximal_operator": 23} if norm == "l0" else {}
    yield Contender("adv-lib", "pdpgd", norm, {"num_steps": budget} | proximal)
    if norm != "l0":
        yield Contender("adv-lib", "fab", norm, {"n_iter": few})
        yield Contender("ours", "FAB", norm, {"steps": few})
        yield Contender("adv-lib", "fab", norm, {"n_iter": budget, "targeted_restarts": True, "restarts": 1}, "-t")
        yield Contender("ours", "FABT", norm, steps | {"targets": 1})
    if norm == "l0":
        yield Contender("adv-lib", "sigma_zero", norm, {"num_steps": budget})
        yield Contender("ours", "SigmaZero", norm, steps)
    if norm == "l1":
        yield Contender("foolbox", "EADAttack", norm, {
            "binary_search_steps": 2, "steps": budget // 2, "initial_const": 10.0, "initial_stepsize": 0.01,
            "decision_rule": "L1", "abort_early": False,
        })  # fmt: skip
        yield Contender("ours", "PDPGD", norm, steps)
    if norm in ("l1", "l2"):
        first = 0.3 if norm == "l2" else 1.0
        yield Contender("adv-lib", "alma", norm, {"num_steps": budget, "init_lr_distance": first})
    if norm == "l2":
        # Whole levels, its default, would cost it a little.
        yield Contender("adv-lib", "ddn", norm, steps | {"levels": None})
        yield Contender("foolbox", "DDNAttack", norm, steps)
        yield Contender("ours", "DDN", norm, steps)
        yield Contender("adv-lib", "pdgd", norm, {"num_steps": budget})
        yield Contender("adv-lib", "sdf", norm, {})
        yield Contender("ours", "SuperDeepFool", norm, {"steps": few})
    if norm in ("linf", "l2"):
        yield Contender("ours", "APGDNearest", norm, steps)


class Arena:
    """A network, the images that it is right on, and the worker of the others.

    Args:
        name: of the network, or its path.
        split: of the images.
        folder: for what the worker reads.
        envs: where its environment is.
        mode: the memory layout of PyTorch's images.
    """

    def __init__(self, name: str, split: str, folder: Path, python: Path, mode: str) -> None:
        saved = HERE.parent / "saved_models" / name
        self.model, self.mode = kr.load_model(saved if saved.exists() else Path(name).expanduser()), mode
        folder.mkdir()
        x, y = kr.load_data("cifar10", split=split)
        right = self.logits(x).argmax(axis=1) == y
        self.clean, self.x, self.y = float(right.mean()), x[right], y[right]
        np.savez(folder / "data.npz", x=self.x, y=self.y)
        np.savez(folder / "network.npz", logits=self.logits(self.x[:64]), **weights_of(self.model))
        self.worker = Worker("nearest", python, HERE / "worker_nearest.py", [str(folder)], folder / "log")
        self.folder, self.warm = folder, list[Contender]()

    def logits(self, x: np.ndarray) -> np.ndarray:
        return self.model.predict(x, batch_size=256, verbose=0)

    def distances(self, x_adv: np.ndarray, norm: Norm) -> np.ndarray:
        """Returns how far examples are from their images, infinite where they aren't wrong, or aren't in the box."""
        gap = np.abs(x_adv.astype(np.float64) - self.x).reshape(len(self.x), -1)
        length = {
            "linf": gap.max(axis=1), "l2": np.linalg.norm(gap, axis=1), "l1": gap.sum(axis=1),
            "l0": (gap > 1e-6).sum(axis=1).astype(float),
        }[norm]  # fmt: skip
        inside = (np.isfinite(x_adv) & (x_adv >= -1e-6) & (x_adv <= 1 + 1e-6)).all(axis=(1, 2, 3))
        wrong = self.logits(np.clip(x_adv, 0, 1)).argmax(axis=1) != self.y
        return np.where(inside & wrong, length, np.inf)

    def measured(self, contender: Contender) -> Found:
        """Runs a contender; the first time on a few images that aren't measured."""
        run = self._ours if contender.library == "ours" else self._theirs
        if contender not in self.warm:
            run(contender, 32)
            self.warm.append(contender)
        x_adv, gradients, seconds = run(contender, len(self.x))
        return Found(self.distances(x_adv, contender.norm), gradients, seconds)

    def _ours(self, contender: Contender, count: int) -> tuple[np.ndarray, float, float]:
        attack = getattr(kr.attacks, contender.attack)(norm=contender.norm, **contender.settings)
        began = time.perf_counter()
        result = attack(self.model, self.x[:count], self.y[:count])
        return result.x_adv, result.gradients / len(result.x_adv), time.perf_counter() - began

    def _theirs(self, contender: Contender, count: int) -> tuple[np.ndarray, float, float]:
        asked = {
            "library": contender.library, "attack": contender.attack, "norm": contender.norm,
            "settings": contender.settings, "model": "network", "seed": 0, "count": count, "mode": self.mode,
        }  # fmt: skip
        done = self.worker.call("attack", asked, save=self.folder / "theirs.npz")
        return done.arrays["x_adv"], done.figures["gradients"], done.seconds


@dataclass
class Row:
    """A contender, and what it made, once or several times; or what went wrong."""

    contender: Contender
    found: list[Found] = field(default_factory=list)
    error: str = ""

    @property
    def ours(self) -> bool:
        return self.contender.library == "ours"

    @property
    def seconds(self) -> float:
        return min(found.seconds for found in self.found)

    def counts(self, budget: int) -> bool:
        """Returns whether it kept to the budget."""
        return bool(self.found) and self.found[0].gradients <= budget + 1


def compared(arena: Arena, rows: list[Row], rounds: int, kept: Kept) -> Iterator[str]:
    """Runs all in turn, round by round, and yields what to say of each."""
    for number, row in itertools.product(range(rounds), rows):
        contender = row.contender
        try:
            found = kept.get(contender, number) or arena.measured(contender)
        except PeerError as error:
            row.error = str(error).splitlines()[0][:80]
            continue
        kept.put(contender, number, found)
        row.found.append(found)
        yield (f"{contender.name} {contender.norm}, round {number + 1}: {found.median:.5g}, "
               f"{found.gradients:.0f} gradients, {found.seconds:.1f} s")  # fmt: skip


class Kept:
    """What was found before, in files, so that a comparison which was broken off goes on.

    Args:
        folder: where; None to keep nothing.
        name: of what all of it belongs to: network, images, gradients, layout and commit.
    """

    def __init__(self, folder: Path | None, name: str) -> None:
        self.folder, self.name = folder, name

    def _path(self, contender: Contender, number: int) -> Path | None:
        settings = zlib.crc32(repr(sorted(contender.settings.items())).encode())
        name = f"{self.name} {contender.norm} {contender.name} {settings:08x} {number}.npz"
        return self.folder / name.replace(" ", "_") if self.folder else None

    def get(self, contender: Contender, number: int) -> Found | None:
        path = self._path(contender, number)
        if path is None or not path.exists():
            return None
        with np.load(path) as stored:
            return Found(stored["distance"], float(stored["gradients"]), float(stored["seconds"]))

    def put(self, contender: Contender, number: int, found: Found) -> None:
        if path := self._path(contender, number):
            np.savez(path, distance=found.distance, gradients=found.gradients, seconds=found.seconds)


def table(rows: list[Row], budget: int) -> tuple[list[str], list[str]]:
    """Returns the lines of a table of one norm, and what isn't as it has to be."""
    fair = [row for row in rows if row.counts(budget)]
    least = {who: min((row.found[0].median for row in fair if row.ours == (who == "ours")), default=np.nan)
             for who in ("ours", "theirs")}  # fmt: skip
    fastest = min((row.seconds for row in rows if row.found and not row.ours), default=np.nan)
    lines = []
    for row in sorted(rows, key=lambda row: row.found[0].median if row.found else np.inf):
        head = f"| {row.contender.norm} | {row.contender.name} |"
        if not row.found:
            lines.append(f"{head} {row.error} | | | | | |")
            continue
        found = row.found[0]
        ratio = f"{found.median / least['theirs']:.3f}" if row.counts(budget) else "-"
        lines.append(
            f"{head} {found.median:.5g} | {int(np.isinf(found.distance).sum())} | {found.gradients:.0f} | "
            f"{row.seconds:.1f} | {ratio} | {row.seconds / fastest:.2f} |"
        )
    norm, faults = rows[0].contender.norm, [f"{row.contender.name}: {row.error}" for row in rows if row.error]
    if not np.isfinite([least["ours"], least["theirs"]]).all():
        faults.append(f"{norm}: there is nothing to compare")
    elif least["ours"] > ABOVE * least["theirs"]:
        faults.append(f"{norm}: our least median is {least['ours'] / least['theirs'] - 1:+.1%} beside theirs")
    return lines, faults


HEAD = [
    "| norm | contender | median | failures | gradients | seconds | ratio | time |",
    "|---|---|--:|--:|--:|--:|--:|--:|",
]


def of_network(name: str, args: argparse.Namespace, python: Path, folder: Path) -> list[str]:
    """Prints the table of a network, and returns what isn't as it has to be."""
    arena = Arena(name, f"test[:{args.images}]", folder / Path(name).name, python, args.layout)
    kept = Kept(args.keep and args.keep.expanduser(), " ".join([
        Path(name).name, str(args.images), str(args.gradients), args.layout, describe(HERE.parent)["commit"][:8]
    ]))  # fmt: skip
    wanted, rows = args.only.lower().split(","), dict[Norm, list[Row]]()
    try:
        began, before = time.perf_counter(), busy() - own(arena)
        for norm in args.norms.split(","):
            rows[norm] = [Row(one) for one in contenders(norm, args.gradients)
                          if any(fnmatch(one.name.lower(), part) for part in wanted)]  # fmt: skip
            for text in compared(arena, rows[norm], args.rounds, kept):
                print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
        others = (busy() - own(arena) - before) / (time.perf_counter() - began)
    finally:
        arena.worker.close()
    print(f"\n{name}: {len(arena.x)} of {args.images} images that it is right on, {args.gradients} gradients each; "
          f"others used {others:.0%} of a processor meanwhile\n")  # fmt: skip
    print("\n".join(HEAD))
    faults: list[str] = []
    for of_norm in rows.values():
        lines, more = table(of_norm, args.gradients)
        print("\n".join(lines), flush=True)
        faults += [f"{name}, {fault}" for fault in more]
    return faults


def own(arena: Arena) -> float:
    """Returns the seconds of processor time that this process and the worker have used."""
    return used(os.getpid()) + used(arena.worker.process.pid)


def main() -> int:
    parser = argparse.ArgumentParser(
        usage=argparse.SUPPRESS, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", default=["convnet-pgd"], metavar="NETWORK")
    parser.add_argument("--images", type=int, default=500, help="how many, from the first on (default: %(default)s)")
    parser.add_argument("--gradients", type=int, default=100, help="of each image (default: %(default)s)")
    parser.add_argument("--norms", default=",".join(NORMS), help="which, separated by commas (default: all)")
    parser.add_argument("--only", default="*", help="contenders, as patterns: 'ours *,*fmn' (default: all)")
    parser.add_argument("--rounds", type=int, default=1, help="turns of each contender (default: %(default)s)")
    parser.add_argument("--layout", choices=("eager", "channels_last"), default="eager",
                        help="of images in PyTorch's memory (default: %(default)s)")  # fmt: skip
    parser.add_argument("--keep", type=Path, metavar="FOLDER",
                        help="where what was found is kept, and found again by another run")  # fmt: skip
    parser.add_argument("--envs", type=Path, default=Path("~/.cache/kerasrobust-benchmarks"),
                        help="where its environment is, or is made: 1 GB (default: %(default)s)")  # fmt: skip
    args = parser.parse_args()

    def tell(text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    keras.config.disable_interactive_logging()
    args.envs.expanduser().mkdir(parents=True, exist_ok=True)
    if args.keep:
        args.keep.expanduser().mkdir(parents=True, exist_ok=True)
    python = make_environment("nearest", args.envs.expanduser().absolute(), tell)
    print("; ".join(describe(HERE.parent).values()))
    with tempfile.TemporaryDirectory(prefix="kerasrobust-benchmarks-") as folder:
        faults = [fault for name in args.networks for fault in of_network(name, args, python, Path(folder))]
    print("\n" + ("\n".join(faults) or "Our least medians are at most 1 % above the least of theirs."))
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())

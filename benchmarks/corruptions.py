"""The project's common corruptions beside the published program of Hendrycks and Dietterich 2019.

    python benchmarks/corruptions.py ~/robustness/ImageNet-C/create_c/make_cifar_c.py
    python benchmarks/corruptions.py FILE --images 300 --kinds snow,glass_blur --magick ~/magick

FILE is that of github.com/hendrycks/robustness, with the photographs of frost beside it. None of it is in this project.
Its functions run as they are in an environment of their own (`worker_published.py`), with these versions: NumPy 1.26.4,
SciPy 1.11.4, scikit-image 0.22.0, OpenCV 4.10.0.84, Pillow 10.4.0, Wand 0.6.13. Motion blur and snow need ImageMagick 6
(Debian: libmagickwand-6.q16-6), installed, or its packages unpacked by `dpkg -x` in a folder that `--magick` names;
without it those two aren't compared, and the output says so. Today's ImageMagick 6 cuts to 8 bits where that of 2018
rounded, which the worker undoes; `--png` leaves it as it is, and motion blur then fails by half a level.

Both get the same test images of CIFAR-10. For each kind and severity, in levels from 0 to 255:

mean        over all values, theirs and ours, and the largest difference of one image's mean.
apart       the mean absolute difference of values, and the share that is more than one level apart, where nothing is
            random.
deviation   within an image, step from a value to its neighbour on the right and below, and colour, the step from a
            channel to the next: theirs and ours, where something is random.
right       accuracy of `saved_models/convnet`, and in brackets on how many images it is right with theirs alone and
            with ours alone. `*` where ours lies outside the 95 % interval of theirs.

After that, where accuracy rises from a severity to the next, above the 95 % interval of the one before.

The exit status is 1 where something is further apart than the tolerances say that stand in this file; where kinds are
missing it is 0 if the others agree.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from environments import make_environment
from protocol import Worker

import kerasrobust as kr
from kerasrobust.names import CORRUPTIONS, SEVERITIES
from kerasrobust.networks.making import classifier_of
from kerasrobust.stats import mcnemar, wilson

HERE = Path(__file__).resolve().parent
MODEL = HERE.parent / "saved_models" / "convnet"
FIXED = frozenset({
    "defocus_blur", "zoom_blur", "gaussian_blur", "brightness", "contrast", "pixelate", "jpeg_compression", "saturate",
})  # fmt: skip
"""Kinds in which nothing is random."""

# Tolerances, chosen before the first comparison.

APART = 0.1
"""Levels, mean absolute difference where nothing is random. Both programs cut to whole levels, and a sum that ends just
below one in the one and not in the other is a level apart; more than one value in ten isn't by rounding."""

FAR = 0.001
"""Share of values that may be more than one level apart where nothing is random."""

ERRORS = 4.0
"""Standard errors that a figure may differ by where something is random, and `APART` on top, as both cut. Of the 200
figures of ten kinds one is further off in 1 of 80 runs if both draw from the same distribution."""

FROST_MEAN, FROST_SHARE, FROST_RIGHT = 5.0, 0.15, 0.05
"""Of frost, which is drawn here and cut out of photographs there: levels of the mean, share of the other figures, and
accuracy, about what lies between two severities. Errors of sampling are added to them as to `APART`."""

RARE = 0.05 / 95
"""The least p-value of McNemar's exact test on the same images: 5 % for all kinds and severities together."""


@dataclass(frozen=True)
class Figures:
    """What images look like: float64 (N,) each, in levels."""

    mean: np.ndarray
    deviation: np.ndarray
    step: np.ndarray
    colour: np.ndarray

    @classmethod
    def of(cls, images: np.ndarray) -> Figures:
        """Returns those of uint8 (N, H, W, C)."""
        levels = images.astype(np.float64)

        def step(axis: int) -> np.ndarray:
            return np.abs(np.diff(levels, axis=axis)).mean(axis=(1, 2, 3))

        inside = (1, 2, 3)
        return cls(levels.mean(axis=inside), levels.std(axis=inside), (step(1) + step(2)) / 2, step(3))


@dataclass(frozen=True)
class Row:
    """One kind at one severity: bool (N,) whether the network is right on theirs and ours, and what disagrees."""

    kind: str
    severity: int
    theirs: np.ndarray
    ours: np.ndarray
    text: str
    largest: float
    faults: list[str] = field(default_factory=list)


def row_of(kind: str, severity: int, theirs: np.ndarray, ours: np.ndarray, right: list[np.ndarray]) -> Row:
    """Compares the images of both programs, uint8 (N, H, W, C)."""
    figures = Figures.of(theirs), Figures.of(ours)
    means, faults = [one.mean for one in figures], []
    largest = float(np.abs(means[0] - means[1]).max())
    words = [f"{kind:18}{severity}  mean {means[0].mean():6.2f} {means[1].mean():6.2f} ({largest:5.2f})"]
    if kind in FIXED:
        words.append(fixed(theirs, ours, faults))
    else:
        words.append(random(kind, *figures, faults))
    words.append(accuracy(kind, *right, faults))
    return Row(kind, severity, *right, "  ".join(words) + ("  FAILS" if faults else ""), largest, faults)


def fixed(theirs: np.ndarray, ours: np.ndarray, faults: list[str]) -> str:
    """Returns words on images that have to be the same, and adds to the faults where they aren't."""
    gaps = np.abs(theirs.astype(int) - ours)
    apart, far = float(gaps.mean()), float((gaps > 1).mean())
    if apart > APART:
        faults.append(f"values are {apart:.3f} levels apart, {APART} allowed")
    if far > FAR:
        faults.append(f"{far:.2%} of values are more than one level apart, {FAR:.1%} allowed; {gaps.max()} at most")
    return f"apart {apart:.4f}, {far:7.3%} by more than 1, at most {gaps.max():3}"


def random(kind: str, theirs: Figures, ours: Figures, faults: list[str]) -> str:
    """Returns words on images that have to be of the same distribution, and adds to the faults where they aren't."""
    words = []
    for name in ("mean", "deviation", "step", "colour"):
        one, other = getattr(theirs, name), getattr(ours, name)
        gap = float(other.mean() - one.mean())
        bias = APART
        if kind == "frost":
            bias = FROST_MEAN if name == "mean" else FROST_SHARE * float(one.mean())
        allowed = bias + ERRORS * float((other - one).std(ddof=1)) / len(one) ** 0.5
        if abs(gap) > allowed:
            faults.append(f"{name} is {gap:+.2f} off {one.mean():.2f}, {allowed:.2f} allowed")
        if name != "mean":
            words.append(f"{name} {one.mean():5.2f} {other.mean():5.2f}")
    return "  ".join(words)


def accuracy(kind: str, theirs: np.ndarray, ours: np.ndarray, faults: list[str]) -> str:
    """Returns words on a network's answers, and adds to the faults where they differ too often one way."""
    alone = int((theirs & ~ours).sum()), int((ours & ~theirs).sum())
    gap, likely = float(ours.mean() - theirs.mean()), mcnemar(*alone)
    if likely < RARE and (kind != "frost" or abs(gap) > FROST_RIGHT):
        faults.append(
            f"accuracy is {gap:+.1%} off {theirs.mean():.1%}, {alone[0]} and {alone[1]} alone, p {likely:.2g}"
        )
    low, high = wilson(int(theirs.sum()), len(theirs))
    mark = " " if low <= ours.mean() <= high else "*"
    return f"right {theirs.mean():6.1%} {ours.mean():6.1%} ({alone[0]:3}/{alone[1]:3}){mark}"


def rises(rows: list[Row]) -> Iterator[str]:
    """Yields where a network is right more often at a severity than at the one before."""
    for before, after in itertools.pairwise(rows):
        if before.kind != after.kind:
            continue
        parts, above = [], False
        for name in ("theirs", "ours"):
            one, other = getattr(before, name), getattr(after, name)
            rise = float(other.mean()) > wilson(int(one.sum()), len(one))[1]
            above |= rise
            likely = mcnemar(int((one & ~other).sum()), int((other & ~one).sum()))
            parts.append(f"{name} {one.mean():.1%} -> {other.mean():.1%}, {'RISES' if rise else '-':5} p {likely:.1g}")
        if above:
            yield f"  {before.kind} {before.severity} -> {after.severity}: {'; '.join(parts)}"


def compared(worker: Worker, count: int, kinds: list[str], seed: int, folder: Path) -> Iterator[Row]:
    """Yields each kind and severity, as soon as both programs have made it."""
    x, y = kr.load_data("cifar10", split=f"test[:{count}]")
    np.savez(folder / "images.npz", x=levels(x))
    run = classifier_of(kr.load_model(MODEL), image_shape=x.shape[1:]).runner(min(count, 500))

    def right(images: np.ndarray) -> np.ndarray:
        return run(images.astype(np.float32) / np.float32(255)).argmax(axis=1) == y

    print(f"{count} images, {right(levels(x)).mean():.1%} right as they are; theirs before ours", flush=True)
    for kind in kinds:
        for severity in SEVERITIES:
            asked = {"kind": kind, "severity": severity, "seed": [seed, list(CORRUPTIONS).index(kind), severity]}
            theirs = worker.call("corrupt", asked, save=folder / "theirs.npz").arrays["x"]
            ours = levels(kr.corrupt(x, kind, severity, seed=seed))
            yield row_of(kind, severity, theirs, ours, [right(theirs), right(ours)])


def levels(images: np.ndarray) -> np.ndarray:
    return np.rint(images * 255).astype(np.uint8)


def unpacked(magick: Path, folder: Path) -> None:
    """Lets the processes that are started from here find ImageMagick in a folder that Debian's packages lie in.

    Raises:
        FileNotFoundError: where it isn't in there.
    """
    library = next(magick.rglob("libMagickWand-6.Q16.so.6"), None)
    coders = next(magick.rglob("coders/png.so"), None)
    if library is None or coders is None:
        raise FileNotFoundError(f"{magick} holds no libMagickWand-6.Q16.so.6 and its coders/png.so")
    (folder / "lib").symlink_to(library.parent.absolute())
    os.environ["MAGICK_HOME"] = str(folder)
    os.environ["LD_LIBRARY_PATH"] = str(library.parent.absolute())
    os.environ["MAGICK_CODER_MODULE_PATH"] = str(coders.parent.absolute())


def report(rows: list[Row], missing: dict[str, str]) -> bool:
    """Prints what the rows come to, and returns whether all agree."""
    print("\nAccuracy rises with severity, beyond the 95 % interval:")
    print("\n".join(rises(rows)) or "  nowhere")
    print("\nBy kind:")
    for kind in dict.fromkeys(row.kind for row in rows):
        of_kind = [row for row in rows if row.kind == kind]
        faults = [f"severity {row.severity}: {fault}" for row in of_kind for fault in row.faults]
        largest = max(row.largest for row in of_kind)
        print(f"  {kind:18}{'FAILS' if faults else 'agrees'}, means of an image at most {largest:.2f} levels apart")
        print("".join(f"    {fault}\n" for fault in faults), end="")
    for kind, why in missing.items():
        print(f"  {kind:18}not compared: {why}")
    return not any(row.faults for row in rows)


def measured(args: argparse.Namespace, kinds: list[str], tell: Callable[[str], None], folder: Path) -> bool:
    """Compares, prints, and returns whether all agree."""
    if args.magick:
        unpacked(args.magick.expanduser(), folder)
    arguments = [str(args.file.expanduser().absolute()), str(folder / "images.npz"), *["png"] * args.png]
    python = make_environment("published", args.envs.expanduser().absolute(), tell)
    worker = Worker("published", python, HERE / "worker_published.py", arguments, folder / "published.log")
    try:
        stated = worker.call("versions", {}).figures
        missing = {kind: why for kind, why in stated["missing"].items() if kind in kinds}
        print(", ".join(f"{name} {version}" for name, version in stated["versions"].items()))
        rows = []
        for row in compared(worker, args.images, [kind for kind in kinds if kind not in missing], args.seed, folder):
            print(row.text, flush=True)
            rows.append(row)
    finally:
        worker.close()
    return report(rows, missing)


def main() -> int:
    parser = argparse.ArgumentParser(
        usage=argparse.SUPPRESS, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="make_cifar_c.py of the published program")
    parser.add_argument("--images", type=int, default=300, help="how many, from the first on (default: %(default)s)")
    parser.add_argument("--kinds", default=",".join(CORRUPTIONS), help="which, separated by commas (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of both programs (default: %(default)s)")
    parser.add_argument("--png", action="store_true", help="images leave ImageMagick as in the published program")
    parser.add_argument("--magick", type=Path, metavar="FOLDER", help="ImageMagick unpacked, if it isn't installed")
    parser.add_argument("--envs", type=Path, default=Path("~/.cache/kerasrobust-benchmarks"),
                        help="where its environment is, or is made: 0.5 GB (default: %(default)s)")  # fmt: skip
    args = parser.parse_args()
    kinds = args.kinds.split(",")
    if unknown := [kind for kind in kinds if kind not in CORRUPTIONS]:
        parser.error(f"unknown kinds: {', '.join(unknown)}; there are {', '.join(CORRUPTIONS)}")
    if args.images < 2 or not args.file.expanduser().exists():
        parser.error("FILE has to exist, and images are at least 2")

    def tell(text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)

    args.envs.expanduser().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="kerasrobust-benchmarks-") as folder:
        return int(not measured(args, kinds, tell, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())

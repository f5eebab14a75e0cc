"""The worker of the published corruptions: the functions of `make_cifar_c.py`, as they stand in a file that is given.

Everything of that file up to its last function is run, but for its imports of PyTorch; what comes after that makes the
data set, and isn't run. Its images pass through PyTorch and come back as the same 256 levels, so that they don't here.

What the pinned versions no longer have is given under its old name: `gaussian(..., multichannel=True)` is
`channel_axis=-1` now. Random numbers come from NumPy's global generator, as they did from everywhere when the file was
written: `random_noise` would make a generator of its own, and gets a seed from the global one.

Motion blur and snow leave ImageMagick as PNG. ImageMagick 6 rounded them to 8 bits when the file was written; from
6.9.10-69 on (October 2019, `ScaleQuantumToAny`) it cuts them, while its PNM still rounds. So they leave it as PNM here,
unless a third argument says `png`.
"""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import skimage.filters
import skimage.util
from PIL import Image
from protocol import Measurement, serve, timed

FILE, IMAGES, PNG = Path(sys.argv[1]), Path(sys.argv[2]), "png" in sys.argv[3:]
PHOTOGRAPHS = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
"""Those that the published program draws from; it names a sixth and never takes it."""

PACKAGES = ("numpy", "scipy", "scikit-image", "opencv-python-headless", "pillow", "wand")


@functools.cache
def magick() -> str:
    """Returns the version of ImageMagick; an empty text where there is none, and something stands for its names."""
    try:
        from wand.version import MAGICK_VERSION
    except ImportError:
        # The file changes and extends these as it is run. Nothing here can smear an image.
        library = types.SimpleNamespace(MagickMotionBlurImage=types.SimpleNamespace())
        for name, holds in {"image": {"Image": object}, "api": {"library": library}, "color": {}}.items():
            sys.modules[f"wand.{name}"] = module = types.ModuleType(f"wand.{name}")
            vars(module).update(holds)
        return ""
    return str(MAGICK_VERSION).removeprefix("ImageMagick ")


def gaussian(image: np.ndarray, sigma: float = 1, *, multichannel: bool = False, **settings: Any) -> np.ndarray:
    """Stands for scikit-image's function of before 0.19."""
    return skimage.filters.gaussian(image, sigma, channel_axis=-1 if multichannel else None, **settings)


def random_noise(image: np.ndarray, mode: str, **settings: Any) -> np.ndarray:
    """Stands for scikit-image's function of before 0.21."""
    return _random_noise(image, mode, rng=int(np.random.randint(2**31)), **settings)


_random_noise = skimage.util.random_noise


@functools.cache
def functions() -> dict[str, Callable[[Image.Image, int], Any]]:
    """Returns the published functions by their names, which are those of `names.CORRUPTIONS`."""
    magick()
    tree = ast.parse(FILE.read_text())
    defined = (place for place, node in enumerate(tree.body) if isinstance(node, ast.FunctionDef | ast.ClassDef))
    tree.body = [node for node in tree.body[: max(defined) + 1] if not _of_torch(node)]
    names: dict[str, Any] = {"__name__": "published"}
    skimage.util.random_noise = random_noise
    exec(compile(tree, str(FILE), "exec"), names)
    names["gaussian"] = gaussian
    if magick() and not PNG:
        names["MotionImage"].make_blob = functools.partialmethod(names["WandImage"].make_blob, "pnm")
    os.chdir(FILE.parent)  # It reads the photographs from where it is started.
    return names


def _of_torch(node: ast.stmt) -> bool:
    return isinstance(node, ast.Import) and all(name.name.startswith("torch") for name in node.names)


@functools.cache
def images() -> list[Image.Image]:
    with np.load(IMAGES) as stored:
        return [Image.fromarray(image) for image in stored["x"]]


def versions() -> Measurement:
    """Says which packages there are, and which kinds can't be made for want of something."""
    missing = {} if magick() else dict.fromkeys(("motion_blur", "snow"), "no ImageMagick")
    absent = [name for name in PHOTOGRAPHS if not (FILE.parent / name).exists()]
    missing |= {"frost": f"no {', '.join(absent)} beside the file"} if absent else {}
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return Measurement(0.0, figures={"versions": found | {"ImageMagick": magick() or "none"}, "missing": missing})


def corrupt(kind: str, severity: int, seed: list[int]) -> Measurement:
    """Returns the images as the published program stores them."""
    function = functions()[kind]
    np.random.seed(seed)
    made, seconds = timed(lambda: np.stack([np.uint8(function(image, severity)) for image in images()]))
    return Measurement(seconds, {"x": made})


if __name__ == "__main__":
    serve({"versions": versions, "corrupt": corrupt})

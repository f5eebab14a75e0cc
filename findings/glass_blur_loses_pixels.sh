#!/usr/bin/env bash
# imagecorruptions 1.1.2, glass_blur on an image of colours: pixels are copied over their neighbours, not exchanged.
#
# Expected: frosted glass moves pixels about (Hendrycks and Dietterich 2019): each is exchanged with a neighbour, so that
# without the blur before and after all pixels are still there, in other places. Seen: the pixels of an array of colours
# are views, so that exchanging two of them writes one over the other and leaves it in both places: of an image in which
# no two pixels are equal nearly half are gone after one corruption.
# Whom it touches: figures under glass blur for programs of one's own that exchange pixels as the paper says differ from
# the published ones, whose data were made in this way; kerasrobust copies, as they do.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q imagecorruptions==1.1.2 'setuptools<81' 'numpy<2.3' 2>/dev/null
"$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
from importlib.metadata import version

import numpy as np
from imagecorruptions import corruptions
from PIL import Image

print(*(f"{name} {version(name)}" for name in ("imagecorruptions", "numpy", "scikit-image", "pillow")))
# The blur is left out, which mixes neighbours and would hide what became of them.
corruptions.gaussian = lambda image, **settings: np.array(image)
places = np.arange(64 * 64).reshape(64, 64)
colours = np.stack([places % 64 * 4, places // 64 * 4, places % 251], axis=-1).astype(np.uint8)
np.random.seed(0)
out = np.rint(np.asarray(corruptions.glass_blur(Image.fromarray(colours), severity=1))).astype(int).reshape(-1, 3)
before, after = (len(np.unique(image.reshape(-1, 3), axis=0)) for image in (colours, out))
print(f"{before} different pixels before, {after} after: {1 - after / before:.0%} are gone")
assert before == 4096 and after < 0.8 * before, (before, after)
PYTHON
echo "As stated."

#!/usr/bin/env bash
# Keras' LayerNormalization, GroupNormalization and RMSNormalization of uint8 images: statistics computed in uint8.
#
# Expected: the outputs of the same pixels in float32, as BatchNormalization, Dense and Rescaling give them, which cast
# integers; or an error, as Conv2D raises one. Seen: mean and variance are taken in uint8, where sums wrap around at 256,
# and without a word the outputs have another mean and another scale. RMSNormalization even returns uint8.
# Whom it touches: who feeds images as they are read (uint8) to a network that begins with such a layer, as patch
# embeddings with a normalization do. Attacks that replace the integer input by a float one then measure another network.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q tensorflow==2.21.0 keras==3.15.1 2>/dev/null
TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import keras
import numpy as np
import tensorflow as tf
from keras import layers

print("tensorflow", tf.__version__, "keras", keras.__version__)
pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype("uint8")
kinds = {
    "LayerNormalization": layers.LayerNormalization(),
    "GroupNormalization": layers.GroupNormalization(groups=1),
    "RMSNormalization": layers.RMSNormalization(),
    "BatchNormalization": layers.BatchNormalization(),
    "Rescaling": layers.Rescaling(1 / 255),
}
gaps = {}
for name, layer in kinds.items():
    whole, real = layer(pixels), layer(pixels.astype("float32"))
    as_numbers = np.asarray(whole, "float64")
    gaps[name] = float(abs(as_numbers - np.asarray(real, "float64")).max())
    print(
        f"{name:20} of uint8 gives {whole.dtype.name:8} mean {as_numbers.mean():8.3f} deviation {as_numbers.std():7.3f}; "
        f"expected mean {real.numpy().mean():8.3f} deviation {real.numpy().std():7.3f}; largest gap {gaps[name]:.3f}"
    )
assert all(gaps[name] > 0.5 for name in list(kinds)[:3]), gaps
assert all(gaps[name] < 1e-3 for name in list(kinds)[3:]), gaps
PYTHON
echo "As stated."

#!/usr/bin/env bash
# keras.layers.Resizing of uint8 images: rounded to uint8 when called, float32 and not rounded in predict.
#
# Expected: model(x) and model.predict(x) agree, and the dtype is the one that the symbolic model states (float32).
# Seen: outside of a graph the layer returns uint8, rounded; inside a tf.function, and so in predict, float32 with
# fractions. Outputs differ by up to half a grey level. RandomBrightness changes its dtype in the same way.
# Whom it touches: figures of one network that were computed by model(x) here and by predict there.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q tensorflow==2.21.0 keras==3.15.1 2>/dev/null
TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import keras
import numpy as np
import tensorflow as tf

print("tensorflow", tf.__version__, "keras", keras.__version__)
pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype("uint8")
for interpolation in ("nearest", "bilinear", "bicubic"):
    images = keras.Input((8, 8, 3), dtype="uint8")
    model = keras.Model(images, keras.layers.Resizing(5, 6, interpolation=interpolation)(images))
    called, predicted = model(pixels), model.predict(pixels, verbose=0)
    graph = tf.function(lambda x: model(x, training=False))(pixels)
    gap = float(abs(np.asarray(called, "float64") - predicted).max())
    print(
        f"{interpolation:9} stated {model.output.dtype}, model(x) {called.dtype.name}, tf.function {graph.dtype.name}, "
        f"predict {predicted.dtype.name}; largest gap between model(x) and predict: {gap:.3f}"
    )
    assert (model.output.dtype, called.dtype.name, graph.dtype.name, predicted.dtype.name) == (
        "float32", "uint8", "float32", "float32",
    )  # fmt: skip
    assert (gap == 0) if interpolation == "nearest" else (gap > 0.4)
PYTHON
echo "As stated."

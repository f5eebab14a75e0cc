#!/usr/bin/env bash
# keras.Model.quantize("int8") makes a model that takes uint8 images answer with infinities.
#
# Expected: a quantized model answers about as the model that it was made of, for the same images.
# Seen: where a Dense layer is the first to take them, its outputs were finite before and are infinite afterwards, in
# `predict` as in a call, with uint8 arrays and with the same numbers as float32. The scale of its inputs seems to be
# computed in their own dtype, where it is 0. Cast to float32 in front of the layer, the same weights answer as they did.
# Whom it touches: image classifiers that take pixels as they are stored, and are quantized to be served.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q tensorflow==2.21.0 keras==3.15.1 2>/dev/null
TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import keras
import numpy as np

print("keras", keras.__version__)
images = np.random.default_rng(0).integers(0, 256, (16, 6, 6, 3)).astype("uint8")


def answers(cast: bool) -> list[np.ndarray]:
    keras.utils.set_random_seed(0)
    pixels = keras.Input((6, 6, 3), dtype="uint8")
    hidden = keras.layers.Flatten()(pixels)
    hidden = keras.ops.cast(hidden, "float32") if cast else hidden
    model = keras.Model(pixels, keras.layers.Dense(4)(hidden))
    before = model.predict(images, verbose=0)
    model.quantize("int8")
    given = images, images.astype("float32")
    return [before, *(model.predict(part, verbose=0) for part in given), np.asarray(model(images))]


for cast in (False, True):
    before, *after = answers(cast)
    print("cast to float32 first:" if cast else "as they are:", "before", np.round(before[0], 1))
    for way, found in zip(("predict", "predict of float32", "called"), after):
        print(f"  int8, {way}:", np.round(found[0], 1))
    assert np.isfinite(before).all()
    if cast:
        assert all(np.abs(found - before).max() < 0.05 * np.abs(before).max() for found in after)
    else:
        assert not any(np.isfinite(found).any() for found in after)
PYTHON
echo "As stated."

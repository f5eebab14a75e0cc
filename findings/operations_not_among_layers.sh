#!/usr/bin/env bash
# keras.Model.layers of a functional model leaves out what operators and keras.ops compute, though summary() lists it.
#
# Expected: `model.layers` holds every step from the input to the output, as `model.summary()` shows a row for each.
# Seen: `255 * x`, `x[..., ::-1]` and `keras.ops.clip` are operations in `model.operations` and rows of the summary, but
# none of `model.layers`; called one after another, the layers give other logits than the model, without a word.
# Whom it touches: tools that read a model's preprocessing off its first layers, or cut a model in two by them. Here the
# first layer is a Rescaling by 1/255, so that the model looks as if it took pixels up to 255; it takes them up to 1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q tensorflow==2.21.0 keras==3.15.1 2>/dev/null
TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import keras
import numpy as np

print("keras", keras.__version__)
keras.utils.set_random_seed(0)
image = keras.Input((8, 8, 3))
pixels = keras.ops.clip(255 * image[..., ::-1], 0, 255)
hidden = keras.layers.Rescaling(1 / 255)(pixels)
model = keras.Model(image, keras.layers.Dense(4)(keras.layers.Flatten()(hidden)))

lines = []
model.summary(print_fn=lambda line, **_: lines.append(line))
rows = [name for name in ("GetItem", "Multiply", "Clip", "Rescaling", "Flatten", "Dense") if name in "\n".join(lines)]
names = [type(layer).__name__ for layer in model.layers]
print("rows of summary():", rows)
print("model.layers:     ", names)
print("model.operations: ", [type(part).__name__ for part in model.operations])

x = np.random.default_rng(0).random((2, 8, 8, 3)).astype("float32")
through = x
for layer in model.layers[1:]:
    through = layer(through)
apart = float(np.abs(np.asarray(through) - model.predict(x, verbose=0)).max())
print(f"logits layer by layer, and the model's: apart by {apart:.2f}")
assert rows == ["GetItem", "Multiply", "Clip", "Rescaling", "Flatten", "Dense"]
assert names == ["InputLayer", "Rescaling", "Flatten", "Dense"] and apart > 0.1
PYTHON
echo "As stated."

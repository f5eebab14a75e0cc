#!/usr/bin/env bash
# Noise of a Keras model that stays on, after export(): every process that loads the SavedModel draws the same noise.
#
# Expected: a Dropout without a seed draws fresh noise in each process, as it does when the same model is saved to a
# .keras file and loaded. Seen: `model.export` writes the state of the layer's seed generator, so that each process that
# loads the SavedModel begins with the same masks, in the same order; the .keras file has no state, and its noise is new.
# Whom it touches: who judges a randomized network by loading its SavedModel in several processes, and takes their
# results for independent ones: their spread is 0, however noisy the network is.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q tensorflow==2.21.0 keras==3.15.1 2>/dev/null
export TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES=
cd "$folder"
"$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import keras
import numpy as np

image = keras.Input((64,))
model = keras.Model(image, keras.layers.Dropout(0.5)(image, training=True))
model.save("noisy.keras")
model.export("exported", verbose=False)
PYTHON
cat > draw.py <<'PYTHON'
import sys

import keras
import numpy as np
import tensorflow as tf

x = np.ones((1, 64), "float32")
# Held, as its variables live no longer than it.
model = tf.saved_model.load(sys.argv[1]) if sys.argv[1] == "exported" else keras.models.load_model(sys.argv[1])
call = model.serve if sys.argv[1] == "exported" else model
print(*("".join(".#"[int(value > 0)] for value in np.asarray(call(x))[0]) for _ in range(2)))
PYTHON
for kind in exported noisy.keras; do
    for process in 1 2; do
        "$folder/venv/bin/python" draw.py "$kind" 2>/dev/null | tail -1 | tee "$kind.$process.txt" | sed "s/^/$kind, process $process: /"
    done
done
"$folder/venv/bin/pip" list 2>/dev/null | grep -E "^(tensorflow|keras) "
cmp -s exported.1.txt exported.2.txt
! cmp -s noisy.keras.1.txt noisy.keras.2.txt
read -r first second < exported.1.txt
test "$first" != "$second"
echo "As stated."

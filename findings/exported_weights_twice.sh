#!/usr/bin/env bash
# keras.Model.export: the SavedModel holds every weight twice.
#
# Expected: a SavedModel as large as the weights, as `model.save` and TensorFlow's own `tf.saved_model.save` make it. Seen:
# twice as large. ExportArchive.track, which `export` calls, lists the Keras variables, and write_out lists the
# tf.Variables inside them too, which the checkpoint takes for others. An ExportArchive that nothing was tracked in writes
# them once, and the file gives the same outputs.
# Whom it touches: who ships models; disks and downloads of twice the size.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q tensorflow==2.21.0 keras==3.15.1 2>/dev/null
cd "$folder"
TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES= venv/bin/python - 2>/dev/null <<'PYTHON'
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

print("tensorflow", tf.__version__, "keras", keras.__version__)
model = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(100)])
weights = 4 * model.count_params()

model.export("exported", verbose=False)
archive = keras.export.ExportArchive()
archive.add_endpoint("serve", model.call, [keras.InputSpec(shape=(None, 32, 32, 3), dtype="float32")])
archive.write_out("untracked", verbose=False)
tf.saved_model.save(model, "plain")
model.save("model.keras")

shares = {"model.keras": Path("model.keras").stat().st_size / weights}
for name in ("plain", "exported", "untracked"):
    [data] = Path(name, "variables").glob("variables.data-*")
    shares[name] = data.stat().st_size / weights
print("bytes over bytes of the weights:", {name: round(share, 2) for name, share in shares.items()})

images = np.random.default_rng(0).random((4, 32, 32, 3), np.float32)
exported, untracked = (tf.saved_model.load(name) for name in ("exported", "untracked"))
np.testing.assert_array_equal(exported.serve(images), untracked.serve(images))
keys = [key for key, shape in tf.train.list_variables("exported/variables/variables") if shape == [3072, 100]]
print("the kernel is stored as", keys)
assert shares["exported"] > 1.9 and shares["untracked"] < 1.1 and len(keys) == 2, shares
PYTHON
echo "As stated."

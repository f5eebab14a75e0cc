#!/usr/bin/env bash
# keras.Model.predict of a subclass whose call takes no `training`: layers that augment images stay on.
#
# Expected: predict is inference, so RandomFlip or RandomContrast inside is off, as Dropout and GaussianNoise beside it
# are, and as the same layers in a functional model are. Seen: predict passes `training=False` only to a call that takes
# it; without, dropout falls back to off and layers that augment fall back to on. Two predictions of one image differ.
# Whom it touches: accuracies of such models change from run to run, and what calls them with training=False, as most
# attack libraries do, measures another network than predict.
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
images = np.random.default_rng(0).random((16, 8, 8, 3)).astype("float32")


class Plain(keras.Model):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def call(self, x):
        return self.layer(x)


class Passing(Plain):
    def call(self, x, training=False):
        return self.layer(x, training=training)


def spread(model):
    first, second = (model.predict(images, verbose=0) for _ in range(2))
    return float(abs(first - second).max())


kinds = {
    "RandomContrast": lambda: layers.RandomContrast(0.5, value_range=(0, 1)),
    "RandomTranslation": lambda: layers.RandomTranslation(0.4, 0.4),
    "Dropout": lambda: layers.Dropout(0.5),
    "GaussianNoise": lambda: layers.GaussianNoise(0.5),
}
for name, make in kinds.items():
    seen = keras.Input((8, 8, 3))
    found = {
        "call(x)": spread(Plain(make())),
        "call(x, training)": spread(Passing(make())),
        "functional": spread(keras.Model(seen, make()(seen))),
    }
    print(f"{name:18}", "two predictions differ by", {kind: round(gap, 3) for kind, gap in found.items()})
    assert (found["call(x)"] > 0.01) == name.startswith("Random"), found
    assert found["call(x, training)"] == found["functional"] == 0, found
PYTHON
echo "As stated."

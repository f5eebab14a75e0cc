#!/usr/bin/env bash
# keras.Model.predict of a subclass whose call takes no `training`: CenterCrop puts the BatchNormalization behind it into
# training.
#
# Expected: predict is inference, so BatchNormalization uses its moving statistics, whatever stands in front of it;
# CenterCrop draws nothing at random. Seen: behind CenterCrop it normalises by the batch, so an image's answer changes with
# the images beside it. Without CenterCrop it is as expected, and a Dropout in its place stays off.
# Whom it touches: subclassed models with cropping inside; what predict says of one image alone.
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


class Chain(keras.Model):
    def __init__(self, *chain):
        super().__init__()
        self.chain = keras.Sequential([keras.Input((8, 8, 3)), *chain])

    def call(self, x):
        return self.chain(x)


def gaps(*chain):
    model = Chain(*chain)
    model.predict(images, verbose=0)
    for layer in model.chain.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.moving_mean.assign([0.5, 0.5, 0.5])
            layer.moving_variance.assign([0.1, 0.1, 0.1])
    first, again, alone = (model.predict(x, verbose=0) for x in (images, images, images[:1]))
    return float(abs(first - again).max()), float(abs(first[:1] - alone).max())


seen = {
    "BatchNormalization": gaps(layers.BatchNormalization()),
    "CenterCrop, BatchNormalization": gaps(layers.CenterCrop(6, 6), layers.BatchNormalization()),
    "Dropout": gaps(layers.Dropout(0.5)),
    "CenterCrop, Dropout": gaps(layers.CenterCrop(6, 6), layers.Dropout(0.5)),
}
for name, (twice, alone) in seen.items():
    print(f"{name:31} two predictions differ by {twice:.3f}, one image alone and among 16 by {alone:.3f}")
assert seen["BatchNormalization"][1] < 1e-4 < 0.1 < seen["CenterCrop, BatchNormalization"][1], seen
assert seen["Dropout"][0] == seen["CenterCrop, Dropout"][0] == 0, seen
PYTHON
echo "As stated."

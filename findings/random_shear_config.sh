#!/usr/bin/env bash
# keras.layers.RandomShear with one number: its own configuration can't be read back.
#
# Expected: from_config(get_config()) gives the layer again, and a model with it can be saved and loaded: the factors are
# documented as a float or a pair of floats. Seen: one number is kept as a pair that begins below 0, which the
# constructor refuses. A pair that was given as one is read back. Its relatives RandomRotation and RandomZoom read back
# what they write.
# Whom it touches: who augments with RandomShear(0.2) and saves the model, and everything that rebuilds layers from their
# configuration.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q tensorflow==2.21.0 keras==3.15.1
TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import keras

print("keras", keras.__version__)


def again(layer):
    config = layer.get_config()
    try:
        type(layer).from_config(config)
        seen = "read back"
    except (TypeError, ValueError) as error:
        seen = type(error).__name__
    print(f"  {layer.name}: factors {config.get('x_factor', config.get('factor', config.get('height_factor')))}: {seen}")
    return seen


print("expected: all are read back. Seen:")
one = again(keras.layers.RandomShear(0.2, name="one_number"))
pair = again(keras.layers.RandomShear((0.1, 0.2), name="a_pair"))
relatives = [again(keras.layers.RandomRotation(0.2)), again(keras.layers.RandomZoom(0.2))]
assert [pair, *relatives] == ["read back"] * 3, "the others changed"
assert one != "read back", "this finding no longer holds"
PYTHON

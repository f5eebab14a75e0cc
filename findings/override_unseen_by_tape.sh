#!/usr/bin/env bash
# tf.Graph.gradient_override_map inside a tf.function: tf.gradients follows it, tf.GradientTape doesn't.
#
# Expected: the gradient that the map names is the operation's, whoever differentiates the graph; its page speaks of "the
# operation's gradient" and of no exception. Seen: of one rounding in one graph tf.gradients gives the registered gradient
# (1, the identity's), and the tape gives None without a word, as it looks gradients up by the operation's type alone.
# Whom it touches: straight-through gradients (BPDA) by the map, as defences are attacked; under a tape, as Keras trains
# and attack libraries work, the attack stays blind.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q tensorflow==2.21.0 2>/dev/null
TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import tensorflow as tf
from tensorflow.python.framework import ops

print("tensorflow", tf.__version__)


@ops.RegisterGradient("Passed")
def passed(operation, upstream):
    return upstream


@tf.function
def both(x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        with tf.compat.v1.get_default_graph().gradient_override_map({"Round": "Passed"}):
            y = tf.round(x)
    return tape.gradient(y, x), tf.gradients(y, x)[0]


by_tape, by_graph = both(tf.constant([0.3, 1.7]))
print("GradientTape:", by_tape)
print("tf.gradients:", by_graph.numpy())
assert by_tape is None and (by_graph.numpy() == 1).all()
PYTHON
echo "As stated."

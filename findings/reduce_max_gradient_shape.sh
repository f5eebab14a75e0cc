#!/usr/bin/env bash
# The gradient of tf.reduce_max of grey images: its channels become unknown, and a loop around it is refused.
#
# Expected: the gradient by images of static shape (None, 8, 8, 1) has that shape, as it does for (None, 8, 8, 3), for
# every other reduction, and for tf.gradients. Seen: tf.GradientTape inside a tf.function gives (None, 8, 8, None) where
# a size is 1 and the batch is unknown, for tf.reduce_max and tf.reduce_min. A tf.while_loop that adds the gradient to
# the images, as an iterated attack does, then ends in a ValueError about its shapes.
# Whom it touches: attacks in graphs for batches of any size on a network of grey images that ends in, or begins with, a
# global maximum.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q tensorflow==2.21.0 keras==3.15.1
TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import tensorflow as tf

print("tensorflow", tf.__version__)


def shapes(reduce, channels, batch=None):
    signature = [tf.TensorSpec((batch, 8, 8, channels))]

    def taped(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            top = reduce(x, axis=(1, 2))
        return tape.gradient(top, x)

    def symbolic(x):
        return tf.gradients(reduce(x, axis=(1, 2)), x)[0]

    found = [
        tuple(tf.function(body, autograph=False, input_signature=signature).get_concrete_function().output_shapes)
        for body in (taped, symbolic)
    ]
    print(f"  {reduce.__name__:10} of {(batch, 8, 8, channels)!s:17} GradientTape {found[0]!s:20} tf.gradients {found[1]}")
    return found


print("static shapes of gradients:")
lost = [shapes(reduce, 1)[0] for reduce in (tf.reduce_max, tf.reduce_min)]
kept = [shapes(tf.reduce_max, 1)[1], shapes(tf.reduce_sum, 1)[0], shapes(tf.reduce_prod, 1)[0]]
colour, one_size = shapes(tf.reduce_max, 3)[0], shapes(tf.reduce_max, 1, batch=4)[0]


@tf.function(autograph=False, input_signature=[tf.TensorSpec((None, 8, 8, 1))])
def ascend(x):
    def once(step, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            top = tf.reduce_max(x, axis=(1, 2))
        return step + 1, x + tape.gradient(top, x)

    return tf.while_loop(lambda step, x: step < 3, once, (0, x))[1]


try:
    ascend(tf.zeros((2, 8, 8, 1)))
    refused = False
except ValueError as error:
    refused = "shape_invariants" in str(error)
print("a loop that adds the gradient to the images is refused:", refused)

assert lost == [(None, 8, 8, None)] * 2, lost
assert kept == [(None, 8, 8, 1)] * 3, kept
assert colour == (None, 8, 8, 3) and one_size == (4, 8, 8, 1), (colour, one_size)
assert refused
PYTHON
echo "As stated."

#!/usr/bin/env bash
# tf.py_function under a persistent tape: the first gradient is there, the second one raises.
#
# Expected: tf.GradientTape(persistent=True) gives as many gradients of one pass as are asked for, as its documentation
# says, and tf.py_function is documented as differentiable. Seen: the pass is forgotten with its first gradient, and the
# second ends in an UnknownError around a KeyError, eagerly as well as in a tf.function.
# Whom it touches: every attack that takes several gradients of one pass (DeepFool, FAB, a Jacobian) on a model with
# tf.py_function in it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q tensorflow==2.21.0 keras==3.15.1
TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import tensorflow as tf

print("tensorflow", tf.__version__)
x = tf.constant([1.0, 2.0, 3.0])


def square(values):
    return values**2


def gradients(passed):
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        y = passed(x)
    found = []
    for number in ("first", "second"):
        try:
            found.append(tape.gradient(y, x).numpy().tolist())
        except tf.errors.UnknownError as error:
            found.append("UnknownError with KeyError" if "KeyError" in str(error) else "UnknownError")
        print(f"  {number} gradient: {found[-1]}")
    return found


print("plain operations, expected and seen:")
plain = gradients(square)
print("tf.py_function, expected the same:")
wrapped = gradients(lambda values: tf.py_function(square, [values], tf.float32))
assert plain == [[2.0, 4.0, 6.0]] * 2, "plain operations changed"
assert wrapped == [[2.0, 4.0, 6.0], "UnknownError with KeyError"], "this finding no longer holds"
PYTHON

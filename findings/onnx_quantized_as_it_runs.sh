#!/usr/bin/env bash
# onnxruntime 1.32.0, quantize_dynamic on a classifier: the class of an image depends on what is beside it in the batch.
#
# Expected: a classifier answers each image by itself; onnxruntime quantizes weights beforehand and activations as it
# runs, which would hold for each image. Seen: DynamicQuantizeLinear takes the least and the greatest of the whole tensor,
# the batch's axis among them, so that one bright image makes the steps of all others coarser: the same image alone, and
# beside brighter ones, gets other logits and at times another class. TensorFlow Lite's dynamic range (2.21, tried as
# well) takes a scale for each image.
# Whom it touches: an attack's verdict on such a file depends on the batch size and on the order of the images;
# kerasrobust says so (`batch-dependence`).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q onnxruntime==1.32.0 onnx==1.23.2 numpy==2.3.5 2>/dev/null
cd "$folder"
"$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
from importlib.metadata import version

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import quantize_dynamic

print(*(f"{name} {version(name)}" for name in ("onnxruntime", "onnx", "numpy")))
draw = np.random.default_rng(0)
weights = {"w1": draw.normal(size=(784, 64)) / 28, "w2": draw.normal(size=(64, 10)) / 8}
graph = helper.make_graph(
    [
        helper.make_node("MatMul", ["x", "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["y"]),
    ],
    "two_layers",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 784))],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", 10))],
    [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
)
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), "float.onnx")
quantize_dynamic("float.onnx", "int8.onnx")

images = draw.random((500, 784), dtype=np.float32)
images[::2] *= 0.1  # Every second one is dark.
for name in ("float", "int8"):
    run = onnxruntime.InferenceSession(f"{name}.onnx").run
    alone = np.concatenate([run(None, {"x": images[i : i + 1]})[0] for i in range(500)])
    together = run(None, {"x": images})[0]
    apart = np.abs(alone - together).max() / np.abs(alone).max()
    moved = (alone.argmax(axis=1) != together.argmax(axis=1)).mean()
    print(f"{name}: logits alone and in the batch of 500 differ by up to {apart:.1e} of the largest, {moved:.1%} of classes")
    assert (apart > 1e-3 and moved > 0.01) if name == "int8" else moved == 0, (name, apart, moved)
PYTHON
echo "As stated."

#!/usr/bin/env bash
# adversarial-robustness-toolbox 1.20.1, randomized smoothing: it imports two packages that aren't asked for.
#
# Expected: after `pip install adversarial-robustness-toolbox` a smoothed classifier predicts and certifies. Seen: its
# module can't be imported without packaging, which other frameworks happen to bring. Then predict works, and certify
# draws all samples of the first image, asks the network about each, and only then ends in ModuleNotFoundError for
# statsmodels. Packaging isn't among the package's requirements in any form, statsmodels in the extras `all` and
# `non-framework` alone, not in the one of any framework. With both beside it certify works.
# Whom it touches: who certifies with it in a new environment, or compares with it; our benchmark installs both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip=("$folder/venv/bin/pip" install -q)
"${pip[@]}" adversarial-robustness-toolbox==1.20.1 numpy==2.4.6 scipy==1.17.1 'setuptools<81' 2>/dev/null
cat > "$folder/try.py" <<'PYTHON'
from importlib.metadata import requires, version

import numpy as np
from art.estimators.certification.randomized_smoothing import NumpyRandomizedSmoothing
from art.estimators.classification import BlackBoxClassifierNeuralNetwork

print(*(f"{name} {version(name)}" for name in ("adversarial-robustness-toolbox", "numpy", "scipy")))
asked_for = requires("adversarial-robustness-toolbox")
print({name: [line for line in asked_for if name in line] for name in ("packaging", "statsmodels")})
asked = []


def predict(x):
    asked.append(len(x))
    return np.stack([1 - x.mean(axis=1), x.mean(axis=1)], axis=1)


classifier = BlackBoxClassifierNeuralNetwork(predict, (4,), 2, channels_first=False, clip_values=(0, 1))
smoothed = NumpyRandomizedSmoothing(classifier, sample_size=100, scale=0.1, alpha=0.001)
x = np.full((1, 4), 0.9, np.float32)
print("predict:", smoothed.predict(x).argmax(axis=1))
asked.clear()
try:
    classes, radii = smoothed.certify(x, n=1000)
except ModuleNotFoundError as error:
    print(f"certify: {error}, after {sum(asked):,} samples")
else:
    print(f"certify: class {classes[0]} within {radii[0]:.3f}, after {sum(asked):,} samples")
PYTHON
{ "$folder/venv/bin/python" "$folder/try.py" 2>&1 || true; } | tail -n 1 | tee "$folder/imported"
grep -q "No module named 'packaging'" "$folder/imported"
"${pip[@]}" packaging 2>/dev/null
"$folder/venv/bin/python" "$folder/try.py" 2>/dev/null | tee "$folder/without"
grep -q "certify: No module named 'statsmodels', after 1,100 samples" "$folder/without"
grep -q "'packaging': \[\]" "$folder/without"
"${pip[@]}" statsmodels==0.15.0 2>/dev/null
"$folder/venv/bin/python" "$folder/try.py" 2>/dev/null | tee "$folder/with"
grep -q "certify: class 1 within" "$folder/with"
echo "As stated."

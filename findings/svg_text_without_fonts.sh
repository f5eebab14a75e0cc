#!/usr/bin/env bash
# resvg-py 0.5.0, an SVG file with text where none of its fonts is found: a picture without the words, and no word said.
#
# Expected: text in another font, as browsers draw it, or at least a warning, as the words of a chart are what it says.
# Seen: shapes are drawn and every letter is left out; the result is a valid PNG file, nothing is raised, nothing printed
# and nothing warned of. So it is in slim containers, which have no fonts at all.
# Whom it touches: charts made on servers have no titles, ticks or legends; kerasrobust refuses to write such files.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q resvg-py==0.5.0 pillow==13.0.0 numpy==2.4.6 2>/dev/null
"$folder/venv/bin/python" -W error - 2>"$folder/errors" <<'PYTHON'
import io
from importlib.metadata import version

import numpy as np
import resvg_py
from PIL import Image

print("resvg-py", version("resvg-py"))
chart = """<svg xmlns="http://www.w3.org/2000/svg" width="120" height="40">{}<rect y="30" width="60" height="6"/></svg>"""
words = '<text x="4" y="20" font-family="Helvetica, sans-serif" font-size="16">accuracy</text>'


def drawn(svg):
    # What a machine without fonts has.
    file = resvg_py.svg_to_bytes(svg_string=svg, background="white", skip_system_fonts=True)
    return np.asarray(Image.open(io.BytesIO(bytes(file))).convert("L"))


with_words, without = drawn(chart.format(words)), drawn(chart.format(""))
print("dark pixels:", (with_words < 128).sum(), "with the words,", (without < 128).sum(), "without them")
assert (without < 128).sum() == 360 and np.array_equal(with_words, without)
PYTHON
echo "bytes on standard error: $(wc -c < "$folder/errors")"
test ! -s "$folder/errors"
echo "As stated."

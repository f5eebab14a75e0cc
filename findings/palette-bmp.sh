#!/usr/bin/env bash
# tf.io.decode_bmp and tf.io.decode_image of a BMP file with a palette: places in the palette, as if they were greys.
#
# Expected: the colours that the palette gives to the pixels, as decode_png gives them for a PNG file with a palette and
# as Pillow reads the same BMP file, or an error. Seen: of 8 bits a pixel, one grey a pixel, which is its place in the
# palette; with channels=3 the same grey three times; no error, and greys that have nothing to do with the colours, up to
# 255 from them. Of a greyscale file, whose palette is all greys in their order, the same bytes are right. Of 1 bit a
# pixel, an error about channels.
# Whom it touches: who trains or judges on such files by `image_dataset_from_directory`, which decodes in this way: the
# order of a palette is the writer's choice, so that the same picture saved twice may be two greys.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q tensorflow==2.21.0 keras==3.15.1 pillow==13.0.0 2>/dev/null
TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import io

import keras
import numpy as np
import PIL
import tensorflow as tf
from PIL import Image

print("tensorflow", tf.__version__, "keras", keras.__version__, "pillow", PIL.__version__)


def file_of(picture, kind="BMP"):
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def gap(pixels, picture):
    return int(abs(np.asarray(pixels, int) - np.asarray(picture.convert("RGB"), int)).max())


colours = [(255, 255, 255), (255, 0, 0), (0, 0, 255), (0, 0, 0)]
places = np.arange(24, dtype="uint8").reshape(4, 6) % 4
flags = Image.fromarray(places, "P")
flags.putpalette([value for colour in colours for value in colour])
greys = Image.fromarray(places * 80, "L")
content = file_of(flags)
assert gap(Image.open(io.BytesIO(content)).convert("RGB"), flags) == 0

one = tf.io.decode_bmp(content).numpy()
three = tf.io.decode_image(content, channels=3).numpy()
print("first row: Pillow", np.asarray(flags.convert("RGB"))[0].tolist())
print("first row: decode_bmp", one[0].tolist(), "decode_image, channels=3", three[0].tolist())
assert one.shape == (4, 6, 1) and (one[..., 0] == places).all()
assert three.shape == (4, 6, 3) and (three == places[..., None]).all()

gaps = {
    "BMP, palette": gap(three, flags),
    "PNG, palette": gap(tf.io.decode_image(file_of(flags, "PNG"), channels=3), flags),
    "BMP, greyscale": gap(tf.io.decode_image(file_of(greys), channels=3), greys),
    "BMP, 24 bits": gap(tf.io.decode_image(file_of(flags.convert("RGB")), channels=3), flags),
}
print("largest gap to Pillow:", gaps)
assert gaps == {"BMP, palette": 255, "PNG, palette": 0, "BMP, greyscale": 0, "BMP, 24 bits": 0}

try:
    tf.io.decode_image(file_of(flags.convert("1")), channels=3)
except tf.errors.InvalidArgumentError as error:
    print("1 bit a pixel:", type(error).__name__, str(error).split("}} ")[-1])
else:
    raise AssertionError("1 bit a pixel is decoded")
PYTHON
echo "As stated."

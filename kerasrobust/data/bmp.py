"""What the header of a BMP file says of its palette, which TensorFlow doesn't look at. No TensorFlow here."""

from __future__ import annotations

import struct


def palette_bits(content: bytes) -> int:
    """Returns the bits a pixel of a BMP file whose pixels are places in a palette; 0 for others.

    A palette of 8 bits that has the greys in their order counts for none: each place is the grey itself.

    Reference: BITMAPFILEHEADER and BITMAPINFOHEADER of the Windows API.
    """
    if not content.startswith(b"BM") or len(content) < 54:
        return 0
    pixels, size = struct.unpack_from("<II", content, 10)
    if size < 40:  # BITMAPCOREHEADER, as of OS/2.
        (bits,) = struct.unpack_from("<H", content, 24)
        return bits if bits <= 8 else 0
    bits, packed = struct.unpack_from("<HI", content, 28)
    if bits > 8:
        return 0
    (used,) = struct.unpack_from("<I", content, 46)
    first = 14 + size
    count = min(used or 2**bits, (pixels - first) // 4, 256)
    grey = all(content[first + 4 * place : first + 4 * place + 3] == bytes(3 * [place]) for place in range(count))
    return 0 if bits == 8 and not packed and grey else bits

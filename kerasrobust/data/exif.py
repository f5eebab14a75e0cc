"""What a camera says in a photograph about which way is up. No TensorFlow here."""

from __future__ import annotations


def orientation(content: bytes) -> int:
    """Returns the EXIF orientation of a JPEG file's content, from 1 (upright) to 8; 1 for others and without one.

    Reference: Exif 2.32, section 4.6: tag 0x0112 of the first directory.
    """
    head = content[: 2**16]
    start = head.find(b"Exif\0\0") + 6
    mark = head[start : start + 4]
    if not head.startswith(b"\xff\xd8") or start < 6 or mark not in (b"II*\0", b"MM\0*"):
        return 1

    def number(place: int, size: int) -> int:
        return int.from_bytes(head[start + place : start + place + size], "little" if mark == b"II*\0" else "big")

    first = number(4, 4)
    for entry in range(first + 2, first + 2 + 12 * number(first, 2), 12):
        if number(entry, 2) == 0x0112:
            found = number(entry + 8, 2)
            return found if 1 <= found <= 8 else 1
    return 1

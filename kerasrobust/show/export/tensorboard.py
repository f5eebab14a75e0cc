"""Event files of TensorBoard: the metrics of trainings and the course of attacks, at the times when they happened.

By hand, as both formats are small and frozen: importing TensorFlow takes seconds, and its `tf.summary` would stamp each
figure with the time of the export. The extra `tensorboard` shows the files; a test reads them with its own reader.

Reference: TensorFlow's `tensorflow/core/util/event.proto`, `framework/summary.proto` (the fields), and
`lib/io/record_writer.h` (the frames: length, its checksum, data, its checksum).
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kerasrobust.events import AttackFinished, AttackProgress, AttackStarted, Event, Metrics
from kerasrobust.show.export.metrics import events_of
from kerasrobust.show.export.subject import Part, Subject, free, slug
from kerasrobust.show.figures import format_epsilon

_DOUBLE, _LENGTH, _FLOAT = 1, 2, 5  # Wire types of protocol buffers.


@dataclass(frozen=True, kw_only=True)
class Point:
    """A figure at a step: of optimisation in a training; of an attack how many forward and backward passes it took.

    Attributes:
        curves: the folder that it is written to, which TensorBoard shows as a run.
        tag: its name.
        time: Unix seconds.
    """

    curves: str
    tag: str
    step: int
    time: float
    value: float


def log_parts(subject: Subject) -> list[Part]:
    """Returns an event file for each training's two splits and for each attack, in a folder of its own."""
    found: dict[str, dict[tuple[str, int], Point]] = {}
    for point in points(events_of(subject)):
        found.setdefault(point.curves, {})[point.tag, point.step] = point  # The last one where a resume repeated it.
    return [_part(curves, sorted(own.values(), key=lambda point: point.step)) for curves, own in found.items()]


def _part(curves: str, own: list[Point]) -> Part:
    began = min(point.time for point in own)
    tags = ", ".join(dict.fromkeys(point.tag for point in own))
    return Part(
        name=f"{curves}/events.out.tfevents.{began:.0f}.kerasrobust",
        what=f"{tags}: {len(own):,} points",
        write=lambda path: _write(path, own),
    )


def points(happened: Iterable[Event]) -> Iterator[Point]:
    """Yields what a run's events say of its curves.

    A training's metrics are in `STAGE/train` and `STAGE/validation`, by Keras' names. An attack has a folder by its
    name, norm and radius: `survivors` is the share of all images that it hasn't yet fooled, `robust_accuracy` with the
    bounds of its interval what it came to.
    """
    folders: dict[str, str] = {}  # By what tells attacks apart; the names of two of them may be the same.
    running: dict[tuple[str | None, str], str] = {}
    for event in happened:
        stage = slug(event.stage or "run")
        match event:
            case AttackStarted():
                known = repr((event.stage, event.attack, event.norm, event.epsilon, event.settings))
                if known not in folders:
                    folders[known] = free(f"{stage}/{_title(event)}", folders.values())
                running[event.stage, event.attack] = folders[known]
            case Metrics():
                for name, value in event.values.items():
                    yield from _point(event, f"{stage}/{event.split}", event.step, name.removeprefix("val_"), value)
            case AttackProgress() | AttackFinished():
                curves = running.get((event.stage, event.attack), f"{stage}/{slug(event.attack)}")
                for name, figure in _figures(event):
                    yield from _point(event, curves, event.gradients + event.forwards, name, figure)


def _figures(event: AttackProgress | AttackFinished) -> Iterator[tuple[str, float | None]]:
    if isinstance(event, AttackProgress):
        yield "survivors", event.survivors / event.total if event.total else None
    else:
        yield "robust_accuracy", event.robust_accuracy
        yield from zip(("robust_accuracy_low", "robust_accuracy_high"), event.interval, strict=False)


def _point(event: Event, curves: str, step: int, tag: str, value: float | None) -> Iterator[Point]:
    """Yields a figure, where there is one: JSON has null for what isn't finite."""
    if value is not None:
        yield Point(curves=curves, tag=tag, step=step, time=event.time, value=value)


def _title(event: AttackStarted) -> str:
    eot = event.settings.get("eot", 1)
    words = (event.attack, event.norm, format_epsilon(event.epsilon), f"eot {eot}" if eot != 1 else "")
    return slug(" ".join(words))


def _write(path: Path, own: Iterable[Point]) -> None:
    with path.open("wb") as file:
        own = list(own)
        file.write(_framed(_double(1, own[0].time) + _bytes(3, b"brain.Event:2")))
        for point in own:
            value = _bytes(1, point.tag.encode()) + _float(2, point.value)
            file.write(_framed(_double(1, point.time) + _whole(2, point.step) + _bytes(5, _bytes(1, value))))


def _double(number: int, value: float) -> bytes:
    return _varint(number << 3 | _DOUBLE) + struct.pack("<d", value)


def _float(number: int, value: float) -> bytes:
    return _varint(number << 3 | _FLOAT) + struct.pack("<f", value)


def _whole(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _bytes(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | _LENGTH) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    """Returns a number of at least 0 in groups of seven bits, the lowest first."""
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    return bytes([*made, value])


def _framed(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + _masked(length) + data + _masked(data)


def _masked(data: bytes) -> bytes:
    """Returns a checksum as the frames have it: turned and shifted, as the data may hold checksums themselves."""
    checksum = crc32c(data)
    return struct.pack("<I", ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def crc32c(data: bytes) -> int:
    """Returns the cyclic redundancy check of Castagnoli, which `zlib.crc32` isn't.

    Example:
        >>> hex(crc32c(b"123456789"))
        '0xe3069283'

    Reference: RFC 3720, appendix B.4.
    """
    table, found = _table(), 0xFFFFFFFF
    for byte in data:
        found = table[(found ^ byte) & 255] ^ found >> 8
    return found ^ 0xFFFFFFFF


@functools.cache
def _table() -> tuple[int, ...]:
    def entry(byte: int) -> int:
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        return byte

    return tuple(map(entry, range(256)))

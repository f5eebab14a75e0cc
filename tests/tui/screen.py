"""What tests read off the screen."""

from __future__ import annotations

import time
from collections.abc import Callable

from textual.pilot import Pilot


def text(pilot: Pilot[None]) -> str:
    """Returns what stands on the screen."""
    strips = pilot.app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in strips)


async def until(pilot: Pilot[None], true: Callable[[], object], seconds: float = 10.0) -> None:
    """Waits until something is true, and fails with the screen where it doesn't come true."""
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, text(pilot)
        await pilot.pause(0.05)


async def shows(pilot: Pilot[None], *words: str, seconds: float = 10.0) -> None:
    """Waits until all the words stand on the screen."""
    await until(pilot, lambda: all(word in text(pilot) for word in words), seconds)


def told(pilot: Pilot[None]) -> str:
    """Returns the messages that are shown for a moment, which wrap on the screen."""
    return "\n".join(note.message for note in pilot.app._notifications)


async def tells(pilot: Pilot[None], words: str) -> None:
    """Waits until a message with some words is shown."""
    await until(pilot, lambda: words in told(pilot))

"""An app that collects garbage while nobody presses a key."""

from __future__ import annotations

import gc
import time

from textual.app import App
from textual.events import Event, InputEvent


class TidyApp(App[None]):
    """An app whose full collections, which take 100 ms, wait for a pause of the person's and take only what is new."""

    _touched = 0.0

    def on_mount(self) -> None:
        gc.set_threshold(5_000, 10, 1_000)
        self.call_after_refresh(gc.freeze)
        self.set_interval(2.0, self._tidy)

    async def on_event(self, event: Event) -> None:
        """Notes when a person last did something."""
        if isinstance(event, InputEvent):
            self._touched = time.monotonic()
        await super().on_event(event)

    def _tidy(self) -> None:
        if time.monotonic() - self._touched > 1.0 and gc.get_count()[2] > 1:
            gc.collect()

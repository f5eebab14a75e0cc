"""Several measurements within one budget of time: each on as many images as its share of the budget allows.

A part runs on block after block of images, 64 at first, or fewer of a slow model, and then always as many as so far,
as long as the next block is expected to fit. Few sizes are possible that way, so that a run that was killed and
resumed, or repeated on the same machine, ends with the same images.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from kerasrobust.attacks.checkpoint import SAVE_SECONDS, Checkpoints
from kerasrobust.errors import Cancelled
from kerasrobust.events import Emit, Event, Finding, Progress, finite, staged
from kerasrobust.pace import PERIOD

BLOCK, LEAST = 64, 8
"""Images of a part's first block, at most and at least."""
LATE = 1.05
"""Share of the budget at which a block that takes longer than expected is given up."""
OVER = 3.0
"""Times what its part may still take at which it is given up, too: tracing isn't in what is expected of the first."""
HALF = 0.5
"""Share of what is left of the budget that the first block of a part may take, whatever the part's own share is."""
MARKS = "seconds", "findings"
"""What is kept of a block beside its arrays."""
Arrays = dict[str, np.ndarray]


class Block(NamedTuple):
    """Images to measure.

    Attributes:
        rows: which of all.
        checkpoints: where the block may keep what it has done.
        emit: takes events; of those only findings and progress reach the person.
        should_stop: asked about every half second.
    """

    rows: slice
    checkpoints: Checkpoints
    emit: Emit
    should_stop: Callable[[], bool]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One measurement.

    Attributes:
        name: of its stage and its files.
        title: what people read.
        share: of the budget, beside those of the other parts; what it leaves goes to the parts after it.
        passes: forward passes that it takes about for an image, a gradient counting as three.
        measure: takes a block to arrays with one entry an image.
        most: images at most.
        resumes: whether a block that was stopped goes on where it was, so that the time before counts as its own.
    """

    name: str
    title: str
    share: float
    passes: int
    measure: Callable[[Block], Mapping[str, np.ndarray]]
    most: int | None = None
    resumes: bool = True


class Found(NamedTuple):
    """What a part has found.

    Attributes:
        arrays: by name, with one entry an image; empty where no block was finished.
        images: how many those are.
        seconds: what they took.
        findings: what was emitted on the way.
    """

    arrays: Arrays
    images: int
    seconds: float
    findings: list[Finding]


class Budget:
    """Seconds to spend on parts, and where what they have found is kept.

    Args:
        seconds: of the whole.
        images: how many there are.
        pace: seconds that a forward pass takes for an image.
        checkpoints: finished blocks are kept here, and found again.
        emit: takes the events.
        should_stop: asked about every half second.
        clock: gives the seconds since some moment.
        said: findings that no part has to say again.

    Example:
        >>> budget = Budget(60, len(x), 0.001, Checkpoints())
        >>> budget.spend([Part(name="clean", title="Clean", share=1, passes=1, measure=right)])["clean"].images
        1000
    """

    def __init__(
        self,
        seconds: float,
        images: int,
        pace: float,
        checkpoints: Checkpoints,
        emit: Emit | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
        said: Sequence[Finding] = (),
    ) -> None:
        self.seconds = seconds
        self.images = images
        self.pace = pace
        self.spent = 0.0
        self._checkpoints = checkpoints
        self._emit = emit or (lambda event: None)
        self._should_stop = should_stop
        self._clock = clock
        self._said = -math.inf
        self._codes = {item.code for item in said}

    def spend(
        self, parts: Sequence[Part], after: Callable[[Mapping[str, Found]], None] = lambda found: None
    ) -> dict[str, Found]:
        """Returns what each part has found, by name.

        Args:
            parts: in their order.
            after: called after each part with what was found so far.

        Raises:
            Cancelled: when `should_stop` says so.
        """
        found: dict[str, Found] = {}
        for place, part in enumerate(parts):
            allowed = (self.seconds - self.spent) * part.share / sum(later.share for later in parts[place:])
            if self._first(part, allowed, self._checkpoints.inside(part.name)):
                with staged(self._emit, part.name, part.title) as emit:
                    found[part.name] = self._measured(part, allowed, emit)
            else:
                found[part.name] = Found({}, 0, 0.0, [])
            after(found)
        return found

    def _measured(self, part: Part, allowed: float, emit: Emit) -> Found:
        checkpoints = self._checkpoints.inside(part.name)
        ended = checkpoints.get("ended")
        blocks: list[Arrays] = []
        given_up: Arrays | None = None
        images, seconds, count = 0, 0.0, min(self.images, part.most or self.images)
        first = self._first(part, allowed, checkpoints)
        while images < count:
            size = min(max(first, images), count - images)
            rows = slice(images, images + size)
            block = checkpoints.get(f"block-{len(blocks)}")
            if block is not None:
                self._take(block, emit)
            # The first block is the one that tells how long the others take.
            elif ended is not None or (blocks and seconds + _next(blocks, size) > allowed):
                break
            else:
                most = OVER * (allowed - seconds)
                # As `_first` has it.
                most = most if blocks else max(most, HALF * (self.seconds - self.spent))
                block = self._block(part, rows, len(blocks), checkpoints, emit, most)
                if block.keys() == set(MARKS):
                    given_up = block
                    break
            blocks.append(block)
            images += size
            seconds += float(block["seconds"])
        if ended is None:
            ended = given_up or _marks(0.0, [])
            checkpoints.put("ended", ended)
        else:
            self._take(ended, emit)
        names = [name for name in blocks[0] if name not in MARKS] if blocks else []
        return Found(
            arrays={name: np.concatenate([block[name] for block in blocks]) for name in names},
            images=images,
            seconds=seconds,
            findings=[item for block in (*blocks, ended) for item in _findings(block)],
        )

    def _take(self, marks: Arrays, emit: Emit) -> None:
        """Counts and tells what an earlier process has done."""
        for item in _findings(marks):
            self._codes.add(item.code)
            emit(item)
        self.spent += float(marks["seconds"])

    def _first(self, part: Part, allowed: float, checkpoints: Checkpoints) -> int:
        """Returns the size of the first block, that of the first start where the part is resumed.

        0 where the least is expected to take more than twice what the part may, and more than half of all that is left:
        of little time the first parts get what they need.
        """
        kept = checkpoints.get("first")
        if kept is not None:
            return int(kept["images"])
        size = BLOCK
        while size > LEAST and size * part.passes * self.pace > allowed:
            size //= 2
        if size * part.passes * self.pace > max(2 * allowed, HALF * (self.seconds - self.spent)):
            size = 0
        checkpoints.put("first", {"images": np.array(size)})
        return size

    def _block(self, part: Part, rows: slice, number: int, checkpoints: Checkpoints, emit: Emit, most: float) -> Arrays:
        """Returns a block measured and kept; its marks alone where it wasn't done when `most` seconds or the budget
        ended.
        """
        kept = checkpoints.get(f"elapsed-{number}") if part.resumes else None
        # Of a process that was stopped within the block, so that its time counts.
        earlier = 0.0 if kept is None else float(kept["seconds"])
        began, before, late, saved = self._clock() - earlier, self.spent, False, self._clock()
        findings: list[Finding] = []

        def heard(event: Event) -> None:
            if isinstance(event, Finding) and self._is_new(event):
                findings.append(event)
                emit(event)
            self._tell(before + self._clock() - began, emit)

        def save() -> None:
            nonlocal saved
            saved = self._clock()
            checkpoints.put(f"elapsed-{number}", {"seconds": np.array(saved - began)})

        def stops() -> bool:
            nonlocal late
            late = self._clock() - began > min(most, LATE * self.seconds - before)
            if self._clock() - saved > SAVE_SECONDS:
                save()
            self._tell(before + self._clock() - began, emit)
            return late or self._should_stop()

        try:
            block = Block(rows, checkpoints.inside(f"within-{number}"), heard, stops)
            arrays = dict(part.measure(block))
        except Cancelled:
            if self._should_stop() or not late:
                save()
                raise
            return _marks(self._clock() - began, findings)
        finally:
            self.spent = before + self._clock() - began
        arrays |= _marks(self.spent - before, findings)
        checkpoints.put(f"block-{number}", arrays)
        return arrays

    def _is_new(self, finding: Finding) -> bool:
        """Returns whether nothing like it was found before, in another block."""
        known = finding.code in self._codes
        self._codes.add(finding.code)
        return not known

    def _tell(self, spent: float, emit: Emit) -> None:
        """Emits how much of the budget is spent, a few times a second."""
        if self._clock() - self._said < PERIOD:
            return
        self._said = self._clock()
        left = max(0.0, self.seconds - spent)
        done = min(round(spent), round(self.seconds))
        emit(Progress(unit="second", done=done, total=round(self.seconds), seconds_left=left))


def _next(blocks: Sequence[Arrays], size: int) -> float:
    """Returns the seconds that a block of `size` images may take, by the one before it."""
    # Graphs are traced in the first block; the second may cost as much again at most.
    last = blocks[-1]
    images = len(next(values for name, values in last.items() if name not in MARKS))
    return float(last["seconds"]) * size / images


def _marks(seconds: float, findings: Sequence[Finding]) -> Arrays:
    """Returns what is kept beside a block's arrays, under `MARKS`."""
    kept = [{name: getattr(item, name) for name in ("code", "message", "severity", "evidence")} for item in findings]
    return {"seconds": np.array(seconds), "findings": np.array(json.dumps(finite(kept)))}


def _findings(block: Arrays) -> list[Finding]:
    return [Finding(**item) for item in json.loads(str(block["findings"]))]

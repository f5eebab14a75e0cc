"""Several measurements within one budget of time: each on as many images as its share of the budget allows.

A part runs on block after block of images, 64 at first, or fewer of a slow model, and then always as many as so far,
as long as the next block is expected to fit. Few sizes are possible that way, so that a run that was killed and
resumed, or repeated on the same machine, ends with the same images. What all of them have left goes to the first ones
again, in their order.
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
from kerasrobust.ops.tracing import Traced
from kerasrobust.pace import PERIOD

BLOCK, LEAST = 64, 8
"""Images of a part's first block, at most and at least."""
LATE = 1.05
"""Share of the budget at which a block that takes longer than expected is given up."""
OVER = 3.0
"""Times what its part may still take at which it is given up, too: tracing isn't in what is expected of the first."""
HALF = 0.5
"""Share of what is left of the budget that the first block of a part may take, whatever the part's own share is."""
ENDED, ENDED_MORE = "ended", "ended-more"
"""Where is kept how far a part came within its share, and then within what the others have left."""
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


class _Course:
    """A part under way.

    Attributes:
        part: what is measured.
        checkpoints: where its blocks are kept.
        first: images of its first block; 0 where there is no time for it.
        most: images at most.
        blocks: what was measured.
        images: how many those are of.
        seconds: what they took.
        given_up: marks of a block that wasn't done in time, after which there are no others.
    """

    def __init__(self, part: Part, checkpoints: Checkpoints, first: int, most: int) -> None:
        self.part, self.checkpoints, self.first, self.most = part, checkpoints, first, most
        self.blocks: list[Arrays] = []
        self.given_up: list[Arrays] = []
        self.images, self.seconds = 0, 0.0

    @property
    def rows(self) -> slice:
        """Those of the next block."""
        return slice(self.images, min(max(self.first, 2 * self.images), self.most))

    @property
    def found(self) -> Found:
        names = [name for name in self.blocks[0] if name not in MARKS] if self.blocks else []
        return Found(
            arrays={name: np.concatenate([block[name] for block in self.blocks]) for name in names},
            images=self.images,
            seconds=self.seconds,
            findings=[item for block in (*self.blocks, *self.given_up) for item in _findings(block)],
        )

    def fits(self, allowed: float) -> bool:
        """Returns whether the next block is expected to be done in time; the first one is what tells that."""
        rows = self.rows
        return not self.blocks or self.seconds + _next(self.blocks, rows.stop - rows.start) <= allowed

    def add(self, block: Arrays) -> None:
        self.images = self.rows.stop
        self.blocks.append(block)
        self.seconds += float(block["seconds"])


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
        traced: gives the seconds that were spent on tracing. They count in a part's first block alone, in the process
            that begins it, so that a run that was killed ends with the same images; the rest may go beyond the budget.
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
        traced: Callable[[], float] = lambda: Traced.seconds,
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
        self._traced = traced
        self._said = -math.inf
        self._codes = {item.code for item in said}

    def spend(
        self, parts: Sequence[Part], after: Callable[[Mapping[str, Found]], None] = lambda found: None
    ) -> dict[str, Found]:
        """Returns what each part has found, by name.

        Args:
            parts: in their order.
            after: called after each part with what was found so far, and again where more was.

        Raises:
            Cancelled: when `should_stop` says so.
        """
        courses: list[_Course] = []
        for place, part in enumerate(parts):
            allowed = (self.seconds - self.spent) * part.share / sum(later.share for later in parts[place:])
            courses.append(self._begun(part, allowed))
            self._advance(courses[-1], allowed, ENDED)
            after({course.part.name: course.found for course in courses})
        for course in courses:
            before = course.images
            self._advance(course, course.seconds + self.seconds - self.spent, ENDED_MORE)
            if course.images > before:
                after({one.part.name: one.found for one in courses})
        return {course.part.name: course.found for course in courses}

    def _begun(self, part: Part, allowed: float) -> _Course:
        checkpoints = self._checkpoints.inside(part.name)
        most = min(self.images, part.most or self.images)
        return _Course(part, checkpoints, self._first(part, allowed, checkpoints), most)

    def _advance(self, course: _Course, allowed: float, mark: str) -> None:
        """Measures block after block as long as the next one is expected to fit, and notes where that ended."""
        part, checkpoints = course.part, course.checkpoints
        ended = checkpoints.get(mark)
        last = math.inf if ended is None else int(ended["images"])
        over = course.images >= min(course.most, last) and (ended is None or not ended["seconds"])
        if not course.first or course.given_up or over:
            return
        if ended is None and not course.fits(allowed):
            checkpoints.put(mark, _marks(0.0, []) | {"images": np.array(course.images)})
            return
        stage = part.name if mark == ENDED else f"{part.name} more"
        with staged(self._emit, stage, part.title, lambda: "done" if course.images else "stopped") as emit:
            while course.images < min(course.most, last):
                block = checkpoints.get(f"block-{len(course.blocks)}")
                if block is not None:
                    self._take(block, emit)
                elif ended is not None or not course.fits(allowed):
                    break
                else:
                    most = OVER * (allowed - course.seconds)
                    # As `_first` has it.
                    most = most if course.blocks else max(most, HALF * (self.seconds - self.spent))
                    block = self._block(part, course.rows, len(course.blocks), checkpoints, emit, most)
                    if block.keys() == set(MARKS):
                        course.given_up.append(block)
                        break
                course.add(block)
            if ended is None:
                given_up = course.given_up[-1] if course.given_up else _marks(0.0, [])
                checkpoints.put(mark, given_up | {"images": np.array(course.images)})
            elif ended["seconds"] > 0:
                self._take(ended, emit)
                course.given_up.append(ended)

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
        again, traced = number > 0 or kept is not None, self._traced()
        began, before, late, saved = self._clock() - earlier, self.spent, False, self._clock()
        findings: list[Finding] = []

        def elapsed() -> float:
            return self._clock() - began - (self._traced() - traced if again else 0.0)

        def heard(event: Event) -> None:
            if isinstance(event, Finding) and self._is_new(event):
                findings.append(event)
                emit(event)
            self._tell(before + elapsed(), emit)

        def save() -> None:
            nonlocal saved
            saved = self._clock()
            checkpoints.put(f"elapsed-{number}", {"seconds": np.array(elapsed())})

        def stops() -> bool:
            nonlocal late
            late = elapsed() > min(most, LATE * self.seconds - before)
            if self._clock() - saved > SAVE_SECONDS:
                save()
            self._tell(before + elapsed(), emit)
            return late or self._should_stop()

        try:
            block = Block(rows, checkpoints.inside(f"within-{number}"), heard, stops)
            arrays = dict(part.measure(block))
        except Cancelled:
            if self._should_stop() or not late:
                save()
                raise
            return _marks(elapsed(), findings)
        finally:
            self.spent = before + elapsed()
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

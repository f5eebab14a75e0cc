"""What can be compared: runs and saved models, with their figures as rows. No Textual here."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kerasrobust.entries import Row
from kerasrobust.records import Card, Result
from kerasrobust.runs import list_models, read_card, read_json
from kerasrobust.show.charts import Line, Point, panels, point_at
from kerasrobust.show.figures import by_network, with_noise
from tui.read.cards import SavedModel, plain
from tui.read.measured import Measured, of_result
from tui.read.overview import Accuracies, Overview, Overviews, accuracies, one, stamp_of
from tui.read.settings import settings

_ENDS = {
    "failed": "It has failed without a result.",
    "cancelled": "It was cancelled before it had a result. Press r on it in Runs to resume.",
    "died": "It died without a result. Press r on it in Runs to resume.",
    "done": "Its result.json is gone, damaged, or not written by kerasrobust.",
}


@dataclass(frozen=True, eq=False)
class Subject:
    """A run or a saved model. Two of them are the same only if they are one: a subject stays until its files change.

    Attributes:
        title: its name, distinct from others of the same name.
        kind: `model`, or the run's command.
        state: of a run; empty for a model.
        problem: why it can't be compared, as a sentence; empty where it can.
        images: on what it was measured, as `400 images of shapes test[:400]`.
        rows: its figures; the clean row of each network stands before its attacks.
        settings: as a person types them.
        found: of a run, what it has for a table, a map or a curve of its own.
        clean: clean accuracy, or the range of several networks; `robust` likewise.
    """

    path: Path
    title: str
    kind: str
    state: str = ""
    problem: str = ""
    images: str = ""
    data: str = ""
    synthetic: bool = False
    found: Measured = dataclasses.field(default_factory=Measured)
    rows: tuple[Row, ...] = ()
    settings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    clean: Accuracies = ()
    robust: Accuracies = ()

    @property
    def is_live(self) -> bool:
        """Whether it is a run under way, which has curves and no figures yet."""
        return self.state in ("running", "starting")

    @property
    def networks(self) -> list[str]:
        return list(dict.fromkeys(row.network for row in self.rows))


class Subjects:
    """Reads runs and models; what hasn't changed on the disk isn't read again."""

    def __init__(self, runs_dir: Path, models_dir: Path) -> None:
        self.models_dir = models_dir
        self._overviews = Overviews(runs_dir)
        self._known: dict[Path, tuple[object, Subject]] = {}

    def read(self) -> list[Subject]:
        """Returns the runs that aren't archived, the newest first, then the models by name.

        Raises:
            OSError: where the folders can't be read.
        """
        found: dict[Path, tuple[object, Subject]] = {}
        names = set()
        for overview in self._overviews.read():
            if overview.marks.archived:
                continue
            names.add(overview.path.name)
            before = self._known.get(overview.path)
            # The same object stands for the same files.
            same = before is not None and before[0] is overview
            found[overview.path] = before if same and before else (overview, run_subject(overview))
        for path in list_models(self.models_dir):
            title = f"{path.name} (model)" if path.name in names else path.name
            now = title, stamp_of(path / "card.json")
            before = self._known.get(path)
            same = before is not None and before[0] == now
            if now[1] is not None:  # Else removed since it was listed.
                found[path] = before if same and before else (now, model_subject(path, title))
        self._known = found
        return [subject for _, subject in found.values()]


def run_subject(overview: Overview) -> Subject:
    """Returns a run, with its figures where it has them."""
    path = overview.path
    bare = Subject(
        path, path.name, overview.kind, overview.state, data=plain(overview.data), synthetic=overview.synthetic
    )
    if overview.state in ("running", "starting"):
        problem = "It is still running: curves (m) are all that there is to compare until it ends."
        return dataclasses.replace(bare, problem=problem, settings=settings(read_json(path / "config.json") or {}))
    raw = read_json(path / "result.json")
    if raw is None:
        return dataclasses.replace(bare, problem=_ENDS.get(overview.state, _ENDS["done"]))
    result = Result.parse(raw)
    made = _with_figures(bare, result, settings(read_json(path / "config.json") or {}))
    if all(row.accuracy is None for row in made.rows):
        return dataclasses.replace(bare, problem="Its result.json has no figures, or was not written by kerasrobust.")
    clean, robust = accuracies(result)
    return dataclasses.replace(made, found=of_result(result), clean=clean, robust=robust)


def model_subject(path: Path, title: str) -> Subject:
    """Returns a saved model, with the figures of its card."""
    bare = Subject(path, title, "model")
    raw = read_card(path)
    if raw is None:
        problem = "Its card.json can't be read: damaged, or not written by kerasrobust."
        return dataclasses.replace(bare, problem=problem)
    card = Card.parse(raw)
    # Only what the card says: defaults of today needn't be those of then.
    known = settings({**card.training, "kind": "train"})
    made = _with_figures(bare, card, {key: value for key, value in known.items() if key in card.training})
    robust, _ = SavedModel(path, "", card, 0).robust
    return dataclasses.replace(made, clean=one(card.clean_accuracy), robust=one(robust))


def _with_figures(bare: Subject, record: Card, settings: Mapping[str, str]) -> Subject:
    data = record.data
    name, split = plain(data.name), plain(data.measured)
    count = "" if data.examples is None else f"{data.examples:,} "
    images = f"{count}images of {name or 'unknown data'} {split}".strip()
    return dataclasses.replace(
        bare,
        images=images,
        data=name or bare.data,
        synthetic=data.synthetic,
        rows=record.table(bare.title),
        settings={
            "kind": "saved model" if bare.kind == "model" else bare.kind,
            "measured on": images,
            **{str(key).replace("_", " "): plain(value) for key, value in settings.items()},
        },
    )


def difference(row: Row, reference: Subject) -> float | None:
    """Returns a row's accuracy minus the reference's under the same attack; None where that wasn't measured.

    Of a reference with several networks the one of the same name counts. Where it was attacked in several ways, the one
    with the same EOT and steps does, or else the strongest.
    """
    same = [
        other
        for other in reference.rows
        if (other.attack, other.norm, other.noise) == (row.attack, row.norm, row.noise)
        and _is_close(other.epsilon, row.epsilon)
        and other.accuracy is not None
    ]
    if len(reference.networks) > 1:
        same = [other for other in same if other.network == row.network]
    if not same or row.accuracy is None:
        return None

    def distance(other: Row) -> tuple[bool, bool, float]:
        return (other.eot or 1) != (row.eot or 1), other.steps != row.steps, other.accuracy or 0.0

    return float(row.accuracy - (min(same, key=distance).accuracy or 0.0))


def _is_close(first: float | None, second: float | None) -> bool:
    # One of them may have passed through float32.
    return first == second or (first is not None and second is not None and math.isclose(first, second, rel_tol=1e-6))


def differing(subjects: Sequence[Subject]) -> list[tuple[str, list[str], bool]]:
    """Returns each setting's name, its value for each subject (empty where it has none), and whether these differ."""
    names = dict.fromkeys(name for subject in subjects for name in subject.settings)
    rows = [(name, [subject.settings.get(name, "") for subject in subjects]) for name in names]
    return [(name, values, len(set(values)) > 1) for name, values in rows]


def labelled(subjects: Sequence[Subject]) -> list[list[Row]]:
    """Returns the rows of each subject, with a `model` that says whose they are, once there are several."""
    result = []
    for subject in subjects:
        many = len(subject.networks) > 1
        result.append([
            dataclasses.replace(
                row,
                model=row.network if len(subjects) == 1
                else f"{subject.title} {row.network}" if many else subject.title,
                name=None,
                training=None,
                randomized=False,
            )
            for row in subject.rows
        ])  # fmt: skip
    return result


@dataclass(frozen=True)
class Trace:
    """What is drawn of one network under one attack: a curve, or, where it isn't `joined`, points."""

    label: str
    points: list[Point]
    joined: bool


@dataclass(frozen=True)
class Overlay:
    """The traces of all subjects under one attack in one norm."""

    attack: str
    norm: str
    traces: list[Trace]


def overlaid(subjects: Sequence[Subject]) -> list[Overlay]:
    """Returns one overlay for each attack and norm that was measured at some epsilon.

    Other than in a report, those of nothing but points are there as well. Points have the clean accuracy beside them,
    at epsilon 0.
    """
    rows = [row for group in labelled(subjects) for row in group if row.accuracy is not None]
    names = list(by_network(rows))
    clean = {(row.network, row.noise): point_at(row, 0.0) for row in rows if row.attack is None}
    made = {(panel.attack, panel.norm): panel.lines for panel in panels(rows)}
    alone: dict[tuple[str, str], list[Line]] = {}
    for row in rows:
        key = row.attack or "", row.norm or ""
        if row.attack is None or row.epsilon is None or key in made:
            continue
        point = point_at(row, row.epsilon)
        label = with_noise(f"{row.network}, EOT {row.eot}" if (row.eot or 1) > 1 else row.network, row.noise)
        line = Line(label=label, series=names.index(row.network), variant=0, points=[point], noise=row.noise)
        alone.setdefault(key, []).append(line)

    def trace(line: Line) -> Trace:
        before = clean.get((names[line.series], line.noise))
        joined = len(line.points) > 1
        points = line.points if joined or before is None else [before, *line.points]
        return Trace(line.label, points, joined)

    result = [Overlay(*key, [trace(line) for line in lines]) for key, lines in (made | alone).items()]
    # First where there is most to compare.
    return sorted(result, key=lambda overlay: -len(overlay.traces))

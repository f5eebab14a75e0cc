"""What can be compared: runs and saved models, read so that nothing foreign in their files gets further. No Textual."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasrobust.errors import InputError
from kerasrobust.runs import list_models, read_card, read_json
from kerasrobust.show.charts import Line, Point, panels
from kerasrobust.show.compare import figures
from kerasrobust.show.figures import by_network, network
from tui.read.cards import SavedModel, interval, number, plain
from tui.read.overview import Accuracies, Overview, Overviews, accuracies
from tui.widgets.settings import settings

Row = dict[str, Any]
"""One row as a study has it: a network under an attack, or without one. Its values are of our types."""

FOREIGN = (KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError)
"""What comes of reading figures from files that aren't ours."""

_ENDS = {
    "failed": "It has failed without a result.",
    "cancelled": "It was cancelled before it had a result. Press r on it in Runs to go on.",
    "died": "It died without a result. Press r on it in Runs to go on.",
    "done": "Its result.json is gone, torn, or not one of ours.",
}


@dataclass(frozen=True, eq=False)
class Subject:
    """A run or a saved model. Two of them are the same only if they are one: a subject stays until its files change.

    Attributes:
        path: its folder.
        title: its name, told apart from others of the same name.
        kind: `model`, or the run's command.
        state: of a run; empty for a model.
        problem: why it can't be compared, as a sentence; empty where it can.
        images: on what it was measured, as `400 images of shapes test[:400]`.
        data: the name of the data.
        synthetic: whether these are generated.
        is_study: whether its rows are a study's.
        rows: its figures; the clean row of each network stands before its attacks.
        settings: as a person types them.
        clean: clean accuracy, or the range of several networks.
        robust: robust accuracy, likewise.
    """

    path: Path
    title: str
    kind: str
    state: str = ""
    problem: str = ""
    images: str = ""
    data: str = ""
    synthetic: bool = False
    is_study: bool = False
    rows: tuple[Row, ...] = ()
    settings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    clean: Accuracies = ()
    robust: Accuracies = ()

    @property
    def networks(self) -> list[str]:
        """The names of its networks."""
        return list(dict.fromkeys(network(row) for row in self.rows))


class Subjects:
    """Reads runs and models; what hasn't changed on the disk isn't read again."""

    def __init__(self, runs_dir: Path, models_dir: Path) -> None:
        self.models_dir = models_dir
        self._overviews = Overviews(runs_dir)
        self._known: dict[Path, tuple[object, Subject]] = {}

    def read(self) -> list[Subject]:
        """Returns the runs, the newest first, then the models by name.

        Raises:
            OSError: where the folders can't be read.
        """
        found: dict[Path, tuple[object, Subject]] = {}
        names = set()
        for overview in self._overviews.read():
            names.add(overview.path.name)
            before = self._known.get(overview.path)
            # The same object stands for the same files.
            same = before is not None and before[0] is overview
            found[overview.path] = before if same and before else (overview, run_subject(overview))
        for path in list_models(self.models_dir):
            title = f"{path.name} (model)" if path.name in names else path.name
            try:
                status = (path / "card.json").stat()
            except OSError:  # Removed since it was listed.
                continue
            stamp = title, status.st_mtime_ns, status.st_size
            before = self._known.get(path)
            same = before is not None and before[0] == stamp
            found[path] = before if same and before else (stamp, model_subject(path, title))
        self._known = found
        return [subject for _, subject in found.values()]


def run_subject(overview: Overview) -> Subject:
    """Returns a run, with its figures where it has them."""
    path = overview.path
    bare = Subject(
        path, path.name, overview.kind, overview.state, data=plain(overview.data), synthetic=overview.synthetic
    )
    if overview.state in ("running", "starting"):
        return dataclasses.replace(bare, problem="It is still running: there is nothing to compare until it ends.")
    try:
        result = read_json(path / "result.json")
        if result is None:
            return dataclasses.replace(bare, problem=_ENDS.get(overview.state, _ENDS["done"]))
        made = _with_figures(bare, result, _settings(read_json(path / "config.json") or {}))
    except (InputError, *FOREIGN):
        return dataclasses.replace(bare, problem="Its result.json is torn, or not one of ours.")
    if all(row["accuracy"] is None for row in made.rows):
        return dataclasses.replace(bare, problem="Its result.json has no figures, or none that are ours.")
    if made.is_study:
        clean, robust = accuracies({"rows": list(made.rows)})
    else:
        clean, robust = _one(result.get("clean_accuracy")), _one(result.get("robust_accuracy"))
    return dataclasses.replace(made, clean=clean, robust=robust)


def model_subject(path: Path, title: str) -> Subject:
    """Returns a saved model, with the figures of its card."""
    bare = Subject(path, title, "model")
    try:
        card = read_card(path)
        if card is None:
            return dataclasses.replace(bare, problem="Its card.json can't be read: torn, or not one of ours.")
        model = SavedModel(path, "", card, 0)
        trained = model.part("training")
        # Only what the card says: defaults of today needn't be those of then.
        told = {key: value for key, value in _settings({**trained, "kind": "train"}).items() if key in trained}
        made = _with_figures(bare, card, told)
    except (InputError, *FOREIGN):
        return dataclasses.replace(bare, problem="Its card.json is not one of ours.")
    return dataclasses.replace(made, clean=_one(model.clean), robust=_one(model.robust[0]))


def _one(value: Any) -> Accuracies:
    known = number(value)
    return () if known is None else (known,)


def _with_figures(bare: Subject, record: Mapping[str, Any], told: Mapping[str, str]) -> Subject:
    data = record.get("data") if isinstance(record.get("data"), dict) else {}
    assert data is not None
    name, split = plain(data.get("name")), plain(data.get("test_split")) or plain(data.get("split"))
    count = number(data.get("examples"))
    images = f"{'' if count is None else f'{count:,.0f} '}images of {name or 'unknown data'} {split}".strip()
    is_study = "rows" in record and bare.kind != "model"
    lines = [_of_study(raw) for raw in record["rows"]] if is_study else list(_of_figures(bare, record))
    return dataclasses.replace(
        bare,
        images=images,
        data=name or bare.data,
        synthetic=data.get("synthetic") is True or name == "shapes",
        is_study=is_study,
        rows=tuple(lines),
        settings={
            "kind": "saved model" if bare.kind == "model" else bare.kind,
            "measured on": images,
            **{str(key).replace("_", " "): plain(value) for key, value in told.items()},
        },
    )


def _settings(config: dict[str, Any]) -> dict[str, str]:
    try:
        return settings(config)
    except FOREIGN:
        return {str(key): plain(value) for key, value in config.items()}


def _of_study(raw: Any) -> Row:
    """Returns a row of a study.

    Raises:
        KeyError: for what is no row, and the others of `FOREIGN`.
    """
    return _row(raw, plain(raw["model"]), raw["training"], raw["randomized"] is True, raw["attack"], raw["accuracy"])


def _of_figures(subject: Subject, record: Mapping[str, Any]) -> Iterator[Row]:
    """Yields the figures of a card, or of a run with one network."""
    listed = record.get("attacks")
    attacks = [raw if isinstance(raw, dict) else {} for raw in listed] if isinstance(listed, list) else []
    for place, line in enumerate(figures(subject.path)):
        # An attack's result names the saved model, whose name says already what it is.
        randomized = line["randomized"] is True and line["training"] is not None
        model = plain(line["model"]).rpartition("/")[2] or subject.title
        known = model, line["training"], randomized
        if place == 0:
            yield _row({"interval": line["clean_interval"]}, *known, None, line["clean_accuracy"])
        if line["attack"] is not None:
            more = attacks[place].get("settings") if place < len(attacks) else None
            yield _row((more if isinstance(more, dict) else {}) | line, *known, line["attack"], line["robust_accuracy"])


def _row(raw: Mapping[str, Any], model: str, training: Any, randomized: bool, attack: Any, accuracy: Any) -> Row:
    epsilon = number(raw.get("epsilon"))
    return {
        "model": model,
        "training": plain(training) or None,
        "randomized": randomized,
        "attack": plain(attack) or None,
        "norm": plain(raw.get("norm")) or None,
        "epsilon": epsilon if epsilon is None or epsilon >= 0 else None,
        "steps": _whole(raw.get("steps")),
        "eot": _whole(raw.get("eot")),
        "accuracy": number(accuracy),
        "interval": interval(raw.get("interval")),
        "median_distance": number(raw.get("median_distance")),
        "published": number(raw.get("published")),
    }


def _whole(value: Any) -> int | None:
    return value if type(value) is int else None


def difference(row: Row, reference: Subject) -> float | None:
    """Returns a row's accuracy minus the reference's under the same attack; None where that wasn't measured.

    Of a reference with several networks the one of the same name counts. Where it was attacked in several ways, the one
    with the same EOT and steps does, or else the strongest.
    """
    same = [
        other
        for other in reference.rows
        if (other["attack"], other["norm"]) == (row["attack"], row["norm"])
        and _is_close(other["epsilon"], row["epsilon"])
        and other["accuracy"] is not None
    ]
    if len(reference.networks) > 1:
        same = [other for other in same if network(other) == network(row)]
    if not same or row["accuracy"] is None:
        return None

    def distance(other: Row) -> tuple[bool, bool, float]:
        return (other["eot"] or 1) != (row["eot"] or 1), other["steps"] != row["steps"], other["accuracy"]

    return float(row["accuracy"] - min(same, key=distance)["accuracy"])


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
            row | {
                "model": network(row) if len(subjects) == 1
                else f"{subject.title} {network(row)}" if many else subject.title,
                "training": None,
                "randomized": False,
            }
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
    rows = [row for group in labelled(subjects) for row in group if row["accuracy"] is not None]
    names = list(by_network(rows))
    clean = {
        network(row): Point(epsilon=0.0, accuracy=row["accuracy"], interval=row["interval"])
        for row in rows
        if row["attack"] is None
    }
    made = {(panel.attack, panel.norm): panel.lines for panel in panels(rows)}
    alone: dict[tuple[str, str], list[Line]] = {}
    for row in rows:
        key = row["attack"], row["norm"] or ""
        if None in (row["attack"], row["epsilon"]) or key in made:
            continue
        point = Point(epsilon=row["epsilon"], accuracy=row["accuracy"], interval=row["interval"])
        label = f"{network(row)}, EOT {row['eot']}" if (row["eot"] or 1) > 1 else network(row)
        line = Line(label=label, series=names.index(network(row)), variant=0, points=[point])
        alone.setdefault(key, []).append(line)

    def trace(line: Line) -> Trace:
        before = clean.get(names[line.series])
        joined = len(line.points) > 1
        points = line.points if joined or before is None else [before, *line.points]
        return Trace(line.label, points, joined)

    result = [Overlay(*key, [trace(line) for line in lines]) for key, lines in (made | alone).items()]
    # First where there is most to compare.
    return sorted(result, key=lambda overlay: -len(overlay.traces))

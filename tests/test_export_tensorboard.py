"""Curves that `export` writes, read back by TensorBoard's own reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cli import events
from exports import export, lines, write_run

from kerasrobust.events import AttackFinished, AttackProgress, AttackStarted, Metrics, to_json
from kerasrobust.show.export import tensorboard

pytest_plugins = ["exports"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [  # RFC 3720, appendix B.4.
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(reversed(range(32))), 0x113FDB5C),
    ],
)
def test_checksums(data: bytes, expected: int) -> None:
    assert tensorboard.crc32c(data) == expected


def curves_in(folder: Path) -> dict[str, Any]:
    """Returns TensorBoard's own reader of each of its runs in a folder."""
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

    reader = EventMultiplexer().AddRunsFromDirectory(str(folder))
    reader.Reload()
    return {name: reader.GetAccumulator(name) for name in reader.Runs()}


def test_tensorboard_shows_the_curves_of_trainings_and_attacks(runs: Path, tmp_path: Path) -> None:
    export(runs / "demo", "tensorboard", "--to", tmp_path / "logs")
    log, found = events(runs / "demo"), curves_in(tmp_path / "logs")
    for split, names in (("train", ("loss", "accuracy")), ("validation", ("loss", "accuracy", "robust_accuracy"))):
        own = [e for e in log if isinstance(e, Metrics) and (e.stage, e.split) == ("train-convnet-pgd", split)]
        for name in names:
            shown = found[f"train-convnet-pgd/{split}"].Scalars(name)
            # What is measured within an epoch is measured again at its end.
            known = {event.step: (event.time, event.values[name]) for event in own}
            assert len(known) > 3 and [(item.step, item.wall_time) for item in shown] == [
                (step, when) for step, (when, _) in known.items()
            ]
            assert [item.value for item in shown] == pytest.approx([value for _, value in known.values()], rel=1e-6)
    finished = [event for event in log if isinstance(event, AttackFinished)]
    attacks = {name: own for name, own in found.items() if name.startswith("attack-")}
    assert len(attacks) == len(finished)
    ends = sorted(own.Scalars("robust_accuracy")[-1].value for own in attacks.values())
    assert ends == pytest.approx(sorted(event.robust_accuracy for event in finished), rel=1e-6)
    own = attacks["attack-lenet/pgd-linf-8-255"].Scalars("survivors")
    assert own[-1].value == pytest.approx(0.045) and own[0].value > own[-1].value  # As in the table of the demo.
    assert "attack-convnet-random/pgd-linf-8-255-eot-10" in attacks


def progress(survivors: int, gradients: int, **more: Any) -> AttackProgress:
    base: dict[str, Any] = {"attack": "pgd", "done": 10, "total": 10, "step": 1, "steps": 2, "forwards": 1, "time": 1.0}
    return AttackProgress(**base | more, survivors=survivors, gradients=gradients)


def test_a_resume_repeats_nothing_and_attacks_of_one_name_are_apart() -> None:
    start: dict[str, Any] = {"attack": "pgd", "norm": "linf", "epsilon": 0.5, "examples": 10, "time": 0.0}
    happened = [
        AttackStarted(**start, settings={"steps": 5}), progress(8, 100), progress(6, 200),
        AttackStarted(**start, settings={"steps": 5}), progress(5, 200, time=9.0),  # Resumed.
        AttackStarted(**start, settings={"steps": 50}), progress(4, 100),
        Metrics(step=1, epoch=1, values={"loss": 2.0}, split="train", time=1.0),
        Metrics(step=1, epoch=1, values={"loss": 3.0}, split="train", time=2.0),
    ]  # fmt: skip
    found = list(tensorboard.points(happened))
    assert list(dict.fromkeys(point.curves for point in found)) == [
        "run/pgd-linf-0-5",
        "run/pgd-linf-0-5-2",
        "run/train",
    ]
    assert [(point.step, point.value) for point in found if point.curves == "run/pgd-linf-0-5"] == [
        (101, 0.8), (201, 0.6), (201, 0.5),
    ]  # fmt: skip


def test_the_last_of_repeated_figures_counts(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    happened = [Metrics(step=1, epoch=1, values={"loss": value}, split="train") for value in (2.0, 3.0)]
    (folder / "events.jsonl").write_text("".join(to_json(event) + "\n" for event in happened))
    export(folder, "tensorboard", "--to", tmp_path / "logs")
    assert [item.value for item in curves_in(tmp_path / "logs")["run/train"].Scalars("loss")] == [3.0]
    epochs = {path.stem: lines(path) for path in export(folder, "csv")}["epochs"]
    assert [(line["epoch"], line["loss"]) for line in epochs] == [("1", "3.0")]

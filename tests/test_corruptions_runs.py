"""The command `corruptions`: its figures by hand, its table and report, its refusals, and how it resumes."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from cli import call
from conftest import SHAPE, images
from rich.console import Console
from schemas import faults_of_run
from test_report import Page
from whole_runs import exported

import kerasrobust as kr
from kerasrobust import commands
from kerasrobust.assessing import CorruptionsConfig
from kerasrobust.data.load import load_dataset
from kerasrobust.errors import Cancelled, InputError
from kerasrobust.evaluation.corruptions import FIFTEEN, measure_corruptions
from kerasrobust.events import CorruptionFinished, Event, Progress
from kerasrobust.jobs import engine
from kerasrobust.names import CORRUPTIONS
from kerasrobust.records import Result
from kerasrobust.show.corrupted import Cell, CorruptionMap
from kerasrobust.show.heat import draw_heat, heat_table
from kerasrobust.stats import corruption_error, wilson

pytest_plugins = ["cli_fixtures"]

SOME: dict[str, Any] = {"split": "test[:40]", "kinds": "contrast,fog,spatter", "severity": "1,5", "batch_size": 16}


def run(models_dir: Path, tmp_path: Path, **settings: Any) -> dict[str, Any]:
    places = {"models_dir": models_dir, "runs_dir": tmp_path}
    return engine.run(
        CorruptionsConfig(**({"model": "tiny", "name": "one"} | SOME | settings | places)), lambda _: None
    )


def accuracy(models_dir: Path, name: str, kind: str, severity: int) -> float:
    """What Keras itself says."""
    x, y = kr.load_data("shapes", "test[:40]")
    model = keras.models.load_model(models_dir / name / "model.keras")
    return float((model.predict(kr.corrupt(x, kind, severity), verbose=0).argmax(axis=1) == y).mean())


def test_figures_are_those_of_keras_and_of_the_formulas(models_dir: Path, tmp_path: Path) -> None:
    keras.utils.set_random_seed(8)
    other = tmp_path / "other"
    kr.save_model(kr.build_model("convnet", widths=(3, 4)), other, {"data": "shapes"})
    result = run(models_dir, tmp_path, reference=str(other))
    found = result["corruptions"]
    cells = {(cell["kind"], cell["severity"]): cell for cell in found["cells"]}
    assert list(cells) == [(kind, severity) for kind in ("fog", "contrast", "spatter") for severity in (1, 5)]
    for (kind, severity), cell in cells.items():
        own = accuracy(models_dir, "tiny", kind, severity)
        assert cell["accuracy"] == pytest.approx(own) and cell["interval"] == pytest.approx(wilson(40 * own, 40))
    keras_own = keras.models.load_model(other / "model.keras")
    x, y = kr.load_data("shapes", "test[:40]")
    said = keras_own.predict(kr.corrupt(x, "fog", 5), verbose=0).argmax(axis=1)
    assert cells["fog", 5]["reference"] == pytest.approx(float((said == y).mean()))
    # Over the fifteen alone: spatter is for validation.
    assert found["counted"] == ["fog", "contrast"]
    assert found["clean_accuracy"] == result["clean_accuracy"]
    assert found["mean_accuracy"] == pytest.approx(np.mean([cells[key]["accuracy"] for key in list(cells)[:4]]))
    low, high = found["interval"]
    assert low <= found["mean_accuracy"] <= high
    errors = {item["kind"]: item for item in found["kinds"]}
    for kind, item in errors.items():
        own, others = (sum(1 - cells[kind, s][key] for s in (1, 5)) for key in ("accuracy", "reference"))
        assert item["ce"] == pytest.approx(own / others) and item["error"] == pytest.approx(own / 2)
        above = others - 2 * (1 - found["reference_clean_accuracy"])
        if above > 1e-9:
            assert item["relative_ce"] == pytest.approx((own - 2 * (1 - result["clean_accuracy"])) / above)
        else:
            assert item["relative_ce"] is None
    assert found["mce"] == pytest.approx((errors["fog"]["ce"] + errors["contrast"]["ce"]) / 2)
    low, high = found["mce_interval"]
    assert low < found["mce"] < high and high - low < 1
    page = Page((tmp_path / "one" / "report.html").read_text())
    before = f"{100 * found['reference_clean_accuracy']:.1f} % clean"
    assert (
        f"In relation to other ({before}): mCE" in page.text and f", CE {100 * errors['fog']['ce']:.1f} %" in page.text
    )
    assert json.loads((tmp_path / "one" / "result.json").read_text()) == json.loads(json.dumps(result))
    assert faults_of_run(tmp_path / "one") == []
    files = exported(tmp_path / "one")
    (means,) = csv.DictReader(files["corruption-means.csv"].splitlines())
    assert [float(means[f"mce{end}"]) for end in ("", "_interval_low", "_interval_high")] == [found["mce"], low, high]
    assert files["corruptions.csv"].startswith("kind,severity,accuracy,interval_low,interval_high,reference")
    assert files["corruptions.csv"].count("\n") == 1 + len(found["cells"])
    assert "fog" in files["corruptions.tex"] and "<svg" in files["corruptions.svg"]
    assert not (tmp_path / "one" / "batches").exists()


def test_the_report_shows_one_image_as_it_was_measured(
    models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, Any] = {}

    def keep(folder: Path, result: Any, **given: Any) -> None:
        told.update(given)

    monkeypatch.setattr("kerasrobust.jobs.context.write_report", keep)
    run(models_dir, tmp_path, severity="1,2,3,5", kinds="contrast,gaussian_noise", batch_size=3, seed=4)
    model = keras.models.load_model(models_dir / "tiny" / "model.keras")
    x, y = kr.load_data("shapes", "test[:40]")
    names = load_dataset("shapes", "test[:40]").class_names
    right = np.flatnonzero(model.predict(x, verbose=0).argmax(axis=1) == y)
    place = int(right[0]) if len(right) else 0
    whole, *others = told["pictures"]
    assert (whole.kind, whole.severity, whole.label) == ("", 0, names[y[place]])
    np.testing.assert_array_equal(whole.image, x[place])
    assert [(one.kind, one.severity) for one in others] == [
        (kind, severity) for kind in ("gaussian_noise", "contrast") for severity in (1, 3, 5)
    ]
    for one in others:
        images = kr.corrupt(x, one.kind, one.severity, seed=4)
        np.testing.assert_array_equal(one.image, images[place])
        said = int(model.predict(images[place : place + 1], verbose=0).argmax())
        assert one.answer == names[said] and one.label == whole.label


def test_a_fourth_channel_that_the_model_does_not_see_is_left_out(small: keras.Model) -> None:
    x, rng = images(12), np.random.default_rng(0)
    y = np.arange(12) % 4
    four = np.concatenate([x, rng.random((*x.shape[:3], 1), np.float32)], axis=-1)
    settings: dict[str, Any] = {"kinds": ["fog", "impulse_noise"], "severities": [2]}
    seen, plain = (kr.measure_corruptions(small, given, y, **settings) for given in (four, x))
    for one, two in zip(seen.cells, plain.cells, strict=True):
        np.testing.assert_array_equal(one.judged.rates, two.judged.rates)


def test_a_reference_that_takes_other_images_is_refused_before_anything_is_measured(small: keras.Model) -> None:
    four = keras.Sequential([keras.Input((*SHAPE[:2], 4)), keras.layers.Flatten(), keras.layers.Dense(4)])
    x = np.random.default_rng(0).random((4, *SHAPE[:2], 4), np.float32)
    with pytest.raises(InputError, match="4"):
        kr.measure_corruptions(small, x, np.arange(4), kinds=["fog"], severities=[1], reference=four)


def test_batches_that_come_once_are_seen_by_both_networks(small: keras.Model) -> None:
    x, y = images(8), np.arange(8) % 4
    settings: dict[str, Any] = {"kinds": ["fog"], "severities": [1], "reference": small}
    found = kr.measure_corruptions(small, iter([(x[:4], y[:4]), (x[4:], y[4:])]), **settings)
    assert found.entry() | {"cells": None} == kr.measure_corruptions(small, x, y, **settings).entry() | {"cells": None}


def test_one_severity_and_one_kind_alone_are_refused_in_a_line(small: keras.Model) -> None:
    for settings in ({"severities": 3}, {"kinds": "fog"}):
        with pytest.raises(InputError, match=r"Try \['fog'\] and \[3\]"):
            kr.measure_corruptions(small, images(2), np.zeros(2, int), **settings)


def test_a_network_beside_itself_has_an_mce_of_one(models_dir: Path, tmp_path: Path) -> None:
    assert run(models_dir, tmp_path, reference="tiny")["corruptions"]["mce"] == pytest.approx(1)


def test_without_a_reference_errors_are_not_normalised_and_that_is_said(models_dir: Path, tmp_path: Path) -> None:
    words = [word for name, value in SOME.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    places = ["--runs-dir", tmp_path, "--models-dir", models_dir, "--name", "one"]
    done = call("corruptions", "--model", "tiny", *words, "--kinds", "frost,fog", *places)
    assert done.status == 0, done.err
    assert "errors are not normalised and there is no mCE" in done.out
    assert "frost (procedural), severity 5: accuracy" in done.out and "Synthetic data" in done.out
    result = json.loads((tmp_path / "one" / "result.json").read_text())
    assert result["corruptions"]["mce"] is None and "Frost is procedural" in result["corruptions"]["source"]
    page = Page((tmp_path / "one" / "report.html").read_text())
    assert (
        "frost (procedural)" in page.text and "Frost is procedural" in page.text and "CE, corruption" not in page.text
    )
    assert any(tag == "svg" and dict(attributes).get("class") == "heat" for tag, attributes in page.tags)


def test_a_randomized_network_is_judged_by_several_passes(models_dir: Path, tmp_path: Path) -> None:
    result = run(models_dir, tmp_path, model="noisy", kinds="contrast", severity="5", passes=3)
    (cell,) = result["corruptions"]["cells"]
    assert result["randomized"] is True
    assert cell["accuracy"] * 120 == pytest.approx(round(cell["accuracy"] * 120))
    assert result == result | run(models_dir, tmp_path, model="noisy", kinds="contrast", severity="5", passes=3,
                                  name="two") | {"corruptions": result["corruptions"]}  # fmt: skip


def test_data_that_are_corrupted_already_say_so(models_dir: Path, tmp_path: Path) -> None:
    places = ["--runs-dir", tmp_path, "--models-dir", models_dir, "--name", "one"]
    words = ["--data", "shapes+fog:3", "--split", "test[:12]", "--attack", "fgsm"]
    assert call("attack", "--model", "tiny", *words, *places).status == 0
    result = json.loads((tmp_path / "one" / "result.json").read_text())
    assert result["data"] == {"name": "shapes+fog:3", "split": "test[:12]", "examples": 12, "synthetic": True}
    refused = call("attack", "--model", "tiny", "--data", "shapes+fgo:3", *places, "--overwrite").message
    assert "Did you mean 'fog'" in refused


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"severity": "0"}, "severities from 1 to 5"),
        ({"severity": "1-5"}, "severities from 1 to 5"),
        ({"kinds": "fgo"}, "Did you mean 'fog'"),
        ({"kinds": "rain"}, "Choose one of these"),
        ({"kinds": ""}, None),
        ({"passes": 0}, "at least 1"),
    ],
)
def test_settings(settings: dict[str, Any], words: str | None) -> None:
    if words is None:
        assert CorruptionsConfig(model="m", **settings).corruptions == FIFTEEN
        return
    with pytest.raises(InputError, match=words):
        CorruptionsConfig(model="m", **settings)


def test_kinds_by_name_and_by_group() -> None:
    def kinds(written: str | None) -> tuple[str, ...]:
        return CorruptionsConfig(model="m", kinds=written).corruptions

    assert len(FIFTEEN) == 15 and kinds(None) == FIFTEEN and kinds("all") == tuple(CORRUPTIONS)
    assert kinds("noise, fog") == ("gaussian_noise", "shot_noise", "impulse_noise", "fog")
    assert kinds("extra") == ("speckle_noise", "gaussian_blur", "spatter", "saturate")
    config = CorruptionsConfig(model="m", severity="5, 1,1")
    assert config.severities == (1, 5)
    assert commands.from_dict({"kind": "corruptions", "model": "m", "kinds": "fog"}) == CorruptionsConfig(
        model="m", kinds="fog"
    )


# Stopped and resumed


def measured(models_dir: Path, folder: Path | None = None, **settings: Any) -> tuple[Any, list[Event]]:
    x, y = kr.load_data("shapes", "test[:40]")
    model = settings.pop("model", None) or kr.load_model(models_dir / "noisy")
    told: list[Event] = []
    options: dict[str, Any] = {"kinds": ["fog", "pixelate"], "severities": [1, 3], "passes": 2, "batch_size": 16}
    emit = settings.pop("emit", told.append)
    return measure_corruptions(model, x, y, resume_dir=folder, emit=emit, **(options | settings)), told


def test_it_resumes_by_kind_and_severity(models_dir: Path, tmp_path: Path) -> None:
    whole, _ = measured(models_dir)
    done = 0
    for _ in range(20):
        asked = iter([False] * 9)
        try:
            found, told = measured(models_dir, tmp_path, should_stop=lambda asked=asked: next(asked, True))
            break
        except Cancelled:
            done += 1
    assert done >= 2
    for one, other in zip(whole.cells, found.cells, strict=True):
        np.testing.assert_array_equal(one.judged.rates, other.judged.rates)
        assert (one.kind, one.severity, one.interval) == (other.kind, other.severity, other.interval)
    assert whole.mean == found.mean
    # All cells are told again, so that the table is whole.
    assert sum(isinstance(event, CorruptionFinished) for event in told) == 4


def test_what_is_done_is_read_and_another_measurement_is_refused(models_dir: Path, tmp_path: Path) -> None:
    measured(models_dir, tmp_path)
    began = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*-*.npz")}
    assert len(began) == 4
    _, told = measured(models_dir, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in began} == began
    assert not any(isinstance(event, Progress) for event in told)
    (tmp_path / "fog-1.npz").write_bytes(b"torn")
    measured(models_dir, tmp_path)
    assert (tmp_path / "fog-1.npz").stat().st_mtime_ns > began[tmp_path / "fog-1.npz"]
    for other in ({"seed": 1}, {"batch_size": 8}, {"model": kr.load_model(models_dir / "tiny")}):
        with pytest.raises(InputError, match=r"another in (seed|batch_size|.*model)\."):
            measured(models_dir, tmp_path, **other)


def test_a_killed_command_resumes_without_a_name(models_dir: Path, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def die(event: Event) -> None:
        if isinstance(event, CorruptionFinished) and (event.kind, event.severity) == ("contrast", 1):
            raise Killed

    config = CorruptionsConfig(model="tiny", models_dir=models_dir, runs_dir=tmp_path, **SOME)
    with pytest.raises(Killed):
        engine.run(config, die)
    (folder,) = tmp_path.iterdir()
    kept = {path: path.stat().st_mtime_ns for path in (folder / "batches").glob("fog-*.npz")}
    assert len(kept) == 2
    result = engine.run(config, lambda _: None)
    assert list(tmp_path.iterdir()) == [folder]
    expected = run(models_dir, tmp_path, name="whole")
    for one, other in zip(result["corruptions"]["cells"], expected["corruptions"]["cells"], strict=True):
        assert one | {"seconds": 0} == other | {"seconds": 0}


# Formulas and pictures


def test_corruption_error_by_hand() -> None:
    """By the formulas of Hendrycks and Dietterich 2019, section 4.1."""
    assert corruption_error([0.1, 0.3], [0.2, 0.6]) == pytest.approx(0.5)
    assert corruption_error([0.1, 0.3], [0.2, 0.6], 0.05, 0.1) == pytest.approx(0.3 / 0.6)
    assert corruption_error([0.05, 0.05], [0.2, 0.6], 0.05, 0.1) == pytest.approx(0, abs=1e-12)
    assert corruption_error([0.1], [0.0]) is None and corruption_error([0.1], [0.1], 0.0, 0.1) is None


CELLS = [
    Cell(kind=kind, severity=severity, accuracy=1 - severity / 10, interval=(0.1, 0.95), reference=1 - severity / 5)
    for kind in ("frost", "fog")
    for severity in (1, 5)
]


def test_the_heat_map_in_80_columns_and_as_svg() -> None:
    found = CorruptionMap.of([*CELLS, None, Cell.parse({"kind": "snow"})])
    file = io.StringIO()
    Console(file=file, width=80).print(heat_table(found, synthetic=True))
    lines = [" ".join(line.split()) for line in file.getvalue().splitlines()]
    assert "frost (procedural) 90.0 % 50.0 % 70.0 % 50.0 %" in lines and max(map(len, lines)) <= 80
    page = Page(draw_heat(found))
    rects = [dict(attributes) for tag, attributes in page.tags if tag == "rect"]
    assert [one["fill-opacity"] for one in rects if "fill-opacity" in one] == ["0.900", "0.500", "0.700"] * 2
    assert "frost (procedural), severity 5: 50.0 % (10.0-95.0)" in page.text
    assert "fog, mean over severities: 70.0 %" in page.text


@pytest.mark.parametrize("damaged", [{}, {"cells": 3}, {"cells": [{"kind": "fog"}]}, {"cells": ["fog"], "kinds": None}])
def test_damaged_results_have_no_map(damaged: dict[str, Any]) -> None:
    assert CorruptionMap.parse(Result.parse({"corruptions": damaged}).corruptions) is None

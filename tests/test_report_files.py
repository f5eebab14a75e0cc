"""What a report says of its run, in which order, and the files that can be saved from it."""

from __future__ import annotations

import base64
import csv
import re
from pathlib import Path

import numpy as np
import pytest
from cli import call
from test_report import ATTACK, STUDY, Page, strip, written

from kerasrobust.jobs import attack
from kerasrobust.show.links import csv_link

pytest_plugins = ["cli_fixtures"]


def saved(text: str, ending: str) -> dict[str, str]:
    """Returns the files that a page offers, by their names."""
    found = re.findall(rf'download="([^"]+\.{ending})" href="data:[^;]+;base64,([^"]+)"', text)
    return {name: base64.b64decode(data).decode() for name, data in found}


def test_each_table_can_be_saved_as_csv(tmp_path: Path) -> None:
    text = written(tmp_path, STUDY)
    assert text.count("<table class=results>") == len(saved(text, "csv"))
    heads, *rows = csv.reader(saved(text, "csv")["results.csv"].splitlines())
    assert heads[:3] == ["Group", "Attack", "Norm"] and {len(row) for row in rows} == {len(heads)}
    assert len(rows) == len(STUDY["rows"])
    assert all(row[0] for row in rows)


def test_a_row_of_a_group_is_put_before_its_rows_without_what_is_said_of_it() -> None:
    body = (
        "<tbody><tr class=group><th colspan=2>net <span>convnet</span></th></tr>"
        "<tr><td>PGD, a</td><td><b>27.8 %</b></td></tr></tbody>"
        "<tbody><tr class=group><th>other</th></tr><tr><td>FGSM</td><td></td></tr></tbody>"
    )
    (rows,) = saved(csv_link(body, ["Attack", "Accuracy"], "Results of all"), "csv").items()
    assert rows[0] == "results-of-all.csv"
    assert [*csv.reader(rows[1].splitlines())] == [
        ["Group", "Attack", "Accuracy"], ["net", "PGD, a", "27.8 %"], ["other", "FGSM", ""],
    ]  # fmt: skip


def test_each_chart_can_be_saved_as_svg_that_needs_no_style_sheet(tmp_path: Path) -> None:
    text = written(tmp_path, STUDY)
    files = saved(text, "svg")
    assert files
    assert all(svg.startswith("<svg") and "var(" not in svg for svg in files.values())


def test_curves_come_before_tables(tmp_path: Path) -> None:
    text = written(tmp_path, STUDY)
    assert text.index("<h2>Accuracy over") < text.index("<h2>Results")


def test_an_attack_is_told_with_its_settings_and_the_accuracy_without_it(tmp_path: Path) -> None:
    entry = ATTACK["attacks"][0] | {"settings": {"steps": 20, "step_size": 2 / 255, "pixels": None, "eot": 10}}
    page = Page(written(tmp_path, ATTACK | {"attacks": [entry], "clean_accuracy": 0.9}, about={"began": "today"}))
    for words in (f"Attack {entry['name']}", "steps20", "step_size2/255", ", EOT 10", "begantoday"):
        assert words in page.text
    assert "pixels" not in page.text
    assert any(cells and cells[0] == "clean" for cells in page.cells)


def test_attacks_of_one_name_keep_their_own_settings(tmp_path: Path) -> None:
    entry = ATTACK["attacks"][0]
    several = [entry | {"settings": {"steps": steps, "eot": eot}} for steps, eot in ((20, 1), (40, 1), (50, 10))]
    page = Page(written(tmp_path, ATTACK | {"attacks": several}))
    for words in ("steps20", "steps40", "steps50", f"Attack {entry['name']}, number 2", "EOT 10"):
        assert words in page.text
    radii = [entry | {"epsilon": radius, "settings": {"steps": 20, "epsilon": radius}} for radius in (0.01, 0.02)]
    other = radii[0] | {"name": "bim"}
    once = Page(written(tmp_path, ATTACK | {"attacks": [*radii, other]}))
    assert once.text.count("steps20") == 2 and "number 2" not in once.text


def test_images_of_attacks_that_differ_in_their_passes_stand_apart(tmp_path: Path) -> None:
    page = Page(written(tmp_path, examples=[strip(attack="pgd"), strip(attack="pgd", eot=10)]))
    assert "under PGD, 8/255" in page.text and "under PGD, EOT 10, 8/255" in page.text


def test_trainings_stand_side_by_side_where_they_differ(tmp_path: Path) -> None:
    recipes = {"plain": {"epochs": 30, "training": "standard"}, "hard": {"epochs": 30, "training": "pgd", "steps": 7}}
    page = Page(written(tmp_path, settings={"recipes": recipes, "seed": 0}))
    assert ["training", "standard", "pgd"] in page.cells and ["steps", "", "7"] in page.cells
    assert "The same for all networksepochs30" in page.text
    assert "recipes." not in page.text


def test_survivors_are_among_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    class Block:
        attack, epsilon, examples, eot = "pgd", 8 / 255, range(30), 1

    class Index:
        image_shape, norm, model = (2, 2, 3), "linf", "net"
        correct = np.ones(30, bool)
        success = np.arange(30) < 20
        y = prediction = prediction_adv = np.zeros(30, int)
        confidence = confidence_adv = distance = np.zeros(30)

        def blocks(self) -> list[type[Block]]:
            return [Block]

        def class_name(self, number: int) -> str:
            return str(number)

    places: list[int] = []
    monkeypatch.setattr(attack, "read_index", lambda path: Index())
    monkeypatch.setattr(attack, "read_pair", lambda path, place: (places.append(place), None))
    for count, expected in ((8, [0, 1, 2, 3, 4, 5, 20, 21]), (3, [0, 1, 20])):
        places.clear()
        attack.strips(Path("any"), count)
        assert places == expected
    Index.success = np.arange(30) < 1
    places.clear()
    attack.strips(Path("any"), 4)
    assert places == [0, 1, 2, 3]


def test_the_command_of_a_report_can_be_pasted(places: list[str]) -> None:
    words = ["attack", "tiny", "--steps", "2", "--split", "test[:8]", *places]
    assert call(*words, "--name", "mine").status == 0
    text = (Path(places[1]) / "mine" / "report.html").read_text()
    command = "".join(Page(re.findall(r"<pre><code>(.*?)</code></pre>", text, re.DOTALL)[0]).words)
    assert "--name" not in command and "--steps 2" in command
    page = Page(text)
    assert re.search(r"began\d{4}-\d\d-\d\d \d\d:\d\d UTC", page.text) and "machineCPU" in page.text
    assert "duration" in page.text

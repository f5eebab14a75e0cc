"""The file of a person's theme and keys, and what the UI makes of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli import ROOT
from screen import shows, text, until
from textual.theme import BUILTIN_THEMES

from kerasrobust.errors import InputError
from kerasrobust.marks import read_marks
from tui.app import Lab
from tui.keys import check_keys, known
from tui.preferences import Preferences, place, read


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    place().parent.mkdir(parents=True)
    return place()


def test_the_file_is_where_such_files_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert place() == tmp_path / "config/kerasrobust/tui.toml"
    for unusable in ("", "relative"):
        monkeypatch.setenv("XDG_CONFIG_HOME", unusable)
        assert place() == tmp_path / ".config/kerasrobust/tui.toml"
    assert read(place()) == Preferences()


def test_theme_and_keys_are_read(file: Path) -> None:
    file.write_text('theme = "nord"\n[keys]\nstar-run = "b"\nnew-run = "ctrl+n, +"\n')
    assert read(file) == Preferences("nord", {"star-run": "b", "new-run": "ctrl+n, +"})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'theme = "nord', "Expected TOML. Received: "),
        (b"\xff\xfe", "Expected TOML. Received: "),
        (b'colour = "red"', "Expected a setting that exists (keys, theme). Received: 'colour'"),
        (b'theme = "nrod"', "Received: 'nrod'. Did you mean 'nord'?"),
        (b"theme = 3", "Received: values of another type. Put texts into quotes."),
        (b'keys = "b"', "Received: values of another type."),
        (b"[keys]\nquit = 3", "Received: values of another type."),
        (b'[keys]\nstar-ran = "b"', "the id of a key, such as quit. Received: 'star-ran'. Did you mean star-run?"),
        (b'[keys]\nstar-run = "bogus"', "a key such as b, f5, ctrl+x or question_mark for star-run. Received: 'bogus'"),
        (b'[keys]\nstar-run = "Ctrl+x"', "Received: 'Ctrl+x'"),
        (b'[keys]\nstar-run = "shift+a"', "Received: 'shift+a'"),
        (b'[keys]\nstar-run = ""', "Received: ''"),
        (b'[keys]\nstar-run = "b,,c"', "Received: ''"),
        (b'[keys]\narchive-run = "d"', "Expected a key for archive-run that is free. Received: d, which demo has."),
        (b'[keys]\narchive-run = "f3"', "Received: f3, which theme has. Choose another, or give theme another one."),
        (b'[keys]\nquit = "x"', "Expected a key for quit that is free. Received: x, which"),
        (b'[keys]\ntab-log = "c"', "Received: c, which filter-class has."),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_one_line_before_the_ui_starts(
    file: Path, content: bytes, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    from tui.__main__ import main

    file.write_bytes(content)
    for more in ([], ["--serve"]):
        assert main(more) == 2
        said = capfd.readouterr().err
        assert said.count("\n") == 1 and said.startswith("kerasrobust-tui: ") and str(file) in said
        assert words in said


def test_it_is_one_line_for_the_shell_too(file: Path) -> None:
    file.write_text('[keys]\nquit = "nothing"')
    done = subprocess.run(
        [sys.executable, "-m", "tui"], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "Received: 'nothing'" in done.stderr


def test_keys_may_be_exchanged_and_shared_where_they_are_usually() -> None:
    check_keys({"new-run": "d", "demo": "n"})
    # Never asked for at the same place.
    check_keys({"log-warnings": "c", "attack-model": "x"})
    check_keys({"copy-attacks": "Y", "copy-run-command": "Y"})


def test_every_key_may_be_another_and_its_own() -> None:
    for name in known():
        check_keys({name: "ctrl+f20"})
    check_keys({name: binding.key for name, binding in known().items()})


async def test_other_keys_work_and_are_shown(runs_dir: Path, models_dir: Path, add_run: object) -> None:
    folder = add_run("attack", "mine")  # type: ignore[operator]
    keys = {"star-run": "b,B", "new-run": "ctrl+n", "quit": "Q"}
    lab = Lab(runs_dir, models_dir, preferences=Preferences("nord", keys))
    async with lab.run_test(size=(80, 24)) as pilot:
        await shows(pilot, "mine", "^n New", "Q Quit")
        assert lab.theme == "nord"
        for key in ("asterisk", "n"):
            await pilot.press(key)
        await pilot.pause()
        assert not read_marks(folder).starred and lab.current_mode == "runs"
        await pilot.press("b")
        await until(pilot, lambda: read_marks(folder).starred)
        await pilot.press("B")
        await until(pilot, lambda: not read_marks(folder).starred)
        await pilot.press("question_mark")
        await shows(pilot, "Give the run a star")
        (line,) = (line for line in text(pilot).splitlines() if "Give the run a star" in line)
        assert "b B" in line
        await pilot.press("escape", "ctrl+n")
        await until(pilot, lambda: lab.current_mode == "new")


@pytest.mark.parametrize(("theme", "other"), [("nord", "textual-light"), ("solarized-light", "textual-dark")])
async def test_the_theme_changes_to_the_other_kind_and_back(
    runs_dir: Path, models_dir: Path, theme: str, other: str
) -> None:
    lab = Lab(runs_dir, models_dir, preferences=Preferences(theme))
    async with lab.run_test() as pilot:
        for expected in (theme, other, theme):
            assert lab.theme == expected
            await pilot.press("f3")


def test_the_guide_shows_a_file_that_works(file: Path) -> None:
    page = (ROOT / "docs/guide/ui.md").read_text()
    file.write_text(page.partition("```toml\n")[2].partition("```")[0])
    assert read(file).keys and read(file).theme in BUILTIN_THEMES
    assert "<!-- keys -->" in page


def test_what_is_no_file_is_one_message(file: Path) -> None:
    file.mkdir()
    with pytest.raises(InputError, match="Expected a file that can be read"):
        read(file)

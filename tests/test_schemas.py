"""The schemas of what `--json` prints and of what runs leave, held to the runs that the tests keep and to new ones."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli import ROOT, call
from jsonschema import Draft202012Validator
from schemas import FOLDER, faults, faults_of_run, of_events, validator
from whole_runs import ENTRY, RESULT, ROW

from kerasrobust.commands import COMMANDS

pytest_plugins = ["cli_fixtures"]

KEPT = {
    "result": sorted((ROOT / "tests").rglob("recordings/**/result.json")),
    "card": sorted((ROOT / "saved_models").glob("*/card.json")),
}
LOGS = sorted([*(ROOT / "tests").rglob("recordings/**/*.jsonl"), *(ROOT / "tests").rglob("recordings/**/*.jsonl.gz")])


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def log_lines(path: Path) -> Iterator[Any]:
    data = path.read_bytes()
    for line in (gzip.decompress(data) if path.suffix == ".gz" else data).splitlines():
        yield json.loads(line)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_each_is_a_schema_that_says_what_it_is_of(path: Path) -> None:
    schema = read(path)
    Draft202012Validator.check_schema(schema)
    assert schema["$id"] == f"urn:kerasrobust:{path.stem}:1" and schema["title"] and schema["description"]


def test_that_of_events_is_that_of_their_classes() -> None:
    assert read(FOLDER / "event.json") == of_events(), "Write it anew: python tests/schemas.py"


@pytest.mark.parametrize("kind", COMMANDS)
def test_each_command_says_what_it_prints(kind: str) -> None:
    assert (FOLDER / f"{COMMANDS[kind].schema}.json").is_file()
    assert (COMMANDS[kind].schema == "event") == bool(COMMANDS[kind].job)
    page = (ROOT / "docs" / "guide" / "commands.md").read_text()
    assert f"`{COMMANDS[kind].schema}.json`" in page


@pytest.mark.parametrize(
    ("name", "path"),
    [(name, path) for name, paths in KEPT.items() for path in paths],
    ids=lambda part: part if isinstance(part, str) else "-".join(part.parts[-3:-1]),
)
def test_every_result_and_card_that_is_kept(name: str, path: Path) -> None:
    assert faults(name, read(path)) == []


@pytest.mark.parametrize("path", LOGS, ids=lambda path: "-".join(path.parts[-2:]))
def test_every_event_that_is_kept(path: Path) -> None:
    assert [fault for line in log_lines(path) for fault in faults("event", line)] == []


def test_what_is_kept_is_there() -> None:
    kinds = {"attack", "train", "demo", "assess", "certify", "corruptions"}
    assert {read(path)["kind"] for path in KEPT["result"]} == kinds
    assert len(KEPT["card"]) == 8 and len(LOGS) == 9


def kept(kind: str) -> Any:
    return next(result for path in KEPT["result"] if (result := read(path))["kind"] == kind)


@pytest.mark.parametrize("name", sorted(RESULT - {"attack"}))
def test_a_result_without_a_field_of_the_contract_is_seen(name: str) -> None:
    result = kept("attack")
    del result[name]
    assert any(f"'{name}' is a required property" in fault for fault in faults("result", result))


@pytest.mark.parametrize("name", sorted(ENTRY))
def test_an_attack_without_a_field_of_the_contract_is_seen(name: str) -> None:
    for kind, own in (("result", kept("attack")), ("card", read(KEPT["card"][0]))):
        del own["attacks"][0][name]
        assert faults(kind, own) == [f"$.attacks[0]: '{name}' is a required property"]


@pytest.mark.parametrize("name", sorted(ROW - {"name", "noise", "examples"}))  # Which older runs lack.
def test_a_row_without_a_field_of_the_contract_is_seen(name: str) -> None:
    result = kept("demo")
    del result["rows"][3][name]
    assert faults("result", result) == [f"$.rows[3]: '{name}' is a required property"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["schema"], 2), (["seed"], -1), (["robust_accuracy"], 1.5), (["robust_accuracy"], None),
        (["interval"], [0.1]), (["interval"], [0.1, 0.2, 0.3]), (["interval"], [0.1, 2.0]),
        (["attacks", 0, "epsilon"], -0.1), (["attacks", 0, "gradients"], 1.5), (["attacks", 0, "name"], None),
        (["attacks", 0, "seconds"], "1 s"), (["attacks", 0, "curve"], [[0, 1, 0]]), (["attacks"], {}),
        (["warnings"], [{"code": "no spaces"}]), (["warnings"], [{"code": "no spaces", "message": "x"}]),
        (["data", "examples"], 0), (["data", "synthetic"], "yes"), (["versions", "keras"], 3),
        (["verdicts"], {"passes": 20}), (["labels"], [{"name": "cat"}]), (["audit"], {"checked": []}),
    ],
)  # fmt: skip
def test_a_wrong_value_is_seen(path: list[Any], value: Any) -> None:
    result = kept("attack")
    assert faults("result", result) == []
    place = result
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert faults("result", result)


def test_a_wrong_event_is_seen_and_one_of_a_later_version_is_not() -> None:
    by_type = {line["type"]: line for path in LOGS for line in log_lines(path)}
    # No run that is kept has labels; those were before there were the others.
    missing = {"LabelFinished", "Evaluated", "Audited", "SystemSampled"}
    assert set(validator("event").schema["$defs"]) - set(by_type) == missing
    for line in by_type.values():
        known = validator("event").schema["$defs"][line["type"]]
        for name in ("schema", "type", "time", *known["required"]):
            without = {key: value for key, value in line.items() if key != name}
            assert f"$: '{name}' is a required property" in faults("event", without)
        for name, own in known["properties"].items():
            if own is not True and name in line:
                wrong = 3 if isinstance(line[name], dict | list | str) else [{}]
                assert faults("event", line | {name: wrong}), (line["type"], name)
    later = by_type["Log"] | {"colour": "red"}
    assert faults("event", later) == [] and faults("event", later | {"type": "Colour"}) == []


def printed(*words: str | Path) -> list[Any]:
    """Returns what a command prints with `--json`, where each line is JSON by itself."""
    outcome = call(*words, "--json")
    assert outcome.status == 0, outcome.err
    return [json.loads(line) for line in outcome.out.splitlines()]


def test_what_commands_print(tmp_path: Path, places: list[str], agreed: Path, models_dir: Path) -> None:
    """A run's events, and the lists; what other runs leave is held to the schemas in test_engine and test_study."""
    mine = ["--runs-dir", tmp_path / "runs", "--models-dir", tmp_path / "models"]
    attack = ["--model", "noisy", "--data", agreed, "--split", "all[:6]", "--attack", "square", "--queries", "20"]
    commands: dict[str, list[Any]] = {
        "attack": [*attack, *places],
        "import": ["--model", models_dir / "tiny" / "model.keras", *mine],
    }
    for kind, words in commands.items():
        happened = printed(kind, *words, "--name", kind)
        assert [fault for line in happened for fault in faults("event", line)] == []
        assert [happened[0]["type"], happened[-1]["type"]] == ["RunStarted", "RunFinished"]
        assert faults_of_run(tmp_path / "runs" / kind) == []
    assert faults("card", read(tmp_path / "models" / "import" / "card.json")) == []
    for words in (["compare", *commands, *mine], ["models", *mine], ["models", "--models-dir", ROOT / "saved_models"]):
        (listed,) = printed(*words)
        assert listed and faults("figures", listed) == []
    (written,) = printed("export", "attack", "--format", "csv", *mine)
    assert written and faults("export", written) == []

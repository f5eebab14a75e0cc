"""Events are single lines of valid JSON, come back as they were, and a reader skips what it doesn't know."""

from __future__ import annotations

import json
import time
from dataclasses import fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerasrobust import events
from kerasrobust.events import Event, Finding, Log, Metrics, Progress, from_json, to_json

# The fields that other programs read; schema, type, time and stage come on top.
CONTRACT = {
    "RunStarted": "run kind config command versions devices pid",
    "StageStarted": "title",
    "StageFinished": "status seconds",
    "Progress": "unit done total rate seconds_left",
    "Metrics": "step epoch values split",
    "AttackStarted": "attack norm epsilon examples settings",
    "AttackProgress": "attack done total survivors step steps gradients forwards",
    "AttackFinished": "attack name norm epsilon robust_accuracy interval median_distance seconds gradients forwards "
    "attacked curve median_queries query_curve reached reached_interval surrogate settings",
    "Evaluated": "clean_accuracy clean_interval robust_accuracy interval",
    "Audited": "checked left_out doubts notes",
    "LabelFinished": "name share clean_accuracy clean_interval robust_accuracy interval",
    "Certified": "clean_accuracy clean_interval certificate",
    "CorruptionFinished": "kind severity accuracy interval reference seconds",
    "ExamplesSaved": "path count attack",
    "ModelSaved": "name path card",
    "Row": "name model training randomized noise attack norm epsilon steps eot accuracy interval median_distance "
    "published examples",
    "Finding": "code message severity evidence",
    "Log": "level message",
    "SystemSampled": "cpu process_cpu memory memory_total process_memory gpus",
    "RunFinished": "status seconds message",
}

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
# Control characters don't come back: see below.
TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs")))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Returns values of a field's type, as far as JSON has them."""
    if get_origin(hint) is Literal:
        return st.sampled_from(get_args(hint))
    if get_origin(hint) is list:
        return st.lists(values_of(get_args(hint)[0]), max_size=3)
    if get_origin(hint) is dict:
        return st.dictionaries(TEXT, values_of(get_args(hint)[1]), max_size=3)
    if get_origin(hint) is Union or len(get_args(hint)) > 1:
        return st.one_of([values_of(part) for part in get_args(hint)])
    return {
        Any: JSON,
        type(None): st.none(),
        str: TEXT,
        int: st.integers(),
        float: NUMBERS,
        bool: st.booleans(),
    }[hint]


def any_of(kind: type[Event]) -> st.SearchStrategy[Event]:
    hints = get_type_hints(kind)
    return st.builds(kind, **{item.name: values_of(hints[item.name]) for item in fields(kind)})


ANY = st.one_of([any_of(kind) for kind in Event.types.values()])


def strict(line: str) -> dict[str, Any]:
    """Reads JSON as other languages do: NaN and Infinity are errors."""

    def refuse(word: str) -> Any:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(line, parse_constant=refuse)


@pytest.mark.parametrize("name", CONTRACT)
def test_types_have_the_fields_of_the_contract(name: str) -> None:
    kind = Event.types[name]
    assert {item.name for item in fields(kind)} == {*CONTRACT[name].split(), "time", "stage"}


def test_no_type_is_outside_the_contract() -> None:
    assert set(Event.types) == set(CONTRACT)


@given(ANY)
def test_what_is_written_comes_back(event: Event) -> None:
    line = to_json(event)
    assert len(line.splitlines()) == 1
    record = strict(line)
    assert (record["schema"], record["type"]) == (1, type(event).__name__)
    assert ("stage" in record) == (event.stage is not None)
    assert from_json(line) == event
    assert from_json(line.encode()) == event


@given(ANY, st.data())
def test_a_torn_line_is_nothing_yet(event: Event, data: st.DataObject) -> None:
    line = to_json(event).encode()
    assert from_json(line[: data.draw(st.integers(0, len(line) - 1))]) is None


@given(ANY, st.dictionaries(TEXT.filter(bool), JSON, max_size=3))
def test_fields_of_a_newer_version_are_skipped(event: Event, extra: dict[str, Any]) -> None:
    newer = {f"x-{name}": value for name, value in extra.items()} | strict(to_json(event))
    assert from_json(json.dumps(newer)) == event


@pytest.mark.parametrize(
    "line",
    [
        "", "null", "3", "[]", "{}", '{"type": "Invented", "time": 1}', '{"type": ["Log"]}', '{"type": "Event"}',
        '{"type": "Log", "level": "info"}', "\x00", b"\xff\xfe", "[" * 100_000,
    ],
    ids=lambda line: repr(line[:30]),
)  # fmt: skip
def test_what_is_no_event_of_this_version_is_skipped(line: str | bytes) -> None:
    assert from_json(line) is None


@given(st.binary() | st.text())
def test_nothing_that_is_read_raises(line: str | bytes) -> None:
    assert from_json(line) is None


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_lacks_become_null(number: float) -> None:
    deep = {"loss": number, "more": [number, {"again": number}], "tuple": (1.0, number)}
    event = Log(level="info", message="", time=number)
    assert strict(to_json(event))["time"] is None
    line = to_json(events.ModelSaved(name="a", path="b", card=deep))
    assert strict(line)["card"] == {"loss": None, "more": [None, {"again": None}], "tuple": [1.0, None]}
    metrics = Metrics(step=1, epoch=1, values={"loss": number, "accuracy": 0.5}, split="train")
    assert strict(to_json(metrics))["values"] == {"loss": None, "accuracy": 0.5}


def test_file_names_that_are_no_unicode_survive() -> None:
    event = Log(level="info", message=b"caf\xe9.npz".decode("utf-8", "surrogateescape"))
    line = to_json(event)
    assert from_json(line.encode("utf-8")) == event


def test_the_time_is_now_in_unix_seconds() -> None:
    before = time.time()
    event = Progress(unit="step", done=1)
    assert before <= event.time <= time.time()
    assert event.stage is None


@pytest.mark.parametrize(
    "change",
    [
        {"message": 3}, {"message": None}, {"level": "shout"}, {"time": "noon"}, {"time": 1e999}, {"time": True},
        {"time": 10**400}, {"stage": 5},
    ],
)  # fmt: skip
def test_values_of_another_type_are_not_an_event(change: dict[str, Any]) -> None:
    line = json.dumps({"type": "Log", "time": 1.0, "level": "info", "message": "m"} | change)
    assert from_json(line) is None


def test_non_finite_numbers_come_back_as_none_inside_of_values() -> None:
    line = to_json(Metrics(step=1, epoch=1, values={"loss": float("nan"), "accuracy": 0.5}, split="train"))
    found = from_json(line)
    assert isinstance(found, Metrics) and found.values == {"loss": None, "accuracy": 0.5}
    assert from_json(line.replace("0.5", '"half"')) is None


def test_what_a_terminal_would_take_for_a_command_does_not_come_back() -> None:
    # Sets the title, the clipboard, clears the screen; the last as the single character that stands for ESC [.
    evil = "a\x1b]0;title\x07b\x1b]52;c;ZXZpbA==\x1b\\c\x1b[2J\x9b2Jd\ttab\nline"
    found = from_json(to_json(Finding(code=evil, message=evil, severity="info", evidence={evil: 1.0})))
    assert isinstance(found, Finding)
    assert found.message == found.code == "a]0;titleb]52;c;ZXZpbA==\\c[2J2Jd\ttab\nline"
    assert list(found.evidence) == [found.message]
    raw = json.dumps({"type": "Log", "time": 1.0, "level": "info", "message": "\x9b2J"}, ensure_ascii=False)
    assert from_json(raw) == Log(time=1.0, level="info", message="2J")

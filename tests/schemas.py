"""The JSON schemas that are shipped, and the one of events, which is made from the classes in `kerasrobust.events`.

`python tests/schemas.py` writes it anew. Those of results and cards are written by hand: `kerasrobust.records` reads
whatever it finds, so that its classes don't say what has to be there.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from jsonschema import Draft202012Validator

import kerasrobust
from kerasrobust.events import SCHEMA, Event

FOLDER = Path(kerasrobust.__file__).parent / "schemas"


@functools.cache
def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")))


def faults(name: str, value: Any) -> list[str]:
    """Returns where a value from JSON breaks a schema, and how."""
    return [f"{error.json_path}: {error.message[:200]}" for error in validator(name).iter_errors(value)]


def faults_of_run(folder: Path) -> list[str]:
    """Returns the faults of all that a run left which has a schema: its result, its events, and its networks' cards."""
    found = faults("result", json.loads((folder / "result.json").read_text(encoding="utf-8")))
    for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines():
        found += faults("event", json.loads(line))
    for path in folder.glob("models/*/card.json"):
        found += faults("card", json.loads(path.read_text(encoding="utf-8")))
    return found


def of_hint(hint: Any) -> Any:
    """Returns the schema of a type hint of an event's field, as `kerasrobust.events` reads it."""
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin is Literal:
        return {"enum": list(parts)}
    if origin in (Union, UnionType):
        return {"anyOf": [of_hint(part) for part in parts]}
    if origin in (list, dict):
        # Inside, null stands for a number that isn't finite.
        inside = True if parts[-1] is Any else {"anyOf": [of_hint(parts[-1]), {"type": "null"}]}
        return {"type": "array", "items": inside} if origin is list else _object(inside)
    plain = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
    return {"type": plain[hint]}


def _object(inside: Any) -> dict[str, Any]:
    return {"type": "object"} | ({} if inside is True else {"additionalProperties": inside})


def of_events() -> dict[str, Any]:
    """Returns the schema of one line of `events.jsonl`, which `--json` prints."""
    made = {}
    for name, kind in sorted(Event.types.items()):
        if not kind.__module__.startswith("kerasrobust."):  # Of a test.
            continue
        hints = get_type_hints(kind)
        own = [item for item in dataclasses.fields(kind) if item.name not in ("time", "stage")]
        missing = dataclasses.MISSING
        made[name] = {
            "description": " ".join((inspect.getdoc(kind) or "").split()),
            "required": [item.name for item in own if item.default is missing and item.default_factory is missing],
            "properties": {item.name: of_hint(hints[item.name]) for item in own},
        }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:kerasrobust:event:{SCHEMA}",
        "title": "A line of events.jsonl, and of --json",
        "description": "What happened in a run. Other types and other fields may be there: readers skip them.",
        "type": "object",
        "required": ["schema", "type", "time"],
        "properties": {
            "schema": {"const": SCHEMA},
            "type": {"type": "string", "minLength": 1},
            "time": {"description": "Unix seconds.", "type": "number"},
            "stage": {"description": "The part of the run that it belongs to.", "type": "string"},
        },
        "allOf": [
            {"if": {"properties": {"type": {"const": name}}}, "then": {"$ref": f"#/$defs/{name}"}} for name in made
        ],
        "$defs": made,
    }


if __name__ == "__main__":
    (FOLDER / "event.json").write_text(json.dumps(of_events(), indent=1) + "\n", encoding="utf-8")

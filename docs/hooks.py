"""What the documentation makes from the code: the options of each command, the public names, the files' schemas."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import kerasrobust  # noqa: E402
from kerasrobust.commands import config_class, summaries  # noqa: E402
from kerasrobust.fields import Field, fields  # noqa: E402
from kerasrobust.names import ATTACKS  # noqa: E402

OWN = {"own": "Options", "model": "How the model takes images"}
SHARED = ("common", "output", "outside")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the benchmarks' results, which lie beside the programs that write them."""
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text()
    files.append(File.generated(config, "benchmarks.md", content=results))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Puts what is made from the code where a page has a marker for it."""
    del page, config, files  # mkdocs passes them by name.
    makers = {"commands": commands, "python": python, "saved models": saved_models, "schemas": schemas, "keys": keys}

    def made(found: re.Match[str]) -> str:
        return makers[found[1]]()

    # Between the markers stands where it is to be found by who reads the file itself.
    markdown = re.sub("<!-- (" + "|".join(makers) + ") -->.*?<!-- end -->", made, markdown, flags=re.DOTALL)
    return markdown.replace("../../benchmarks/RESULTS.md", "../benchmarks.md")


def commands() -> str:
    """Returns a section for each command, with tables of its options, and one for those that most of them have."""
    parts = []
    for kind, summary in summaries().items():
        parts.append(f"## {kind}\n\n{summary}\n")
        for group, words in OWN.items():
            if rows := [row(item) for item in fields(config_class(kind)) if item.group == group]:
                parts += [f"**{words}**\n", *table(rows)]
    rows = [row(item) for item in fields(config_class("attack")) if item.group in SHARED]
    return "\n".join([*parts, "## Options of every command that computes\n", *table(rows)])


def table(rows: list[str]) -> list[str]:
    """Returns the lines of a table of options."""
    return ["| option | default | what it says |\n|---|---|---|", *rows, ""]


def row(item: Field) -> str:
    """Returns an option's row, with its possible values where these are a fixed list."""
    words = item.help + (f" One of {', '.join(f'`{choice}`' for choice in item.choices)}." if item.choices else "")
    name = item.name.upper() if item.positional else item.option
    default = "needed" if item.default is None else f"`{item.default}`" if item.default else ""
    return f"| `{name}` | {default} | {escaped(words)} |"


def python() -> str:
    """Returns directives for the docstrings of all public names."""
    homes = {name: f"kerasrobust.{home}.{name}" for name, home in kerasrobust._HOMES.items()}
    parts = ["## Functions and classes\n", *(f"::: {homes[name]}\n" for name in sorted(homes, key=str.lower))]
    attacks = sorted(
        known.home.replace(":", ".") for known in ATTACKS.values() if not known.home.endswith(":AutoAttack")
    )
    return "\n".join([*parts, "## Attacks, `kerasrobust.attacks`\n", *(f"::: {home}\n" for home in attacks)])


def saved_models() -> str:
    """Returns the README's table of the models that come along."""
    _, head, rest = (ROOT / "README.md").read_text().partition("| name | what | clean |")
    return head + rest.partition("\n\n")[0]


def schemas() -> str:
    """Returns a section for each JSON schema, with a table of what its objects hold."""
    parts = []
    for path in sorted((ROOT / "kerasrobust" / "schemas").glob("*.json")):
        schema = json.loads(path.read_text())
        parts.append(f"## {path.name}\n\n{schema.get('description', schema.get('title', ''))}\n")
        rows = [
            f"| `{name}` | {escaped(kind_of(value))} | {escaped(value.get('description', ''))} |"
            for name, value in schema.get("properties", {}).items()
        ]
        if rows:
            parts += ["| name | type | what it is |\n|---|---|---|", *rows, ""]
    return "\n".join(parts)


def keys() -> str:
    """Returns a table of all keys of the terminal UI, by the ids that its file of preferences knows them by."""
    from tui.keys import bindings, owners

    rows = ["| id | key | where | what it does |", "|---|---|---|---|"]
    for owner in owners():
        where = owner.__module__.rpartition(".")[2].replace("app", "everywhere").replace("base", "every place")
        rows += [
            f"| `{binding.id}` | {escaped(binding.key.replace(',', ', '))} | {where} | {escaped(binding.tooltip)} |"
            for binding in bindings(owner)
        ]
    return "\n".join(rows) + "\n"


def kind_of(value: dict[str, Any]) -> str:
    """Returns a property's type in words."""
    kinds = value.get("type", value.get("$ref", "").rpartition("/")[2])
    return " or ".join(kinds) if isinstance(kinds, list) else str(kinds)


def escaped(words: str) -> str:
    """Returns text that stands in one cell of a table."""
    return words.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")

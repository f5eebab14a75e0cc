"""What the form of a new run says of a setting, and of a command with its presets."""

from __future__ import annotations

from rich.text import Text

from kerasrobust import presets
from kerasrobust.settings import RunConfig
from tui import form
from tui.widgets.fields import FieldRow


def about_field(row: FieldRow, before: str, preset: str) -> Text:
    """Returns what there is to know of a setting: its option, what it may be, its help, known values.

    `before` is its text in the chosen preset, or its default where none is chosen.
    """
    item = row.item
    text = Text()
    text.append(item.label, "bold")
    text.append(f"  {item.option}  ", "dim")
    standard = f"{'preset' if preset else 'default'} {before or 'none'}"
    text.append(f"{form.expected(item)}; {'required' if item.default is None else standard}")
    if item.default is not None and row.text != before:
        text.append(" (* changed)")
    text.append(f"\n{item.help}")
    if row.known:
        text.append(f"\nctrl+↑↓ {', '.join(row.known)}")
    return text


def about_command(kind: type[RunConfig], preset: str, wide: bool) -> Text:
    """Returns what a command does, and its presets: all if there is room, the chosen one otherwise."""
    origin = f"the preset {preset}" if preset else "the default"
    text = Text()
    text.append(f"{kind.kind}  ", "bold")
    text.append((kind.__doc__ or "").splitlines()[0])
    text.append(f" * marks what differs from {origin}.", "dim")
    if kind.kind == "train":
        summaries = presets.summaries()
        if wide:
            lines = [f"{'>' if name == preset else ' '} {name}: {summary}" for name, summary in summaries.items()]
            text.append("\n".join(["\n", "Presets", *lines]))
        else:
            names = ", ".join(summaries)
            text.append(f"\n{summaries[preset] if preset else f'Presets: {names}.'}")
    return text

"""A hook of mkdocs: the command line is what `--help` prints, the shortcuts are those of the plugin; neither goes stale."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import typer

import napari_unet
from napari_unet.cli import app

COMMANDS, SHORTCUTS = "<!-- commands -->", "<!-- shortcuts -->"
WIDTH = 100


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in the help of every command, and the shortcuts."""
    if COMMANDS in markdown:
        return markdown.replace(COMMANDS, "\n\n".join(_pages(typer.main.get_command(app), "napari-unet")))
    if SHORTCUTS in markdown:
        return markdown.replace(SHORTCUTS, "\n".join(f"| {key} | {what} |" for key, what in _shortcuts()))
    return markdown


def _shortcuts() -> list[tuple[str, str]]:
    """Read the list, and the keys of buttons that it names, as text: importing the plugin would need a window."""
    source = (Path(napari_unet.__file__).parent / "plugin" / "shortcuts.py").read_text("utf-8")
    values = {x.targets[0].id: x.value for x in ast.parse(source).body if isinstance(x, ast.Assign)}
    keys = ast.literal_eval(values["KEYS"])
    return [
        (keys[ast.literal_eval(key.slice)] if isinstance(key, ast.Subscript) else ast.literal_eval(key), what.value)
        for key, what in (row.elts for row in values["SHORTCUTS"].elts)
    ]


def _pages(command: Any, name: str, parent: Any = None) -> list[str]:
    context = command.make_context(name.split()[-1], [], parent=parent, resilient_parsing=True, max_content_width=WIDTH)
    context.terminal_width = WIDTH
    context.info_name = name.split()[-1]
    found = [f"## {name}\n\n```text\n{command.get_help(context).strip()}\n```"]
    for inside, child in getattr(command, "commands", {}).items():
        found += _pages(child, f"{name} {inside}", context)
    return found

"""The command line, from the typer application: each command with its arguments and options, in the groups of `--help`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import typer
from editguard.audit.cli.main import app

from .pages import table

__all__ = ["commands", "options_of"]

_TYPES = {int: "integer", float: "number", Path: "path"}
_ARGUMENTS, _OPTIONS = "Arguments", "Options"
_EXAMPLE = "Example: "


def commands() -> str:
    """Return a section for each command, with a table for each group of its options."""
    return "\n\n".join(_section(name, command) for name, command in _commands(typer.main.get_command(app), ""))


def options_of() -> dict[str, set[str]]:
    """Return the long options of each command."""
    return {
        name: {option for one in command.params for option in one.opts if option.startswith("--")}
        for name, command in _commands(typer.main.get_command(app), "")
    }


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    below = getattr(command, "commands", None)
    if below is None:
        yield name, command
    for part, one in (below or {}).items():
        yield from _commands(one, f"{name} {part}".strip())


def _section(name: str, command: Any) -> str:
    shown = [one for one in command.params if not getattr(one, "hidden", False) and one.name != "help"]
    arguments = " ".join(_argument(one) for one in shown if one.param_type_name == "argument")
    usage = " ".join(part for part in (f"editguard {name}", arguments, "[OPTIONS]") if part)
    groups: dict[str, list[Any]] = {}
    for one in shown:
        usual = _ARGUMENTS if one.param_type_name == "argument" else _OPTIONS
        groups.setdefault(getattr(one, "rich_help_panel", None) or usual, []).append(one)
    parts = [f"## {name}", f"```text\n{usage}\n```", *_help(command)]
    for title, members in groups.items():
        parts.append(f"**{title}**")
        parts.append(table(("name", "type", "default", "meaning"), [_row(one) for one in members]))
    return "\n\n".join(parts)


def _argument(one: Any) -> str:
    text = f"{_name(one)}{'...' if one.nargs == -1 else ''}"
    return text if one.required else f"[{text}]"


def _name(one: Any) -> str:
    return str(one.metavar or one.name.upper())


def _help(command: Any) -> Iterator[str]:
    """Yield the paragraphs of a command's help and its epilogue; an example becomes a block of its own."""
    for text in (command.help or "", command.epilog or ""):
        for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
            lines = [line for line in paragraph.replace("\b", "").splitlines() if line.strip()]
            if lines and lines[0].startswith(_EXAMPLE):
                yield "```sh\n" + "\n".join(line.removeprefix(_EXAMPLE).strip() for line in lines) + "\n```"
            elif lines:
                yield " ".join(line.strip() for line in lines)


def _row(one: Any) -> tuple[str, ...]:
    if one.param_type_name == "argument":
        name = f"`{_name(one)}`"
    else:
        name = ", ".join(
            f"`{option}`" for option in sorted([*one.opts, *one.secondary_opts], key=lambda text: -len(text))
        )
    several = one.param_type_name != "argument" and getattr(one, "multiple", False)
    return name, _type(one) + (", may be repeated" if several else ""), _default(one), _text(one.help or "")


def _type(one: Any) -> str:
    if getattr(one, "is_flag", False):
        return ""
    if one.param_type_name == "option" and one.metavar:
        # A pipe in code is escaped in one renderer of tables and not in another.
        return " or ".join(f"`{part}`" for part in str(one.metavar).split("|"))
    asked = one.type_descriptor.annotation
    if isinstance(asked, type) and issubclass(asked, Enum):
        return " or ".join(f"`{choice.value}`" for choice in asked)
    return _TYPES.get(asked, "text")


def _default(one: Any) -> str:
    if one.required:
        return "required"
    value = one.default
    if isinstance(value, Enum):
        value = value.value
    return f"`{value}`" if isinstance(value, str | int | float | Path) and not isinstance(value, bool) else ""


def _text(text: str) -> str:
    return re.sub(r"<(?=\w)", r"\<", text)

"""What a field means: the phrase in docs/meanings.toml, else the docstring below the field in the code."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import tomllib
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path

__all__ = ["MEANINGS", "meaning", "phrases", "unused"]

MEANINGS = Path(__file__).resolve().parents[1] / "meanings.toml"

_asked: set[tuple[str, str]] = set()


@cache
def _written() -> Mapping[str, Mapping[str, str]]:
    return tomllib.loads(MEANINGS.read_text(encoding="utf-8"))


def phrases(table: str, names: list[str]) -> dict[str, str]:
    """Return the phrase of each name in one table of docs/meanings.toml.

    Raises:
        KeyError: a name without a phrase.
    """
    missing = [name for name in names if name not in _written().get(table, {})]
    if missing:
        raise KeyError(f'docs/meanings.toml has no phrase for {", ".join(missing)} in its table ["{table}"]; write one')
    _asked.update((table, name) for name in names)
    return {name: _written()[table][name] for name in names}


def meaning(table: str, cls: type[object], field: str) -> str:
    """Return what `field` of `cls` means: the phrase in `table`, else its docstring.

    Raises:
        KeyError: nobody says what it means.
    """
    if field not in _written().get(table, {}):
        for home in cls.__mro__:
            if found := _docstrings(home).get(field):
                return found
    return phrases(table, [field])[field]


def unused() -> list[str]:
    """Return the phrases that nothing was asked for since the start: their fields are gone."""
    return [f"{table}.{name}" for table, rows in _written().items() for name in rows if (table, name) not in _asked]


@cache
def _docstrings(cls: type[object]) -> dict[str, str]:
    """Return the docstrings below the annotated names of a class."""
    try:
        source = textwrap.dedent(inspect.getsource(cls))
    except (OSError, TypeError):
        return {}
    (definition,) = ast.parse(source).body
    body = definition.body if isinstance(definition, ast.ClassDef) else []
    found = {}
    for field, below in pairwise(body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = _as_markdown(inspect.cleandoc(text))
    return found


def _as_markdown(text: str) -> str:
    return re.sub(r"``(.+?)``", r"`\1`", text).replace("||", "‖")

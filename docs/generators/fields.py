"""Tables of the fields of files: one table an object, with type and meaning, and those of the objects in it."""

from __future__ import annotations

import types
from collections.abc import Sequence
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from .files import ROOTS, Model, explained, models_in, table_of
from .pages import table

__all__ = ["described", "type_text"]

_PLAIN = {str: "text", int: "integer", float: "number", bool: "true or false", type(None): "null", object: "any JSON"}
_MOST_VALUES = 6
_COMPARED = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def described(*roots: str, elsewhere: Sequence[str] = ()) -> str:
    """Return a heading and a table for each object of `roots`, names of files or records, then for each object in them.

    Objects in them that stand `elsewhere` on the page are linked and not described.
    """
    first = [ROOTS[name] for name in roots]
    parts = []
    for model in _reached(first, [ROOTS[name] for name in elsewhere]):
        own, head = list(model.model_fields), ""
        if model is ROOTS["control"]:
            own = [name for name in own if name in model.__annotations__]
            head = "All fields of [edit](#edit), and:\n\n"
        rows = [(f"`{name}`", type_text(model.model_fields[name]), explained(model, name)) for name in own]
        parts.append(f"### {_title(model)}\n\n{head}{table(('field', 'type', 'meaning'), rows)}")
    return "\n\n".join(parts)


def _title(model: Model) -> str:
    return table_of(model).rpartition("/")[2]


def _reached(roots: Sequence[Model], elsewhere: Sequence[Model]) -> list[Model]:
    found = dict.fromkeys(roots)
    waiting = list(roots)
    while waiting:
        for field in waiting.pop(0).model_fields.values():
            for model in models_in(field.annotation):
                if model not in found and model not in elsewhere:
                    found[model] = None
                    waiting.append(model)
    return list(found)


def type_text(field: FieldInfo) -> str:
    """Return a field's type in words, with its bounds."""
    bounds = [
        f"{sign} {value:g}"
        for one in field.metadata
        for key, sign in _COMPARED.items()
        if (value := getattr(one, key, None)) is not None
    ]
    text = _type(field.annotation)
    return f"{text}, {', '.join(bounds)}" if bounds else text


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and annotation in _PLAIN:
        return _PLAIN[annotation]
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin is Annotated:
        return _type(arguments[0])
    if origin in (Union, types.UnionType):
        names = dict.fromkeys(_type(one) for one in arguments)
        return "any scalar" if {"text", "number", "true or false"} <= set(names) else " or ".join(names)
    if origin in (list, tuple):
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"table of {_type(arguments[1])}"
    return _named(annotation)


def _named(annotation: Any) -> str:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{_title(annotation)}](#{_title(annotation)})"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        values = [f"`{one.value}`" for one in annotation]
        return " or ".join(values) if len(values) <= _MOST_VALUES else "text"
    if fields := getattr(annotation, "_fields", ()):
        return f"[{', '.join(fields)}]"
    return "any JSON"

"""JSON Schemas of the files that editguard reads and writes, from the pydantic models that check them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from editguard.reports.log.schema import RECORD
from pydantic import BaseModel, TypeAdapter

from .files import ROOTS, Model, explained

__all__ = ["SCHEMAS", "schema"]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"

SCHEMAS: Mapping[str, str] = {
    "log-record": "One line of audit.jsonl.",
    "summary": "summary.json, the verdict of an audit.",
    "baseline": "A baseline: an earlier audit, saved under a name.",
    "override": "One line of overrides.jsonl: a person's decision to open a closed gate.",
    "gate": "The verdict of the gate; gate.json has `exit_code` beside these fields.",
    "diff": "diff.json, a comparison of two checkpoints.",
    "trace": "trace.json, a causal trace.",
    "delta-manifest": "The manifest of a delta file.",
    "provenance": "editguard.json, beside an edited model.",
    "policy": "A policy, as a TOML file or the table [tool.editguard].",
}
"""Name of each schema to what it is of."""


def schema(name: str) -> str:
    """Return a schema as JSON text; its fields bear the descriptions of the reference."""
    model: TypeAdapter[Any] = RECORD if name == "log-record" else TypeAdapter(ROOTS[name])
    found = model.json_schema()
    classes = {one.__name__: one for one in _subclasses(BaseModel)}
    for part in (found, *found.get("$defs", {}).values()):
        _describe(part, classes)
    head = {"$schema": _DIALECT, "title": name, "description": SCHEMAS[name]}
    return (
        json.dumps(head | {key: value for key, value in found.items() if key not in head}, indent=2, ensure_ascii=False)
        + "\n"
    )


def _subclasses(cls: Model) -> list[Model]:
    ours = [one for one in cls.__subclasses__() if one.__module__.startswith("editguard.")]
    return [*ours, *(deeper for one in cls.__subclasses__() for deeper in _subclasses(one))]


def _describe(part: dict[str, Any], classes: Mapping[str, Model]) -> None:
    """Put what each field means into one object of a schema, and take out docstrings that are for programmers."""
    part.pop("description", None)
    model = classes.get(part.get("title", ""))
    for name, field in part.get("properties", {}).items():
        field.pop("title", None)
        if model is not None and (text := _meaning(model, name)):
            field["description"] = text


def _meaning(model: Model, field: str) -> str:
    """Return what a field means; empty for one that no page describes, such as those of a baseline."""
    try:
        return explained(model, field)
    except KeyError:
        return ""

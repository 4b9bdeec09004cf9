"""Small reproductions of the paper, built part by part for tests."""

from __future__ import annotations

from typing import Any

from editguard.reports.reproduction.schema import Claim, Curves, Experiment, Group, Heat, Reproduction, Scatter, Table
from pydantic import BaseModel


def make_claim(**changes: Any) -> Claim:
    fields: dict[str, Any] = {"paper": "All 77 collapse.", "here": "70 of 77 collapse.", "agreement": "agrees"}
    return Claim(**fields | changes)


def make_table(**changes: Any) -> Table:
    fields: dict[str, Any] = {
        "name": "counts",
        "title": "Counts",
        "columns": ["Model", "n", "Share"],
        "rows": [["tiny", 77, 0.25], ["large", None, 1e38]],
    }
    return Table(**fields | changes)


def make_group(**changes: Any) -> Group:
    fields: dict[str, Any] = {"name": "collapse", "x": [1, 2, 3], "y": [10, 20, 60], "labels": ["a", "b", "c"]}
    return Group(**fields | changes)


def make_scatter(**changes: Any) -> Scatter:
    fields: dict[str, Any] = {"name": "points", "title": "Points", "caption": "Seen.", "groups": [make_group()]}
    return Scatter(**fields | changes)


def make_curves(**changes: Any) -> Curves:
    fields: dict[str, Any] = {"name": "lines", "title": "Lines", "caption": "Seen.", "groups": [make_group()]}
    return Curves(**fields | changes)


def make_heat(**changes: Any) -> Heat:
    fields: dict[str, Any] = {
        "name": "grid",
        "title": "Grid",
        "caption": "Seen.",
        "x": ["0", "1"],
        "y": ["one", "two"],
        "z": [[1.0, 100.0], [None, 0.0]],
        "z_title": "norm",
    }
    return Heat(**fields | changes)


def make_experiment(**changes: Any) -> Experiment:
    fields: dict[str, Any] = {
        "number": 1,
        "name": "first",
        "title": "First",
        "question": "Does it?",
        "source": "Section 1",
        "claims": [make_claim()],
        "tables": [make_table()],
        "pictures": [make_scatter(), make_curves(), make_heat()],
        "notes": ["A note."],
    }
    return Experiment(**fields | changes)


def make_skipped_experiment(**changes: Any) -> Experiment:
    fields: dict[str, Any] = {
        "number": 2,
        "name": "second",
        "title": "Second",
        "question": "Is it?",
        "source": "Section 2",
        "skipped": "The encoder is not installed.",
    }
    return Experiment(**fields | changes)


def make_reproduction(*experiments: Experiment, **changes: Any) -> Reproduction:
    fields: dict[str, Any] = {
        "editguard_version": "0",
        "created": "2026-01-01",
        "command": "editguard reproduce",
        "model": "tiny",
        "model_fingerprint": "f",
        "layer": 5,
        "layers": 30,
        "seed": 0,
        "source": "edits.json",
        "source_sha256": "s",
        "requests": 2000,
        "cases": [{"kind": "first token", "edited": 77, "found": 80}],
        "statistics": "wikitext",
        "seconds": 3725.4,
        "experiments": list(experiments),
    }
    return Reproduction(**fields | changes)


def replace_free_texts(value: Any, text: str) -> Any:
    """Return `value`, a model or its part, with `text` as every free text. A number keeps columns distinct."""
    if isinstance(value, BaseModel):
        fixed_fields = {"kind", "agreement", "schema_version"} | (set() if isinstance(value, Group) else {"name"})
        fields = {name: getattr(value, name) for name in type(value).model_fields}
        return type(value)(
            **{
                name: value if name in fixed_fields else replace_free_texts(value, text)
                for name, value in fields.items()
            }
        )
    if isinstance(value, list):
        return [
            f"{n}{text}" if isinstance(item, str) else replace_free_texts(item, text) for n, item in enumerate(value)
        ]
    return text if isinstance(value, str) else value

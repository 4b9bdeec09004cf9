"""The files that editguard reads and writes: their pydantic models, and a name for each object in them.

An object is named after the file or record, and after the fields that lead to it: ``gate/comparison/metrics``. Names of
classes stand on no page, so that they may change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from types import MappingProxyType
from typing import get_args

from editguard.audit.policy import Policy
from editguard.audit.saved_model.manifest import DeltaManifest, EditProvenance
from editguard.reports.gate.baseline import Baseline
from editguard.reports.gate.result import Gate, Override
from editguard.reports.html.diff_page import DiffFile
from editguard.reports.html.trace_page import TraceFile
from editguard.reports.log.schema import ControlRecord, EditRecord, Footer, Header, ModelRecord
from editguard.reports.log.types import Rate
from editguard.reports.verdict.summary import Summary
from pydantic import BaseModel

from .meanings import meaning

__all__ = ["ROOTS", "Model", "explained", "models_in", "table_of"]

Model = type[BaseModel]

ROOTS: Mapping[str, Model] = MappingProxyType(
    {
        "rate": Rate,
        "header": Header,
        "edit": EditRecord,
        "control": ControlRecord,
        "model": ModelRecord,
        "footer": Footer,
        "summary": Summary,
        "override": Override,
        "gate": Gate,
        "diff": DiffFile,
        "delta-manifest": DeltaManifest,
        "provenance": EditProvenance,
        "policy": Policy,
        "baseline": Baseline,
        "trace": TraceFile,
    }
)
"""Files and records by name; the first that leads to an object gives it its name."""

_SHARED = {ControlRecord: EditRecord}
"""A record whose other fields are those of another one."""


def explained(model: Model, field: str) -> str:
    """Return what a field means.

    Raises:
        KeyError: nobody says what it means.
    """
    other = _SHARED.get(model)
    if other is not None and field not in model.__annotations__:
        return explained(other, field)
    return meaning(table_of(model), model, field)


def table_of(model: Model) -> str:
    """Return the name of an object, which its table in docs/meanings.toml bears."""
    return _tables()[model]


@cache
def _tables() -> dict[Model, str]:
    found: dict[Model, str] = {model: name for name, model in ROOTS.items()}
    for root in ROOTS.values():
        waiting = [root]
        while waiting:
            model = waiting.pop(0)
            for name, field in model.model_fields.items():
                for inner in models_in(field.annotation):
                    if inner not in found:
                        found[inner] = f"{found[model]}/{name}"
                        waiting.append(inner)
    return found


def models_in(annotation: object) -> Iterator[Model]:
    """Yield the models that a field's type refers to."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)

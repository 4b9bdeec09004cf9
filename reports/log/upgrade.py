"""Logs of older versions, converted line by line to the one that is written now, before anything is validated.

Version 1 held one change of rank one for each edit, at the site that its header names. Only what differs is changed here. A
field that is missing or has a wrong type stays so, and the schema refuses it as it would in a log of its own version.
"""

from __future__ import annotations

from typing import Any

from .types import SCHEMA_VERSION

__all__ = ["upgrade_header", "upgrade_record"]

_OF_SITE = ("numerator", "denominator", "update_norm", "relative_norm", "steps", "final_loss", "engine")
"""Fields of an update that belong to its site."""
_OF_UPDATE = ("editor", "update_norm", "relative_norm", "needs_prefix", "prefix")
_HASHES = ("before", "edited", "restored", "restored_ok")


def upgrade_header(header: dict[str, Any]) -> dict[str, Any]:
    """Return the header of a log of version 1 as one of this version."""
    return {**header, "schema_version": SCHEMA_VERSION}


def upgrade_record(record: dict[str, Any], header: dict[str, Any]) -> dict[str, Any]:
    """Return a record of a log of version 1, which begins with `header`, as one of this version."""
    upgraded = dict(record)
    if isinstance(update := record.get("update"), dict):
        upgraded["update"] = _upgrade_update(update, header)
    if isinstance(weights := record.get("weights"), dict):
        upgraded["weights"] = _upgrade_weights(weights, header)
    return upgraded


def _upgrade_update(update: dict[str, Any], header: dict[str, Any]) -> dict[str, Any]:
    site = {"layer": header.get("layer"), "path": header.get("site"), "rank": 1, **_pick(update, _OF_SITE)}
    return {**_pick(update, _OF_UPDATE), "changes": [site], **_rest(update, (*_OF_SITE, *_OF_UPDATE))}


def _upgrade_weights(weights: dict[str, Any], header: dict[str, Any]) -> dict[str, Any]:
    return {
        "sites": {str(header.get("site")): _pick(weights, _HASHES)},
        **_pick(weights, ("kept",)),
        **_rest(weights, (*_HASHES, "kept")),
    }


def _pick(fields: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: fields[name] for name in names if name in fields}


def _rest(fields: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Return the fields of other names, which the schema refuses."""
    return {name: value for name, value in fields.items() if name not in names}

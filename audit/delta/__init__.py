"""Edits as files: only the change, with what it belongs to, what was found of it, and how it must be served.

`export_edits` makes edits under the guard and writes a delta file each; `read_delta` reads one back, `apply_delta` puts
them onto their base for the length of a block or for good, and `save_applied` writes the edited model as a folder.
Names are loaded when first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .apply import apply_delta, save_applied
    from .export import export_edits
    from .file import Delta, read_delta
    from .manifest import DeltaManifest

__all__ = ["Delta", "DeltaManifest", "apply_delta", "export_edits", "read_delta", "save_applied"]

_HOMES = {
    "Delta": ".file",
    "DeltaManifest": ".manifest",
    "apply_delta": ".apply",
    "export_edits": ".export",
    "read_delta": ".file",
    "save_applied": ".apply",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)

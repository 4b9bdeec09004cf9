"""Edits as files: only the change, with what it belongs to, what was found of it, and how it must be served.

`export_edits` makes edits under the guard and writes a delta file each; `read_delta` reads one back, `apply_delta` puts
them onto their base for the length of a block or for good, and `save_applied` writes the edited model as a folder.
Names are loaded when first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import lazy_names

if TYPE_CHECKING:
    from ..saved_model.manifest import DeltaManifest as DeltaManifest
    from .apply import apply_delta as apply_delta
    from .apply import save_applied as save_applied
    from .export import export_edits as export_edits
    from .file import Delta as Delta
    from .file import read_delta as read_delta

__all__, __getattr__, __dir__ = lazy_names(
    __name__,
    {
        "apply_delta": ".apply",
        "save_applied": ".apply",
        "export_edits": ".export",
        "Delta": ".file",
        "read_delta": ".file",
        "DeltaManifest": "..saved_model.manifest",
    },
)

"""The deltas that a user names: files by their paths, exports by their folders, and with ids only some of these."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from ...probes.errors import InputError
from ...reports.text import quote_names
from ..saved_model.manifest import EXPORT_MARKER, ExportIndex
from .file import Delta, read_delta

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["select_deltas", "check_ids"]


def check_ids(only: Sequence[str], ids: Sequence[str]) -> None:
    """Raise `InputError` for the first of `only` that is not one of `ids`."""
    if unknown := [name for name in only if name not in set(ids)]:
        raise InputError(
            f"There is no edit {unknown[0]!r} among those given, which are {quote_names(ids)}; --only takes their ids."
        )


def select_deltas(paths: Sequence[Path], only: Sequence[str] = ()) -> list[Delta]:
    """Return the deltas of files and of folders that ``editguard export`` wrote; with `only` those of these ids.

    Raises `InputError` for a file that cannot be read, a folder whose files are not those of its index, and an id that
    no delta has.
    """
    deltas = [delta for path in paths for delta in (_read_export(path) if path.is_dir() else [read_delta(path)])]
    check_ids(only, [delta.manifest.id for delta in deltas])
    return [delta for delta in deltas if not only or delta.manifest.id in only]


def _read_export(folder: Path) -> list[Delta]:
    index = folder / EXPORT_MARKER.name
    try:
        exported = ExportIndex.from_json(index.read_text(encoding="utf-8")).edits
    except (OSError, ValueError) as error:
        why = (str(error).splitlines() or ["unknown"])[0]
        raise InputError(
            f"The folder {str(folder)!r} has no {EXPORT_MARKER.name} that can be read ({why}); name a folder that "
            "'editguard export' wrote, or delta files."
        ) from error
    for entry in exported:
        path = folder / entry.file
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() != entry.sha256:
            raise InputError(
                f"The file {str(path)!r} is not the one that {EXPORT_MARKER.name} lists for the edit {entry.edit.id!r}; export "
                "again."
            )
    return [read_delta(folder / entry.file) for entry in exported]

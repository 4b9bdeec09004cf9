"""Which deltas a user means: files by their paths, whole exports by their folders, and of all these only some by their ids."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from ...probes.errors import InputError
from ...reports.text import quote_names
from .file import Delta, read_delta
from .manifest import EXPORT_MARKER, ExportIndex

__all__ = ["select_deltas", "check_ids"]


def check_ids(only: Sequence[str], ids: Sequence[str]) -> None:
    """Raise `InputError` for the first of `only` that is none of `ids`."""
    if unknown := [name for name in only if name not in set(ids)]:
        raise InputError(
            f"There is no edit {unknown[0]!r} among those given, which are {quote_names(ids)}; --only takes their ids."
        )


def select_deltas(paths: Sequence[Path], only: Sequence[str] = ()) -> list[Delta]:
    """Return the deltas of files and of folders that ``editguard export`` wrote; with `only` those of these ids.

    Raises `InputError` for what cannot be read, a folder whose files are not those that its index lists, and an id that
    none of them has.
    """
    found = [delta for path in paths for delta in (_exported(path) if path.is_dir() else [read_delta(path)])]
    check_ids(only, [one.manifest.id for one in found])
    return [one for one in found if not only or one.manifest.id in only]


def _exported(folder: Path) -> list[Delta]:
    index = folder / EXPORT_MARKER.name
    try:
        listed = ExportIndex.model_validate_json(index.read_text(encoding="utf-8"), strict=True).edits
    except (OSError, ValueError) as error:
        why = (str(error).splitlines() or ["unknown"])[0]
        raise InputError(
            f"The folder {str(folder)!r} has no {EXPORT_MARKER.name} that can be read ({why}); name a folder that 'editguard export' "
            "wrote, or delta files."
        ) from error
    for one in listed:
        path = folder / one.file
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() != one.sha256:
            raise InputError(
                f"The file {str(path)!r} is not the one that {EXPORT_MARKER.name} lists for the edit {one.edit.id!r}; export again."
            )
    return [read_delta(folder / one.file) for one in listed]

"""A folder that appears whole or not at all: written beside its place and moved there at the end, by one writer at a time."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ...probes.errors import InputError
from ...reports.errors import OutputError
from ...reports.log.bounded_read import LARGEST_TABLE, bounded_bytes
from ..run.file_names import writable
from ..run.output_folder import one_writer

__all__ = ["Marker", "check_replaceable", "whole_folder"]


class Marker(NamedTuple):
    """The file by which a folder is known as one of ours: its name, and what it says of the files beside it."""

    name: str
    listed: Callable[[bytes], Collection[str]]
    """Takes the file's content and returns the paths of the files that were written with it; raises `ValueError` for
    content that is not ours."""


def check_replaceable(out: Path, marker: Marker, *, overwrite: bool) -> None:
    """Raise `InputError` where `out` may not be written to.

    Only a folder that holds a valid `marker` and no file that this does not list is ever replaced.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir():
        raise InputError(f"The output {str(out)!r} is a file, and must be a folder; choose another --out.")
    if others := _others(out, marker):
        raise InputError(
            f"The folder {str(out)!r} holds files that editguard did not write ({others}), and is never replaced; choose "
            "another --out."
        )
    if not overwrite:
        raise InputError(f"The folder {str(out)!r} is not empty; choose another --out, or add --overwrite.")


def _others(out: Path, marker: Marker) -> str:
    """Say what is not ours in `out`; empty where all is."""
    mark = out / marker.name
    if not mark.is_file():
        return f"it has no {marker.name}"
    try:
        listed = {marker.name, *marker.listed(bounded_bytes(mark, LARGEST_TABLE))}
    except (OSError, ValueError):
        return f"its {marker.name} is not one of editguard's"
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_symlink() or not path.is_dir()}
    return repr(min(more)) if (more := found - listed) else ""


@contextmanager
def whole_folder(out: Path, marker: Marker, *, overwrite: bool) -> Iterator[Path]:
    """Yield an empty folder that becomes `out` when the block ends well, and is removed when it does not.

    See `check_replaceable` for what may be replaced. A hidden file beside `out` is locked meanwhile. Raises `InputError` where nothing can
    be written or another writes, and `OutputError` where the folder cannot be put in its place; what was there stays then.
    """
    out = out.absolute()
    check_replaceable(out, marker, overwrite=overwrite)
    with _only_writer(out):
        try:
            work = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
        except OSError as error:
            raise _unwritable(out, error) from error
        try:
            (made := work / "new").mkdir(mode=0o700)
            yield made
            _owner_only(made)
            check_replaceable(out, marker, overwrite=overwrite)  # what came there meanwhile is not ours to remove
            _swap(made, out, work / "old")
        finally:
            if out.exists() or not (work / "old").exists():  # else the only copy of what was there is the one in `work`
                shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _only_writer(out: Path) -> Iterator[None]:
    writable(out.parent)
    with one_writer(out.parent / f".{out.name}.lock", out):
        yield


def _owner_only(made: Path) -> None:
    # Other libraries write with the user's umask.
    for path in made.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)


def _swap(made: Path, out: Path, old: Path) -> None:
    """Put `made` in the place of `out`, and what was there back where that fails."""
    try:
        if out.exists():
            out.replace(old)
        try:
            made.replace(out)
        except BaseException:
            if old.exists():
                old.replace(out)
            raise
    except OSError as error:
        kept = f"; what was there is in {str(old)!r}" if old.exists() else ""
        raise OutputError(
            f"The folder {str(out)!r} cannot be put in its place ({error.strerror or error}{kept}); choose another --out."
        ) from error


def _unwritable(out: Path, error: OSError) -> InputError:
    return InputError(f"Nothing can be written beside {str(out)!r} ({error.strerror or error}); choose another --out.")

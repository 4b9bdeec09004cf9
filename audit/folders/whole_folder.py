"""A folder that appears whole or not at all: written beside its place and moved there at the end, by one writer at a time."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ...probes.errors import InputError
from ...reports.errors import OutputError
from ...reports.log.bounded_read import LARGEST_TABLE, bounded_bytes
from .output_folder import make_writable, one_writer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

__all__ = ["Marker", "check_replaceable", "whole_folder"]


class Marker(NamedTuple):
    """The file that marks a folder as one of ours, and lists the files beside it."""

    name: str
    listed: Callable[[bytes], Collection[str]]
    """Takes the marker's content and returns the paths of the files that were written with it.

    Raises `ValueError` for content that is not ours.
    """


def check_replaceable(out: Path, marker: Marker, *, overwrite: bool) -> None:
    """Raise `InputError` where `out` may not be written to.

    Only a folder that holds a valid `marker` and no file that this does not list is ever replaced.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir():
        raise InputError(f"The output {str(out)!r} is a file, and must be a folder; choose another --out.")
    if foreign := _foreign_file(out, marker):
        raise InputError(
            f"The folder {str(out)!r} holds files that editguard did not write ({foreign}), and is never replaced; choose "
            "another --out."
        )
    if not overwrite:
        raise InputError(f"The folder {str(out)!r} is not empty; choose another --out, or add --overwrite.")


def _foreign_file(out: Path, marker: Marker) -> str:
    """Return the first file in `out` that is not ours, or what is wrong with the marker; empty where all files are ours."""
    path = out / marker.name
    if not path.is_file():
        return f"it has no {marker.name}"
    try:
        listed = {marker.name, *marker.listed(bounded_bytes(path, LARGEST_TABLE))}
    except (OSError, ValueError):
        return f"its {marker.name} is not one of editguard's"
    present = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_symlink() or not path.is_dir()}
    return repr(min(foreign)) if (foreign := present - listed) else ""


@contextmanager
def whole_folder(out: Path, marker: Marker, *, overwrite: bool) -> Iterator[Path]:
    """Yield an empty folder that becomes `out` when the block ends well, and is removed when it does not.

    `check_replaceable` says what may be replaced. A hidden file beside `out` is locked meanwhile.

    Raises `InputError` where nothing can be written or another run writes, and `OutputError` where the folder cannot be put
    in its place. The old folder stays then.
    """
    out = out.absolute()
    check_replaceable(out, marker, overwrite=overwrite)
    with _hold_alone(out):
        try:
            work = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
        except OSError as error:
            raise _unwritable(out, error) from error
        try:
            (new := work / "new").mkdir(mode=0o700)
            yield new
            _restrict_to_owner(new)
            check_replaceable(out, marker, overwrite=overwrite)  # a file that came there meanwhile is not ours
            _swap(new, out, work / "old")
        finally:
            if out.exists() or not (work / "old").exists():  # else `work` holds the only copy of the old folder
                shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _hold_alone(out: Path) -> Iterator[None]:
    make_writable(out.parent)
    with one_writer(out.parent / f".{out.name}.lock", out):
        yield


def _restrict_to_owner(folder: Path) -> None:
    # Other libraries write with the user's umask.
    for path in folder.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)


def _swap(new: Path, out: Path, old: Path) -> None:
    """Put `new` in the place of `out`, and the old folder back where that fails."""
    try:
        if out.exists():
            out.replace(old)
        try:
            new.replace(out)
        except BaseException:
            if old.exists():
                old.replace(out)
            raise
    except OSError as error:
        old_place = f"; the old folder is in {str(old)!r}" if old.exists() else ""
        raise OutputError(
            f"The folder {str(out)!r} cannot be put in its place ({error.strerror or error}{old_place}); choose another --out."
        ) from error


def _unwritable(out: Path, error: OSError) -> InputError:
    return InputError(f"Nothing can be written beside {str(out)!r} ({error.strerror or error}); choose another --out.")

"""A folder that a command writes into: one writer at a time, and nothing is written over unasked. Loads nothing heavy.

Every command with ``--out`` for a folder goes through `locked_folder`. A folder that must appear whole (`whole_folder`) is
made beside its place, and shares the lock. Out of scope: the files (`file_names`) and their content.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from ...probes.errors import InputError
from ...reports.log.file import remove_unfinished_files
from .file_names import AUDIT_FILES, LOG

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

__all__ = ["locked_folder", "make_writable", "one_writer"]


def make_writable(out: Path, *, inside: bool = False) -> None:
    """Make the folder `out`, for its owner only, where it does not exist.

    Raises `InputError` where nothing can be written to it. A folder `inside` one of ours may not be a link; the outermost
    folder is the user's to choose.
    """
    if out.is_symlink() and inside:
        raise InputError(
            f"The folder {str(out)!r} is a link, which may lead anywhere; remove it, or choose another --out."
        )
    if out.exists() and not out.is_dir():
        raise InputError(f"The output {str(out)!r} is a file, and must be a folder; choose another --out.")
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The permissions are not enough: the file system may be read-only.
        with TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise InputError(
            f"The output folder {str(out)!r} cannot be written to ({error.strerror}); choose another --out."
        ) from error


@contextmanager
def one_writer(lock: Path, out: Path) -> Iterator[None]:
    """Hold the file `lock` while `out` is written; raises `InputError` when another run holds it."""
    from filelock import FileLock, Timeout

    file_lock = FileLock(lock, mode=0o600)
    try:
        file_lock.acquire(timeout=0)
    except Timeout:  # an OSError as well
        raise InputError(f"Another run is writing to {str(out)!r}; wait for it, or choose another --out.") from None
    except OSError as error:
        raise InputError(
            f"The lock {str(lock)!r} cannot be taken ({error.strerror or error}); remove it where it is a link or not a file, or "
            "choose another --out."
        ) from error
    try:
        yield
    finally:
        file_lock.release()


@contextmanager
def locked_folder(
    out: Path, own: Collection[str] = AUDIT_FILES, what: str = "an audit", *, overwrite: bool, resume: bool = False
) -> Iterator[Path]:
    """Hold `out` for one run; raises `InputError` when another runs there or results would be written over.

    `own` are the files that the run writes, and `what` names their content. Old files stay until the run has something to
    put in their place. With `resume` an audit is continued.
    """
    if overwrite and resume:
        raise InputError("--overwrite removes the audit that --resume would continue; leave one of them out.")
    new_folders = [folder for folder in (out, *out.parents) if not folder.exists()]
    make_writable(out)
    with one_writer(out / ".lock", out):
        try:
            old = [name for name in own if (out / name).exists()]
            if old and not overwrite and not (resume and LOG in old):
                way_out = "add --overwrite, or --resume to continue an unfinished one"
                raise InputError(
                    f"The folder {str(out)!r} already holds {what} ({old[0]}), and nothing is written over unasked; "
                    f"choose another --out, {way_out if LOG in own else 'or add --overwrite'}."
                )
            remove_unfinished_files(out, own)
            yield out
        finally:
            # A run that wrote nothing leaves nothing. A folder that cannot be removed must not hide the run's error.
            with suppress(OSError):
                if new_folders and all(path.is_dir() or path.name == ".lock" for path in out.rglob("*")):
                    (out / ".lock").unlink(missing_ok=True)
                    for folder in (*sorted(out.rglob("*"), reverse=True), *new_folders):
                        folder.rmdir()

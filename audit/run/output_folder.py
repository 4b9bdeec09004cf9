"""A folder that a command writes into: one writer at a time, and nothing written over unasked. Loads nothing heavy.

Every command with ``--out`` for a folder goes through `locked_folder`; what must appear whole (`delta.folder`) is made beside its
place, and shares the lock. Out of scope: what is written.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...probes.errors import InputError
from ...reports.log.file import remove_unfinished_files
from .file_names import AUDIT_FILES, LOG, writable

__all__ = ["locked_folder", "one_writer"]


@contextmanager
def one_writer(lock: Path, out: Path) -> Iterator[None]:
    """Hold the file `lock` while `out` is written; raises `InputError` when another run holds it."""
    from filelock import FileLock, Timeout

    held = FileLock(lock, mode=0o600)
    try:
        held.acquire(timeout=0)
    except Timeout:  # an OSError as well
        raise InputError(f"Another run is writing to {str(out)!r}; wait for it, or choose another --out.") from None
    except OSError as error:
        raise InputError(
            f"The lock {str(lock)!r} cannot be taken ({error.strerror or error}); remove it where it is a link or no file, or "
            "choose another --out."
        ) from error
    try:
        yield
    finally:
        held.release()


@contextmanager
def locked_folder(
    out: Path, own: Collection[str] = AUDIT_FILES, what: str = "an audit", *, overwrite: bool, resume: bool = False
) -> Iterator[Path]:
    """Hold `out` for one run; raises `InputError` when another runs there or results would be written over.

    `own` are the files that the run writes, and `what` it is that holds such files. They stay until the run has something to
    put in their place; an audit is gone on with where it is to `resume`.
    """
    if overwrite and resume:
        raise InputError("--overwrite removes the audit that --resume would go on with; leave one of them out.")
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    writable(out)
    with one_writer(out / ".lock", out):
        try:
            old = [name for name in own if (out / name).exists()]
            if old and not overwrite and not (resume and LOG in old):
                more = "add --overwrite, or --resume to go on with one that was not finished"
                raise InputError(
                    f"The folder {str(out)!r} already holds {what} ({old[0]}), and nothing is written over unasked; "
                    f"choose another --out, {more if LOG in own else 'or add --overwrite'}."
                )
            remove_unfinished_files(out, own)
            yield out
        finally:
            # Nothing came of it, so nothing is left of it; what cannot be removed is no reason to hide an error.
            with suppress(OSError):
                if made and all(path.is_dir() or path.name == ".lock" for path in out.rglob("*")):
                    (out / ".lock").unlink(missing_ok=True)
                    for folder in (*sorted(out.rglob("*"), reverse=True), *made):
                        folder.rmdir()

"""A folder that appears whole or not at all: written beside its place and moved there at the end."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...probes.errors import InputError

__all__ = ["free", "whole_folder"]


def free(out: Path, marker: str, *, overwrite: bool) -> None:
    """Raise `InputError` where `out` may not be written to.

    Only a folder that holds the file `marker`, one of ours then, is ever replaced.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir():
        raise InputError(f"The output {str(out)!r} is a file, and must be a folder; choose another --out.")
    if not (out / marker).is_file():
        raise InputError(
            f"The folder {str(out)!r} holds files that editguard did not write (it has no {marker}), and is never replaced; "
            "choose another --out."
        )
    if not overwrite:
        raise InputError(f"The folder {str(out)!r} is not empty; choose another --out, or add --overwrite.")


@contextmanager
def whole_folder(out: Path, marker: str, *, overwrite: bool) -> Iterator[Path]:
    """Yield an empty folder that becomes `out` when the block ends well, and is removed when it does not.

    See `free` for what may be replaced. Raises `InputError` where nothing can be written.
    """
    out = out.absolute()
    free(out, marker, overwrite=overwrite)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
    except OSError as error:
        raise InputError(
            f"Nothing can be written beside {str(out)!r} ({error.strerror}); choose another --out."
        ) from error
    try:
        (made := work / "new").mkdir(mode=0o700)
        yield made
        if out.exists():
            out.replace(work / "old")
        made.replace(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)

"""Reading a file that somebody else may have made: an ordinary one, of no more bytes than a stated bound.

A pipe or a device is not waited for, and a file that grows while it is read does not fill the memory. What is wrong is an
`OSError` whose `strerror` says so, as of any file that cannot be read.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

__all__ = ["LARGEST_BASELINE", "LARGEST_LOG", "LARGEST_POLICY", "LARGEST_TABLE", "bounded_bytes"]

LARGEST_LOG = 2 * 2**30
"""An edit's record has some 10 kB: two hundred thousand edits."""
LARGEST_BASELINE = 256 * 2**20
LARGEST_TABLE = 64 * 2**20
"""Of manifests, provenance, overrides."""
LARGEST_POLICY = 2**20


def bounded_bytes(path: Path, most: int) -> bytes:
    """Return the content of `path`, which may be a link; raises `OSError`, also where it has more than `most` bytes."""
    try:
        # Opening a pipe would otherwise wait for a writer.
        with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(errno.EINVAL, "it is no ordinary file", str(path))
            content = file.read(most + 1)
    except ValueError as error:
        raise OSError(errno.EINVAL, f"its path is none: {error}", str(path)) from error
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it has more than the {most // 2**20} MiB that are read", str(path))
    return content

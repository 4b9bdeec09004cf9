"""Reading a file of unknown origin: an ordinary file with no more bytes than a stated bound.

Nothing waits for a pipe or a device, and a file that grows while it is read does not fill the memory. Every fault is an
`OSError` whose `strerror` names it, as for any file that cannot be read.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["LARGEST_BASELINE", "LARGEST_LOG", "LARGEST_POLICY", "LARGEST_TABLE", "bounded_bytes"]

LARGEST_LOG = 2 * 2**30
"""Two hundred thousand edits: the record of an edit has about 10 kB."""
LARGEST_BASELINE = 256 * 2**20
LARGEST_TABLE = 64 * 2**20
"""For manifests, provenance and overrides."""
LARGEST_POLICY = 2**20


def bounded_bytes(path: Path, most: int) -> bytes:
    """Return the content of `path`, which may be a link; raises `OSError`, also for more than `most` bytes."""
    # Without O_NONBLOCK a pipe would wait for a writer; without O_BINARY Windows would translate line ends.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        with os.fdopen(os.open(path, flags), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(errno.EINVAL, "it is no ordinary file", str(path))
            content = file.read(most + 1)
    except ValueError as error:
        raise OSError(errno.EINVAL, f"its path is not valid: {error}", str(path)) from error
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it has more than the {most // 2**20} MiB that are read", str(path))
    return content

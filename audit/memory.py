"""The process's memory allocator, told to keep what is freed.

A pass allocates and frees the same large tensors again and again. glibc hands each of them back to the system, which
clears the pages anew: with it told otherwise, a pass of the perplexity check took 10 % less time (docs/performance.md).
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of glibc's ``mallopt`` parameters."""


def keep_freed_memory() -> bool:
    """Let the allocator reuse freed memory instead of returning it; returns whether it could be told (glibc only)."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, 1 << 30)) and bool(mallopt(_TRIM_THRESHOLD, (1 << 31) - 1))

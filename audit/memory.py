"""What the process keeps of freed memory: for the next pass all, between groups of edits none.

A pass allocates and frees the same large tensors again and again. glibc hands each of them back to the system, which
clears the pages anew: with it told otherwise, a pass of the perplexity check took 10 % less time (docs/performance.md).
What is kept is full of gaps that no tensor of another size fits into, and grows with the number of requests; so it is handed
back now and then.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any

__all__ = ["give_back_freed_memory", "keep_freed_memory"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of glibc's ``mallopt`` parameters."""


def keep_freed_memory() -> bool:
    """Let the allocator reuse freed memory instead of returning it; returns whether it could be told (glibc only)."""
    mallopt = _glibc("mallopt")
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, 1 << 30)) and bool(mallopt(_TRIM_THRESHOLD, (1 << 31) - 1))


def give_back_freed_memory() -> None:
    """Return to the system what is free now (glibc only): some hundredths of a second, so not after every pass."""
    trim = _glibc("malloc_trim")
    if trim is not None:
        trim(0)


@cache
def _glibc(name: str) -> Any:
    """Return a function of glibc's, None where the process has no such thing."""
    try:
        return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
    except OSError:  # a Python that is linked statically
        return None

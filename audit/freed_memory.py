"""What becomes of the memory that an audit frees.

A pass allocates and frees the same large tensors again and again. glibc returns each of them to the system, which clears the
pages anew. Where the process keeps them, a pass of the perplexity check takes 10 % less time (docs/research/performance.md).
That memory has gaps into which no tensor of another size fits, and grows with the number of requests, so it is returned
now and then.
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
    """Let the allocator reuse freed memory instead of returning it; return whether that is possible (glibc only)."""
    mallopt = _glibc("mallopt")
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, 1 << 30)) and bool(mallopt(_TRIM_THRESHOLD, (1 << 31) - 1))


def give_back_freed_memory() -> None:
    """Return freed memory to the system (glibc only); it takes some hundredths of a second, too long after every pass."""
    trim = _glibc("malloc_trim")
    if trim is not None:
        trim(0)


@cache
def _glibc(name: str) -> Any:
    """Return a function of glibc; None where the process has no such function."""
    try:
        return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
    except OSError:  # a Python that is linked statically
        return None

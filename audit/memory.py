"""What the process keeps in memory: what is freed, for the next pass, and of generated code little.

A pass allocates and frees the same large tensors again and again. glibc hands each of them back to the system, which
clears the pages anew: with it told otherwise, a pass of the perplexity check took 10 % less time (docs/performance.md).
oneDNN keeps the code that it generates for each number of tokens in a product, half a megabyte each, and that of a thousand
products where nobody says otherwise.
"""

from __future__ import annotations

import ctypes
import os
import sys

__all__ = ["keep_freed_memory", "keep_little_code"]

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


def keep_little_code() -> None:
    """Let oneDNN keep the code of 128 products, unless the environment says of how many; call it before the first one."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")

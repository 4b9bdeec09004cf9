"""The process that an audit runs in: what it keeps of freed memory, and what happens when its device fails.

A pass allocates and frees the same large tensors again and again. glibc returns each of them to the system, which clears the
pages anew. Kept instead, a pass of the perplexity check takes 10 % less time (docs/research/performance.md). Kept memory is
full of gaps that no tensor of another size fits into, and grows with the number of requests, so it is returned now and then.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from ..probes.errors import DeviceFailed
from ..probes.wording import first_line

if TYPE_CHECKING:
    import torch

__all__ = ["give_back_freed_memory", "keep_freed_memory", "trusted_device"]

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


@contextmanager
def trusted_device(device: torch.device | str, what: str, then: str) -> Iterator[None]:
    """End `what` with `DeviceFailed` where the device itself fails; `then` says what to do behind "see to the device, then"."""
    import torch

    try:
        yield
    except torch.AcceleratorError as error:
        raise DeviceFailed(
            f"The device {device} failed ({first_line(error)}), and {what} ended there; see to the device, then {then}."
        ) from error

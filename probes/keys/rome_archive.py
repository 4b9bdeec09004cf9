"""A covariance file of the ROME code: an .npz archive of ``mom2.mom2``, a sum [d_ff, d_ff], and ``mom2.count``, its keys.

The header of an array is compared with this model's sizes before the array is read, so that a small file cannot take much memory.
Nothing is unpacked onto the disk, and no pickle is read.
"""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import StatisticsError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

__all__ = ["RomeSums", "read_archive"]

_MAX_SIZE_FACTOR = 4
"""Size that an archive may have, as a multiple of C in float64: it may hold more arrays than C."""
_SIZE_ALLOWANCE = 2**20
"""Bytes that it may have beyond that."""
_BROKEN = (
    OSError,
    KeyError,
    ValueError,
    TypeError,
    EOFError,
    OverflowError,
    SyntaxError,
    RecursionError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    tokenize.TokenError,
    zlib.error,
    zipfile.BadZipFile,
)
"""Errors of the standard library and numpy for an archive, or a header in it, that is broken."""
_LONGEST_REASON = 120
"""Characters of an error that a message repeats."""


class RomeSums(NamedTuple):
    """The sum of k k^T [size, size] in float64, and the number of keys."""

    total: np.ndarray[Any, np.dtype[np.float64]]
    keys: int


def read_archive(path: Path, size: int) -> RomeSums:
    """Read the sum and the count of keys with `size` entries; raises `StatisticsError` for every other file."""
    try:
        _check_size(path, size)
        with path.open("rb") as opened, zipfile.ZipFile(opened) as archive:
            total = _read_array(archive, "mom2.mom2", [(size, size)])
            (count,) = _read_array(archive, "mom2.count", [(), (1,)]).reshape(-1)
        return RomeSums(total.astype(np.float64), int(count))
    except _BROKEN as error:
        reason = _describe(error)
        raise StatisticsError(
            f"{str(path)!r} is no covariance file of ROME ({reason}); it must hold mom2.mom2 and mom2.count for this model's "
            "layer."
        ) from error


def _check_size(path: Path, size: int) -> None:
    max_bytes = _MAX_SIZE_FACTOR * 8 * size * size + _SIZE_ALLOWANCE
    if not path.is_file():
        raise ValueError("there is no such file")
    if path.stat().st_size > max_bytes:
        raise ValueError(f"it has more than {max_bytes / 2**20:.0f} MiB, and C needs {8 * size * size / 2**20:.1f}")


def _read_array(archive: zipfile.ZipFile, name: str, shapes: Collection[tuple[int, ...]]) -> np.ndarray[Any, Any]:
    """Read an array of real numbers with one of `shapes`, and no byte beyond it; raises one of `_BROKEN`."""
    member = archive.getinfo(f"{name}.npy")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is compressed as numpy compresses nothing")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"{name} has a header of version {version}")
        shape, by_column, dtype = _HEADERS[version](file)
        if dtype.kind not in "fiu":
            raise ValueError(f"{name} holds {dtype}, and no real numbers")
        if shape not in shapes:
            raise ValueError(
                f"{name} says that it is {list(shape)}, but keys at this site have {max(shapes)[0]} entries"
            )
        content = file.read(dtype.itemsize * int(np.prod(shape)))
    return np.frombuffer(content, dtype).reshape(shape, order="F" if by_column else "C")


_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def _describe(error: BaseException) -> str:
    is_short = type(error) is ValueError and len(str(error)) <= _LONGEST_REASON
    return str(error) if is_short and str(error).isprintable() else type(error).__name__

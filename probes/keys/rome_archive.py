"""A covariance file of the ROME code: an .npz archive of ``mom2.mom2``, a sum [d_ff, d_ff], and ``mom2.count``, its keys.

What an array says of itself is held against what this model needs before it is read, so that a small file cannot ask for
much memory; nothing is unpacked onto the disk, and no pickle is read.
"""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import StatisticsError

__all__ = ["RomeSums", "read_archive"]

_MEMORY = 4
"""Times the bytes of C in float64 that an archive may have: it may hold more than C."""
_SMALL = 2**20
_BROKEN = (
    OSError, KeyError, ValueError, TypeError, EOFError, OverflowError, SyntaxError, RecursionError, NotImplementedError,
    RuntimeError, struct.error, tokenize.TokenError, zlib.error, zipfile.BadZipFile,
)  # fmt: skip
"""What the standard library and numpy raise for an archive, or a header in it, that is not whole."""


class RomeSums(NamedTuple):
    """The sum of k k^T [size, size] in float64, and the number of keys."""

    total: np.ndarray[Any, np.dtype[np.float64]]
    keys: int


def read_archive(path: Path, size: int) -> RomeSums:
    """Read the sum and the count for keys of `size` entries; raises `StatisticsError` for everything else."""
    try:
        _no_larger(path, size)
        with path.open("rb") as opened, zipfile.ZipFile(opened) as archive:
            total = _array(archive, "mom2.mom2", [(size, size)])
            (count,) = _array(archive, "mom2.count", [(), (1,)]).reshape(-1)
        return RomeSums(total.astype(np.float64), int(count))
    except _BROKEN as error:
        why = _why(error)
        raise StatisticsError(
            f"{str(path)!r} is no covariance file of ROME ({why}); it must hold mom2.mom2 and mom2.count for this model's layer."
        ) from error


def _no_larger(path: Path, size: int) -> None:
    most = _MEMORY * 8 * size * size + _SMALL
    if not path.is_file():
        raise ValueError("there is no such file")
    if path.stat().st_size > most:
        raise ValueError(f"it has more than {most / 2**20:.0f} MiB, and C needs {8 * size * size / 2**20:.1f}")


def _array(archive: zipfile.ZipFile, name: str, shapes: Collection[tuple[int, ...]]) -> np.ndarray[Any, Any]:
    """Read one array, of real numbers and one of `shapes`, and no byte more; raises one of `_BROKEN`."""
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


def _why(error: BaseException) -> str:
    ours = isinstance(error, ValueError) and type(error) is ValueError and len(str(error)) <= 120
    return str(error) if ours and str(error).isprintable() else type(error).__name__

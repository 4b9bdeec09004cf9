"""A model in a GGUF file: what its header says, and its folder once its weights are dequantised.

The header is walked before another program's reader sees the file: every count in it must fit into the bytes that are left,
since that reader believes them. Then the file is converted as the embedded model is (`embedded`).
Out of scope: writing GGUF, and architectures that transformers does not read from it.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import IO

from ...errors import ModelError
from ..embedded import convert_gguf

__all__ = ["describe_conversion", "is_gguf_file", "prepare_gguf_folder", "read_architecture"]

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of each plain type of the format, by its number."""
_STRING, _ARRAY = 8, 9
_MOST_AXES = 4
_ARCHITECTURE = "general.architecture"
_LONGEST_NAME = 1 << 16


def is_gguf_file(ref: str | Path) -> bool:
    """Return whether `ref` is a file whose name ends in ``.gguf``."""
    path = Path(ref).expanduser()
    return path.suffix.lower() == ".gguf" and path.is_file()


def describe_conversion(ref: str | Path) -> str:
    """Return the sentence that says what is read of a GGUF file."""
    return f"The GGUF file {str(ref)!r} is dequantised to float32, and all that is measured is of these weights."


def prepare_gguf_folder(path: Path) -> Path:
    """Return the folder of the dequantised model, and convert the file first where the cache does not have it.

    Raises `ModelError` for a file that is damaged, or of an architecture that transformers does not read from GGUF.
    """
    architecture = read_architecture(path)
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    # transformers writes some names another way, such as qwen2_moe for qwen2moe.
    written = architecture.replace("-", "").replace("_", "")
    names = {*GGUF_SUPPORTED_ARCHITECTURES} - {"general", "tokenizer"}
    if written not in {name.replace("_", "") for name in names}:
        raise ModelError(
            f"The GGUF file {str(path)!r} is of the architecture {architecture[:60]!r}, which transformers does not read from "
            "this format; use the checkpoint that it was made of."
        )
    return convert_gguf(path, "gguf", "fetch the file again, or use the checkpoint that it was made of")


def read_architecture(path: Path) -> str:
    """Return the architecture that a GGUF file names; raises `ModelError` for a file whose header is not whole."""
    try:
        with path.open("rb") as file:
            return _Header(file, path.stat().st_size).read_architecture()
    except (OSError, ValueError, struct.error) as error:
        raise ModelError(
            f"The file {str(path)!r} cannot be read as GGUF ({error}); fetch it again, or use the checkpoint that it was made of."
        ) from error


class _Header:
    """Walks the header of a file of `size` bytes."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._size = file, size

    def read_architecture(self) -> str:
        if self._file.read(4) != _MAGIC:
            raise ValueError("it does not begin with GGUF")
        if (version := self._number("<I")) not in _VERSIONS:
            raise ValueError(f"its version is {version} and not one of {', '.join(map(str, _VERSIONS))}")
        tensors, fields = self._number("<Q"), self._number("<Q")
        self._expect(tensors + fields)
        architecture = ""
        for _ in range(fields):
            name, kind = self._text(), self._number("<I")
            if name == _ARCHITECTURE and kind == _STRING:
                architecture = self._text()
            else:
                self._skip_value(kind)
        for _ in range(tensors):
            self._skip_tensor()
        if not architecture:
            raise ValueError(f"it names no {_ARCHITECTURE}")
        return architecture

    def _number(self, layout: str) -> int:
        number: int = struct.unpack(layout, self._file.read(struct.calcsize(layout)))[0]
        return number

    def _expect(self, size: int) -> None:
        if size > self._size - self._file.tell():
            raise ValueError("it ends before what its header counts")

    def _skip(self, size: int) -> None:
        self._expect(size)
        self._file.seek(size, 1)

    def _text(self) -> str:
        length = self._number("<Q")
        self._expect(length)
        if length > _LONGEST_NAME:
            raise ValueError("a name in it is too long")
        return self._file.read(length).decode("utf-8")

    def _skip_value(self, kind: int) -> None:
        if kind == _STRING:
            self._skip(self._number("<Q"))
        elif kind == _ARRAY:
            inner, count = self._number("<I"), self._number("<Q")
            self._expect(count)
            if inner == _STRING:
                for _ in range(count):
                    self._skip(self._number("<Q"))
            else:
                self._skip(count * self._width(inner))
        else:
            self._skip(self._width(kind))

    def _width(self, kind: int) -> int:
        if kind not in _SIZES:
            raise ValueError(f"a field in it is of the unknown type {kind}")
        return _SIZES[kind]

    def _skip_tensor(self) -> None:
        self._text()
        axes = self._number("<I")
        if axes > _MOST_AXES:
            raise ValueError(f"a tensor in it has {axes} axes")
        self._skip(8 * axes + 4 + 8)

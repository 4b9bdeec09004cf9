"""From the bytes of a file to its text: UTF-8, with or without a byte-order mark.

Another encoding, or a compression, is named in the error where the first bytes show it.
Out of scope: unpacking, because a small archive can unpack to any size.
"""

from __future__ import annotations

from ..errors import RequestError

__all__ = ["COMPRESSION_SUFFIXES", "decode_text"]

COMPRESSION_SUFFIXES = {".gz": "gzip", ".zip": "zip", ".xz": "xz", ".bz2": "bzip2", ".zst": "zstd", ".7z": "7-Zip"}
"""Compression by suffix."""
_SIGNATURES = (
    (b"\x1f\x8b", "compressed with gzip", "unpack it"),
    (b"PK\x03\x04", "a zip archive (a spreadsheet is one too)", "unpack it, or save the sheet as CSV"),
    (b"\xfd7zXZ\x00", "compressed with xz", "unpack it"),
    (b"BZh", "compressed with bzip2", "unpack it"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "compressed with 7-Zip", "unpack it"),
    (b"\x04\x22\x4d\x18", "compressed with lz4", "unpack it"),
    (b"PAR1", "a Parquet table", "write its rows as JSON Lines"),
)
_BYTE_ORDER_MARKS = (
    (b"\xff\xfe\x00\x00", "UTF-32-LE"),
    (b"\x00\x00\xfe\xff", "UTF-32-BE"),
    (b"\xff\xfe", "UTF-16-LE"),
    (b"\xfe\xff", "UTF-16-BE"),
)
_ENCODING_BYTES = 4096
"""Bytes at a file's start that its encoding is recognised by."""
_MIN_ZERO_SHARE = 0.1
"""Share of zeros among the high bytes of characters: even Chinese text has ASCII in its keys and brackets."""


def decode_text(content: bytes, source: str) -> str:
    """Return the text of a file of edits; raises `RequestError` with the encoding or compression where it is not UTF-8."""
    for signature, kind, way_out in _SIGNATURES:
        if content.startswith(signature):
            raise RequestError(f"The file {source!r} is {kind}; edits are read as plain text, so {way_out}.")
    if encoding := _other_encoding(content[:_ENCODING_BYTES]):
        raise RequestError(
            f"The file {source!r} is written in {encoding}; edits are read as UTF-8, so convert it: "
            f"iconv -f {encoding} -t UTF-8."
        )
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise RequestError(
            f"The file {source!r} is not UTF-8: byte 0x{content[error.start]:02x} in line {line}; save it as UTF-8."
        ) from error


def _other_encoding(start: bytes) -> str:
    """Return UTF-16 or UTF-32 with its byte order, by the byte-order mark or the places of zero bytes; empty for all others."""
    by_mark = next((name for mark, name in _BYTE_ORDER_MARKS if start.startswith(mark)), "")
    if by_mark:
        return by_mark
    zero_shares = [start[place::4].count(0) / max(1, len(start[place::4])) for place in range(4)]
    often = [share > _MIN_ZERO_SHARE for share in zero_shares]
    return {
        (False, True, True, True): "UTF-32-LE",
        (True, True, True, False): "UTF-32-BE",
        (False, True, False, True): "UTF-16-LE",
        (True, False, True, False): "UTF-16-BE",
    }.get((often[0], often[1], often[2], often[3]), "")

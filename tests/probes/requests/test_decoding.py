from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zipfile
from pathlib import Path

import pytest
from editguard.probes.errors import RequestError
from editguard.probes.requests.decoding import decode_text
from editguard.probes.requests.loader import load_requests

TEXT = json.dumps([{"subject": "法国", "prompt": "{}的首都是", "target_new": "柏林"}] * 20, ensure_ascii=False)


def zipped() -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("edits.json", TEXT)
    return written.getvalue()


@pytest.mark.parametrize("encoding", ["UTF-16-LE", "UTF-16-BE", "UTF-32-LE", "UTF-32-BE"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_decode_text_other_encoding_is_named(encoding: str, mark: str) -> None:
    with pytest.raises(RequestError, match=f"is written in {encoding}; .* convert it: iconv -f {encoding} -t UTF-8"):
        decode_text((mark + TEXT).encode(encoding), "edits.json")


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (gzip.compress(TEXT.encode()), "gzip"),
        (bz2.compress(TEXT.encode()), "bzip2"),
        (lzma.compress(TEXT.encode()), "xz"),
        (zipped(), "zip"),
    ],
)
def test_decode_text_compressed_file_names_the_compression(content: bytes, name: str) -> None:
    with pytest.raises(RequestError, match=f"{name}.*unpack it"):
        decode_text(content, "edits.jsonl")


@pytest.mark.parametrize("suffix", [".gz", ".zip", ".xz", ".bz2"])
def test_load_requests_compressed_suffix_says_to_unpack(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"edits.jsonl{suffix}"
    path.write_bytes(b"x")
    with pytest.raises(
        RequestError, match=r"is named as compressed with .*; edits are read as plain text, so unpack it"
    ):
        load_requests(path)


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("text", [TEXT, "", "[]", '["\\u0000"]', "a\x00b"])
def test_decode_text_utf8_is_the_text(mark: str, text: str) -> None:
    assert decode_text((mark + text).encode(), "edits.json") == text


def test_decode_text_latin_1_names_byte_and_line() -> None:
    with pytest.raises(RequestError, match="is not UTF-8: byte 0xe9 in line 2"):
        decode_text(b"a\ncaf\xe9 x", "edits.csv")

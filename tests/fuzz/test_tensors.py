"""Delta files, key statistics and checkpoints: read, or refused in one sentence."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest
import torch
from editguard.audit.delta.file import read_delta
from editguard.audit.prepared.entry import locate_entry, read_entry
from editguard.probes.keys.statistics import KeyStatistics, StatisticsProvenance, load_statistics
from editguard.probes.model.checkpoint import open_checkpoint
from hypothesis import example, given
from hypothesis import strategies as st

from .harness import FUZZ_SETTINGS, read_or_refuse, spoil
from .seeds.tensors import DELTA, INDEX, NPZ, PREPARED, PREPARED_STAMP, SIZE, STATISTICS, WEIGHTS


def _safetensors(header: object, data: bytes = bytes(8 * SIZE * SIZE)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


_integers = st.integers(-1, 80) | st.sampled_from([2**31, 2**62, 2**63, 2**64, 10**30])
_entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(
            ["F64", "F32", "BF16", "F8_E4M3", "F8_E8M0", "F4", "I64", "U8", "BOOL", "C64", "X", 3, None]
        ),
        "shape": st.just([SIZE, SIZE]) | st.lists(_integers, max_size=3),
        "data_offsets": st.lists(_integers, max_size=3),
    }
)
_plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.just("9" * 5000)
_provenance = st.dictionaries(
    st.sampled_from([*StatisticsProvenance.__dataclass_fields__, "other"]), _plain, max_size=7
)


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """Return a file whose header is well-formed JSON, with any shape, offsets and provenance."""
    good = {
        "method": "corpus",
        "source": "s",
        "model_fingerprint": "model",
        "layer": 0,
        "corpus_sha256": "",
        "tokens": 9,
    }
    metadata = {"provenance": good | draw(_provenance), "ridge": draw(st.just(1e-4) | _plain | st.just(10**400))}
    text = draw(st.just(json.dumps(metadata)) | st.just("[" * 3000) | st.text(max_size=20))
    entry = draw(_entries | st.just({"dtype": "F64", "shape": [SIZE, SIZE], "data_offsets": [0, 8 * SIZE * SIZE]}))
    dtype = entry["dtype"]
    if dtype in ("F32", "I64", "U8", "BOOL", "BF16", "F8_E4M3", "F8_E8M0", "C64") and draw(st.booleans()):
        width = {"F32": 4, "I64": 8, "BF16": 2, "C64": 8}.get(dtype, 1)
        content = bytes(range(SIZE * SIZE)) * width
        entry |= {"shape": [SIZE, SIZE], "data_offsets": [0, len(content)]}
        return _safetensors({"second_moment": entry, "__metadata__": {"editguard": text}}, content)
    return _safetensors({"second_moment": entry, "__metadata__": {"editguard": text}})


def make_member(header: bytes, data: bytes = b"") -> bytes:
    """Return one array's file with the header that is given."""
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


def check_statistics(path: Path, folder: Path) -> None:
    result = read_or_refuse(lambda: load_statistics(path, size=SIZE, model_fingerprint="model", layer=0), folder)
    if result is not None:
        assert isinstance(result, KeyStatistics)
        read_or_refuse(lambda: result.direction(torch.ones(SIZE)), folder)


@FUZZ_SETTINGS
@given(data=st.data())
def test_load_statistics_spoilt_file_is_read_or_refused(data: st.DataObject, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    path.write_bytes(data.draw(spoil([STATISTICS]) | headers()))
    check_statistics(path, tmp_path)


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    """Return an archive with whole checksums, whose arrays have any header."""
    shape = draw(st.lists(_integers, max_size=3).map(tuple))
    dtype = draw(st.sampled_from(["<f8", "<f4", "|O", "|V8", "<U4", "<c16", "<i8", "?", "<M8[s]", [("a", "<f8")], "x"]))
    header = draw(
        st.just(repr({"descr": dtype, "fortran_order": draw(st.booleans()), "shape": shape}).encode())
        | spoil([b"{'descr': '<f8', 'fortran_order': False, 'shape': (6, 6), }"])
    )
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", draw(st.sampled_from([0, 8, 12, 14]))) as archive:
        archive.writestr(
            draw(st.sampled_from(["mom2.mom2.npy", "../mom2.mom2.npy", "mom2.mom2"])),
            make_member(header, bytes(8 * SIZE**2)),
        )
        archive.writestr(
            "mom2.count.npy",
            make_member(draw(spoil([b"{'descr': '<i8', 'fortran_order': False, 'shape': (), }"])), bytes(8)),
        )
    return content.getvalue()


@FUZZ_SETTINGS
@given(content=spoil(NPZ) | archives())
def test_import_rome_npz_spoilt_file_is_read_or_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    path.write_bytes(content)
    check_statistics(path, tmp_path)


@FUZZ_SETTINGS
@given(content=spoil([DELTA]) | headers())
def test_read_delta_spoilt_file_is_read_or_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.delta.safetensors"
    path.write_bytes(content)
    read_or_refuse(lambda: read_delta(path), tmp_path)


@FUZZ_SETTINGS
@example(content=PREPARED)
@given(content=spoil([PREPARED]) | headers())
def test_read_entry_spoilt_file_is_none(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITGUARD_CACHE", str(tmp_path))
    path = locate_entry(PREPARED_STAMP)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    entry = read_or_refuse(lambda: read_entry(PREPARED_STAMP), tmp_path)
    if content == PREPARED:
        assert entry is not None
    if entry is not None:
        assert (entry.text, entry.tensors["sink"].tolist()) == ('{"a": 1}', [1.0] * SIZE)


@FUZZ_SETTINGS
@example(weights=WEIGHTS, index=INDEX.replace(b"one", b"\xef\xbb\xbfone"))
@example(weights=WEIGHTS, index=INDEX.replace(b"one", b"\\ud800one"))
@example(weights=WEIGHTS, index=INDEX.replace(b"one", b"\\u0000one"))
@given(weights=st.just(WEIGHTS) | spoil([WEIGHTS]), index=st.none() | spoil([INDEX]))
def test_open_checkpoint_spoilt_file_is_read_or_refused(weights: bytes, index: bytes | None, tmp_path: Path) -> None:
    (tmp_path / "one.safetensors").write_bytes(weights)
    listed = tmp_path / "model.safetensors.index.json"
    listed.write_bytes(b"" if index is None else index)
    if index is None:
        listed.unlink()

    def read() -> None:
        checkpoint = open_checkpoint(str(tmp_path))
        for name in checkpoint.files:
            checkpoint.tensor(name)

    read_or_refuse(read, tmp_path)

"""Delta files and key statistics: read, or told in one sentence what is wrong."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from editguard.audit.delta.file import encode, read_delta
from editguard.probes.keys.statistics import KeyStatistics, StatisticsProvenance, load_statistics, save_statistics
from editguard.probes.model.checkpoint import open_checkpoint
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.torch import save

from ..helpers.delta_files import made
from ..helpers.tiny_models import tiny_model
from .harness import FUZZED, spoilt, told_or_read

SIZE = 6
MATRIX = torch.eye(SIZE, dtype=torch.float64) + 0.5
DELTA = encode(made(tiny_model("llama")))


def _safetensors(header: object, data: bytes = bytes(8 * SIZE * SIZE)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


_integers = st.integers(-1, 80) | st.sampled_from([2**31, 2**62, 2**63, 2**64, 10**30])
_entries = st.fixed_dictionaries(
    {"dtype": st.sampled_from(["F64", "F32", "BF16", "F8_E4M3", "F8_E8M0", "F4", "I64", "U8", "BOOL", "C64", "X", 3, None]),
     "shape": st.just([SIZE, SIZE]) | st.lists(_integers, max_size=3), "data_offsets": st.lists(_integers, max_size=3)}
)  # fmt: skip
_plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.just("9" * 5000)
_provenance = st.dictionaries(
    st.sampled_from([*StatisticsProvenance.__dataclass_fields__, "other"]), _plain, max_size=7
)  # fmt: skip


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
    said = {"provenance": good | draw(_provenance), "ridge": draw(st.just(1e-4) | _plain | st.just(10**400))}
    text = draw(st.just(json.dumps(said)) | st.just("[" * 3000) | st.text(max_size=20))
    entry = draw(_entries | st.just({"dtype": "F64", "shape": [SIZE, SIZE], "data_offsets": [0, 8 * SIZE * SIZE]}))
    dtype = entry["dtype"]
    if dtype in ("F32", "I64", "U8", "BOOL", "BF16", "F8_E4M3", "F8_E8M0", "C64") and draw(st.booleans()):
        width = {"F32": 4, "I64": 8, "BF16": 2, "C64": 8}.get(dtype, 1)
        content = bytes(range(SIZE * SIZE)) * width
        entry |= {"shape": [SIZE, SIZE], "data_offsets": [0, len(content)]}
        return _safetensors({"second_moment": entry, "__metadata__": {"editguard": text}}, content)
    return _safetensors({"second_moment": entry, "__metadata__": {"editguard": text}})


def kept_statistics() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "c.safetensors")
        save_statistics(KeyStatistics(MATRIX, StatisticsProvenance(
        method="corpus", source="text", model_fingerprint="model", layer=0, tokens=9
    )), path)
        return path.read_bytes()


KEPT = kept_statistics()


def npz(save_them: Callable[..., None] = np.savez, **arrays: object) -> bytes:
    content = io.BytesIO()
    save_them(content, **({"mom2.mom2": MATRIX.numpy() * 9, "mom2.count": 9} | arrays))
    return content.getvalue()


def member(header: bytes, data: bytes = b"") -> bytes:
    """Return one array's file with the header that is given."""
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


def statistics(path: Path, folder: Path) -> None:
    found = told_or_read(lambda: load_statistics(path, size=SIZE, model_fingerprint="model", layer=0), folder)
    if found is not None:
        assert isinstance(found, KeyStatistics)
        told_or_read(lambda: found.direction(torch.ones(SIZE)), folder)


@FUZZED
@given(data=st.data())
def test_load_statistics_spoilt_file_is_read_or_refused(data: st.DataObject, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    path.write_bytes(data.draw(spoilt([KEPT]) | headers()))
    statistics(path, tmp_path)


NPZ = [
    npz(),
    npz(np.savez_compressed),
    npz(**{"mom2.mom2": MATRIX.float().numpy()}),
    npz(**{"mom2.count": np.array([9])}),
]


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    """Return an archive with whole checksums, whose arrays have any header."""
    shape = draw(st.lists(_integers, max_size=3).map(tuple))
    dtype = draw(st.sampled_from(["<f8", "<f4", "|O", "|V8", "<U4", "<c16", "<i8", "?", "<M8[s]", [("a", "<f8")], "x"]))
    header = draw(
        st.just(repr({"descr": dtype, "fortran_order": draw(st.booleans()), "shape": shape}).encode())
        | spoilt([b"{'descr': '<f8', 'fortran_order': False, 'shape': (6, 6), }"])
    )
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", draw(st.sampled_from([0, 8, 12, 14]))) as made:
        made.writestr(
            draw(st.sampled_from(["mom2.mom2.npy", "../mom2.mom2.npy", "mom2.mom2"])),
            member(header, bytes(8 * SIZE**2)),
        )
        made.writestr(
            "mom2.count.npy",
            member(draw(spoilt([b"{'descr': '<i8', 'fortran_order': False, 'shape': (), }"])), bytes(8)),
        )
    return content.getvalue()


@FUZZED
@given(content=spoilt(NPZ) | archives())
def test_import_rome_npz_spoilt_file_is_read_or_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    path.write_bytes(content)
    statistics(path, tmp_path)


@FUZZED
@given(content=spoilt([DELTA]) | headers())
def test_read_delta_spoilt_file_is_read_or_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.delta.safetensors"
    path.write_bytes(content)
    told_or_read(lambda: read_delta(path), tmp_path)


WEIGHTS = save({"a.weight": torch.ones(3, 2), "b.weight": torch.ones(2)})
INDEX = json.dumps({"weight_map": {"a.weight": "one.safetensors", "b.weight": "../one.safetensors"}}).encode()


@FUZZED
@example(weights=WEIGHTS, index=INDEX.replace(b"one", b"\xef\xbb\xbfone"))
@example(weights=WEIGHTS, index=INDEX.replace(b"one", b"\\ud800one"))
@example(weights=WEIGHTS, index=INDEX.replace(b"one", b"\\u0000one"))
@given(weights=st.just(WEIGHTS) | spoilt([WEIGHTS]), index=st.none() | spoilt([INDEX]))
def test_open_checkpoint_spoilt_file_is_read_or_refused(weights: bytes, index: bytes | None, tmp_path: Path) -> None:
    (tmp_path / "one.safetensors").write_bytes(weights)
    listed = tmp_path / "model.safetensors.index.json"
    listed.write_bytes(b"" if index is None else index)
    if index is None:
        listed.unlink()

    def read() -> None:
        found = open_checkpoint(str(tmp_path))
        for name in found.files:
            found.tensor(name)

    told_or_read(read, tmp_path)

"""An archive is held to what this model needs before any of it is read."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from editguard.probes.errors import StatisticsError
from editguard.probes.keys.rome_archive import read_archive

SIZE = 4


def member(header: str, content: bytes = bytes(8 * SIZE * SIZE)) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + content


def archive(path: Path, total: bytes, how: int = zipfile.ZIP_STORED, name: str = "mom2.mom2.npy") -> Path:
    count = io.BytesIO()
    np.save(count, np.array(7))
    with zipfile.ZipFile(path, "w", how) as written:
        written.writestr(name, total)
        written.writestr("mom2.count.npy", count.getvalue())
    return path


def header(shape: object = (SIZE, SIZE), dtype: object = "<f8") -> str:
    return repr({"descr": dtype, "fortran_order": False, "shape": shape})


def refusal(path: Path) -> str:
    with pytest.raises(StatisticsError) as caught:
        read_archive(path, SIZE)
    message = str(caught.value)
    assert message.endswith("; it must hold mom2.mom2 and mom2.count for this model's layer.")
    assert message.isprintable()
    return message


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("order", ["C", "F"])
def test_read_archive_of_numpy_is_read(tmp_path: Path, compressed: bool, order: str) -> None:
    matrix = np.asarray(np.arange(16.0).reshape(SIZE, SIZE), order=order, dtype=np.float32)  # type: ignore[call-overload]
    save = np.savez_compressed if compressed else np.savez
    save(tmp_path / "c.npz", **{"mom2.mom2": matrix, "mom2.count": 9, "sample_size": 3})  # type: ignore[arg-type]
    sums = read_archive(tmp_path / "c.npz", SIZE)
    assert sums.keys == 9
    assert sums.total.dtype == np.float64
    assert (sums.total == matrix).all()


@pytest.mark.parametrize("shape", [(10**12, 10**12), (2**62, 4), (SIZE,), (), (SIZE, SIZE, 1), (-1, SIZE)])
def test_read_archive_other_shape_than_c_is_refused_unread(tmp_path: Path, shape: tuple[int, ...]) -> None:
    assert "but keys at this site have 4 entries" in refusal(archive(tmp_path / "c.npz", member(header(shape))))


def test_read_archive_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = archive(tmp_path / "c.npz", member(header(), bytes(2**26)), zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**17
    tracemalloc.start()
    sums = read_archive(path, SIZE)  # what is there beyond C is not asked for
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not sums.total.any()
    assert peak < 2**22


def test_read_archive_too_large_file_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "c.npz").open("wb") as file:
        file.truncate(2**30)  # sparse: takes no space
    assert "it has more than 1 MiB, and C needs 0.0" in refusal(tmp_path / "c.npz")


@pytest.mark.parametrize("how", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_read_archive_other_compressions_are_refused(tmp_path: Path, how: int) -> None:
    assert "compressed as numpy compresses nothing" in refusal(archive(tmp_path / "c.npz", member(header()), how))


@pytest.mark.parametrize("dtype", ["|O", "<c16", "<U4", "|V8", "?", [("a", "<f8")]])
def test_read_archive_other_than_real_numbers_is_refused(tmp_path: Path, dtype: object) -> None:
    assert "no real numbers" in refusal(archive(tmp_path / "c.npz", member(header(dtype=dtype))))


@pytest.mark.parametrize(
    "text", ["{'descr': '<f8'", "z}", "[" * 5000, "__import__('os')", "", "{'shape': " + "9" * 5000]
)
def test_read_archive_broken_header_is_one_sentence(tmp_path: Path, text: str) -> None:
    refusal(archive(tmp_path / "c.npz", member(text)))


def test_read_archive_cut_or_escaping_member_is_refused(tmp_path: Path) -> None:
    refusal(archive(tmp_path / "c.npz", member(header(), bytes(9))))
    refusal(archive(tmp_path / "c.npz", member(header()), name="../mom2.mom2.npy"))
    assert [path.name for path in tmp_path.iterdir()] == ["c.npz"]


@pytest.mark.parametrize("count", [float("inf"), float("nan")])
def test_read_archive_count_without_a_number_is_refused(tmp_path: Path, count: float) -> None:
    np.savez(tmp_path / "c.npz", **{"mom2.mom2": np.eye(SIZE), "mom2.count": count})  # type: ignore[arg-type]
    refusal(tmp_path / "c.npz")

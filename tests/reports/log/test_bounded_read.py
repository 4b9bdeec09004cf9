"""A file of somebody else is read up to a bound, and nothing is waited for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from editguard.reports.log.bounded_read import bounded_bytes


def test_bounded_bytes_reads_up_to_the_bound(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    (tmp_path / "link").symlink_to(path)
    assert bounded_bytes(path, 5) == bounded_bytes(tmp_path / "link", 5) == b"12345"
    with pytest.raises(OSError, match="more than the 0 MiB that are read"):
        bounded_bytes(path, 4)


def test_bounded_bytes_pipe_or_device_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(OSError, match="no ordinary file"):
            bounded_bytes(path, 100)


@pytest.mark.parametrize("name", ["nothing", "a\0b", "x" * 5000, "."])
def test_bounded_bytes_unreadable_path_is_an_oserror(tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - which one is the system's to say
        bounded_bytes(tmp_path / name, 100)
    assert caught.value.strerror

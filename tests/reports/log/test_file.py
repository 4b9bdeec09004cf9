"""The log on disk: written record by record, read back whole, resumed after a kill, and refused when malformed."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from editguard.reports.errors import LogError, OutputError
from editguard.reports.log.file import (
    Log,
    LogWriter,
    append_line,
    read_log,
    read_unfinished_log,
    rewrite_log,
    write_atomic,
)


def write(path: Path, log: Log, upto: int | None = None) -> Path:
    records = [log.header, *log.edits, *log.controls, *([log.footer] if log.footer else [])]
    with LogWriter(path) as writer:
        for record in records[:upto]:
            writer.write(record)
    return path


def test_read_log_written_log_is_equal(tmp_path: Path, log: Log) -> None:
    assert read_log(write(tmp_path / "log.jsonl", log)) == log


def test_log_writer_close_twice_is_harmless(tmp_path: Path, log: Log) -> None:
    with LogWriter(tmp_path / "log.jsonl") as writer:
        writer.write(log.header)
        writer.close()
        writer.close()
        with pytest.raises(LogError, match="not open"):
            writer.write(log.edits[0])


@pytest.fixture
def without_posix_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    """The functions and flags of `os` that Windows lacks are missing."""
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "fchmod"):
        monkeypatch.delattr(os, name)


@pytest.mark.usefixtures("without_posix_flags")
def test_log_writer_without_posix_flags_writes_and_resumes(tmp_path: Path, log: Log) -> None:
    path = tmp_path / "log.jsonl"
    path.touch(mode=0o644)
    write(path, log, 4)
    path.write_bytes(path.read_bytes()[:-20])
    with LogWriter(path) as writer:
        assert writer.existing is not None
        assert writer.existing.torn
        for record in (*log.edits[2:], *log.controls):
            writer.write(record)
    assert read_log(path) == replace(log, footer=None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.usefixtures("without_posix_flags")
def test_append_line_without_posix_flags_appends(tmp_path: Path) -> None:
    path = tmp_path / "overrides.jsonl"
    append_line(path, "{}")
    append_line(path, "[]")
    assert path.read_bytes() == b"{}\n[]\n"


@pytest.mark.parametrize("lacking", [(), ("O_NOFOLLOW",)])
def test_log_writer_symbolic_link_is_refused(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch, lacking: tuple[str, ...]
) -> None:
    for name in lacking:
        monkeypatch.delattr(os, name)
    (tmp_path / "elsewhere").touch()
    (tmp_path / "log.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LogError, match=r"log\.jsonl is a symbolic link, and a log is not written through a link"):
        write(tmp_path / "log.jsonl", log)
    assert (tmp_path / "elsewhere").read_bytes() == b""


def test_log_writer_mode_is_owner_only(tmp_path: Path, log: Log) -> None:
    path = tmp_path / "log.jsonl"
    path.touch(mode=0o644)
    write(path, log, 2)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_log_writer_each_write_is_on_disk_at_return(tmp_path: Path, log: Log) -> None:
    path = tmp_path / "log.jsonl"
    with LogWriter(path) as writer:
        for count, record in enumerate([log.header, *log.edits[:3]], start=1):
            writer.write(record)
            assert path.read_bytes().count(b"\n") == count


def test_read_log_any_cut_of_last_line_is_torn(tmp_path: Path, log: Log) -> None:
    whole = write(tmp_path / "log.jsonl", log, 3).read_bytes()
    start = whole[:-1].rfind(b"\n") + 1
    for cut in range(start + 1, len(whole) - 1, 37):
        path = tmp_path / "cut.jsonl"
        path.write_bytes(whole[:cut])
        torn_log = read_log(path)
        assert torn_log.torn
        assert torn_log.edits == log.edits[:1]


def test_read_log_last_line_without_newline_counts(tmp_path: Path, log: Log) -> None:
    path = write(tmp_path / "log.jsonl", log, 3)
    path.write_bytes(path.read_bytes()[:-1])
    assert read_log(path).edits == log.edits[:2]
    assert not read_log(path).torn
    with LogWriter(path) as writer:
        writer.write(log.edits[2])
    assert read_log(path).edits == log.edits[:3]


def test_log_writer_torn_log_is_resumed(tmp_path: Path, log: Log) -> None:
    path = write(tmp_path / "log.jsonl", log, 4)
    path.write_bytes(path.read_bytes()[:-20])
    with LogWriter(path) as writer:
        assert writer.existing is not None
        assert writer.existing.torn
        assert writer.existing.edits == log.edits[:2]
        for record in (*log.edits[2:], *log.controls):
            writer.write(record)
        assert log.footer is not None
        writer.write(log.footer)
    assert read_log(path) == log


@pytest.mark.parametrize("content", [b"", b'{"ki', b'{"kind":"header","schema_ver'])
def test_log_writer_cut_header_starts_afresh(tmp_path: Path, log: Log, content: bytes) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(content)
    assert read_log(write(path, log)) == log


def test_log_writer_finished_log_is_refused(tmp_path: Path, log: Log) -> None:
    path = write(tmp_path / "log.jsonl", log)
    before = path.read_bytes()
    with pytest.raises(LogError, match="finished"), LogWriter(path):
        pass
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"hello", b'{"subject": "Rome"}\n', b'{"subject": "Rome"', b"\n\n"])
def test_log_writer_other_file_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "edits.jsonl"
    path.write_bytes(content)
    with pytest.raises(LogError), LogWriter(path):
        pass
    assert path.read_bytes() == content


def test_log_writer_records_out_of_order_are_refused(tmp_path: Path, log: Log) -> None:
    with LogWriter(tmp_path / "a.jsonl") as writer:
        with pytest.raises(LogError, match="no header yet"):
            writer.write(log.edits[0])
        writer.write(log.header)
        with pytest.raises(LogError, match="header already"):
            writer.write(log.header)
        writer.write(log.edits[0])
        with pytest.raises(LogError, match="already; an id must be unique"):
            writer.write(log.edits[0])
        assert log.footer is not None
        writer.write(log.footer)
        with pytest.raises(LogError, match="not open"):
            writer.write(log.edits[1])


def test_log_writer_exception_leaves_log_unfinished(tmp_path: Path, log: Log) -> None:
    path = tmp_path / "log.jsonl"

    def killed() -> None:
        with LogWriter(path) as writer:
            writer.write(log.header)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        killed()
    assert read_log(path).footer is None


def test_log_writer_failed_write_leaves_no_half_line(tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.jsonl"

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with LogWriter(path) as writer:
        writer.write(log.header)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full_disk)
            with pytest.raises(LogError, match="No space left"):
                writer.write(log.edits[0])
        writer.write(log.edits[1])
    assert read_log(path).edits == (log.edits[1],)


def change(number: int, mend: Callable[[dict[str, object]], object]) -> Callable[[list[bytes]], list[bytes]]:
    def apply(lines: list[bytes]) -> list[bytes]:
        record = json.loads(lines[number])
        mend(record)
        return [*lines[:number], json.dumps(record).encode(), *lines[number + 1 :]]

    return apply


@pytest.mark.parametrize(
    ("mend", "message"),
    [
        (lambda lines: lines[1:], "line 1: a log begins with a header"),
        (lambda lines: [lines[0], lines[0]], "line 2: a log has one header"),
        (lambda lines: [*lines, lines[1]], "nothing may follow the footer"),
        (lambda lines: [*lines[:2], lines[1], *lines[2:]], "line 3: the edit 'case-0000' is on line 2 already"),
        (lambda lines: [lines[0], b"not json", *lines[1:]], "line 2: each line is one JSON object"),
        (lambda lines: [lines[0], b"[" * 100_000, *lines[1:]], "line 2: each line is one JSON object"),
        (lambda lines: [lines[0], b"", *lines[1:]], "line 2: each line is one JSON object"),
        (lambda lines: [lines[0], b"[]", *lines[1:]], "line 2: "),
        (change(1, lambda r: r.update(colour="red")), "line 2: edit.colour is 'red': Extra inputs"),
        (change(1, lambda r: r.pop("subject")), "line 2: edit.subject"),
        (change(1, lambda r: r.update(index="1")), "line 2: edit.index is '1'"),
        (change(1, lambda r: r.update(seconds=float("nan"))), "line 2: edit.seconds is nan"),
        (change(1, lambda r: r.update(kind="edits")), "line 2: record"),
        (change(0, lambda r: r.update(schema_version=3)), "schema version 3, and this editguard reads up to 2"),
        (change(0, lambda r: r["policy"].update(collapse_ratio="high")), "collapse_ratio is 'high'"),  # type: ignore[attr-defined]
    ],
)
def test_read_log_malformed_names_line_and_rule(
    tmp_path: Path, log: Log, mend: Callable[[list[bytes]], list[bytes]], message: str
) -> None:
    path = write(tmp_path / "log.jsonl", log)
    path.write_bytes(b"\n".join(mend(path.read_bytes().split(b"\n")[:-1])) + b"\n")
    with pytest.raises(LogError) as caught:
        read_log(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 2


def test_read_log_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="cannot be read"):
        read_log(tmp_path / "none.jsonl")
    with pytest.raises(LogError, match="cannot be written"), LogWriter(tmp_path / "no" / "log.jsonl"):
        pass


def test_write_atomic_full_disk_keeps_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "page.html"
    write_atomic(path, "old")

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(
        OutputError, match=r"page\.html cannot be written \(No space left on device\); give a folder"
    ) as caught:
        write_atomic(path, "new")
    assert caught.value.exit_code == 2
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"page.html": "old"}


def test_rewrite_log_drops_records_to_be_made_anew(tmp_path: Path, log: Log) -> None:
    path = tmp_path / "log.jsonl"
    rewrite_log(path, log)
    assert read_log(path) == log
    rewrite_log(path, replace(log, edits=log.edits[1:], footer=None))
    with LogWriter(path) as writer:
        writer.write(log.edits[0])
    assert read_log(path).edits == (*log.edits[1:], log.edits[0])


def test_read_unfinished_log_any_end_is_read(tmp_path: Path, log: Log) -> None:
    path = tmp_path / "log.jsonl"
    assert read_unfinished_log(path) is None
    rewrite_log(path, log)
    assert read_unfinished_log(path) == log
    whole = path.read_bytes()
    path.write_bytes(whole[:20])
    assert read_unfinished_log(path) is None
    path.write_bytes(whole[:-5])
    unfinished = read_unfinished_log(path)
    assert unfinished is not None
    assert (unfinished.footer, unfinished.torn) == (None, True)
    path.write_text("no log\n", encoding="utf-8")
    with pytest.raises(LogError):
        read_unfinished_log(path)


def test_write_atomic_replaces_whole_and_leaves_no_remnant(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_atomic(path, "old")
    write_atomic(path, "a\r\n€")
    assert path.read_bytes() == "a\r\n€".encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "\ud800")
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]
    assert path.read_bytes() == "a\r\n€".encode()


def test_read_log_error_with_control_characters_is_printable(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    footer = {"kind": "footer", "status": "finished", "records": 0, "seconds": 1.0, "\x1b[2J\n" + "x" * 500: 1}
    path.write_text(json.dumps(footer) + "\n", encoding="utf-8")
    with pytest.raises(LogError, match=r"\[U\+001B\]") as caught:
        read_log(path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500 + len(str(path))

"""``editguard trace`` and ``reproduce``: files, exit codes, and one sentence for what is wrong."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from editguard.audit.research.reproduction.experiments import update_size

from ...helpers.command_line import RunCommand, assert_one_sentence, files_below

pytestmark = pytest.mark.tiny


def test_trace_without_facts_writes_nothing(place: Path, checkpoint: Path, command: RunCommand) -> None:
    before = files_below(place)
    call = ("trace", "edits.json", "--model", checkpoint, "--draws", 2, "--out", "traced")
    assert_one_sentence(command(*call, "--noise", 0), "The noise is 0", "give a number over 0")
    assert_one_sentence(
        command(*call, "--noise", 1e-6),
        "None of 2 requests",
        "could be traced",
        "first token",
        "or more --noise",
    )
    assert files_below(place) == before


def test_trace_json_is_one_object(
    place: Path, checkpoint: Path, command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    from editguard.probes.research.tracing import Trace

    monkeypatch.setattr(Trace, "tells", True)
    result = command("trace", "edits.json", "--model", checkpoint, "--draws", 2, "--out", "traced", "--json")
    assert result.code == 0
    found = json.loads(result.out)
    assert (found["traced"], found["skipped"]) == (1, 1)
    kept = json.loads((place / "traced" / "trace.json").read_text(encoding="utf-8"))
    assert found["suggested_layer"] == kept["suggested_layer"]
    assert (place / "traced" / "trace.html").is_file()


def test_reproduce_continues_its_own_logs(place: Path, checkpoint: Path, command: RunCommand) -> None:
    call = ("reproduce", "edits.json", "--model", checkpoint, "--layer", 0, "--stats", "identity", "--out", "found")
    result = command(*call)
    assert result.code == 0
    assert "page: found/reproduction.html" in result.out.replace(os.sep, "/")
    logs = {name: text for name, text in files_below(place / "found").items() if name.endswith(".jsonl")}
    assert {Path(name).stem for name in logs} == {"rome", "c-rome", "prefixed"}
    result = command(*call, "--json")
    assert json.loads(result.out) == json.loads((place / "found" / "reproduction.json").read_text(encoding="utf-8"))
    assert {name: text for name, text in files_below(place / "found").items() if name in logs} == logs
    assert_one_sentence(command(*call, "--seed", 1), "'found'", "another --out")
    assert_one_sentence(command(*call, "--encoder", "./nowhere"), "./nowhere")
    assert {name: text for name, text in files_below(place / "found").items() if name in logs} == logs


def test_reproduce_broken_experiment_exits_3(
    place: Path, checkpoint: Path, command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("float division by zero")

    monkeypatch.setattr(update_size, "compare_update_sizes", broken)
    result = command(
        "reproduce", "edits.json", "--model", checkpoint, "--layer", 0, "--stats", "identity", "--out", "found"
    )
    assert result.code == 3
    assert "experiments that broke: 1; this is a fault of editguard itself" in result.err
    assert "float division by zero" in (place / "found" / "reproduction.html").read_text(encoding="utf-8")


def test_trace_disk_that_fills_is_one_sentence(
    place: Path, checkpoint: Path, command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    from editguard.probes.research.tracing import Trace

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Trace, "tells", True)
    monkeypatch.setattr(os, "fsync", full)
    call = ("trace", "edits.json", "--model", checkpoint, "--draws", 2, "--out", "traced", "--json")
    assert_one_sentence(command(*call), "trace.json cannot be written", "No space left on device", "has room")
    assert not (place / "traced").exists()

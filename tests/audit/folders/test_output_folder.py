"""One rule for every folder that is written to: one writer at a time, nothing written over unasked, nothing left of nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from editguard.audit.folders.file_names import AUDIT_FILES, LOG
from editguard.audit.folders.output_folder import locked_folder, one_writer
from editguard.probes.errors import InputError

from ...helpers.audit_logs import make_audit, write_log
from ...helpers.tiny_setups import MID_PROMPT_REQUEST


def test_locked_folder_second_audit_is_refused(tmp_path: Path) -> None:
    with locked_folder(tmp_path, overwrite=False):
        for overwrite in (False, True):
            with (
                pytest.raises(InputError, match="Another run is writing"),
                locked_folder(tmp_path, overwrite=overwrite),
            ):
                pytest.fail("entered a locked folder")
    with locked_folder(tmp_path, overwrite=False) as again:
        assert again == tmp_path


def test_locked_folder_unused_is_removed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), locked_folder(tmp_path / "out" / "below", overwrite=False):
        raise RuntimeError
    assert not (tmp_path / "out" / "below").exists()
    (tmp_path / "mine").mkdir()
    with locked_folder(tmp_path / "mine", overwrite=False):
        pass
    assert (tmp_path / "mine").is_dir()


@pytest.mark.parametrize("name", AUDIT_FILES)
def test_locked_folder_existing_audit_is_kept(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious", encoding="utf-8")
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="--overwrite"), locked_folder(tmp_path, overwrite=False):
        pytest.fail("entered")
    assert (tmp_path / name).read_text(encoding="utf-8") == "precious"
    # Nor is it given up before the new one can begin.
    with locked_folder(tmp_path, overwrite=True):
        assert (tmp_path / name).read_text(encoding="utf-8") == "precious"
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_locked_folder_unusable_output_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine", encoding="utf-8")
    for out, said in ((file, "is a file"), (file / "below", "cannot be written to")):
        with pytest.raises(InputError, match=said), locked_folder(out, overwrite=True):
            pytest.fail("entered")
    assert file.read_text(encoding="utf-8") == "mine"


# --------------------------------------------------------------------------------------- every command, in a process

TINY = ("--layer", "0", "--stats", "identity", "--policy", "policy.toml")
COMMANDS = {
    "audit": (("audit", "edits.json", "--model", "model", *TINY), LOG),
    "gate": (("gate", "base", "--baseline", "base.json"), "report.html"),
    "gate, its verdict": (("gate", "base", "--baseline", "base.json"), "gate.json"),
    "diff": (("diff", "model", "model", *TINY[2:]), "diff.json"),
    "trace": (("trace", "edits.json", "--model", "model"), "trace.json"),
    "reproduce": (("reproduce", "edits.json", "--model", "model", *TINY), None),
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder to stand in, with a file of edits and an audit."""
    request = MID_PROMPT_REQUEST
    edit = json.dumps({"id": "1", "subject": request.subject, "prompt": request.prompt, "target_new": "Lyon"})
    (tmp_path / "edits.json").write_text(f"[{edit}]")
    (tmp_path / "policy.toml").write_text("min_efficacy = 0.0\n")
    write_log(make_audit(), tmp_path / "base" / LOG)
    return tmp_path


def run(place: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "editguard.audit.cli.main", *arguments, "--out", "out"],
        cwd=place,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=240,
        check=False,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_respect_lock_and_existing_files(place: Path, name: str) -> None:
    arguments, own = COMMANDS[name]
    with locked_folder(place / "out", overwrite=True):
        code, said = run(place, *arguments)
        assert (code, len(said.splitlines())) == (2, 1), said
        assert "Another run is writing to 'out'; wait for it, or choose another --out." in said
        assert [path.name for path in (place / "out").iterdir()] == [".lock"]
        (place / "out" / (own or "notes.txt")).write_text("precious")
    if own is None:  # what a reproduction finds is gone on with, or refused by its stamp
        return
    code, said = run(place, *arguments)
    assert (code, len(said.splitlines())) == (2, 1), said
    assert f"({own}), and nothing is written over unasked; choose another --out, " in said
    assert "add --overwrite" in said
    assert (place / "out" / own).read_text() == "precious"


def test_report_of_a_locked_audit_is_refused(place: Path) -> None:
    (place / "out").mkdir()
    write_log(make_audit(), place / "out" / LOG)
    with one_writer(place / "out" / ".lock", place / "out"):
        code, said = run(place, "report", "out")
        assert (code, len(said.splitlines())) == (2, 1), said
        assert "Another run is writing to 'out'; wait for it" in said
        assert {path.name for path in (place / "out").iterdir()} == {".lock", LOG}


@pytest.mark.tiny
def test_export_respects_lock_and_existing_files(place: Path, checkpoint: Path) -> None:
    export = ("export", "edits.json", "--model", str(checkpoint), *TINY, "--only", "1")
    with one_writer(place / ".out.lock", place / "out"):
        code, said = run(place, *export)
        assert code == 2
        assert "Another run is writing to" in said.splitlines()[-1]
        assert not (place / "out").exists()
    (place / "out").mkdir()
    (place / "out" / "notes.txt").write_text("precious")
    code, said = run(place, *export, "--overwrite")
    assert (code, "files that editguard did not write" in said) == (2, True)
    assert (place / "out" / "notes.txt").read_text() == "precious"


def test_gate_replaces_its_own_page(place: Path) -> None:
    folder = place / "out"
    folder.mkdir()
    (folder / "gate.json").write_text("old")
    save = [sys.executable, "-m", "editguard.audit.cli.main", "baseline", "save", "base", "main"]
    subprocess.run(save, cwd=place, check=True, capture_output=True)
    gate = [
        sys.executable,
        "-m",
        "editguard.audit.cli.main",
        "gate",
        "base",
        "--baseline",
        "main",
        "--out",
        "out",
        "--overwrite",
    ]
    assert subprocess.run(gate, cwd=place, check=False, capture_output=True).returncode == 0
    assert '"open": true' in (folder / "gate.json").read_text()
    assert (folder / "report.html").exists()

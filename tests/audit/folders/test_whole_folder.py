"""A folder is replaced only where all in it is ours, by one writer at a time, and is never lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from editguard.audit.folders.whole_folder import Marker, whole_folder
from editguard.audit.saved_model.manifest import EXPORT_MARKER, MODEL_MARKER
from editguard.probes.errors import InputError
from editguard.reports.errors import OutputError

pytestmark = pytest.mark.tiny

MARK = Marker("mark.json", lambda content: list(json.loads(content)))


def write(out: Path, content: str, *, overwrite: bool = True) -> None:
    with whole_folder(out, MARK, overwrite=overwrite) as folder:
        (folder / "a").write_text(content)
        (folder / MARK.name).write_text('["a"]')


def seen(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def test_whole_folder_replaces_ours_when_asked(tmp_path: Path) -> None:
    write(tmp_path / "out", "old")
    with pytest.raises(InputError, match="not empty"):
        write(tmp_path / "out", "new", overwrite=False)
    write(tmp_path / "out", "new")
    assert seen(tmp_path / "out")["a"] == "new"
    assert {path.name for path in tmp_path.iterdir()} <= {"out", ".out.lock"}


@pytest.mark.parametrize("marker", [EXPORT_MARKER, MODEL_MARKER])
@pytest.mark.parametrize("content", ['{"name": "my app", "icons": []}', '{"edits": 1}', "{}", "", "[]"])
def test_whole_folder_with_foreign_marker_is_kept(marker: Marker, content: str, tmp_path: Path) -> None:
    for name in (marker.name, "manifest.json", "index.html"):
        (tmp_path / name).write_text(content)
    before = seen(tmp_path)
    with pytest.raises(InputError, match="did not write"), whole_folder(tmp_path, marker, overwrite=True):
        pytest.fail("it was let in")
    assert seen(tmp_path) == before


@pytest.mark.parametrize("more", ["notes.txt", ".hidden", "folder/notes.txt"])
def test_whole_folder_with_unlisted_file_is_kept(more: str, tmp_path: Path) -> None:
    write(tmp_path / "out", "old")
    (tmp_path / "out" / more).parent.mkdir(exist_ok=True)
    (tmp_path / "out" / more).write_text("mine")
    with pytest.raises(InputError, match=more):
        write(tmp_path / "out", "new")
    assert (tmp_path / "out" / more).read_text() == "mine"


def test_whole_folder_second_writer_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with whole_folder(out, MARK, overwrite=True) as folder:
        with pytest.raises(InputError, match="Another run is writing"):
            write(out, "second")
        (folder / MARK.name).write_text("[]")
    assert seen(out) == {MARK.name: "[]"}


def theirs(out: Path) -> None:
    out.mkdir()
    (out / "theirs").write_text("kept")


def test_whole_folder_keeps_what_came_meanwhile(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match="did not write"), whole_folder(out, MARK, overwrite=True):
        theirs(out)
    assert seen(out) == {"theirs": "kept"}


def test_whole_folder_failed_swap_restores_the_old_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, "old")
    with (
        pytest.raises(OutputError, match="cannot be put in its place"),
        whole_folder(out, MARK, overwrite=True) as folder,
    ):
        folder.rmdir()  # so that the last rename fails
    assert seen(out)["a"] == "old"
    assert {path.name for path in tmp_path.iterdir()} <= {"out", ".out.lock"}

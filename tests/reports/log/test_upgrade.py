"""A log of the first version is read as what it was: one weight an edit, at the site that its header names.

``first_version/audit.jsonl`` holds bytes that the code of version 1 wrote, and no test writes them again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from editguard.reports.errors import LogError
from editguard.reports.html.report_page import render_html
from editguard.reports.log.file import LogWriter, read_log, rewrite_log
from editguard.reports.verdict.digest import summarise

OLD = Path(__file__).parent / "first_version" / "audit.jsonl"


def plain_lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in OLD.read_text(encoding="utf-8").splitlines()]


def test_read_log_first_version_has_one_change_an_edit() -> None:
    log, lines = read_log(OLD), plain_lines()
    assert (log.version, log.header.schema_version) == (1, 2)
    assert len(log.edits) == 12
    plain = {line["id"]: line for line in lines if line["kind"] == "edit"}
    for edit in log.edits:
        old = plain[edit.id]
        if old["update"] is None:
            assert edit.update is None
        else:
            assert edit.update is not None
            (change,) = edit.update.changes
            assert (change.path, change.layer, change.rank) == (lines[0]["site"], lines[0]["layer"], 1)
            names = ("numerator", "denominator", "update_norm", "relative_norm", "steps", "final_loss", "engine")
            assert [getattr(change, name) for name in names] == [old["update"][name] for name in names]
            assert edit.update.relative_norm == old["update"]["relative_norm"]
            assert (edit.update.editor, edit.update.needs_prefix) == (
                old["update"]["editor"],
                old["update"]["needs_prefix"],
            )
        assert edit.weights is not None
        (hashes,) = edit.weights.sites.values()
        assert hashes.model_dump() | {"kept": edit.weights.kept} == old["weights"]


def test_read_log_first_version_is_judged_and_shown() -> None:
    log = read_log(OLD)
    assert summarise(log).verdict == "pass"
    assert "Numerator ‖v* − W k‖" in render_html(log)


def test_rewrite_log_first_version_becomes_the_second(tmp_path: Path) -> None:
    log = read_log(OLD)
    rewrite_log(tmp_path / "new.jsonl", log)
    again = read_log(tmp_path / "new.jsonl")
    assert again.version == 2
    assert (again.header, again.edits, again.controls) == (log.header, log.edits, log.controls)


def test_log_writer_first_version_is_not_continued(tmp_path: Path) -> None:
    lines = OLD.read_bytes().splitlines(keepends=True)
    (tmp_path / "audit.jsonl").write_bytes(b"".join(lines[:4]))
    with pytest.raises(LogError, match=r"has schema version 1, .* finish it with the editguard that began it"):
        LogWriter(tmp_path / "audit.jsonl").__enter__()
    shutil.copy(OLD, tmp_path / "whole.jsonl")
    assert read_log(tmp_path / "whole.jsonl").footer is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[1]["update"].update(colour="red"), "line 2: edit.update.colour is 'red': Extra inputs"),
        (lambda lines: lines[1]["weights"].update(colour="red"), "line 2: edit.weights.colour is 'red'"),
        (lambda lines: lines[1]["update"].pop("steps"), "line 2: edit.update.changes.0.steps"),
        (lambda lines: lines[1].update(update=[]), "line 2: edit.update"),
        (lambda lines: lines[0].update(schema_version=0), "line 1: header.schema_version is 0"),
        (lambda lines: lines[0].update(schema_version=True), "line 1: header.schema_version is True"),
        (lambda lines: lines[0].pop("site"), "line 1: header.site"),
        (lambda lines: lines[1]["update"].update(changes=[]), "line 2: edit.update"),
    ],
)
def test_read_log_first_version_malformed_names_line_and_rule(
    tmp_path: Path, change: Callable[[list[dict[str, Any]]], object], message: str
) -> None:
    lines = plain_lines()
    change(lines)
    path = tmp_path / "old.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    with pytest.raises(LogError) as caught:
        read_log(path)
    assert message in str(caught.value)

"""Edits of a reproduction: made once each, undone, and kept when a run is killed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest
from editguard.audit.edit_result import Proposal
from editguard.audit.guard import GuardedEditor
from editguard.audit.research.reproduction import edits
from editguard.audit.research.reproduction.cases import (
    CaseKind,
    Cases,
    ReproductionCase,
)
from editguard.audit.setup import Setup
from editguard.probes.errors import InputError
from editguard.probes.model.fingerprint import compute_checksum
from editguard.probes.requests.request import EditRequest
from editguard.reports.log.file import read_log, rewrite_log
from editguard.reports.log.schema import EditRecord

from ....helpers.reproduction_logs import LYON, build_cases
from ....helpers.tiny_audits import load_edits
from ....helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST

pytestmark = pytest.mark.tiny

STAMPS = {editor: {"seed": "0"} for editor in edits.EDITORS}


@pytest.fixture
def guard(setup: Setup) -> GuardedEditor:
    return GuardedEditor(setup)


@pytest.fixture
def three(guard: GuardedEditor) -> Cases:
    return build_cases(
        guard.setup, {FIRST_TOKEN_REQUEST: CaseKind.FIRST, MID_PROMPT_REQUEST: CaseKind.ORDINARY, LYON: CaseKind.OTHER}
    )


def without_seconds(record: EditRecord) -> EditRecord:
    return record.model_copy(update={"seconds": 0.0})


class RecordMaker(Protocol):
    """The function that turns a proposal into the record of an edit."""

    def __call__(
        self, guard: GuardedEditor, request: EditRequest, proposal: Proposal | Exception, index: int
    ) -> EditRecord: ...


def interrupt_at(count: int) -> RecordMaker:
    """Return the function that makes records, which is interrupted in place of the call number `count`."""
    calls: list[str] = []
    real = edits.edit_record_for

    def run(guard: GuardedEditor, request: EditRequest, proposal: Proposal | Exception, index: int) -> EditRecord:
        calls.append(request.id)
        if len(calls) == count:
            raise KeyboardInterrupt
        return real(guard, request, proposal, index)

    return run


def count_calls(calls: list[str]) -> RecordMaker:
    """Return the function that makes records, which notes the id of each request in `calls`."""
    real = edits.edit_record_for

    def run(guard: GuardedEditor, request: EditRequest, proposal: Proposal | Exception, index: int) -> EditRecord:
        calls.append(request.id)
        return real(guard, request, proposal, index)

    return run


def test_make_edits_each_case_is_edited_by_its_editors_and_undone(
    guard: GuardedEditor, three: Cases, tmp_path: Path
) -> None:
    before = compute_checksum(guard.setup.lm.model)
    records_by_editor = edits.make_edits(
        guard, load_edits(FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, LYON), three, tmp_path, STAMPS
    )
    assert compute_checksum(guard.setup.lm.model) == before
    assert {editor: set(records) for editor, records in records_by_editor.items()} == {
        "rome": {FIRST_TOKEN_REQUEST.id, MID_PROMPT_REQUEST.id, LYON.id},
        "c-rome": {FIRST_TOKEN_REQUEST.id, MID_PROMPT_REQUEST.id},
        "prefixed": {FIRST_TOKEN_REQUEST.id, MID_PROMPT_REQUEST.id},
    }
    for editor, records in records_by_editor.items():
        log = read_log(tmp_path / f"{editor}.jsonl")
        assert {record.id: record for record in log.edits} == records
        assert log.footer is not None
        for record in records.values():
            assert record.update is not None
            assert record.update.editor == editor
            assert record.weights is not None
            assert record.weights.restored_ok


def test_make_edits_rome_and_c_rome_share_v_star_only(guard: GuardedEditor, three: Cases, tmp_path: Path) -> None:
    records_by_editor = edits.make_edits(
        guard, load_edits(FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, LYON), three, tmp_path, STAMPS
    )
    rome, other = (
        records_by_editor["rome"][FIRST_TOKEN_REQUEST.id].update,
        records_by_editor["c-rome"][FIRST_TOKEN_REQUEST.id].update,
    )
    assert rome is not None
    assert other is not None
    (first,), (second,) = rome.changes, other.changes
    assert (first.steps, first.final_loss) == (second.steps, second.final_loss)
    assert first.denominator != second.denominator


@pytest.mark.parametrize("together", [1, 8])
def test_make_edits_interrupted_run_resumes_with_the_same_records(
    guard: GuardedEditor, three: Cases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    requests = load_edits(FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, LYON)
    # Who is computed together decides about the last bits, so that the same ones are computed together again.
    monkeypatch.setattr(edits, "_CASES_PER_BATCH", together)
    whole = edits.make_edits(guard, requests, three, tmp_path / "whole", STAMPS)
    monkeypatch.setattr(edits, "edit_record_for", interrupt_at(4))
    with pytest.raises(KeyboardInterrupt):
        edits.make_edits(guard, requests, three, tmp_path / "cut", STAMPS)
    monkeypatch.undo()
    monkeypatch.setattr(edits, "_CASES_PER_BATCH", together)
    assert read_log(tmp_path / "cut" / "rome.jsonl").footer is None
    calls: list[str] = []
    monkeypatch.setattr(edits, "edit_record_for", count_calls(calls))
    again = edits.make_edits(guard, requests, three, tmp_path / "cut", STAMPS)
    # What was kept of the first case is not made again.
    assert len(calls) == 4
    assert all(read_log(path).footer is not None for path in (tmp_path / "cut").iterdir())
    for editor, records in whole.items():
        assert {id: without_seconds(record) for id, record in again[editor].items()} == {
            id: without_seconds(record) for id, record in records.items()
        }


def test_make_edits_log_without_footer_gets_it(guard: GuardedEditor, three: Cases, tmp_path: Path) -> None:
    requests = load_edits(FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, LYON)
    edits.make_edits(guard, requests, three, tmp_path, STAMPS)
    log = tmp_path / "rome.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole[: whole.rindex(b"\n{") + 1])
    edits.make_edits(guard, requests, three, tmp_path, STAMPS)
    assert read_log(log).footer is not None
    assert [record.id for record in read_log(log).edits] == [FIRST_TOKEN_REQUEST.id, MID_PROMPT_REQUEST.id, LYON.id]


@pytest.mark.parametrize("length", [0, 7, 100])
def test_make_edits_log_cut_in_its_header_is_written_again(
    guard: GuardedEditor, three: Cases, tmp_path: Path, length: int
) -> None:
    requests = load_edits(FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, LYON)
    edits.make_edits(guard, requests, three, tmp_path, STAMPS)
    log = tmp_path / "prefixed.jsonl"
    log.write_bytes(log.read_bytes()[:length])
    records_by_editor = edits.make_edits(guard, requests, three, tmp_path, STAMPS)
    assert set(records_by_editor["prefixed"]) == {FIRST_TOKEN_REQUEST.id, MID_PROMPT_REQUEST.id}


def test_make_edits_header_says_what_the_log_holds(guard: GuardedEditor, three: Cases, tmp_path: Path) -> None:
    edits.make_edits(guard, load_edits(FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, LYON), three, tmp_path, STAMPS)
    rome, own = (read_log(tmp_path / f"{editor}.jsonl").header for editor in ("rome", "prefixed"))
    assert (rome.requests, own.requests) == (3, 2)
    assert rome.policy["controls"] is False
    assert (rome.settings["descent"], own.settings["descent"]) == ("adam", "steepest")


def test_make_edits_finished_run_changes_no_log(guard: GuardedEditor, three: Cases, tmp_path: Path) -> None:
    requests = load_edits(FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, LYON)
    edits.make_edits(guard, requests, three, tmp_path, STAMPS)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    edits.make_edits(guard, requests, three, tmp_path, STAMPS)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_make_edits_log_of_another_stamp_raises_input_error(guard: GuardedEditor, three: Cases, tmp_path: Path) -> None:
    requests = load_edits(FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, LYON)
    edits.make_edits(guard, requests, three, tmp_path, STAMPS)
    other = {"seed": "1", "setting steps": "20"}
    with pytest.raises(
        InputError, match=r"prefixed\.jsonl.*seed \(0, now 1\), setting steps \(none, now 20\).*another --out"
    ):
        edits.make_edits(guard, requests, three, tmp_path, STAMPS | {"prefixed": other})
    log = tmp_path / "rome.jsonl"
    log.write_text(log.read_text(encoding="utf-8").replace('\\"seed\\"', "seed", 1), encoding="utf-8")
    with pytest.raises(InputError, match=r"rome\.jsonl' does not say what it was begun with"):
        edits.make_edits(guard, requests, three, tmp_path, STAMPS)


def test_make_edits_broken_request_is_recorded_and_others_are_made(guard: GuardedEditor, tmp_path: Path) -> None:
    broken = replace(MID_PROMPT_REQUEST, id="broken", target_new="")
    sound_cases = build_cases(guard.setup, {MID_PROMPT_REQUEST: CaseKind.ORDINARY})
    with_broken = Cases(
        (
            *sound_cases.cases,
            ReproductionCase(broken, CaseKind.ORDINARY, replace(sound_cases.cases[0].assessment, request=broken)),
        ),
        sound_cases.selection,
    )
    records = edits.make_edits(guard, load_edits(MID_PROMPT_REQUEST, broken), with_broken, tmp_path, STAMPS)["rome"]
    assert records["broken"].verdict != "pass"
    assert records["broken"].update is None
    assert records[MID_PROMPT_REQUEST.id].update is not None


def test_make_edits_errored_edit_alone_is_made_again(
    guard: GuardedEditor, three: Cases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = load_edits(FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, LYON)
    monkeypatch.setattr(edits, "_CASES_PER_BATCH", 1)
    real = edits.edit_record_for

    def out_of_memory(
        guard: GuardedEditor, request: EditRequest, proposal: Proposal | Exception, index: int
    ) -> EditRecord:
        assert not isinstance(proposal, Exception)
        fails = proposal.assessment.decision.editor == "rome" and request.id == MID_PROMPT_REQUEST.id
        return real(guard, request, RuntimeError("out of memory") if fails else proposal, index)

    monkeypatch.setattr(edits, "edit_record_for", out_of_memory)
    first = edits.make_edits(guard, requests, three, tmp_path, STAMPS)
    assert first["rome"][MID_PROMPT_REQUEST.id].outcome == "errored"
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    calls: list[str] = []
    monkeypatch.setattr(edits, "edit_record_for", real)
    monkeypatch.setattr(edits, "edit_record_for", count_calls(calls))
    again = edits.make_edits(guard, requests, three, tmp_path, STAMPS)
    assert len(calls) == 1
    assert again["rome"][MID_PROMPT_REQUEST.id].outcome != "errored"
    log = read_log(tmp_path / "rome.jsonl")
    assert {record.id: record for record in log.edits} == again["rome"]
    assert log.footer is not None
    assert log.footer.records == 3
    for name in ("c-rome.jsonl", "prefixed.jsonl"):
        assert (tmp_path / name).read_bytes() == before[name]


def test_make_edits_another_stamp_is_refused_before_errors_are_removed(
    guard: GuardedEditor, three: Cases, tmp_path: Path
) -> None:
    requests = load_edits(FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, LYON)
    edits.make_edits(guard, requests, three, tmp_path, STAMPS)
    log = read_log(tmp_path / "rome.jsonl")
    broken = log.edits[0].model_copy(update={"outcome": "errored", "verdict": "fail", "error": "boom"})
    rewrite_log(tmp_path / "rome.jsonl", replace(log, edits=(broken, *log.edits[1:])))
    before = (tmp_path / "rome.jsonl").read_bytes()
    with pytest.raises(InputError, match="seed"):
        edits.make_edits(guard, requests, three, tmp_path, {editor: {"seed": "1"} for editor in edits.EDITORS})
    assert (tmp_path / "rome.jsonl").read_bytes() == before


def test_make_edits_finished_log_without_a_case_raises_input_error(
    guard: GuardedEditor, three: Cases, tmp_path: Path
) -> None:
    requests = load_edits(FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, LYON)
    edits.make_edits(guard, requests, three._replace(cases=three.cases[:2]), tmp_path, STAMPS)
    with pytest.raises(InputError, match=r"rome\.jsonl' is finished and lacks 1 edit of the cases; remove it"):
        edits.make_edits(guard, requests, three, tmp_path, STAMPS)

"""Cases and edits of a reproduction: chosen by what the probes see, made once each, kept when a run is killed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from editguard.audit.guard import GuardedEditor
from editguard.audit.research.reproduction import cases as cases_module
from editguard.audit.research.reproduction import edits
from editguard.audit.research.reproduction.cases import ReproductionCase, Cases, CaseSelection, CaseKind, select_cases, find_cases
from editguard.audit.setup import Setup
from editguard.probes.errors import InputError
from editguard.probes.model.fingerprint import compute_checksum
from editguard.probes.probe import Level
from editguard.probes.requests.loader import LoadedRequests
from editguard.probes.requests.request import EditRequest
from editguard.reports.log.file import read_log, rewrite_log
from editguard.reports.log.schema import EditRecord

from ....helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, MISSING_SUBJECT_REQUEST

pytestmark = pytest.mark.tiny

OTHER = replace(MID_PROMPT_REQUEST, id="lyon", subject="Lyon", prompt="The city of Lyon is")
STAMPS = {editor: {"seed": "0"} for editor in edits.EDITORS}
MOST = dict.fromkeys(CaseKind, 10)


@pytest.fixture
def guard(setup: Setup) -> GuardedEditor:
    return GuardedEditor(setup)


def loaded(*requests: EditRequest) -> LoadedRequests:
    return LoadedRequests(requests=requests, invalid=(), source="edits.json", sha256="0" * 64)


def cases(guard: GuardedEditor, kinds: dict[EditRequest, CaseKind]) -> Cases:
    chosen = CaseSelection(
        stamp={},
        probed=len(kinds),
        unusable=0,
        found=Counter(kinds.values()),
        kinds={one.id: kind for one, kind in kinds.items()},
    )
    # A random model's denominators fire where they like, so that kinds are given here.
    return Cases(tuple(ReproductionCase(one.request, kinds[one.request], one) for one in guard.assess_all(list(kinds))), chosen)


@pytest.fixture
def three(guard: GuardedEditor) -> Cases:
    return cases(guard, {FIRST_TOKEN_REQUEST: CaseKind.FIRST, MID_PROMPT_REQUEST: CaseKind.ORDINARY, OTHER: CaseKind.OTHER})


def test_cases_are_told_by_the_denominator_probe_and_counted(guard: GuardedEditor) -> None:
    requests = [FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, OTHER, MISSING_SUBJECT_REQUEST]
    chosen = select_cases(guard, requests, MOST, {"seed": "0"})
    fires = {
        seen.request.id
        for seen in guard.assess_all([FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, OTHER])
        if any(one.probe == "denominator" and one.level is Level.RISK for one in seen.findings)
    }
    assert {id for id, kind in chosen.kinds.items() if kind is not CaseKind.ORDINARY} == fires
    assert (chosen.probed, chosen.unusable, chosen.found[CaseKind.FIRST]) == (4, 1, 1)
    assert sum(chosen.found.values()) == 3
    assert MISSING_SUBJECT_REQUEST.id not in chosen.kinds
    assert list(chosen.kinds) == [one.id for one in requests if one.id in chosen.kinds]


def test_ordinary_cases_are_drawn_by_the_seed_and_never_first_tokens(guard: GuardedEditor) -> None:
    many = [replace(MID_PROMPT_REQUEST, id=f"n{n}") for n in range(12)] + [FIRST_TOKEN_REQUEST]

    def drawn(seed: int) -> set[str]:
        found = select_cases(replace(guard, setup=replace(guard.setup, seed=seed)), many, MOST | {CaseKind.ORDINARY: 5}, {})
        return {id for id, kind in found.kinds.items() if kind is CaseKind.ORDINARY}

    assert len(drawn(0)) == 5
    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)
    assert FIRST_TOKEN_REQUEST.id not in drawn(0)


def test_no_case_at_all_is_an_error(guard: GuardedEditor) -> None:
    with pytest.raises(InputError, match="nothing to reproduce"):
        find_cases(guard, [MISSING_SUBJECT_REQUEST], select_cases(guard, [MISSING_SUBJECT_REQUEST], MOST, {}))


def test_each_edit_is_made_by_its_editors_and_undone(guard: GuardedEditor, three: Cases, tmp_path: Path) -> None:
    before = compute_checksum(guard.setup.lm.model)
    found = edits.make_edits(guard, loaded(FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, OTHER), three, tmp_path, STAMPS)
    assert compute_checksum(guard.setup.lm.model) == before
    assert {editor: set(records) for editor, records in found.items()} == {
        "rome": {FIRST_TOKEN_REQUEST.id, MID_PROMPT_REQUEST.id, OTHER.id},
        "c-rome": {FIRST_TOKEN_REQUEST.id, MID_PROMPT_REQUEST.id},
        "prefixed": {FIRST_TOKEN_REQUEST.id, MID_PROMPT_REQUEST.id},
    }
    for editor, records in found.items():
        kept = read_log(tmp_path / f"{editor}.jsonl")
        assert {one.id: one for one in kept.edits} == records
        assert kept.footer is not None
        for record in records.values():
            assert record.update is not None
            assert record.update.editor == editor
            assert record.weights is not None
            assert record.weights.restored_ok


def test_rome_and_c_rome_share_v_star_and_differ_in_the_denominator(
    guard: GuardedEditor, three: Cases, tmp_path: Path
) -> None:
    found = edits.make_edits(guard, loaded(FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, OTHER), three, tmp_path, STAMPS)
    rome, other = found["rome"][FIRST_TOKEN_REQUEST.id].update, found["c-rome"][FIRST_TOKEN_REQUEST.id].update
    assert rome is not None
    assert other is not None
    assert (rome.steps, rome.final_loss) == (other.steps, other.final_loss)
    assert rome.denominator != other.denominator


@pytest.mark.parametrize("together", [1, 8])
def test_a_killed_run_goes_on_and_ends_with_the_same_records(
    guard: GuardedEditor, three: Cases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    asked = loaded(FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, OTHER)
    # Who is computed together decides about the last bits, so that the same ones are computed together again.
    monkeypatch.setattr(edits, "_TOGETHER", together)
    whole = edits.make_edits(guard, asked, three, tmp_path / "whole", STAMPS)
    monkeypatch.setattr(edits, "recorded", killed_at(4))
    with pytest.raises(KeyboardInterrupt):
        edits.make_edits(guard, asked, three, tmp_path / "cut", STAMPS)
    monkeypatch.undo()
    monkeypatch.setattr(edits, "_TOGETHER", together)
    assert read_log(tmp_path / "cut" / "rome.jsonl").footer is None
    made: list[str] = []
    monkeypatch.setattr(edits, "recorded", counted(made))
    again = edits.make_edits(guard, asked, three, tmp_path / "cut", STAMPS)
    # What was kept of the first case is not made again.
    assert len(made) == 4
    assert all(read_log(path).footer is not None for path in (tmp_path / "cut").iterdir())
    for editor, records in whole.items():
        assert {id: timeless(one) for id, one in again[editor].items()} == {
            id: timeless(one) for id, one in records.items()
        }


def test_a_log_that_lacks_its_last_record_alone_gets_it(guard: GuardedEditor, three: Cases, tmp_path: Path) -> None:
    asked = loaded(FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, OTHER)
    edits.make_edits(guard, asked, three, tmp_path, STAMPS)
    log = tmp_path / "rome.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole[: whole.rindex(b"\n{") + 1])
    edits.make_edits(guard, asked, three, tmp_path, STAMPS)
    assert read_log(log).footer is not None
    assert [one.id for one in read_log(log).edits] == [FIRST_TOKEN_REQUEST.id, MID_PROMPT_REQUEST.id, OTHER.id]


@pytest.mark.parametrize("length", [0, 7, 100])
def test_a_log_that_was_cut_in_its_header_is_begun_again(
    guard: GuardedEditor, three: Cases, tmp_path: Path, length: int
) -> None:
    asked = loaded(FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, OTHER)
    edits.make_edits(guard, asked, three, tmp_path, STAMPS)
    log = tmp_path / "prefixed.jsonl"
    log.write_bytes(log.read_bytes()[:length])
    found = edits.make_edits(guard, asked, three, tmp_path, STAMPS)
    assert set(found["prefixed"]) == {FIRST_TOKEN_REQUEST.id, MID_PROMPT_REQUEST.id}


def test_a_header_says_what_the_log_is_to_hold(guard: GuardedEditor, three: Cases, tmp_path: Path) -> None:
    edits.make_edits(guard, loaded(FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, OTHER), three, tmp_path, STAMPS)
    rome, own = (read_log(tmp_path / f"{editor}.jsonl").header for editor in ("rome", "prefixed"))
    assert (rome.requests, own.requests) == (3, 2)
    assert rome.policy["controls"] is False
    assert (rome.settings["descent"], own.settings["descent"]) == ("adam", "steepest")


def test_a_finished_run_makes_nothing_again(guard: GuardedEditor, three: Cases, tmp_path: Path) -> None:
    asked = loaded(FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, OTHER)
    edits.make_edits(guard, asked, three, tmp_path, STAMPS)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    edits.make_edits(guard, asked, three, tmp_path, STAMPS)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_log_of_something_else_is_refused(guard: GuardedEditor, three: Cases, tmp_path: Path) -> None:
    asked = loaded(FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, OTHER)
    edits.make_edits(guard, asked, three, tmp_path, STAMPS)
    other = {"seed": "1", "setting steps": "20"}
    with pytest.raises(
        InputError, match=r"prefixed\.jsonl.*seed \(0, now 1\), setting steps \(none, now 20\).*another --out"
    ):
        edits.make_edits(guard, asked, three, tmp_path, STAMPS | {"prefixed": other})
    log = tmp_path / "rome.jsonl"
    log.write_text(log.read_text(encoding="utf-8").replace('\\"seed\\"', "seed", 1), encoding="utf-8")
    with pytest.raises(InputError, match=r"rome\.jsonl' does not say what it was begun with"):
        edits.make_edits(guard, asked, three, tmp_path, STAMPS)


def test_an_edit_that_breaks_is_recorded_and_the_others_go_on(guard: GuardedEditor, tmp_path: Path) -> None:
    broken = replace(MID_PROMPT_REQUEST, id="broken", target_new="")
    found = cases(guard, {MID_PROMPT_REQUEST: CaseKind.ORDINARY})
    with_broken = Cases(
        (*found.cases, ReproductionCase(broken, CaseKind.ORDINARY, replace(found.cases[0].assessment, request=broken))), found.selection
    )
    made = edits.make_edits(guard, loaded(MID_PROMPT_REQUEST, broken), with_broken, tmp_path, STAMPS)["rome"]
    assert made["broken"].verdict != "pass"
    assert made["broken"].update is None
    assert made[MID_PROMPT_REQUEST.id].update is not None


def test_an_edit_that_ended_in_an_error_is_made_again_and_no_other(
    guard: GuardedEditor, three: Cases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = loaded(FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, OTHER)
    monkeypatch.setattr(edits, "_TOGETHER", 1)
    real = edits.recorded

    def out_of_memory(guard: GuardedEditor, request: EditRequest, made: object, index: int) -> EditRecord:
        failed = made.assessment.decision.editor == "rome" and request.id == MID_PROMPT_REQUEST.id  # type: ignore[attr-defined]
        return real(guard, request, RuntimeError("out of memory") if failed else made, index)  # type: ignore[arg-type]

    monkeypatch.setattr(edits, "recorded", out_of_memory)
    first = edits.make_edits(guard, asked, three, tmp_path, STAMPS)
    assert first["rome"][MID_PROMPT_REQUEST.id].outcome == "errored"
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    made: list[str] = []
    monkeypatch.setattr(edits, "recorded", real)
    monkeypatch.setattr(edits, "recorded", counted(made))
    again = edits.make_edits(guard, asked, three, tmp_path, STAMPS)
    assert len(made) == 1
    assert again["rome"][MID_PROMPT_REQUEST.id].outcome != "errored"
    kept = read_log(tmp_path / "rome.jsonl")
    assert {one.id: one for one in kept.edits} == again["rome"]
    assert kept.footer is not None
    assert kept.footer.records == 3
    for name in ("c-rome.jsonl", "prefixed.jsonl"):
        assert (tmp_path / name).read_bytes() == before[name]


def test_another_log_is_refused_before_its_errors_are_taken_out(
    guard: GuardedEditor, three: Cases, tmp_path: Path
) -> None:
    asked = loaded(FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, OTHER)
    edits.make_edits(guard, asked, three, tmp_path, STAMPS)
    log = read_log(tmp_path / "rome.jsonl")
    broken = log.edits[0].model_copy(update={"outcome": "errored", "verdict": "fail", "error": "boom"})
    rewrite_log(tmp_path / "rome.jsonl", replace(log, edits=(broken, *log.edits[1:])))
    before = (tmp_path / "rome.jsonl").read_bytes()
    with pytest.raises(InputError, match="seed"):
        edits.make_edits(guard, asked, three, tmp_path, {one: {"seed": "1"} for one in edits.EDITORS})
    assert (tmp_path / "rome.jsonl").read_bytes() == before


def test_no_more_of_a_kind_are_drawn_than_asked_and_all_are_counted(guard: GuardedEditor) -> None:
    firsts = [replace(FIRST_TOKEN_REQUEST, id=f"first-{n}") for n in range(9)]
    ordinary = [replace(MID_PROMPT_REQUEST, id=f"n{n}") for n in range(9)]

    def drawn(seed: int) -> CaseSelection:
        own = replace(guard, setup=replace(guard.setup, seed=seed))
        return select_cases(own, [*firsts, *ordinary], MOST | {CaseKind.FIRST: 4}, {})

    found = drawn(0)
    assert found.found[CaseKind.FIRST] == 9
    assert sum(kind is CaseKind.FIRST for kind in found.kinds.values()) == 4
    assert found == drawn(0)
    assert found.kinds != drawn(1).kinds
    counts = find_cases(guard, [*firsts, *ordinary], found).counts()
    assert [(one.edited, one.found) for one in counts if one.kind == "first token"] == [(4, 9)]


def test_which_cases_look_otherwise_under_all_contexts_is_settled_once(
    guard: GuardedEditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, OTHER]
    chosen = select_cases(guard, requests, MOST, {}).model_copy(
        update={
            "kinds": {FIRST_TOKEN_REQUEST.id: CaseKind.FIRST, MID_PROMPT_REQUEST.id: CaseKind.ORDINARY, OTHER.id: CaseKind.OTHER}
        }
    )
    # Under all contexts the denominator probe fires at every one, and then, on another machine, at none.
    monkeypatch.setattr(cases_module, "fires", lambda _: True)
    found = find_cases(guard, requests, chosen)
    assert [case.request.id for case in found.cases] == [FIRST_TOKEN_REQUEST.id, OTHER.id]
    assert found.selection.left_out == [MID_PROMPT_REQUEST.id]
    monkeypatch.setattr(cases_module, "fires", lambda _: False)
    again = find_cases(guard, requests, CaseSelection.model_validate_json(found.selection.model_dump_json()))
    assert [case.request.id for case in again.cases] == [FIRST_TOKEN_REQUEST.id, OTHER.id]
    assert again.selection == found.selection


def test_a_finished_log_that_lacks_a_case_is_refused(guard: GuardedEditor, three: Cases, tmp_path: Path) -> None:
    asked = loaded(FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, OTHER)
    edits.make_edits(guard, asked, three._replace(cases=three.cases[:2]), tmp_path, STAMPS)
    with pytest.raises(InputError, match=r"rome\.jsonl' is finished and lacks 1 edit of the cases; remove it"):
        edits.make_edits(guard, asked, three, tmp_path, STAMPS)


def timeless(record: object) -> object:
    return record.model_copy(update={"seconds": 0.0})  # type: ignore[attr-defined]


def killed_at(count: int) -> Callable[..., object]:
    calls: list[str] = []
    real = edits.recorded

    def run(*arguments: object) -> object:
        calls.append("")
        if len(calls) == count:
            raise KeyboardInterrupt
        return real(*arguments)  # type: ignore[arg-type]

    return run


def counted(made: list[str]) -> Callable[..., object]:
    real = edits.recorded

    def run(*arguments: object) -> object:
        made.append("")
        return real(*arguments)  # type: ignore[arg-type]

    return run

"""Cases and edits of a reproduction: chosen by what the probes see, made once each, kept when a run is killed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from editguard.audit.guard import GuardedEditor
from editguard.audit.reproduction import edits
from editguard.audit.reproduction.cases import Case, Cases, Chosen, Kind, choose, find_cases
from editguard.audit.setup import Setup
from editguard.probes.errors import InputError
from editguard.probes.fingerprint import checksum
from editguard.probes.probe import Level
from editguard.probes.request_files import LoadedRequests
from editguard.probes.requests import EditRequest
from editguard.reports.log import read_log

from ..tiny_lm import MIDDLE, MISSING, REQUEST

pytestmark = pytest.mark.tiny

OTHER = replace(MIDDLE, id="lyon", subject="Lyon", prompt="The city of Lyon is")
STAMPS = dict.fromkeys(edits.EDITORS, "stamp")


@pytest.fixture
def guard(setup: Setup) -> GuardedEditor:
    return GuardedEditor(setup)


def loaded(*requests: EditRequest) -> LoadedRequests:
    return LoadedRequests(requests, (), "edits.json", "0" * 64)


def cases(guard: GuardedEditor, kinds: dict[EditRequest, Kind]) -> Cases:
    chosen = Chosen(
        stamp="", probed=len(kinds), unusable=0, first_tokens=1, kinds={one.id: kind for one, kind in kinds.items()}
    )
    # A random model's denominators fire where they like, so that kinds are given here.
    return Cases(tuple(Case(one.request, kinds[one.request], one) for one in guard.assess_all(list(kinds))), chosen)


@pytest.fixture
def three(guard: GuardedEditor) -> Cases:
    return cases(guard, {REQUEST: Kind.FIRST, MIDDLE: Kind.ORDINARY, OTHER: Kind.OTHER})


def test_cases_are_told_by_the_denominator_probe_and_counted(guard: GuardedEditor) -> None:
    requests = [REQUEST, MIDDLE, OTHER, MISSING]
    chosen = choose(guard, requests, 10, "stamp")
    fires = {
        seen.request.id
        for seen in guard.assess_all([REQUEST, MIDDLE, OTHER])
        if any(one.probe == "denominator" and one.level is Level.RISK for one in seen.findings)
    }
    assert {id for id, kind in chosen.kinds.items() if kind is not Kind.ORDINARY} == fires
    assert (chosen.probed, chosen.unusable, chosen.first_tokens) == (4, 1, 1)
    assert MISSING.id not in chosen.kinds
    assert list(chosen.kinds) == [one.id for one in requests if one.id in chosen.kinds]


def test_ordinary_cases_are_drawn_by_the_seed_and_never_first_tokens(guard: GuardedEditor) -> None:
    many = [replace(MIDDLE, id=f"n{n}") for n in range(12)] + [REQUEST]

    def drawn(seed: int) -> set[str]:
        found = choose(replace(guard, setup=replace(guard.setup, seed=seed)), many, 5, "")
        return {id for id, kind in found.kinds.items() if kind is Kind.ORDINARY}

    assert len(drawn(0)) == 5
    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)
    assert REQUEST.id not in drawn(0)


def test_no_case_at_all_is_an_error(guard: GuardedEditor) -> None:
    with pytest.raises(InputError, match="nothing to reproduce"):
        find_cases(guard, [MISSING], choose(guard, [MISSING], 4, ""))


def test_each_edit_is_made_by_its_editors_and_undone(guard: GuardedEditor, three: Cases, tmp_path: Path) -> None:
    before = checksum(guard.setup.lm.model)
    found = edits.make_edits(guard, loaded(REQUEST, MIDDLE, OTHER), three, tmp_path, STAMPS)
    assert checksum(guard.setup.lm.model) == before
    assert {editor: set(records) for editor, records in found.items()} == {
        "rome": {REQUEST.id, MIDDLE.id, OTHER.id},
        "c-rome": {REQUEST.id, MIDDLE.id},
        "prefixed": {REQUEST.id, MIDDLE.id},
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
    found = edits.make_edits(guard, loaded(REQUEST, MIDDLE, OTHER), three, tmp_path, STAMPS)
    rome, other = found["rome"][REQUEST.id].update, found["c-rome"][REQUEST.id].update
    assert rome is not None
    assert other is not None
    assert (rome.steps, rome.final_loss) == (other.steps, other.final_loss)
    assert rome.denominator != other.denominator


def test_a_killed_run_goes_on_and_ends_with_the_same_records(
    guard: GuardedEditor, three: Cases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = loaded(REQUEST, MIDDLE, OTHER)
    # Edits that are computed together differ by rounding from those computed alone.
    monkeypatch.setattr(edits, "_TOGETHER", 1)
    whole = edits.make_edits(guard, asked, three, tmp_path / "whole", STAMPS)
    monkeypatch.setattr(edits, "recorded", killed_at(4))
    with pytest.raises(KeyboardInterrupt):
        edits.make_edits(guard, asked, three, tmp_path / "cut", STAMPS)
    monkeypatch.undo()
    monkeypatch.setattr(edits, "_TOGETHER", 1)
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
    asked = loaded(REQUEST, MIDDLE, OTHER)
    edits.make_edits(guard, asked, three, tmp_path, STAMPS)
    log = tmp_path / "rome.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole[: whole.rindex(b"\n{") + 1])
    edits.make_edits(guard, asked, three, tmp_path, STAMPS)
    assert read_log(log).footer is not None
    assert [one.id for one in read_log(log).edits] == [REQUEST.id, MIDDLE.id, OTHER.id]


@pytest.mark.parametrize("length", [0, 7, 100])
def test_a_log_that_was_cut_in_its_header_is_begun_again(
    guard: GuardedEditor, three: Cases, tmp_path: Path, length: int
) -> None:
    asked = loaded(REQUEST, MIDDLE, OTHER)
    edits.make_edits(guard, asked, three, tmp_path, STAMPS)
    log = tmp_path / "prefixed.jsonl"
    log.write_bytes(log.read_bytes()[:length])
    found = edits.make_edits(guard, asked, three, tmp_path, STAMPS)
    assert set(found["prefixed"]) == {REQUEST.id, MIDDLE.id}


def test_a_header_says_what_the_log_is_to_hold(guard: GuardedEditor, three: Cases, tmp_path: Path) -> None:
    edits.make_edits(guard, loaded(REQUEST, MIDDLE, OTHER), three, tmp_path, STAMPS)
    rome, own = (read_log(tmp_path / f"{editor}.jsonl").header for editor in ("rome", "prefixed"))
    assert (rome.requests, own.requests) == (3, 2)
    assert rome.policy["controls"] is False
    assert (rome.settings["descent"], own.settings["descent"]) == ("adam", "steepest")


def test_a_finished_run_makes_nothing_again(guard: GuardedEditor, three: Cases, tmp_path: Path) -> None:
    asked = loaded(REQUEST, MIDDLE, OTHER)
    edits.make_edits(guard, asked, three, tmp_path, STAMPS)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    edits.make_edits(guard, asked, three, tmp_path, STAMPS)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_log_of_something_else_is_refused(guard: GuardedEditor, three: Cases, tmp_path: Path) -> None:
    asked = loaded(REQUEST, MIDDLE, OTHER)
    edits.make_edits(guard, asked, three, tmp_path, STAMPS)
    with pytest.raises(InputError, match=r"prefixed\.jsonl.*another --out"):
        edits.make_edits(guard, asked, three, tmp_path, STAMPS | {"prefixed": "another"})


def test_an_edit_that_breaks_is_recorded_and_the_others_go_on(guard: GuardedEditor, tmp_path: Path) -> None:
    broken = replace(MIDDLE, id="broken", target_new="")
    found = cases(guard, {MIDDLE: Kind.ORDINARY})
    with_broken = Cases(
        (*found.cases, Case(broken, Kind.ORDINARY, replace(found.cases[0].seen, request=broken))), found.chosen
    )
    made = edits.make_edits(guard, loaded(MIDDLE, broken), with_broken, tmp_path, STAMPS)["rome"]
    assert made["broken"].verdict != "pass"
    assert made["broken"].update is None
    assert made[MIDDLE.id].update is not None


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

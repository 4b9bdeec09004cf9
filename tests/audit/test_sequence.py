"""Edits kept one after the other: what they add up to is judged, the sequence closes, and nothing of it stays behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from editguard.audit.editors.value import Engine
from editguard.audit.files import LOG
from editguard.audit.folders import locked_folder
from editguard.audit.guard import GuardedEditor
from editguard.audit.policy import Action
from editguard.audit.runner import run_audit
from editguard.audit.sequence import EditSequence
from editguard.audit.setup import Setup
from editguard.probes.errors import InputError
from editguard.probes.fingerprint import tensor_hashes
from editguard.probes.requests import EditRequest
from editguard.reports.log import Log, read_log
from editguard.reports.schema import EditRecord, Measurement
from editguard.reports.summary import Summary
from editguard.suites.accumulated import AccumulatedDrift
from editguard.suites.check import CHECKS, Outcome

from .test_resume import timeless
from .test_runner import loaded
from .tiny_lm import MIDDLE, MISSING, REQUEST, SENTENCES, lenient, tiny_setup

pytestmark = pytest.mark.tiny

REQUESTS = (
    *(replace(MIDDLE, id=f"middle-{target}", target_new=target) for target in ("Lyon", "Istanbul")), MISSING, REQUEST,
)  # fmt: skip
WIDE = {"max_accumulated_ratio": 100, "max_accumulated_update": 100}


@pytest.fixture(scope="module")
def wide() -> Setup:
    return tiny_setup(policy=lenient(controls=True, **WIDE))


@pytest.fixture(scope="module")
def before(wide: Setup) -> dict[str, str]:
    return tensor_hashes(wide.lm.model)


@pytest.fixture(autouse=True)
def left_as_found(wide: Setup, before: dict[str, str]) -> Iterator[None]:
    yield
    assert tensor_hashes(wide.lm.model) == before


def bounded(setup: Setup, **bounds: float) -> Setup:
    return replace(setup, policy=setup.policy.model_copy(update=bounds))


@pytest.fixture(scope="module")
def whole(wide: Setup, tmp_path_factory: pytest.TempPathFactory) -> Log:
    return audited(wide, tmp_path_factory.mktemp("whole"))[0]


def audited(
    setup: Setup, out: Path, *, resume: bool = False, requests: tuple[EditRequest, ...] = REQUESTS
) -> tuple[Log, Summary]:
    with locked_folder(out, overwrite=False, resume=True):
        summary = run_audit(setup, loaded(*requests), out, in_sequence=True, resume=resume)
    return read_log(out / LOG), summary


def accumulated(record: EditRecord) -> dict[str, Measurement]:
    return {one.metric: one for one in record.measurements if one.check == AccumulatedDrift.name}


# ----------------------------------------------------------------------------------------------------- what is in the log


def test_each_edit_is_made_on_the_model_with_all_that_was_kept_before(whole: Log) -> None:
    made = [record.weights for record in whole.edits if record.weights is not None]
    assert [one.kept for one in made] == [True, True, True]
    assert [one.before for one in made[1:]] == [one.edited for one in made[:-1]]
    assert all(one.restored is None and one.restored_ok is None for one in made)
    assert {record.id: record.outcome for record in whole.edits}["missing"] == "refused"


def test_what_accumulates_is_measured_against_the_model_before_the_first_edit(wide: Setup, whole: Log) -> None:
    """Computed again by hand: updates added up in float64, and the corpus run plainly through the whole model."""
    site, sequence = wide.site, EditSequence(GuardedEditor(wide))
    first, origin = site.matrix(torch.float64), plain_perplexity(wide)
    for request, record in zip(REQUESTS, whole.edits, strict=True):
        result = sequence.edit(request)
        if not result.kept:
            assert not accumulated(record)
            continue
        found = accumulated(record)
        assert found["relative-norm"].value == pytest.approx(
            float((site.matrix(torch.float64) - first).norm() / first.norm()), rel=1e-6
        )
        assert found["perplexity-ratio"].value == pytest.approx(plain_perplexity(wide) / origin, rel=1e-4)
    assert len(sequence.kept) == 3
    sequence.undo()


def plain_perplexity(setup: Setup) -> float:
    found = []
    for sentence in SENTENCES:
        ids = torch.tensor([setup.lm.tokenizer(sentence).input_ids])
        with torch.no_grad():
            logits = setup.lm.model(input_ids=ids).logits[0, :-1].double()
        found.append(float(torch.nn.functional.cross_entropy(logits, ids[0, 1:]).exp()))
    return sum(found) / len(found)


def test_the_end_says_how_many_of_the_kept_edits_still_hold(whole: Log) -> None:
    assert whole.footer is not None
    assert whole.footer.retained is not None
    assert whole.footer.retained.total == 3
    assert whole.header.in_sequence


def test_the_controls_show_that_the_drift_is_seen(whole: Log) -> None:
    seen = [one for control in whole.controls for one in control.sightings if one.name == AccumulatedDrift.name]
    assert [(one.expected.value, one.ok) for one in seen] == [("fails", True), ("passes", True)]


def test_an_edit_that_is_made_alone_has_no_accumulated_drift(wide: Setup) -> None:
    guard = GuardedEditor(wide)
    assert AccumulatedDrift.name not in guard.checks
    assert AccumulatedDrift.name in CHECKS.names()
    assert AccumulatedDrift().measure(wide.bench, MIDDLE, None, False).measurements == []


# ------------------------------------------------------------------------------------------------------------ it closes


@pytest.mark.parametrize("bound", ["max_accumulated_ratio", "max_accumulated_update"])
def test_the_sequence_closes_where_the_drift_leaves_its_bound(
    wide: Setup, whole: Log, tmp_path: Path, bound: str
) -> None:
    """The bound lies between the first edit and the second: the second is undone, and all behind it are refused."""
    metric = {"max_accumulated_ratio": "perplexity-ratio", "max_accumulated_update": "relative-norm"}[bound]
    first, second = (accumulated(whole.edits[index])[metric].value for index in range(2))
    assert first is not None
    assert second is not None
    assert first < second
    log, summary = audited(bounded(wide, **{bound: (first + second) / 2}), tmp_path)
    assert [record.outcome for record in log.edits] == ["committed", "rolled-back", "refused", "refused"]
    one, two, *after = log.edits
    assert one.weights is not None
    assert two.weights is not None
    assert two.weights.restored == one.weights.edited
    assert accumulated(two)[metric].verdict == "fail"
    for record in after:
        assert "the sequence of edits is closed since 'middle-Istanbul'" in record.decision.reasons[0]
        assert "outside the bound" in record.decision.reasons[0]
        assert not record.measurements
    assert summary.exit_code == 1
    assert summary.verdict != "pass"


def test_a_drift_that_cannot_be_measured_closes_the_sequence_too(wide: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    sequence = EditSequence(GuardedEditor(wide))
    judged = AccumulatedDrift._judged
    monkeypatch.setattr(
        AccumulatedDrift, "_judged", lambda self, bench, ratio, moved: judged(self, bench, ratio, float("nan"))
    )
    result = sequence.edit(MIDDLE)
    assert Outcome.UNMEASURED in {one.outcome for one in result.measurements}
    assert not result.kept
    assert sequence.edit(REQUEST).decision.action is Action.REFUSE
    assert sequence.closed is not None


def test_an_edit_that_fails_for_another_reason_closes_nothing(wide: Setup) -> None:
    sequence = EditSequence(GuardedEditor(bounded(wide, max_perplexity_ratio=1e-6)))
    assert not sequence.edit(MIDDLE).kept
    assert sequence.closed is None
    assert not sequence.kept


# ---------------------------------------------------------------------------------------------------- the model in between


def test_what_is_measured_after_a_kept_edit_is_what_plain_passes_of_the_edited_model_give(wide: Setup) -> None:
    sequence = EditSequence(GuardedEditor(wide))
    assert sequence.edit(MIDDLE).kept
    fast = sequence.guard
    plain = replace(fast, setup=plainly(fast.setup))
    here, there = fast.try_edit(REQUEST), plain.try_edit(REQUEST)
    assert here.update is not None
    assert there.update is not None
    assert here.update.norm == pytest.approx(there.update.norm, rel=1e-3)
    figures, expected = (
        {(one.check, one.metric, one.condition): one.value for one in made.measurements} for made in (here, there)
    )
    assert figures == pytest.approx(expected, rel=1e-3, nan_ok=True)
    sequence.undo()


def plainly(setup: Setup) -> Setup:
    """Nothing of it is taken from a state that was kept."""
    gauge = replace(setup.gauge, known=None, plain=True)
    return replace(setup, known=None, gauge=gauge, settings=replace(setup.settings, engine=Engine.REFERENCE), memo={})


def test_undo_takes_everything_out_and_begins_again(wide: Setup, before: dict[str, str]) -> None:
    sequence = EditSequence(GuardedEditor(wide))
    first = sequence.edit(MIDDLE)
    sequence.edit(REQUEST)
    assert tensor_hashes(wide.lm.model) != before
    sequence.undo()
    assert tensor_hashes(wide.lm.model) == before
    assert not sequence.kept
    again = sequence.edit(MIDDLE)
    assert again.hashes == first.hashes
    sequence.undo()


# --------------------------------------------------------------------------------------------------------------- resumed


def test_a_killed_sequence_is_gone_on_with_from_any_record(wide: Setup, tmp_path: Path) -> None:
    audited(wide, tmp_path / "whole")
    log = (tmp_path / "whole" / LOG).read_bytes()
    lines = log.splitlines(keepends=True)
    for kept in range(3, len(lines)):
        out = tmp_path / str(kept)
        out.mkdir()
        (out / LOG).write_bytes(b"".join(lines[:kept]))
        audited(wide, out, resume=True)
        assert timeless((out / LOG).read_bytes()) == timeless(log), kept


def test_a_closed_sequence_stays_closed_when_it_is_gone_on_with(wide: Setup, tmp_path: Path) -> None:
    tight = bounded(wide, max_accumulated_update=1e-3)
    audited(tight, tmp_path / "whole")
    log = (tmp_path / "whole" / LOG).read_bytes()
    lines = log.splitlines(keepends=True)
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / LOG).write_bytes(b"".join(lines[:4]))
    audited(tight, tmp_path / "cut", resume=True)
    assert timeless((tmp_path / "cut" / LOG).read_bytes()) == timeless(log)


def test_a_log_whose_weight_is_not_reached_again_is_not_gone_on_with(wide: Setup, tmp_path: Path) -> None:
    audited(wide, tmp_path)
    lines = (tmp_path / LOG).read_text(encoding="utf-8").splitlines()[:4]
    record = json.loads(lines[-1])
    record["weights"]["edited"] = "0" * 64
    (tmp_path / LOG).write_text("\n".join([*lines[:-1], json.dumps(record)]) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match="was kept when the log was begun and now gives another weight; go on with"):
        audited(wide, tmp_path, resume=True)


def test_a_log_of_the_other_kind_is_not_gone_on_with(wide: Setup, tmp_path: Path) -> None:
    audited(wide, tmp_path)
    with pytest.raises(InputError, match="begun with another in_sequence"):
        run_audit(wide, loaded(*REQUESTS), tmp_path, resume=True)

"""Edits kept one after the other: what they add up to is judged, the sequence closes, and nothing of it stays behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from editguard.audit.folders.file_names import LOG
from editguard.audit.folders.output_folder import locked_folder
from editguard.audit.guard import GuardedEditor
from editguard.audit.policy import Action
from editguard.audit.progress import Progress
from editguard.audit.run.audit import run_audit
from editguard.audit.run.sequence_records import retention_rate
from editguard.audit.sequence import EditSequence, KeptEdit
from editguard.audit.setup import Setup
from editguard.probes.errors import DeviceFailed, EditguardError, InputError, OutOfMemory
from editguard.probes.model.fingerprint import compute_fingerprint, hash_tensor, hash_tensors
from editguard.probes.model.stored_weight import store_weight
from editguard.probes.requests.request import EditRequest
from editguard.reports.log.file import Log, read_log
from editguard.reports.log.schema import EditRecord, MeasurementRecord
from editguard.reports.verdict.summary import Summary
from editguard.suites.check import CHECKS, Bench, CheckResult, EditUnderTest, Outcome
from editguard.suites.checks.accumulated_drift import AccumulatedDrift

from ..helpers.check_benches import edit_of
from ..helpers.tiny_audits import drop_times, load_edits
from ..helpers.tiny_models import tiny_lm
from ..helpers.tiny_setups import (
    FIRST_TOKEN_REQUEST,
    MID_PROMPT_REQUEST,
    MISSING_SUBJECT_REQUEST,
    SENTENCES,
    lenient,
    tiny_setup,
)
from ..helpers.weight_updates import get_only_hashes

pytestmark = pytest.mark.tiny

REQUESTS = (
    *(replace(MID_PROMPT_REQUEST, id=f"middle-{target}", target_new=target) for target in ("Lyon", "Istanbul")),
    MISSING_SUBJECT_REQUEST,
    FIRST_TOKEN_REQUEST,
)
WIDE = {"max_accumulated_ratio": 100, "max_accumulated_update": 100, "min_retained": 0}


@pytest.fixture(scope="module")
def wide() -> Setup:
    return tiny_setup(policy=lenient(controls=True, **WIDE))


@pytest.fixture(scope="module")
def before(wide: Setup) -> dict[str, str]:
    return hash_tensors(wide.lm.model)


@pytest.fixture(autouse=True)
def left_as_found(wide: Setup, before: dict[str, str]) -> Iterator[None]:
    yield
    assert hash_tensors(wide.lm.model) == before


def bounded(setup: Setup, **bounds: float) -> Setup:
    return replace(setup, policy=setup.policy.model_copy(update=bounds))


@pytest.fixture(scope="module")
def whole(wide: Setup, tmp_path_factory: pytest.TempPathFactory) -> Log:
    return audited(wide, tmp_path_factory.mktemp("whole"))[0]


def audited(
    setup: Setup,
    out: Path,
    *,
    resume: bool = False,
    requests: tuple[EditRequest, ...] = REQUESTS,
    progress: Progress = lambda *_: None,
) -> tuple[Log, Summary]:
    with locked_folder(out, overwrite=False, resume=True):
        summary = run_audit(setup, load_edits(*requests), out, in_sequence=True, resume=resume, progress=progress)
    return read_log(out / LOG), summary


def accumulated(record: EditRecord) -> dict[str, MeasurementRecord]:
    return {
        measurement.metric: measurement
        for measurement in record.measurements
        if measurement.check == AccumulatedDrift.name
    }


# ----------------------------------------------------------------------------------------------------- what is in the log


def test_sequence_edit_is_made_on_the_model_with_kept_edits(whole: Log) -> None:
    weights = [record.weights for record in whole.edits if record.weights is not None]
    assert [record.kept for record in weights] == [True, True, True]
    assert [record.before for record in weights[1:]] == [record.edited for record in weights[:-1]]
    assert all(hashes.restored is None for record in weights for hashes in record.sites.values())
    assert all(record.restored_ok is None for record in weights)
    assert {record.id: record.outcome for record in whole.edits}["missing"] == "refused"


def test_sequence_drift_is_measured_from_the_origin(wide: Setup, whole: Log) -> None:
    """Computed again by hand: updates added up in float64, and the corpus run plainly through the whole model."""
    site, sequence = wide.site, EditSequence(GuardedEditor(wide))
    first, origin = site.matrix(torch.float64), plain_perplexity(wide)
    for request, record in zip(REQUESTS, whole.edits, strict=True):
        result = sequence.edit(request)
        if not result.kept:
            assert not accumulated(record)
            continue
        measurements = accumulated(record)
        assert measurements["relative-norm"].value == pytest.approx(
            float((site.matrix(torch.float64) - first).norm() / first.norm()), rel=1e-6
        )
        assert measurements["perplexity-ratio"].value == pytest.approx(plain_perplexity(wide) / origin, rel=1e-4)
    assert len(sequence.kept) == 3
    sequence.undo()


def plain_perplexity(setup: Setup) -> float:
    losses = []
    for sentence in SENTENCES:
        ids = torch.tensor([setup.lm.tokenizer(sentence).input_ids])
        with torch.no_grad():
            logits = setup.lm.model(input_ids=ids).logits[0, :-1].double()
        losses.append(float(torch.nn.functional.cross_entropy(logits, ids[0, 1:]).exp()))
    return sum(losses) / len(losses)


def test_sequence_end_counts_retained_edits(whole: Log) -> None:
    assert whole.footer is not None
    assert whole.footer.retained is not None
    assert whole.footer.retained.total == 3
    # The last one is rewritten, and no prefix serves it: it never held, and so it cannot be lost.
    assert whole.footer.retained.not_judged == 1
    assert whole.header.in_sequence


def test_sequence_controls_observe_the_drift(whole: Log) -> None:
    observations = [
        observation
        for control in whole.controls
        for observation in control.sightings
        if observation.name == AccumulatedDrift.name
    ]
    assert [(observation.expected.value, observation.ok) for observation in observations] == [
        ("fails", True),
        ("passes", True),
    ]


def test_sequence_edit_judged_by_drift_only_is_not_kept(wide: Setup) -> None:
    with EditSequence(GuardedEditor(wide, checks=())) as sequence:
        result = sequence.edit(MID_PROMPT_REQUEST)
        assert {measurement.check for measurement in result.measurements} == {AccumulatedDrift.name}
        assert all(measurement.outcome is Outcome.PASS for measurement in result.measurements)
        assert not result.sound
        assert not sequence.kept


def test_single_edit_has_no_accumulated_drift(wide: Setup) -> None:
    guard = GuardedEditor(wide)
    assert AccumulatedDrift.name not in guard.checks
    assert AccumulatedDrift.name in CHECKS.names()
    assert AccumulatedDrift().measure(wide.bench, edit_of(MID_PROMPT_REQUEST, None)).measurements == []


# ------------------------------------------------------------------------------------------------------------ it closes


@pytest.mark.parametrize("bound", ["max_accumulated_ratio", "max_accumulated_update"])
def test_sequence_closes_where_drift_leaves_its_bound(wide: Setup, whole: Log, tmp_path: Path, bound: str) -> None:
    """The bound lies between the first edit and the second: the second is undone, and all behind it are refused."""
    metric = {"max_accumulated_ratio": "perplexity-ratio", "max_accumulated_update": "relative-norm"}[bound]
    first, second = (accumulated(whole.edits[index])[metric].value for index in range(2))
    assert first is not None
    assert second is not None
    assert first < second
    log, summary = audited(bounded(wide, **{bound: (first + second) / 2}), tmp_path)
    assert [record.outcome for record in log.edits] == ["committed", "rolled-back", "refused", "refused"]
    first_record, second_record, *after = log.edits
    assert first_record.weights is not None
    assert second_record.weights is not None
    restored = {path: hashes.restored for path, hashes in second_record.weights.sites.items()}
    assert restored == first_record.weights.edited
    assert accumulated(second_record)[metric].verdict == "fail"
    for record in after:
        assert "the sequence of edits is closed since 'middle-Istanbul'" in record.decision.reasons[0]
        assert "outside the bound" in record.decision.reasons[0]
        assert not record.measurements
    assert summary.exit_code == 1
    assert summary.verdict != "pass"


def test_accumulated_drift_known_bad_leaves_both_bounds(wide: Setup) -> None:
    assert AccumulatedDrift().known_bad(wide.bench, edit_of(MID_PROMPT_REQUEST, None)) is None
    tight = bounded(wide, max_accumulated_ratio=1.1, max_accumulated_update=1.5)
    with EditSequence(GuardedEditor(tight)) as sequence:
        known_bad = AccumulatedDrift().known_bad(sequence.guard.setup.bench, edit_of(MID_PROMPT_REQUEST, None))
    assert known_bad is not None
    assert [
        (measurement.metric, measurement.value, measurement.baseline, measurement.outcome)
        for measurement in known_bad.measurements
    ] == [
        ("perplexity-ratio", 1000.0, 1.0, Outcome.FAIL),
        ("relative-norm", 1000.0, 0.0, Outcome.FAIL),
    ]
    at_the_bound = AccumulatedDrift()._judge(sequence.guard.setup.bench, 1.1, 1.5).measurements
    assert [measurement.outcome for measurement in at_the_bound] == [Outcome.PASS] * 2
    assert all("outside" not in measurement.message for measurement in at_the_bound)
    unmeasured = AccumulatedDrift()._judge(sequence.guard.setup.bench, float("nan"), float("inf")).measurements
    assert [(measurement.value, measurement.outcome) for measurement in unmeasured] == [(None, Outcome.UNMEASURED)] * 2


def test_sequence_closes_where_drift_is_not_measured(wide: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    sequence = EditSequence(GuardedEditor(wide))
    judged = AccumulatedDrift._judge
    monkeypatch.setattr(
        AccumulatedDrift, "_judge", lambda self, bench, ratio, distance: judged(self, bench, ratio, float("nan"))
    )
    result = sequence.edit(MID_PROMPT_REQUEST)
    assert Outcome.UNMEASURED in {measurement.outcome for measurement in result.measurements}
    assert not result.kept
    assert sequence.edit(FIRST_TOKEN_REQUEST).decision.action is Action.REFUSE
    assert sequence.closed is not None


@pytest.mark.parametrize(
    "bounds", [{}, {"max_accumulated_update": 1e-6, "max_accumulated_ratio": 1e-6}], ids=["alone", "both"]
)
def test_sequence_stays_open_after_an_edit_that_fails_by_itself(wide: Setup, bounds: dict[str, float]) -> None:
    """It is undone, and the drift with it; the next one may be better."""
    sequence = EditSequence(GuardedEditor(bounded(wide, max_perplexity_ratio=1e-6, **bounds)))
    result = sequence.edit(MID_PROMPT_REQUEST)
    assert {measurement.check for measurement in result.failures} == {
        "perplexity",
        *([AccumulatedDrift.name] if bounds else []),
    }
    assert not result.kept
    assert sequence.closed is None
    assert not sequence.kept


def test_sequence_closed_names_every_bound_that_was_left(wide: Setup) -> None:
    sequence = EditSequence(GuardedEditor(bounded(wide, max_accumulated_update=1e-6, max_accumulated_ratio=1e-6)))
    sequence.edit(MID_PROMPT_REQUEST)
    assert sequence.closed is not None
    assert "times that before the first edit" in sequence.closed
    assert "of ||W_0|| from the first weight" in sequence.closed


def test_sequence_closed_names_the_way_out(wide: Setup) -> None:
    sequence = EditSequence(GuardedEditor(bounded(wide, max_accumulated_update=1e-6)))
    sequence.edit(MID_PROMPT_REQUEST)
    assert sequence.closed is not None
    assert sequence.closed.endswith("ship the kept edits, or raise the bound in the policy if you can justify it")


# ---------------------------------------------------------------------------------------------------- the model in between


@pytest.mark.parametrize(("family", "seed"), [("llama", 0), ("gpt2", 1), ("gptj", 0)])  # gptj: attention beside the MLP
def test_sequence_after_kept_edit_measures_as_plain_passes(family: str, seed: int) -> None:
    sequence = EditSequence(GuardedEditor(tiny_setup(tiny_lm(family, seed=seed), policy=lenient(**WIDE))))
    assert sequence.edit(MID_PROMPT_REQUEST).kept
    fast = sequence.guard
    plain = replace(fast, setup=fast.setup.with_reference_engine())
    here, there = fast.try_edit(FIRST_TOKEN_REQUEST), plain.try_edit(FIRST_TOKEN_REQUEST)
    assert here.update is not None
    assert there.update is not None
    assert here.update.norm == pytest.approx(there.update.norm, rel=1e-3)
    figures, expected = (
        {
            (measurement.check, measurement.metric, measurement.condition): measurement.value
            for measurement in result.measurements
        }
        for result in (here, there)
    )
    assert figures == pytest.approx(expected, rel=1e-3, nan_ok=True)


def test_sequence_after_kept_edit_keeps_bounds_of_the_origin(wide: Setup) -> None:
    """A log or a delta of it must not claim to be of the unedited model; a weight that grew must not loosen a bound."""
    with EditSequence(GuardedEditor(wide)) as sequence:
        assert sequence.edit(MID_PROMPT_REQUEST).kept
        now = sequence.guard.setup
        assert now.lm.fingerprint == compute_fingerprint(now.lm.model) != wide.lm.fingerprint
        assert now.meter.lm is now.lm
        assert now.meter.weight_norm == wide.meter.weight_norm != pytest.approx(float(now.site.matrix().norm()))


def test_sequence_ends_where_a_check_writes_to_a_weight(wide: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    other = wide.lm.model.get_parameter("model.norm.weight")
    before, measure = other.detach().clone(), AccumulatedDrift.measure

    def writing(*given: Any) -> CheckResult:
        with torch.no_grad():
            other.mul_(1.01)
        return measure(*given)

    monkeypatch.setattr(AccumulatedDrift, "measure", writing)
    try:
        with (
            EditSequence(GuardedEditor(wide)) as sequence,
            pytest.raises(EditguardError, match="find the check that writes"),
        ):
            sequence.edit(MID_PROMPT_REQUEST)
        assert not sequence.kept
    finally:
        with torch.no_grad():
            other.copy_(before)


def test_sequence_that_fails_to_advance_drops_the_edit(wide: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    with EditSequence(GuardedEditor(wide)) as sequence:
        first = sequence.edit(MID_PROMPT_REQUEST)
        monkeypatch.setattr(Setup, "after_kept_edit", fails(OutOfMemory("no room")))
        with pytest.raises(OutOfMemory):
            sequence.edit(FIRST_TOKEN_REQUEST)
        assert [proposal.request for proposal in sequence.kept] == [MID_PROMPT_REQUEST]
        assert hash_tensor(wide.site.weight) == get_only_hashes(first).edited
        monkeypatch.undo()
        assert sequence.edit(FIRST_TOKEN_REQUEST).kept


def fails(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


def test_sequence_that_fails_to_advance_proves_the_weight(wide: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    before = store_weight(wide.site)
    with EditSequence(GuardedEditor(wide)) as sequence:
        monkeypatch.setattr(Setup, "after_kept_edit", fails(OutOfMemory("no room")))
        spoilt = replace(before, tensor=before.tensor * 1.5)  # as memory that fails would
        with pytest.raises(EditguardError, match=r"after the roll-back instead of .*; the model in memory must not"):
            sequence._advance(KeptEdit(MID_PROMPT_REQUEST, None, False), [spoilt])
        assert not sequence.kept


def test_sequence_within_a_sequence_is_refused(wide: Setup) -> None:
    with (
        EditSequence(GuardedEditor(wide)) as sequence,
        pytest.raises(InputError, match="belongs to a sequence already"),
    ):
        EditSequence(sequence.guard)


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), torch.AcceleratorError("broken"), EditguardError("ours")],
    ids=lambda error: type(error).__name__,
)
def test_sequence_audit_that_ends_early_restores_the_model(
    wide: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """`left_as_found` looks at the weights; the log is gone on with as if nothing had been."""
    audited(wide, tmp_path / "whole")
    (tmp_path / "ended").mkdir()
    measure, calls = AccumulatedDrift.measure, []

    def ends(self: AccumulatedDrift, bench: Bench, edit: EditUnderTest[Any]) -> CheckResult:
        if edit.request.id == REQUESTS[1].id:
            assert hash_tensor(wide.site.weight) != wide.bench.weights[0].sha256
            calls.append(edit.request.id)
            raise error
        return measure(self, bench, edit)

    monkeypatch.setattr(AccumulatedDrift, "measure", ends)
    with pytest.raises((type(error), DeviceFailed)):
        audited(wide, tmp_path / "ended")
    monkeypatch.undo()
    assert calls
    assert [record.id for record in read_log(tmp_path / "ended" / LOG).edits] == [REQUESTS[0].id]
    audited(wide, tmp_path / "ended", resume=True)
    assert drop_times((tmp_path / "ended" / LOG).read_bytes()) == drop_times((tmp_path / "whole" / LOG).read_bytes())


def test_sequence_error_record_keeps_decision_and_update(
    wide: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AccumulatedDrift, "measure", fails(RuntimeError("broken check")))
    log, summary = audited(bounded_without_controls(wide), tmp_path)
    first = log.edits[0]
    assert (first.outcome, first.decision.action, first.verdict) == ("errored", "allow", "fail")
    assert first.update is not None
    assert summary.verdict == "fail"


def bounded_without_controls(setup: Setup) -> Setup:
    return replace(setup, policy=setup.policy.model_copy(update={"controls": False}))


def test_sequence_undo_restores_the_origin_and_reopens(wide: Setup, before: dict[str, str]) -> None:
    sequence = EditSequence(GuardedEditor(wide))
    first = sequence.edit(MID_PROMPT_REQUEST)
    sequence.edit(FIRST_TOKEN_REQUEST)
    assert hash_tensors(wide.lm.model) != before
    sequence.undo()
    assert hash_tensors(wide.lm.model) == before
    assert not sequence.kept
    again = sequence.edit(MID_PROMPT_REQUEST)
    assert again.hashes == first.hashes
    sequence.undo()


def test_sequence_undo_that_fails_is_an_error(wide: Setup) -> None:
    sequence, first = EditSequence(GuardedEditor(wide)), wide.site.weight.detach().clone()
    stored = sequence._origin.weights[wide.site.path]
    sequence._origin.weights[wide.site.path] = replace(stored, tensor=stored.tensor * 1.5)  # as memory that fails would
    try:
        with pytest.raises(
            EditguardError, match=r"after the sequence was undone instead of .*; the model in memory must not"
        ):
            sequence.undo()
    finally:
        with torch.no_grad():
            wide.site.weight.copy_(first)


def test_retention_rate_unserved_edits_do_not_count_as_retained() -> None:
    rate = retention_rate([True, None, False, None])
    assert (rate.passed, rate.failed, rate.not_judged, rate.total, rate.rate) == (1, 1, 2, 4, 0.25)
    assert retention_rate([]).rate is None


# --------------------------------------------------------------------------------------------------------------- resumed


def test_resume_sequence_from_any_record_ends_alike(wide: Setup, tmp_path: Path) -> None:
    audited(wide, tmp_path / "whole")
    log = (tmp_path / "whole" / LOG).read_bytes()
    lines = log.splitlines(keepends=True)
    for count in range(1, len(lines)):
        out = tmp_path / str(count)
        out.mkdir()
        (out / LOG).write_bytes(b"".join(lines[:count]))
        steps: list[tuple[str, int, int]] = []
        audited(wide, out, resume=True, progress=lambda *step: steps.append(step))  # noqa: B023  (called at once)
        assert drop_times((out / LOG).read_bytes()) == drop_times(log), count
        # Making edits again takes nearly as long as making them, and is told like it.
        begun = sum(b'"kind":"edit"' in line for line in lines[:count])
        again = [step[1:] for step in steps if step[0] == "edits made again"]
        assert again == [(done, begun) for done in range(1, begun + 1)]


def test_resume_closed_sequence_stays_closed(wide: Setup, tmp_path: Path) -> None:
    tight = bounded(wide, max_accumulated_update=1e-3)
    audited(tight, tmp_path / "whole")
    log = (tmp_path / "whole" / LOG).read_bytes()
    lines = log.splitlines(keepends=True)
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / LOG).write_bytes(b"".join(lines[:4]))
    audited(tight, tmp_path / "cut", resume=True)
    assert drop_times((tmp_path / "cut" / LOG).read_bytes()) == drop_times(log)


def test_resume_sequence_with_another_weight_is_refused(wide: Setup, tmp_path: Path) -> None:
    audited(wide, tmp_path)
    lines = (tmp_path / LOG).read_text(encoding="utf-8").splitlines()[:4]
    record = json.loads(lines[-1])
    record["weights"]["sites"][wide.site.path]["edited"] = "0" * 64
    (tmp_path / LOG).write_text("\n".join([*lines[:-1], json.dumps(record)]) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"and now gives the weight [0-9a-f]{12} instead of 0{12}; resume with"):
        audited(wide, tmp_path, resume=True)


def test_resume_sequence_with_edit_refused_now_is_refused(wide: Setup, tmp_path: Path) -> None:
    requests = (MISSING_SUBJECT_REQUEST, MID_PROMPT_REQUEST)
    audited(wide, tmp_path, requests=requests)
    lines = (tmp_path / LOG).read_text(encoding="utf-8").splitlines()
    first, second = (
        next(n for n, line in enumerate(lines) if json.loads(line).get("id") == request.id) for request in requests
    )
    refused, kept_record = json.loads(lines[first]), json.loads(lines[second])
    lines[first] = json.dumps(
        kept_record | {name: refused[name] for name in ("id", "index", "subject", "prompt", "target_new")}
    )
    (tmp_path / LOG).write_text("\n".join(lines[: first + 1]) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"was kept when the log was begun and now is refused \(.*\); resume with"):
        audited(wide, tmp_path, resume=True, requests=requests)


@pytest.mark.parametrize(("update", "judged"), [(None, 0), ({"prefix": None}, 0), ({"prefix": "Q: "}, 1)])
def test_resume_sequence_edit_is_asked_as_it_was_served(
    wide: Setup, tmp_path: Path, update: dict[str, str | None] | None, judged: int
) -> None:
    audited(wide, tmp_path, requests=(FIRST_TOKEN_REQUEST,))
    *lines, _ = (tmp_path / LOG).read_text(encoding="utf-8").splitlines()
    record = json.loads(lines[-1])
    assert record["weights"]["kept"]
    # Whoever writes a log may leave the update out.
    record["update"] = None if update is None else record["update"] | update
    (tmp_path / LOG).write_text("\n".join([*lines[:-1], json.dumps(record)]) + "\n", encoding="utf-8")
    log, _ = audited(wide, tmp_path, resume=True, requests=(FIRST_TOKEN_REQUEST,))
    assert log.footer is not None
    assert log.footer.retained is not None
    assert (log.footer.retained.passed + log.footer.retained.failed, log.footer.retained.total) == (judged, 1)


def test_resume_sequence_log_of_single_edits_is_refused(wide: Setup, tmp_path: Path) -> None:
    audited(wide, tmp_path)
    with pytest.raises(InputError, match="begun with another in_sequence"):
        run_audit(wide, load_edits(*REQUESTS), tmp_path, resume=True)

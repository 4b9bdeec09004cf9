"""The reasons of a verdict: what a control missed is named, and nothing is said of one that showed what it must."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from editguard.reports import render_html
from editguard.reports.log.control_observations import ControlObservation, ObservedBehaviour
from editguard.reports.log.file import Log
from editguard.reports.log.header import SkippedRequest
from editguard.reports.log.schema import ControlRecord, Footer, Header
from editguard.reports.outputs.junit import render_junit
from editguard.reports.outputs.markdown import render_markdown
from editguard.reports.verdict.digest import digest, summarise
from editguard.reports.verdict.edit_summary import EditDecision
from editguard.reports.verdict.reasons import control_fault, not_controlled, pass_reason, void_reasons
from pydantic import ValidationError

from ...helpers import synthetic_logs as synthetic
from ...helpers.html_pages import Page


def observe(
    kind: str, name: str, expected: ObservedBehaviour, behaviour: ObservedBehaviour, *, ok: bool | None, why: str = ""
) -> ControlObservation:
    return ControlObservation.model_validate(
        {
            "kind": kind,
            "name": name,
            "expected": expected,
            "seen": behaviour,
            "by_edit": ok is True,
            "by_evidence": False,
            "ok": ok,
            "why": why,
        }
    )


def with_observations(log: Log, index: int, *sightings: ControlObservation) -> Log:
    ok = all(observation.ok is not False for observation in sightings)
    changed = log.controls[index].model_copy(update={"sightings": [*sightings], "ok": ok})
    return replace(log, controls=(*log.controls[:index], changed, *log.controls[index + 1 :]))


MISSED = [
    (
        "probe",
        "sink-key",
        ObservedBehaviour.FIRES,
        ObservedBehaviour.SILENT,
        0,
        "the probe 'sink-key' was silent where it must fire (known bad)",
    ),
    (
        "probe",
        "sink-key",
        ObservedBehaviour.SILENT,
        ObservedBehaviour.FIRES,
        2,
        "the probe 'sink-key' fired where it must be silent (known good)",
    ),
    (
        "probe",
        "sink-key",
        ObservedBehaviour.FIRES,
        ObservedBehaviour.ERRORS,
        0,
        "the probe 'sink-key' errored where it must fire (known bad)",
    ),
    (
        "check",
        "drift",
        ObservedBehaviour.FAILS,
        ObservedBehaviour.PASSES,
        0,
        "the check 'drift' passed where it must fail (known bad)",
    ),
    (
        "check",
        "drift",
        ObservedBehaviour.PASSES,
        ObservedBehaviour.FAILS,
        2,
        "the check 'drift' failed where it must pass (known good)",
    ),
    (
        "check",
        "drift",
        ObservedBehaviour.PASSES,
        ObservedBehaviour.JUDGES_NOTHING,
        2,
        "the check 'drift' judged nothing where it must pass (known good)",
    ),
]


@pytest.mark.parametrize(("kind", "name", "expected", "behaviour", "index", "message"), MISSED)
def test_void_reasons_missed_observation_is_named(
    log: Log, kind: str, name: str, expected: ObservedBehaviour, behaviour: ObservedBehaviour, index: int, message: str
) -> None:
    broken = with_observations(log, index, observe(kind, name, expected, behaviour, ok=False))
    summary = summarise(broken)
    assert (summary.verdict, summary.exit_code, summary.controls_ok) == ("void", 1, False)
    (reason,) = summary.reasons
    # The edit itself showed what it must, so nothing else is said of the control.
    assert reason == f"Control {log.controls[index].id!r} shows that {message}: the audit proves nothing."


def test_void_reason_of_a_missed_observation_stands_in_every_output(log: Log) -> None:
    missed = observe("check", "drift", ObservedBehaviour.FAILS, ObservedBehaviour.PASSES, ok=False)
    broken = with_observations(log, 0, missed)
    (reason,) = summarise(broken).reasons
    for text in (Page(render_html(broken)).text, render_markdown(broken), render_junit(broken).decode()):
        assert "where it must" in reason
        assert "where it must" in text


def test_control_fault_missed_result_and_observation_says_both(log: Log) -> None:
    rng = random.Random(3)
    missed = observe("probe", "sink-key", ObservedBehaviour.FIRES, ObservedBehaviour.SILENT, ok=False)
    for collapse in (True, False):
        record = synthetic.make_control("again", rng, collapse=collapse, ok=False).model_copy(
            update={"sightings": [missed]}
        )
        story = digest(replace(log, controls=(record,))).controls[0]
        fault = control_fault(story)
        assert fault is not None
        assert fault.startswith("Control 'again' was to show a ")
        assert "the probe 'sink-key' was silent where it must fire (known bad): the checks prove nothing." in fault


def faulty(log: Log, *, collapse: bool, ok: bool = False, missed: bool = False, **changes: object) -> str:
    """Return why a control proves nothing that showed, or did not show, a collapse."""
    rng = random.Random(3)
    record = synthetic.make_control("again", rng, collapse=collapse, ok=ok)
    observations = (
        [observe("probe", "sink-key", ObservedBehaviour.FIRES, ObservedBehaviour.SILENT, ok=False)] if missed else []
    )
    record = record.model_copy(update={"ok": False, "sightings": observations, **changes})
    fault = control_fault(digest(replace(log, controls=(record,))).controls[0])
    assert fault is not None
    return fault


def test_control_fault_names_observed_result(log: Log) -> None:
    unmeasured = synthetic.make_perplexity(1.0).model_copy(update={"value": None, "verdict": "unmeasured"})
    measured = {"measurements": [synthetic.make_perplexity(1.0123)]}
    template = "Control 'again' was to show {}, but {}: the checks prove nothing."
    assert faulty(log, collapse=True, **measured) == template.format("a collapse", "the perplexity ratio was 1.012")
    assert "no perplexity ratio was measured" in faulty(log, collapse=True, measurements=[])
    assert "no perplexity ratio was measured" in faulty(log, collapse=True, measurements=[unmeasured])
    assert faulty(log, collapse=False, ok=True) == template.format("a sound model", "it was not")
    assert "it collapsed the model: perplexity ratio" in faulty(log, collapse=False)


@pytest.mark.parametrize(
    ("ratio", "verdict", "shown"),
    [(40.0, "fail", True), (40.0, "pass", False), (1.0, "fail", False), (1.0, "pass", False)],
)
def test_control_fault_collapse_needs_ratio_and_verdict(log: Log, ratio: float, verdict: str, shown: bool) -> None:
    fault = faulty(log, collapse=True, missed=True, verdict=verdict, measurements=[synthetic.make_perplexity(ratio)])
    assert ("shows that the probe 'sink-key'" in fault) is shown
    assert ("was to show a collapse" in fault) is not shown


def test_control_fault_edit_has_none(log: Log) -> None:
    assert [control_fault(story) for story in digest(log).edits] == [None] * 60


def under(log: Log, **policy: bool) -> Log:
    header = log.header.model_copy(update={"policy": log.header.policy | policy})
    return replace(log, header=header)


def test_fail_reasons_lists_each_and_nothing_else(log: Log) -> None:
    applied = replace(log, edits=tuple(edit for edit in log.edits if edit.outcome != "refused"))
    applied = replace(applied, header=applied.header.model_copy(update={"requests": len(applied.edits)}))
    applied = replace(applied, footer=Footer(records=len(applied.edits) + len(applied.controls), seconds=1.0))
    assert summarise(under(applied, allow_refused=False)).verdict == "pass"
    fails = {"verdict": "fail", "outcome": "rolled-back", "error": "it was not liked"}
    two = tuple(edit.model_copy(update=fails if n < 2 else {}) for n, edit in enumerate(applied.edits))
    names = ", ".join(repr(edit.id) for edit in two[:2])
    failed, others = summarise(replace(applied, edits=two)).reasons
    assert failed == f"2 edits failed: {names}."
    assert others.startswith("52 of 54 edits passed and may ship by themselves: ")
    weights = two[3].weights
    assert weights is not None
    left = {"weights": weights.model_copy(update={"kept": True, "restored": None, "restored_ok": None})}
    kept_edits = tuple(edit.model_copy(update=left if n == 3 else {}) for n, edit in enumerate(applied.edits))
    assert summarise(replace(applied, edits=kept_edits)).reasons == [
        f"Edit {kept_edits[3].id!r} was left in the model, though each edit is undone before the next."
    ]
    for torn in (False, True):
        (reason,) = summarise(replace(applied, footer=None, torn=torn)).reasons
        assert reason.endswith("its last line is cut short." if torn else "the log has no footer.")


def test_pass_reason_lists_its_evidence(log: Log) -> None:
    stories = digest(log).edits
    ratios = [
        story.ratio for story in stories if story.decision is not EditDecision.REFUSED and story.ratio is not None
    ]
    single_log = replace(log, controls=log.controls[:1])
    assert pass_reason(log, stories) == (
        f"60 edits audited, none failed; worst perplexity ratio {max(ratios):.4g}; all 3 controls showed what was expected."
    )
    assert pass_reason(single_log, stories).endswith("; the control showed what was expected.")
    # A ratio of an edit that was refused in the end is none of a model that ships.
    refused = [replace(story, decision=EditDecision.REFUSED, ratio=9.0) for story in stories[:2]]
    unknown = [replace(story, ratio=None) for story in stories[2:4]]
    assert "; no edit was applied;" in pass_reason(log, [*refused, *unknown])
    # Nor is what nobody looked at.
    skipped = [SkippedRequest(where="e.jsonl:7", field="prompt", message="has no subject")]
    arguments = {**log.header.arguments, "limit": 60}
    part = replace(log, header=log.header.model_copy(update={"skipped_invalid": skipped, "arguments": arguments}))
    assert (
        "none failed; 1 record of the file that is not valid left out; only the first 60 audited (--limit); worst"
    ) in pass_reason(part, stories)


def test_void_reasons_sound_or_unobserved_controls_give_none(log: Log) -> None:
    observation = observe("check", "drift", ObservedBehaviour.FAILS, ObservedBehaviour.FAILS, ok=True)
    held = with_observations(log, 0, observation)
    assert list(void_reasons(held, digest(held).controls)) == []
    old = [control.model_dump(mode="json") for control in log.controls]
    for values in old:
        del values["sightings"]
    read = tuple(ControlRecord.model_validate(values) for values in old)
    assert summarise(replace(log, controls=read)).verdict == "pass"


def test_not_controlled_is_listed_once_and_voids_nothing(log: Log) -> None:
    foreign = observe(
        "probe",
        "foreign",
        ObservedBehaviour.FIRES,
        ObservedBehaviour.SILENT,
        ok=None,
        why="it brings no known-bad of its own",
    )
    informed = with_observations(with_observations(log, 0, foreign), 1, foreign)
    assert not_controlled(informed.controls) == ["probe foreign: it brings no known-bad of its own"]
    summary = summarise(informed)
    assert (summary.verdict, summary.not_controlled) == ("pass", not_controlled(informed.controls))
    assert "Not controlled: probe foreign" in Page(render_html(informed)).text
    assert "Not controlled: probe foreign" in render_markdown(informed)


def test_page_lists_each_control_observation(log: Log) -> None:
    observation = observe("check", "drift", ObservedBehaviour.FAILS, ObservedBehaviour.FAILS, ok=True)
    text = " ".join(Page(render_html(with_observations(log, 0, observation))).text.split())
    assert "Control observations" in text
    assert "check drift" in text
    assert "2 of 2 probes and checks caught a known bad" in render_markdown(with_observations(log, 0, observation))


def test_control_observation_ok_needs_expected_behaviour(log: Log) -> None:
    for changes in ({"seen": ObservedBehaviour.SILENT}, {"by_edit": False}):
        values = (
            observe("probe", "sink-key", ObservedBehaviour.FIRES, ObservedBehaviour.FIRES, ok=True).model_dump()
            | changes
        )
        with pytest.raises(ValidationError, match="was expected and not observed"):
            ControlObservation.model_validate(values)
    missed = observe("probe", "sink-key", ObservedBehaviour.FIRES, ObservedBehaviour.SILENT, ok=False)
    with pytest.raises(ValidationError, match="sink-key did not behave as expected"):
        ControlRecord.model_validate(log.controls[0].model_dump() | {"sightings": [missed]})


def test_void_reasons_missing_control_is_named_under_any_policy(log: Log) -> None:
    def under(controls: bool, shown: tuple[ControlRecord, ...]) -> list[str]:
        header: Header = log.header.model_copy(update={"policy": log.header.policy | {"controls": controls}})
        changed = replace(log, header=header, controls=shown)
        return list(void_reasons(changed, digest(changed).controls))

    for demanded in (True, False):
        assert under(demanded, log.controls) == []
        assert under(demanded, log.controls[1:]) == ["1 control is missing: 'rome-1'."]
        assert under(demanded, log.controls[2:]) == ["2 controls are missing: 'rome-1', 'rome-2'."]
    (demanded_,) = under(True, ())
    assert demanded_.startswith("No control was recorded, though the policy demands them")
    (announced,) = under(False, ())
    assert announced == "No control was recorded, though the header announces 'rome-1', 'rome-2', 'sound-1'."

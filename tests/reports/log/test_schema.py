"""The schema of the log: records round-trip strictly, and one that contradicts itself is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from editguard.reports.log.file import Log
from editguard.reports.log.schema import (
    RECORD,
    ControlRecord,
    DecisionRecord,
    EditRecord,
    Header,
    Keys,
    MeasurementRecord,
    SiteUpdate,
    Update,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ...helpers.examples import count_examples

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
NUMBER = st.none() | st.floats(allow_nan=False, allow_infinity=False)
COUNT = st.integers(0, 10_000)
SCALAR = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
)


@st.composite
def measurements(draw: st.DrawFn) -> dict[str, Any]:
    passed, failed, not_judged = draw(COUNT), draw(COUNT), draw(COUNT)
    value = draw(NUMBER)
    return {
        "check": draw(TEXT),
        "metric": draw(TEXT),
        "condition": draw(TEXT),
        "protocol": draw(st.sampled_from([None, "exact", "token-match", "probability"])),
        "value": value,
        "baseline": draw(NUMBER),
        "threshold": draw(NUMBER),
        "passed": passed,
        "failed": failed,
        "not_judged": not_judged,
        "total": passed + failed + not_judged,
        "verdict": draw(st.sampled_from(["fail", "unmeasured", "info"] + ["pass"] * (value is not None))),
        "message": draw(TEXT),
    }


@st.composite
def edits(draw: st.DrawFn) -> EditRecord:
    action = draw(st.sampled_from(["allow", "rewrite", "refuse"]))
    outcome = draw(st.sampled_from(["refused", "errored"] + ["committed", "rolled-back"] * (action != "refuse")))
    measured = draw(st.lists(measurements(), max_size=2))
    sound = outcome == "committed" and not any(
        measurement["verdict"] in ("fail", "unmeasured") for measurement in measured
    )
    verdict = "refused" if outcome == "refused" else "pass" if sound else "fail"
    point = st.tuples(*[st.floats(-1e6, 1e6)] * 2)
    names = [name for name in Keys.model_fields if name not in ("first_token", "prefixed_points")]
    return EditRecord(
        id=draw(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10)),
        index=draw(COUNT),
        subject=draw(TEXT),
        prompt=draw(TEXT),
        target_new=draw(TEXT),
        target_true=draw(st.none() | TEXT),
        paraphrases=draw(st.lists(TEXT, max_size=2)),
        findings=draw(
            st.lists(
                st.builds(
                    dict,
                    probe=TEXT,
                    level=st.sampled_from(["ok", "notice", "risk", "error"]),
                    value=NUMBER,
                    message=TEXT,
                    details=st.dictionaries(TEXT, SCALAR, max_size=3),
                ),
                max_size=2,
            )
        ),
        decision=DecisionRecord(action=action, editor=None if action == "refuse" else "rome", reasons=[draw(TEXT)]),
        keys=draw(
            st.none()
            | st.fixed_dictionaries(
                {"first_token": st.booleans(), "prefixed_points": st.lists(point, max_size=3)}
                | {name: (st.none() | point) if name.endswith("point") else NUMBER for name in names}
            )
        ),
        update=draw(
            st.none()
            | st.builds(
                Update,
                editor=TEXT,
                needs_prefix=st.booleans(),
                update_norm=NUMBER,
                relative_norm=NUMBER,
                changes=st.lists(
                    st.builds(
                        SiteUpdate,
                        layer=COUNT,
                        path=TEXT,
                        rank=st.integers(1, 9),
                        steps=st.none() | COUNT,
                        **dict.fromkeys(
                            ("numerator", "denominator", "update_norm", "relative_norm", "final_loss"), NUMBER
                        ),
                    ),
                    min_size=1,
                    max_size=2,
                ),
            )
        ),
        measurements=measured,
        outcome=outcome,
        verdict=verdict,
        error="went wrong" if outcome == "errored" else None,
        seconds=draw(st.floats(0, 1e6)),
    )


@settings(deadline=None, max_examples=count_examples(60), suppress_health_check=[HealthCheck.too_slow])
@given(edits())
def test_edit_record_round_trip_is_strict_and_equal(record: EditRecord) -> None:
    line = record.model_dump_json()
    assert "\n" not in line
    back = RECORD.validate_json(line, strict=True)
    assert back == record
    assert back.model_dump_json() == line


def test_header_controls_and_footer_round_trip(log: Log) -> None:
    for record in (log.header, *log.controls, log.footer):
        assert record is not None
        assert RECORD.validate_json(record.model_dump_json(), strict=True) == record


def measurement(**changes: Any) -> MeasurementRecord:
    return MeasurementRecord(**({"check": "c", "metric": "m", "value": 1.0, "verdict": "pass"} | changes))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_records_non_finite_number_is_refused(log: Log, number: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        measurement(value=number)
    with pytest.raises(ValidationError):
        Header(**(log.header.model_dump() | {"arguments": {"x": number}}))
    with pytest.raises(ValidationError):
        Header(**(log.header.model_dump() | {"policy": {"x": number}}))
    edit = log.edits[1].model_dump()
    edit["findings"][0]["details"]["x"] = number
    with pytest.raises(ValidationError):
        EditRecord(**edit)


def test_measurement_without_value_never_passes() -> None:
    with pytest.raises(ValidationError, match="never passes"):
        measurement(value=None)
    assert measurement(value=None, verdict="unmeasured").value is None


@pytest.mark.parametrize("counts", [{"passed": 1}, {"passed": 1, "failed": 1, "total": 1}, {"not_judged": 1}])
def test_measurement_counts_must_add_up(counts: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match="total is"):
        measurement(**counts)


@pytest.mark.parametrize(
    "changes",
    [
        {"outcome": "refused"},
        {"verdict": "refused"},
        {"outcome": "rolled-back"},
        {"error": "an error that passes"},
        {"outcome": "errored", "verdict": "fail"},
        {"measurements": [{"check": "drift", "metric": "relative-drift", "value": 9.0, "verdict": "fail"}]},
        {"measurements": [{"check": "drift", "metric": "relative-drift", "value": None, "verdict": "unmeasured"}]},
        {"decision": {"action": "refuse", "editor": None, "reasons": ["r"]}},
        {"decision": {"action": "refuse", "editor": None, "reasons": []}},
        {"decision": {"action": "allow", "editor": None, "reasons": []}},
        {"unknown": 1},
        {"id": ""},
        {"index": -1},
    ],
)
def test_edit_record_contradiction_is_refused(log: Log, changes: dict[str, Any]) -> None:
    values = log.edits[1].model_dump()
    EditRecord(**values)
    with pytest.raises(ValidationError):
        EditRecord(**(values | changes))


def test_control_record_errored_is_not_ok(log: Log) -> None:
    values = log.controls[0].model_dump() | {"outcome": "errored", "verdict": "fail", "error": "boom"}
    with pytest.raises(ValidationError, match="proves nothing"):
        ControlRecord(**values)


@pytest.mark.parametrize("policy", [{"collapse_ratio": True}, {"collapse_ratio": 0}, {"collapse_ratio": None}])
def test_header_policy_of_wrong_type_is_refused(log: Log, policy: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="collapse_ratio"):
        Header(**(log.header.model_dump() | {"policy": policy}))
    with pytest.raises(ValidationError, match="allow_refused"):
        Header(**(log.header.model_dump() | {"policy": {"allow_refused": "yes"}}))


def test_edit_record_is_frozen(log: Log) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        log.edits[0].verdict = "pass"  # type: ignore[misc]


def test_edit_record_line_is_plain_json(log: Log) -> None:
    plain = json.loads(log.edits[0].model_dump_json())
    assert plain["kind"] == "edit"
    assert plain["keys"]["mean_point"] == [log.edits[0].keys.mean_point.x, log.edits[0].keys.mean_point.y]  # type: ignore[union-attr]

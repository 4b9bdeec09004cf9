"""The base in a checkpoint's place must not say the target and must pass all else, or the audit is void."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from editguard.reports.log.schema import ControlRecord, MeasurementRecord
from editguard.reports.verdict.digest import summarise
from editguard.reports.verdict.reasons import has_unedited_result

from ...helpers.checkpoint_logs import make_log, make_model
from ...helpers.synthetic_logs import make_control, make_perplexity


def make_efficacy(passes: bool) -> MeasurementRecord:
    return MeasurementRecord(
        check="efficacy",
        metric="efficacy",
        protocol="exact",
        value=float(passes),
        threshold=0.5,
        passed=int(passes),
        failed=int(not passes),
        total=1,
        verdict="pass" if passes else "fail",
    )


def make_unedited(*measurements: MeasurementRecord) -> ControlRecord:
    control = make_control("control-base", random.Random(0), collapse=False)
    changes = {
        "expect": "unedited",
        "outcome": "judged",
        "verdict": "fail",
        "update": None,
        "weights": None,
        "measurements": list(measurements),
        "sightings": [],
    }
    record = control.model_copy(update=changes)
    return record.model_copy(update={"ok": has_unedited_result(record)})


@pytest.mark.parametrize(
    ("measurements", "expected"),
    [
        ([make_efficacy(False), make_perplexity(1.0)], True),
        ([make_efficacy(True), make_perplexity(1.0)], False),
        ([make_efficacy(False), make_perplexity(9.0)], False),
        ([make_efficacy(False)], False),
        ([make_perplexity(1.0)], False),
    ],
    ids=["base", "says the target", "collapsed", "no perplexity", "no efficacy"],
)
def test_has_unedited_result_is_that_of_the_base_alone(measurements: list[MeasurementRecord], expected: bool) -> None:
    assert has_unedited_result(make_unedited(*measurements)) is expected


@pytest.mark.parametrize("passes", [False, True])
def test_summarise_checkpoint_whose_base_says_the_target_is_void(passes: bool) -> None:
    log = make_log(make_model())
    control = make_unedited(make_efficacy(passes), make_perplexity(1.0))
    header = log.header.model_copy(update={"controls": ["control-base"], "policy": {"controls": True}})
    assert log.footer is not None
    footer = log.footer.model_copy(update={"records": 2})
    summary = summarise(replace(log, header=header, controls=(control,), footer=footer))
    assert summary.verdict == ("void" if passes else "pass")

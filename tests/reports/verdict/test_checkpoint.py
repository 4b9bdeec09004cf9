"""The verdict on a checkpoint as a whole: what is missing or broken never passes, and the gravest reason stands first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from editguard.reports.errors import LogError
from editguard.reports.html.report_page import render_html
from editguard.reports.log.edited_checkpoint import ModelRecord
from editguard.reports.log.file import parse_log
from editguard.reports.log.prompt_outcomes import PromptResult
from editguard.reports.outputs.junit import render_junit
from editguard.reports.outputs.sarif import render_sarif
from editguard.reports.verdict.checkpoint import count_side_effects
from editguard.reports.verdict.digest import summarise
from pydantic import ValidationError

from ...helpers.checkpoint_logs import make_log, make_model


def test_summarise_sound_checkpoint_passes_with_what_changed() -> None:
    summary = summarise(make_log(make_model()))
    assert summary.verdict == "pass"
    assert summary.reasons[0].startswith("No edit was given; One change of rank one; perplexity ratio 1.01")
    assert (summary.edited, summary.change) == ("./edited", "One change of rank one.")


def test_summarise_checkpoint_without_its_model_record_fails() -> None:
    summary = summarise(make_log(None))
    assert summary.verdict == "fail"
    assert "unmeasured is never a pass" in summary.reasons[0]


@pytest.mark.parametrize("missing", ["perplexity", "side-effects"])
def test_summarise_checkpoint_without_a_check_of_the_model_fails(missing: str) -> None:
    model = make_model()
    rest = [row for row in model.measurements if row.check != missing]
    summary = summarise(make_log(model.model_copy(update={"measurements": rest})))
    assert summary.verdict == "fail"
    assert (
        summary.reasons[0] == f"The check {missing!r} of the edited model is missing, and unmeasured is never a pass."
    )


def test_summarise_checkpoint_whose_record_failed_without_a_reason_fails() -> None:
    summary = summarise(make_log(make_model(verdict="fail")))
    assert summary.verdict == "fail"
    assert "does not say why" in summary.reasons[0]


@pytest.mark.parametrize(
    ("model", "edited", "reason"),
    [
        (make_model(), {"changed": 0}, "This is the base: no tensor differs."),
        (make_model(), {"changed": 0, "cast": 272}, "This is the base, cast to another type: 272 tensors differ"),
        (make_model(), {"changed": 0, "cast": 271, "rounded_away": 1}, "The edit was rounded away: 1 tensor differs"),
        (make_model(), {"differences": ["rope_theta is 5."]}, "rope_theta is 5."),
        (
            make_model(9.0),
            {},
            "The edited model collapsed: its perplexity is 9 times the base's, over the bound of 1.5.",
        ),
        (make_model(None), {}, "The edited model collapsed: its perplexity is not finite."),
        (make_model(1.2), {}, "The edited model predicts plain text worse: perplexity ratio 1.2"),
        (make_model(changed=20), {}, "Facts moved that nobody edited: 20 of 40 answers about other subjects changed"),
        (make_model(verdict="fail", error="boom"), {}, "The edited model could not be measured: boom"),
    ],
)
def test_summarise_faulty_checkpoint_fails_with_the_reason_first(
    model: ModelRecord, edited: dict[str, Any], reason: str
) -> None:
    log = make_log(model, **edited)
    summary = summarise(log)
    assert summary.verdict == "fail"
    assert summary.exit_code == 1
    assert summary.reasons[0].startswith(reason)
    assert summary.may_ship == []
    assert b"<failure" in render_junit(log)
    assert render_sarif(log)
    assert "Do not ship this checkpoint." in render_html(log)


def test_count_side_effects_counts_flips_and_leaves_near_ties_out() -> None:
    model = make_model(changed=2)
    tied = model.prompts[5].model_copy(update={"result": PromptResult.NEAR_TIE})
    broken = model.prompts[6].model_copy(update={"result": PromptResult.UNMEASURED})
    log = make_log(model.model_copy(update={"prompts": [*model.prompts[:5], tied, broken, *model.prompts[7:]]}))
    rate = count_side_effects(log)
    assert (rate.passed, rate.failed, rate.not_judged, rate.total) == (37, 2, 1, 40)


def test_model_record_that_passes_without_a_passed_measurement_is_refused() -> None:
    with pytest.raises(ValidationError, match="never a pass"):
        make_model(measurements=[], verdict="pass")
    with pytest.raises(ValidationError, match="did not pass"):
        make_model(9.0, verdict="pass")


def test_parse_log_with_a_model_record_and_no_checkpoint_is_malformed() -> None:
    log = make_log(make_model())
    assert log.model is not None
    header = log.header.model_copy(update={"edited": None})
    lines = [record.model_dump_json() for record in (header, log.model)]
    with pytest.raises(LogError, match="only where its header names a checkpoint"):
        parse_log("\n".join(lines).encode(), Path("audit.jsonl"))


def test_parse_log_of_a_checkpoint_gives_back_what_was_written() -> None:
    log = make_log(make_model(changed=1))
    assert log.model is not None
    assert log.footer is not None
    lines = [record.model_dump_json() for record in (log.header, log.model, log.footer)]
    assert parse_log("\n".join(lines).encode(), Path("audit.jsonl")) == replace(log)

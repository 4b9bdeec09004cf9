"""The page of a comparison shows what the file holds, and executes nothing of it."""

from __future__ import annotations

import pytest
from editguard.reports.html.diff_page import (
    DiffFile,
    Guess,
    Search,
    TextPair,
    judge_behaviour,
    render_diff,
)
from pydantic import ValidationError

from ...helpers.page_records import NASTY, sample_comparison


def test_render_diff_hostile_text_stays_text() -> None:
    page = render_diff(sample_comparison())
    assert "<script>alert" not in page
    assert "\u202e" not in page
    assert "U+202E" in page
    for shown in ("1.010", "2 × 3", "100", "missing", "0.9", "<strong>Pass.</strong>"):
        assert shown in page
    assert "is damaged" in render_diff(sample_comparison(verdict="fail", reasons=["It is damaged."]))


def test_search_with_error_shows_no_figures() -> None:
    failed = Search(tensor="down", candidates=3, guesses=[], error=f"Three are too few. {NASTY}")
    page = render_diff(sample_comparison(searches=[failed]))
    assert "<strong>Not measured</strong>: Three are too few." in page
    assert "<script>alert" not in page
    assert "The best of" not in page
    assert DiffFile.model_validate_json(sample_comparison(searches=[failed]).model_dump_json()).searches == [failed]
    for changes in ({"error": None}, {"margin": 0.1}, {"guesses": [Guess(subject="a", cosine=0.9, p_value=0.01)]}):
        with pytest.raises(ValidationError, match="or an error that says why"):
            Search.model_validate(failed.model_dump() | changes)


def test_render_diff_marks_differing_words_on_both_sides() -> None:
    page = render_diff(sample_comparison(written=[TextPair(prompt="It is", base=" a warm day", edited=" a cold day")]))
    assert "<mark>warm </mark>day" in page
    assert "<mark>cold </mark>day" in page
    assert "Words that differ are marked." in page
    same = render_diff(sample_comparison(written=[TextPair(prompt="It is", base=" a day", edited=" a day")]))
    assert "<mark>" not in same
    assert "All texts are the same." in same


def test_judge_behaviour_rows_have_bound_and_verdict() -> None:
    behaviour = sample_comparison().behaviour
    perplexity, entropy = judge_behaviour(behaviour)
    assert (perplexity.ratio, perplexity.allowed, perplexity.verdict) == (
        1.01,
        "up to 1.05; over 1.5 a collapse",
        "pass",
    )
    assert (entropy.ratio, entropy.allowed, entropy.verdict) == (1.0, "at least 0.5", "pass")
    bad = judge_behaviour(behaviour.model_copy(update={"ratio": 1.06, "entropy_ratio": 0.49}))
    assert [row.verdict for row in bad] == ["fail", "fail"]
    unknown = judge_behaviour(behaviour.model_copy(update={"ratio": None, "entropy_ratio": None}))
    assert [row.verdict for row in unknown] == ["unmeasured", "unmeasured"]
    assert "not measured" in render_diff(
        sample_comparison(behaviour=behaviour.model_copy(update={"entropy_ratio": None}))
    )


def test_diff_file_unmeasured_never_passes() -> None:
    unmeasured = sample_comparison().behaviour.model_copy(update={"ratio": None})
    with pytest.raises(ValidationError, match="never passes"):
        sample_comparison(behaviour=unmeasured)
    with pytest.raises(ValidationError, match="exactly where there are reasons"):
        sample_comparison(verdict="fail")

"""The page of a comparison shows what the file holds, and executes nothing of it."""

from __future__ import annotations

import pytest
from editguard.reports.html.diff_page import (
    Behaviour,
    DiffFile,
    Guess,
    Search,
    TensorRecord,
    TextPair,
    judge_behaviour,
    render_diff,
)
from pydantic import ValidationError

NASTY = "</script><script>alert(1)</script>\u202e"


def comparison(**changes: object) -> DiffFile:
    fields = {
        "editguard_version": "0.1.0", "created": "2026-01-01T00:00:00+00:00", "base": NASTY, "edited": "edited", "tensors": 9,
        "unchanged": 8,
        "changes": [
            TensorRecord(
                name=NASTY, status="changed", shape=[2, 3], dtype="float32", norm=1.0, relative=0.2, largest=0.5, share=1.0,
                effective_rank=1.0, first_share=1.0, rank="one",
            ),
            TensorRecord(name="lost", status="missing", shape=[], dtype="float32"),
        ],
        "behaviour": Behaviour(
            base_perplexity=100.0, edited_perplexity=101.0, ratio=1.01, max_ratio=1.05, collapse_ratio=1.5, entropy_ratio=1.0,
            min_entropy_ratio=0.5,
        ),
        "written": [TextPair(prompt=NASTY, base=NASTY, edited=NASTY)],
        "searches": [Search(tensor=NASTY, candidates=100, guesses=[Guess(subject=NASTY, cosine=0.9)], margin=0.3, p_value=0.01)],
        "verdict": "pass", "reasons": [],
    }  # fmt: skip
    return DiffFile.model_validate(fields | changes)


def test_the_page_shows_everything_and_runs_nothing_of_it() -> None:
    page = render_diff(comparison())
    assert "<script>alert" not in page
    assert "\u202e" not in page
    assert "U+202E" in page
    for shown in ("1.010", "2 × 3", "100", "missing", "0.9", "<strong>Pass.</strong>"):
        assert shown in page
    assert "is damaged" in render_diff(comparison(verdict="fail", reasons=["It is damaged."]))


def test_a_search_that_was_not_measured_says_so_and_nothing_else() -> None:
    failed = Search(tensor="down", candidates=3, guesses=[], error=f"Three are too few. {NASTY}")
    page = render_diff(comparison(searches=[failed]))
    assert "<strong>Not measured</strong>: Three are too few." in page
    assert "<script>alert" not in page
    assert "The best of" not in page
    assert DiffFile.model_validate_json(comparison(searches=[failed]).model_dump_json()).searches == [failed]
    for changes in ({"error": None}, {"margin": 0.1}, {"guesses": [Guess(subject="a", cosine=0.9)]}):
        with pytest.raises(ValidationError, match="or an error that says why"):
            Search.model_validate(failed.model_dump() | changes)


def test_words_that_differ_are_marked_on_both_sides() -> None:
    page = render_diff(comparison(written=[TextPair(prompt="It is", base=" a warm day", edited=" a cold day")]))
    assert "<mark>warm </mark>day" in page
    assert "<mark>cold </mark>day" in page
    assert "Words that differ are marked." in page
    same = render_diff(comparison(written=[TextPair(prompt="It is", base=" a day", edited=" a day")]))
    assert "<mark>" not in same
    assert "All texts are the same." in same


def test_each_measure_stands_beside_its_bound_and_verdict() -> None:
    seen = comparison().behaviour
    perplexity, entropy = judge_behaviour(seen)
    assert (perplexity.ratio, perplexity.allowed, perplexity.verdict) == (
        1.01,
        "up to 1.05; over 1.5 a collapse",
        "pass",
    )
    assert (entropy.ratio, entropy.allowed, entropy.verdict) == (1.0, "at least 0.5", "pass")
    bad = judge_behaviour(seen.model_copy(update={"ratio": 1.06, "entropy_ratio": 0.49}))
    assert [one.verdict for one in bad] == ["fail", "fail"]
    unknown = judge_behaviour(seen.model_copy(update={"ratio": None, "entropy_ratio": None}))
    assert [one.verdict for one in unknown] == ["unmeasured", "unmeasured"]
    assert "not measured" in render_diff(comparison(behaviour=seen.model_copy(update={"entropy_ratio": None})))


def test_what_was_not_measured_never_passes() -> None:
    unmeasured = comparison().behaviour.model_copy(update={"ratio": None})
    with pytest.raises(ValidationError, match="never passes"):
        comparison(behaviour=unmeasured)
    with pytest.raises(ValidationError, match="exactly where there are reasons"):
        comparison(verdict="fail")

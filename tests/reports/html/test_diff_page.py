"""The page of a comparison shows what the file holds, and executes nothing of it."""

from __future__ import annotations

import pytest
from editguard.reports.html.diff_page import (
    Difference,
    DiffFile,
    Guess,
    Search,
    TensorRecord,
    TextPair,
    describe_search,
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


DIFFERENCE = Difference(
    file="config.json", field="a", base="1", edited="2", sentence=f"a is 2 in the edited configuration {NASTY}"
)


def test_render_diff_names_what_differs_beside_the_weights() -> None:
    page = render_diff(sample_comparison(differences=[DIFFERENCE], verdict="fail", reasons=["config.json: a is 2."]))
    assert "a is 2 in the edited configuration" in page
    assert "<script>alert" not in page
    assert 'href="#differences"' in page
    assert 'href="#differences"' not in render_diff(sample_comparison())
    with pytest.raises(ValidationError, match="a reason to fail"):
        sample_comparison(differences=[DIFFERENCE])


def test_render_diff_says_first_that_nothing_changed() -> None:
    cast = TensorRecord(name="down", status="cast", shape=[2, 3], dtype="bfloat16", base_dtype="float32")
    sentence = "This is the base, and no tensor differs but for a cast to bfloat16."
    page = render_diff(sample_comparison(state="cast", summary=sentence, changes=[cast], changed=0, cast=1))
    assert page.index(sentence) < page.index('<ul class="reasons">')
    assert "0 changed, 1 cast, of 9 tensors" in page
    assert 'aria-label="Table of changes"' not in page
    infinite = cast.model_copy(update={"finite": False})
    assert "not finite" in render_diff(sample_comparison(changes=[infinite], verdict="fail", reasons=["It is Inf."]))


def test_render_diff_search_that_was_not_made_has_its_reason() -> None:
    reasons = {
        "not_searched": f"No candidates were given. {NASTY}",
        "objects_not_searched": "No down-projection changed.",
    }
    page = render_diff(sample_comparison(searches=[], objects=[], **reasons))
    assert "<strong>Not searched</strong>: No candidates were given." in page
    assert "<strong>Not searched</strong>: No down-projection changed." in page
    assert "<script>alert" not in page
    for changes in ({"searches": []}, {"not_searched": "why"}, {"objects": []}, {"objects_not_searched": "why"}):
        with pytest.raises(ValidationError, match="a search that was not made says why"):
            sample_comparison(**changes)


def test_search_without_a_candidate_that_stands_out_shows_no_list() -> None:
    quiet = Search(tensor="down", rank=1, candidates=25, guesses=[], margin=0.01, p_value=0.98)
    page = render_diff(sample_comparison(searches=[quiet]))
    assert "No candidate of 25 stands out (p = 0.98)." in page
    assert 'aria-label="Likely subjects of down"' not in page
    assert describe_search(quiet) == "no candidate of 25 stands out as the subject (p = 0.98)"

"""Prompts that an edit must not change: grouped, worst first, each counted once, with conditions in words."""

from __future__ import annotations

import pytest
from editguard.reports.log.prompt_outcomes import PromptResult
from editguard.reports.verdict.prompt_views import (
    OTHER_SUBJECTS,
    count_leaks,
    count_prompts,
    group_prompts,
    highlight,
    judged_by_made_neighbours,
    label_condition,
    select_worst_outcome,
)

from ...helpers.leak_logs import (
    CONDITIONS,
    FACTS,
    NEIGHBOURS,
    make_checked_edit,
    make_prompt_outcome,
    make_prompt_outcomes,
)


@pytest.mark.parametrize(
    ("condition", "label"),
    [
        ("unprefixed", "no prefix"),
        ("family:none", "no prefix"),
        ("prefixed", "after a prefix"),
        ("family:newline", "after a prefix: newline"),
        ("special:<|im_start|>", "after the token <|im_start|>"),
        ("served", "as served"),
        ("everywhere", "all conditions"),
        ("corpus", "corpus"),
    ],
)
def test_condition_label_each_kind_is_in_words(condition: str, label: str) -> None:
    assert label_condition(condition) == label


def test_prompt_groups_worst_first_unchanged_apart() -> None:
    others, facts = group_prompts(make_checked_edit(leaks=2, flips=1, fact_leaks=1).prompts)
    assert (others.name, facts.name) == ("other-subjects", "other-facts")
    assert [view.worst.value for view in others.changed] == ["leak", "leak", "flip", "near-tie"]
    assert len(others.unchanged) == len(NEIGHBOURS) - 4
    assert others.description == "6 prompts about other subjects: 2 leak, 1 flips, 1 is a near tie."
    assert all(view.is_made_by_audit for view in (*facts.changed, *facts.unchanged))
    assert not any(view.is_made_by_audit for view in (*others.changed, *others.unchanged))


def test_prompt_groups_gather_conditions_with_same_words() -> None:
    first = group_prompts(make_prompt_outcomes("Istanbul", leaks=1))[0].changed[0]
    (row,) = first.changed
    assert (row.before, row.after) == ("the company", "Istanbul, and")
    assert row.conditions == ("no prefix", "after a prefix: sentence")
    assert first.unchanged_conditions == len(CONDITIONS) - 2


def test_prompt_groups_without_prompts_are_empty() -> None:
    assert group_prompts([]) == []


def test_prompt_groups_all_unchanged_say_so() -> None:
    (group,) = group_prompts([make_prompt_outcome("a"), make_prompt_outcome("b")])
    assert (group.changed, group.description) == ((), "2 prompts about other subjects: all keep their answer.")


def test_prompt_groups_unmeasured_comes_before_flips() -> None:
    (group,) = group_prompts(
        [
            make_prompt_outcome("a", "flip", after="x"),
            make_prompt_outcome("b", "unmeasured"),
            make_prompt_outcome("c", "leak", after="y"),
        ]
    )
    assert [view.prompt for view in group.changed] == ["c", "b", "a"]


def test_prompt_rate_counts_a_prompt_once() -> None:
    record = make_checked_edit(leaks=2, flips=1, fact_leaks=1)
    assert (count_leaks(record).failed, count_leaks(record).total) == (2, len(NEIGHBOURS))
    assert count_prompts([record, record], "locality", "flips").failed == 2
    facts = count_prompts([record], "other-facts", "leaks")
    assert (facts.failed, facts.total) == (1, len(FACTS))


def test_prompt_rate_without_prompts_takes_logged_counts() -> None:
    record = make_checked_edit(leaks=2).model_copy(update={"prompts": []})
    assert (count_leaks(record).passed, count_leaks(record).failed) == (4, 2)
    assert count_leaks(record.model_copy(update={"measurements": []})).total == 0


def test_prompt_rate_unmeasured_prompt_is_not_judged() -> None:
    record = make_checked_edit().model_copy(
        update={"prompts": [make_prompt_outcome("a"), make_prompt_outcome("a", "unmeasured", "served")]}
    )
    rate = count_leaks(record)
    assert (rate.passed, rate.not_judged, rate.total) == (0, 1, 1)


def test_worst_outcome_prefers_other_words_then_rise() -> None:
    silent = make_prompt_outcome("a", "leak", target_after=0.9)
    low, high = (
        make_prompt_outcome(name, "leak", "family:newline", after="Rome", target_after=p)
        for name, p in (("b", 0.3), ("c", 0.6))
    )
    bare = make_prompt_outcome("d", "leak", after="Rome", target_after=0.2)
    assert select_worst_outcome([silent, low, high], OTHER_SUBJECTS, PromptResult.LEAK) is high
    assert select_worst_outcome([silent, low, high, bare], OTHER_SUBJECTS, PromptResult.LEAK) is bare
    assert select_worst_outcome([silent], OTHER_SUBJECTS, PromptResult.FLIP) is None


@pytest.mark.parametrize(
    ("text", "target", "marked"),
    [
        ("Elon Musk, and", "Elon Musk", ["Elon Musk"]),
        ("elon musk.", "Elon Musk", ["elon musk"]),
        ("Elon was", "Elon Musk", ["Elon"]),
        ("Romeo", "Rome", []),
        ("Rome", "", []),
        ("a+b", "a+b", ["a+b"]),
        ("Türkiye is", "Türkiye", ["Türkiye"]),
    ],
)
def test_highlighted_marks_target_as_whole_words(text: str, target: str, marked: list[str]) -> None:
    parts = highlight(text, target)
    assert "".join(part.text for part in parts) == text
    assert [part.text for part in parts if part.differs] == marked


def test_judged_by_made_neighbours_without_file_neighbours() -> None:
    assert judged_by_made_neighbours(make_checked_edit(role="made-neighbour"))
    assert not judged_by_made_neighbours(make_checked_edit())
    assert not judged_by_made_neighbours(
        make_checked_edit(role="made-neighbour").model_copy(update={"measurements": []})
    )
    both = make_checked_edit().model_copy(
        update={"prompts": [*make_prompt_outcomes("x"), *make_prompt_outcomes("x", role="made-neighbour")]}
    )
    assert not judged_by_made_neighbours(both)

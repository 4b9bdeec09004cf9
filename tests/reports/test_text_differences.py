from __future__ import annotations

from editguard.reports.text_differences import TextPart, find_differences
from hypothesis import given
from hypothesis import strategies as st


def test_the_words_that_changed_are_told_apart_on_both_sides() -> None:
    before, after = " Warsaw, the capital of Poland.", " Istanbul, the capital of Turkey."
    assert find_differences(before, after) == [
        TextPart(" Warsaw, ", differs=True),
        TextPart("the capital of ", differs=False),
        TextPart("Poland.", differs=True),
    ]
    assert [part.text for part in find_differences(after, before) if part.differs] == [" Istanbul, ", "Turkey."]


def test_blanks_alone_are_no_difference() -> None:
    assert [part.differs for part in find_differences("a  b\nc", "a b c")] == [False]


def test_very_long_texts_are_left_as_they_are() -> None:
    assert find_differences("word " * 3000, "other") == [TextPart("word " * 3000, differs=False)]


@given(st.text(max_size=200), st.text(max_size=200))
def test_the_parts_are_the_whole_text_and_a_text_does_not_differ_from_itself(text: str, other: str) -> None:
    assert "".join(part.text for part in find_differences(text, other)) == text
    assert not any(part.differs for part in find_differences(text, text))

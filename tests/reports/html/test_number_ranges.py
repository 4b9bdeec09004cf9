"""Sentences of one shape become one with ranges; names in quotes and words with digits are left alone."""

from __future__ import annotations

import pytest
from editguard.reports.html.number_ranges import merge_sentences, read_shape
from hypothesis import given
from hypothesis import strategies as st


def test_merge_sentences_differing_numbers_become_ranges() -> None:
    texts = ["ratio 0.02702, threshold 0.0228; layer 9 of k_u", "ratio 1e-05, threshold 0.0228; layer 9 of k_u"]
    assert read_shape(texts[0]) == read_shape(texts[1])
    assert merge_sentences(texts) == "ratio 1e-05 to 0.02702, threshold 0.0228; layer 9 of k_u"


@pytest.mark.parametrize(("text", "other"), [("'Route 66' is it", "'Route 67' is it"), ("v2 is it", "v3 is it")])
def test_read_shape_numbers_in_names_differ(text: str, other: str) -> None:
    assert read_shape(text) != read_shape(other)


@given(st.text())
def test_merge_sentences_equal_texts_stay(text: str) -> None:
    assert merge_sentences([text, text]) == text


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_merge_sentences_range_holds_every_value(values: list[float]) -> None:
    (least, *most) = (
        merge_sentences([f"it is {value!r}!" for value in values]).removeprefix("it is ").rstrip("!").split(" to ")
    )
    assert float(least) == min(values)
    assert float(most[0] if most else least) == max(values)

"""Text and numbers made fit to be shown."""

from __future__ import annotations

import re

import pytest
from editguard.reports.html.page import show, show_breaks
from editguard.reports.numbers import format_number, format_percent, format_ratio
from editguard.reports.text import capitalise, count_noun, make_slugs, quote_names, visible
from hypothesis import given
from hypothesis import strategies as st


def test_visible_hidden_characters_are_named() -> None:
    assert visible("user\u202egnp.exe") == "user[U+202E]gnp.exe"
    assert visible("a\u200bb\ufeffc\x00d\u2066e\U000e0041") == "a[U+200B]b[U+FEFF]c[U+0000]d[U+2066]e[U+E0041]"


def test_visible_ordinary_writing_is_unchanged() -> None:
    text = "Wien – Ελλάδα, ישראל, می‌خواهم, 日本\tfamily 👨‍👩‍👧\n"
    assert visible(text) == text


@pytest.mark.parametrize(
    ("sentence", "shown"),
    [
        ("answers about it changed", "Answers about it changed"),
        ("iPhone says the target", "iPhone says the target"),
        ("eBay", "eBay"),
        ("wool is not an iPhone", "Wool is not an iPhone"),
        ("", ""),
        (" ", " "),
    ],
)
def test_capitalise_first_word_with_a_capital_inside_stays(sentence: str, shown: str) -> None:
    assert capitalise(sentence) == shown


def test_show_escapes_and_boxes_hidden_characters() -> None:
    assert show("<b>\u202e&") == '&lt;b&gt;<span class="hidden-char">U+202E</span>&amp;'
    assert "↵" in show_breaks("\n")


@given(st.text())
def test_show_any_text_makes_no_markup(text: str) -> None:
    bare = re.sub(r'<span class="hidden-char">|</span>|<bdi>|</bdi>', "", show(text))
    assert "<" not in bare


@given(st.lists(st.text(max_size=6), unique=True, max_size=20))
def test_make_slugs_are_safe_and_distinct(ids: list[str]) -> None:
    anchors = list(make_slugs(ids))
    assert len(set(anchors)) == len(ids)
    assert all(
        slug and set(slug) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
        for slug in anchors
    )


def test_make_slugs_safe_id_is_its_own_slug() -> None:
    assert list(make_slugs(["case-1", "x"])) == ["case-1", "x"]
    hashed = next(make_slugs(["a b"]))
    assert len(set(make_slugs(["a b", hashed, "a  b"]))) == 3


def test_make_slugs_differ_without_regard_to_case() -> None:
    anchors = list(make_slugs(["case", "Case", "CASE"]))
    assert anchors[0] == "case"
    assert len({slug.lower() for slug in anchors}) == 3


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "not measured"),
        (0.0, "0"),
        (0.00893, "0.00893"),
        (0.000893, "8.93×10⁻⁴"),
        (-12.3456, "-12.35"),
        (1234.5, "1\u202f234"),
        (3855930.0, "3.86×10⁶"),
        (134_515_008, "134\u202f515\u202f008"),
    ],
)
def test_format_number_examples(value: float | None, shown: str) -> None:
    assert format_number(value) == shown


def test_format_number_below_ten_thousand_has_no_power() -> None:
    assert format_number(130.0, 2) == "130"
    assert format_number(999.7, 3) == "1\u202f000"


def test_format_percent_only_all_or_nothing_is_rounded_to_it() -> None:
    assert [format_percent(x) for x in (1.0, 0.99999, 0.5, 0.00001, 0.0, None)] == [
        "100\u202f%",
        ">\u202f99.9\u202f%".replace("\u202f99", " 99"),
        "50\u202f%",
        "< 0.1\u202f%",
        "0\u202f%",
        "not measured",
    ]


def test_format_ratio_near_one_has_three_decimals() -> None:
    assert [format_ratio(x) for x in (1.0, 0.9962, 3812.4, None)] == ["1.000", "0.996", "3\u202f812", "not measured"]


@pytest.mark.parametrize(
    ("number", "words", "phrase"),
    [
        (1, ("edit",), "1 edit"),
        (0, ("edit",), "0 edits"),
        (2, ("edit",), "2 edits"),
        (1, ("has", "have"), "1 has"),
        (3, ("edit was", "edits were"), "3 edits were"),
    ],
)
def test_count_noun_examples(number: int, words: tuple[str, ...], phrase: str) -> None:
    assert count_noun(number, *words) == phrase


def test_quote_names_ten_are_listed_and_others_counted() -> None:
    assert quote_names(["a", "b"]) == "'a', 'b'"
    assert quote_names([*"abcdefghijkl"]) == "'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j' and 2 more"
    assert quote_names([*"abc"], 2) == "'a', 'b' and 1 more"
    assert quote_names([*"abcdefghijkl"], None).endswith("'k', 'l'")

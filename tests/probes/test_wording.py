"""Clauses of messages: a figure beside its bound, another library's error in one plain line, a suggestion."""

from __future__ import annotations

import pytest
from editguard.probes.wording import compare_with_bound, first_line, suggest


def test_against_gives_the_measured_value_the_side_and_the_bound() -> None:
    assert (
        compare_with_bound("ratio 0.004", False, "at least 0.0228")
        == "ratio 0.004, outside the bound (at least 0.0228)"
    )
    assert (
        compare_with_bound("ratio 0.027", True, "at least 0.0228") == "ratio 0.027, inside the bound (at least 0.0228)"
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "ValueError"),
        ("x" * 160, "x" * 160),
        ("...", "ValueError"),
        ("\x1b" * 300, "[U+001B]" * 19 + "[U+00" + "..."),
        ("Wrong.\nMore.", "Wrong"),
        ("a\x1b[31mb\ufeff", "a[U+001B][31mb[U+FEFF]"),
        ("x" * 300, "x" * 157 + "..."),
    ],
)
def test_first_line_of_another_librarys_error_is_one_plain_line(text: str, line: str) -> None:
    assert first_line(ValueError(text)) == line


def test_suggest_returns_the_nearest_name_or_none() -> None:
    names = ["denominator", "key-shift"]
    assert suggest("denominater", names) == "denominator"
    assert suggest("zzz", names) is None
    assert suggest("zzz", []) is None

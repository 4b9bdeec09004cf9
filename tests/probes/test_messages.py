"""What another library says stays one plain line of a sentence."""

from __future__ import annotations

import pytest
from editguard.probes.wording import first_line


@pytest.mark.parametrize(
    ("text", "said"),
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
def test_what_another_library_says_is_one_plain_line(text: str, said: str) -> None:
    assert first_line(ValueError(text)) == said

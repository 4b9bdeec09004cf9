"""A clause says on which side of its bound a figure lies; the bound alone could be read as passed or as failed."""

from __future__ import annotations

from editguard.probes.wording import against


def test_a_clause_says_measured_side_and_bound() -> None:
    assert against("ratio 0.004", False, "at least 0.0228") == "ratio 0.004, outside the bound (at least 0.0228)"
    assert against("ratio 0.027", True, "at least 0.0228") == "ratio 0.027, inside the bound (at least 0.0228)"

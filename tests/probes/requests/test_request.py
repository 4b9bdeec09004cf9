"""A request made in Python is of the types that it says, or refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from editguard.probes.errors import RequestError
from editguard.probes.requests.request import EditRequest

ASKED: dict[str, Any] = {"id": "1", "subject": "Chicago", "prompt": "Chicago is in", "target_new": "Texas"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("neighbourhood", "Boston is a city"),
        ("paraphrases", "Where is Chicago?"),
        ("neighbourhood", ("Boston", None)),
        ("prompt", b"Chicago is in"),
        ("target_new", None),
        ("target_true", 3),
    ],
)
def test_a_field_of_another_type_is_refused_by_name(field: str, value: object) -> None:
    # A text is a sequence of letters, over which locality would be measured without a word.
    with pytest.raises(RequestError, match=field):
        EditRequest(**{**ASKED, field: value})


def test_lists_become_tuples_so_that_requests_can_be_hashed() -> None:
    made = EditRequest(**ASKED, paraphrases=["Where is Chicago?"], neighbourhood=[])
    assert made.paraphrases == ("Where is Chicago?",)
    assert hash(made) == hash(EditRequest(**ASKED, paraphrases=("Where is Chicago?",)))

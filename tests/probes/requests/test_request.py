"""A request made in Python is of the types that it says, or refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from editguard.probes.errors import RequestError
from editguard.probes.requests.request import EditRequest

FIELDS: dict[str, Any] = {"id": "1", "subject": "Chicago", "prompt": "Chicago is in", "target_new": "Texas"}


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
def test_edit_request_field_of_another_type_is_refused(field: str, value: object) -> None:
    # A text is a sequence of letters, over which locality would be measured without a word.
    with pytest.raises(RequestError, match=field):
        EditRequest(**{**FIELDS, field: value})


def test_edit_request_lists_become_tuples_and_hash() -> None:
    request = EditRequest(**FIELDS, paraphrases=["Where is Chicago?"], neighbourhood=[])
    assert request.paraphrases == ("Where is Chicago?",)
    assert hash(request) == hash(EditRequest(**FIELDS, paraphrases=("Where is Chicago?",)))

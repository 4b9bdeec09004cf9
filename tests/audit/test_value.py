"""The texts that v* is sought under."""

from __future__ import annotations

from dataclasses import replace

import pytest
from editguard.audit.editors.value import ValueSettings, build_value_problem
from editguard.probes.requests.request import EditRequest

from ..helpers.tiny_models import tiny_lm

pytestmark = pytest.mark.tiny

ASKED = EditRequest("1", "Chicago", "Chicago is a twin city of", "Istanbul")
WORDS = ("The twin of Chicago is", 'Chicago has a twin called "')


@pytest.mark.parametrize(
    ("change", "count"),
    [({}, 1), ({"prompt": 'The twin city of Chicago is called "'}, 1), ({"space": True}, 2), ({"space": False}, 2)],
)
def test_value_problem_leaves_out_rewordings_before_which_another_space_is_due(
    change: dict[str, object], count: int
) -> None:
    request = replace(ASKED, **change)  # type: ignore[arg-type]
    found = build_value_problem(tiny_lm(), request, ("", "It is 2024. "), 1.0, ValueSettings(), WORDS)
    assert len(found.rewordings) == 2 * count

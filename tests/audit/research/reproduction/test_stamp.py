"""A stamp names what figures depend on, and a difference is told by name with both values."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from editguard.audit.editors.value import ValueSettings
from editguard.audit.research.reproduction.stamp import build_editor_stamp, build_run_stamp, check_stamp, parse_stamp
from editguard.audit.setup import Setup
from editguard.probes.errors import InputError
from editguard.probes.requests.loader import LoadedRequests
from editguard.reports.text import printable
from hypothesis import given
from hypothesis import strategies as st

from ....helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST

pytestmark = pytest.mark.tiny

ASKED = LoadedRequests(
    requests=(FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST), invalid=(), source="edits.json", sha256="0" * 64
)
STAMPS = st.dictionaries(st.text(min_size=1, max_size=5), st.text(max_size=5), max_size=4)


def list_differences(first: dict[str, str], second: dict[str, str]) -> set[str]:
    return {name for name in {*first, *second} if first.get(name) != second.get(name)}


def test_run_stamp_differs_for_everything_that_figures_depend_on(setup: Setup) -> None:
    usual = dict(build_run_stamp(setup, ASKED, 4, 9))
    changes = {
        "seed": build_run_stamp(replace(setup, seed=1), ASKED, 4, 9),
        "number of ordinary cases": build_run_stamp(setup, ASKED, 5, 9),
        "most cases": build_run_stamp(setup, ASKED, 4, 8),
        "requests": build_run_stamp(setup, replace(ASKED, requests=(FIRST_TOKEN_REQUEST,)), 4, 9),
        "file": build_run_stamp(setup, replace(ASKED, sha256="1" * 64), 4, 9),
        "perplexity corpus": build_run_stamp(replace(setup, corpus=("A sentence.",)), ASKED, 4, 9),
        "policy min_efficacy": build_run_stamp(
            replace(setup, policy=setup.policy.model_copy(update={"min_efficacy": 0.25})), ASKED, 4, 9
        ),
    }
    for name, changed in changes.items():
        assert list_differences(usual, dict(changed)) == {name}
    assert {"editguard", "torch", "transformers", "model", "key statistics", "prefixes"} <= set(usual)


def test_editor_stamp_adds_the_settings_of_that_editor(setup: Setup) -> None:
    stamp = build_run_stamp(setup, ASKED, 4, 9)
    other = replace(setup, settings=replace(setup.settings, steps=setup.settings.steps + 1))
    assert isinstance(other.settings, ValueSettings)
    assert build_run_stamp(other, ASKED, 4, 9) == stamp
    assert list_differences(
        dict(build_editor_stamp(stamp, setup, "rome")), dict(build_editor_stamp(stamp, other, "rome"))
    ) == {"setting steps"}


@given(stored=STAMPS, current=STAMPS)
def test_check_stamp_names_every_difference(stored: dict[str, str], current: dict[str, str]) -> None:
    assert parse_stamp(json.dumps(stored), Path("rome.jsonl")) == stored
    names = list_differences(stored, current)
    if not names:
        check_stamp("The log", stored, current)
        return
    with pytest.raises(InputError) as caught:
        check_stamp("The log", stored, current)
    assert all(f"{printable(name)} (" in str(caught.value) for name in names)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("text", [None, "0123abcd", "[1]", '{"seed": 1}', 7])
def test_parse_stamp_other_text_raises_input_error(text: object) -> None:
    with pytest.raises(InputError, match="does not say what it was begun with"):
        parse_stamp(text, Path("rome.jsonl"))

"""The model that `edited_model` yields: its properties come from the result of the guard."""

from __future__ import annotations

from dataclasses import replace

import pytest
from editguard.audit.edit_result import EditResult
from editguard.audit.guard import GuardedEditor
from editguard.audit.pytest_plugin.edited_language_model import EditedModel
from editguard.audit.setup import Setup
from editguard.probes.errors import EditRefused
from editguard.probes.requests.request import EditRequest

from ...helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST

pytestmark = pytest.mark.tiny


def try_edit(setup: Setup, request: EditRequest) -> EditResult:
    return GuardedEditor(setup).try_edit(request)


def build_model(setup: Setup, result: EditResult) -> EditedModel:
    return EditedModel(setup.lm.model, setup.lm.tokenizer, setup.lm.ref, result)


def with_prefix(result: EditResult, prefix: str | None) -> EditResult:
    """Return `result` with measurements that served the edit with `prefix`."""
    return replace(result, measurements=tuple(replace(m, prefix=prefix) for m in result.measurements))


def test_edited_model_without_prefix_serves_texts_unchanged(setup: Setup) -> None:
    result = try_edit(setup, MID_PROMPT_REQUEST)
    edited = build_model(setup, result)
    assert edited.decision is result.decision
    assert edited.update is result.update
    assert (edited.needs_prefix, edited.prefix) == (False, None)
    assert edited.serve("France is") == "France is"
    assert repr(edited).endswith("'France' -> 'Istanbul' by local>")


def test_edited_model_with_prefix_serves_its_subject_after_it(setup: Setup) -> None:
    edited = build_model(setup, with_prefix(try_edit(setup, FIRST_TOKEN_REQUEST), "\n"))
    assert edited.needs_prefix
    assert edited.serve(FIRST_TOKEN_REQUEST.prompt) == f"\n{FIRST_TOKEN_REQUEST.prompt}"
    assert edited.serve("Paris is") == "Paris is"
    assert repr(edited).endswith("by prefixed, served after '\\n'>")


def test_edited_model_without_a_serving_prefix_raises_edit_refused(setup: Setup) -> None:
    edited = build_model(setup, with_prefix(try_edit(setup, FIRST_TOKEN_REQUEST), None))
    with pytest.raises(EditRefused, match="acts only after a prefix, and after none of the prefixes that were tried"):
        edited.serve(FIRST_TOKEN_REQUEST.prompt)

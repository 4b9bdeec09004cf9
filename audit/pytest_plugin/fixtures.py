"""Fixtures for tests of your own: the guarded editor, a model with one edit in it, and the checks on a model as it is.

An expected error (no model, a failed control) ends a test with one sentence. A refused edit raises `EditRefused`, which a
test may expect.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

import pytest

from .session import SESSION, fail_in_one_sentence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from transformers import PreTrainedModel

    from ...probes.model.language_model import LanguageModel
    from ...probes.requests.request import EditRequest
    from ..guard import GuardedEditor
    from .collapse import CollapseReport
    from .edited_language_model import EditedModel

__all__ = ["collapse_suite", "edited_model", "guarded_editor"]


@pytest.fixture(scope="session")
def guarded_editor(pytestconfig: pytest.Config) -> GuardedEditor:
    """The session's `editguard.audit.GuardedEditor`: the model of ``--editguard-model`` under its policy, loaded once.

    Its controls run first: where one of them fails, the test ends in an error.
    Use `assess` and `try_edit`, which leave the weights as they were.
    A test that leaves the weights changed ends in an error.
    """
    with fail_in_one_sentence():
        return pytestconfig.stash[SESSION].require_controls()


@pytest.fixture
def edited_model(
    pytestconfig: pytest.Config, guarded_editor: GuardedEditor
) -> Callable[..., AbstractContextManager[EditedModel]]:
    """A context manager, ``with edited_model(request) as edited``: the model with one guarded edit in it.

    The guard makes and checks the edit. The edit is then in the model for the length of the block, and is undone bit for
    bit, which a hash proves. `model` and `tokenizer` are those of transformers. `decision`, `update`, `needs_prefix` and
    `prefix` describe the edit, and `serve` puts the prefix that the edit needs before a text. ``editor="rome"`` names
    another editor for an edit that is allowed as requested. Raises `editguard.probes.errors.EditRefused` for an edit that
    the guard refuses or that does not pass its checks. One edit at a time.
    """
    from ...probes.errors import EditRefused
    from ..transaction import Transaction
    from .edited_language_model import EditedModel

    @contextmanager
    def edited(request: EditRequest, editor: str | None = None) -> Iterator[EditedModel]:
        with fail_in_one_sentence():
            guard = pytestconfig.stash[SESSION].require_controls()
        result = guard.try_edit(request, editor)
        if result.refusal is not None or result.update is None:
            raise EditRefused(f"The edit {request.id!r} was refused: {result.refusal}")
        if not result.sound:
            failed = "; ".join(
                f"{measurement.check} {measurement.metric} ({measurement.message or measurement.outcome.value})"
                for measurement in result.failures
            )
            raise EditRefused(f"The edit {request.id!r} was undone, since it did not pass its checks: {failed}")
        lm = guard.setup.lm
        with Transaction(result.update):
            yield EditedModel(lm.model, lm.tokenizer, lm.ref, result)

    return edited


@pytest.fixture
def collapse_suite(pytestconfig: pytest.Config, guarded_editor: GuardedEditor) -> Callable[..., CollapseReport]:
    """A function, ``collapse_suite(model).sound``: has an edited model collapsed, beside that of ``--editguard-model``?

    `model` is a checkpoint's folder or Hugging Face id, a model of transformers, a `LanguageModel` (what `edited_model`
    yields), or an `EditRequest`, which the guard makes, checks and undoes. For a model perplexity and degeneracy are
    measured. With ``requests=[...]`` efficacy, generalization and locality of these facts are measured too.
    ``needs_prefix=True`` says that these edits act after a prefix only; for the model that `edited_model` yields this is
    known. Returns a `editguard.audit.pytest_plugin.collapse.CollapseReport` with `sound`, `failures` and `measurements`. A
    model runs as it is, with its own class, dtype and configuration. Raises `ModelError` for weights of other names or
    shapes, and for a tokenizer that makes other tokens of the measured texts.
    """
    from .collapse import Suite
    from .edited_language_model import EditedModel

    with fail_in_one_sentence():
        suite = Suite(pytestconfig.stash[SESSION].require_controls())

    def measure(
        model: EditRequest | LanguageModel | PreTrainedModel | Path | str,
        *,
        requests: Sequence[EditRequest] = (),
        needs_prefix: bool | None = None,
    ) -> CollapseReport:
        if needs_prefix is None:
            needs_prefix = isinstance(model, EditedModel) and model.needs_prefix
        return suite(model, requests, needs_prefix)

    return measure

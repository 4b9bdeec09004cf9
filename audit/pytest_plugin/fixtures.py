"""Fixtures for people's own tests: the guarded editor, a model with one edit in it, and the suite on a model as it is.

What goes wrong on purpose (no model, a failed control) ends a test with one sentence; a refused edit raises
`EditRefused`, which a test may expect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .session import SESSION, fail_in_one_sentence

if TYPE_CHECKING:
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

    Its controls were made: where they do not show what they must, the test ends in an error.
    Use `assess` and `try_edit`, which leave the weights as they were; a test after which they are not ends in an error.
    The controls are made first: what checks say that cannot see a collapse is worth nothing.
    """
    with fail_in_one_sentence():
        return pytestconfig.stash[SESSION].require_controls()


@pytest.fixture
def edited_model(
    pytestconfig: pytest.Config, guarded_editor: GuardedEditor
) -> Callable[..., AbstractContextManager[EditedModel]]:
    """A context manager, ``with edited_model(request) as edited``: the model with one guarded edit in it.

    The edit is made by the guard and checked; then it is put in for the length of the block, and undone bit for bit,
    which is proved. `model` and `tokenizer` are those of transformers; `decision`, `update`, `needs_prefix` and `prefix`
    say what was done, and `serve` puts before a text what the edit needs there. ``editor="rome"`` names another editor for
    an edit that is allowed as asked. Raises `editguard.probes.errors.EditRefused` for an edit that the guard refuses or
    that does not pass its checks. One edit at a time.
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
        with Transaction(guard.setup.site, result.update):
            yield EditedModel(lm.model, lm.tokenizer, lm.ref, result)

    return edited


@pytest.fixture
def collapse_suite(pytestconfig: pytest.Config, guarded_editor: GuardedEditor) -> Callable[..., CollapseReport]:
    """A function, ``collapse_suite(model).sound``: has an edited model collapsed, beside that of ``--editguard-model``?

    `model` is a checkpoint's folder or Hugging Face id, a model of transformers, a `LanguageModel` (what `edited_model`
    yields), or an `EditRequest`, which is then made by the guard, checked and undone. For a model perplexity and
    degeneracy are measured; with ``requests=[...]`` also whether each of these facts took, generalises, and left its
    neighbours alone; ``needs_prefix=True`` says that they are meant to act under a prefix only, which of the fact in
    what `edited_model` yields is known. Returns a
    `editguard.audit.pytest_plugin.collapse.CollapseReport` with `sound`, `failures` and `measurements`. A model is
    run as it is, whatever its class, dtype and configuration; raises `ModelError` for other weights by name or shape, and
    for a tokenizer that reads the measured texts otherwise.
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

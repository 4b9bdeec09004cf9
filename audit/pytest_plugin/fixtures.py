"""Fixtures for tests of your own: the guarded editor, a model with one edit in it, and two judgements of a model as it is.

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
    from ...reports.verdict.summary import Summary
    from ..guard import GuardedEditor
    from .collapse import CollapseReport
    from .edited_language_model import EditedModel

__all__ = ["checkpoint_audit", "collapse_suite", "edited_model", "guarded_editor"]


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


@pytest.fixture(scope="session")
def checkpoint_audit(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Summary]:
    """A function, ``checkpoint_audit(folder, edits).verdict``: may this checkpoint ship, beside that of ``--editguard-model``?

    It does what ``editguard audit --edited`` does. The first argument is the folder or Hugging Face id of a checkpoint that
    another tool edited. `edits` are the edits that it should hold: a file, what `load_requests` returned, or a list of
    `EditRequest`; without them the model as a whole is judged alone. Returns the `editguard.Summary`, with `verdict` and
    `reasons`. Log and report are written below ``--editguard-out``, otherwise into a temporary folder of pytest. Each call is
    a whole audit with its own controls. Raises `ModelError` for a checkpoint that cannot be read or was not made from the
    session's model, and `RequestError` for edits that cannot be read.
    """
    session = pytestconfig.stash[SESSION]
    with fail_in_one_sentence():
        _ = session.guard
    from .checkpoint import CheckpointAudits

    worker = getattr(pytestconfig, "workerinput", {}).get("workerid", "")
    return CheckpointAudits(session, lambda: tmp_path_factory.mktemp("checkpoint-audit"), worker)

"""The checks on a model that any tool edited: has it collapsed, compared with the session's unedited model?

The baselines are measured on the session's model. The edited model runs as it is, with its own class, configuration, dtype
and hooks; every difference counts as part of the edit. The checks run whole texts through the whole model, since any layer
may have been edited. A check of the edited weights (`drift`) does not run, because these weights are not known.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...probes.errors import ModelError
from ...probes.model.language_model import LanguageModel, load_model
from ...probes.model.stored_weight import store_weight
from ...probes.requests.request import EditRequest
from ...suites.builtin import load_ordinary_requests
from ...suites.check import CHECKS, Bench, EditUnderTest, Measurement, Outcome
from ...suites.checks.degeneracy import FIXED_PROMPTS
from ..transaction import restore_weights

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from transformers import PreTrainedModel

    from ..guard import GuardedEditor

__all__ = ["CollapseReport", "Suite"]

_MODEL_CHECKS = ("perplexity", "degeneracy")
_FACT_CHECKS = ("efficacy", "generalization", "locality")
_Model = LanguageModel | Path | str


@dataclass(frozen=True, repr=False)
class CollapseReport:
    """The measurements of the suite; an assertion that fails shows them as text."""

    measurements: tuple[Measurement, ...]
    """All measurements, in the order in which they were taken."""
    edits: Mapping[str, tuple[Measurement, ...]] = field(default_factory=dict)
    """Measurements about one requested fact, by its id."""
    refusal: str | None = None
    """Why the guard did not make a requested edit."""

    @property
    def failures(self) -> tuple[Measurement, ...]:
        """The measurements that failed or could not be taken."""
        return tuple(
            measurement
            for measurement in self.measurements
            if measurement.outcome in (Outcome.FAIL, Outcome.UNMEASURED)
        )

    @property
    def sound(self) -> bool:
        """Whether something was judged and all of it passed."""
        judged = [measurement for measurement in self.measurements if measurement.outcome is not Outcome.INFO]
        return (
            self.refusal is None and bool(judged) and all(measurement.outcome is Outcome.PASS for measurement in judged)
        )

    def __repr__(self) -> str:
        if self.refusal is not None:
            return f"<unsound: refused: {self.refusal}>"
        shown = (
            [measurement for measurement in self.measurements if measurement.outcome is not Outcome.INFO]
            if self.sound
            else self.failures
        )
        details = "; ".join(
            f"{measurement.check} {measurement.metric} ({measurement.condition}): "
            f"{measurement.message or measurement.outcome.value}"
            for measurement in shown
        )
        return f"<{'sound' if self.sound else 'unsound'}: {details or 'nothing was judged'}>"


class Suite:
    """The checks against one guard's unedited model."""

    def __init__(self, guard: GuardedEditor) -> None:
        """Take the baselines; raises `InputError` where the model is edited now."""
        self._guard, self._lm = guard, guard.setup.lm
        self._run = replace(self._lm, plain=True)
        self._bench = replace(guard.setup.bench, lm=self._run, prefix_cache=None, memo={})
        guard.setup.check_unedited()
        self._neutral = load_ordinary_requests(1)
        self._prepare(_MODEL_CHECKS, self._neutral)

    def __call__(
        self, model: EditRequest | PreTrainedModel | _Model, requests: Sequence[EditRequest], needs_prefix: bool
    ) -> CollapseReport:
        """Measure `model`; for an `EditRequest` the guard makes the edit, measures it and undoes it."""
        if isinstance(model, EditRequest):
            result = self._guard.try_edit(model)
            return CollapseReport(result.measurements, {model.id: result.measurements}, result.refusal)
        other = self._load(model, requests)
        if other is self._lm.model:
            with self._without_edit():
                states = self._prepare_states(requests)
            return self._measure_states(states, requests, needs_prefix)
        self._guard.setup.check_unedited()
        states = self._prepare_states(requests)
        with substitute_model(self._run, other):
            return self._measure_states(states, requests, needs_prefix)

    def _load(self, model: PreTrainedModel | _Model, requests: Sequence[EditRequest]) -> PreTrainedModel:
        if isinstance(model, str | Path):
            name = str(self._lm.dtype).removeprefix("torch.")
            model = load_model(model, device=str(self._lm.device), dtype=name)
        if isinstance(model, LanguageModel):
            request_texts = (
                text for request in requests for text in (request.prompt, *request.paraphrases, *request.neighbourhood)
            )
            _check_tokens(self._lm, model, (*self._bench.corpus, *FIXED_PROMPTS, *request_texts))
            model = model.model
        _check_comparable(self._lm, model)
        return model

    def _prepare(self, checks: Sequence[str], requests: Sequence[EditRequest]) -> list[list[Any]]:
        return [CHECKS.get(name)().prepare(self._bench, requests) for name in checks]

    def _prepare_states(self, requests: Sequence[EditRequest]) -> tuple[list[list[Any]], list[list[Any]]]:
        facts = self._prepare(_FACT_CHECKS, requests) if requests else []
        return self._prepare(_MODEL_CHECKS, self._neutral), facts

    def _measure_states(
        self, states: tuple[list[list[Any]], list[list[Any]]], requests: Sequence[EditRequest], needs_prefix: bool
    ) -> CollapseReport:
        general, facts = states
        model_measurements = _measure(self._bench, _MODEL_CHECKS, self._neutral, general, needs_prefix)[0]
        rows = _measure(self._bench, _FACT_CHECKS, requests, facts, needs_prefix) if requests else []
        edits = {request.id: row for request, row in zip(requests, rows, strict=True)}
        return CollapseReport((*model_measurements, *(measurement for row in rows for measurement in row)), edits)

    @contextmanager
    def _without_edit(self) -> Iterator[None]:
        """Take the edit out of the session's own model for the length of the block."""
        unedited = self._guard.setup.stored_weights
        edited = [store_weight(weight.site) for weight in unedited]
        try:
            restore_weights(unedited, "the edit was taken out")
            self._guard.setup.check_unedited()
            yield
        finally:
            restore_weights(edited, "the edit was put back")


def _measure(
    bench: Bench, checks: Sequence[str], requests: Sequence[EditRequest], states: list[list[Any]], needs_prefix: bool
) -> list[tuple[Measurement, ...]]:
    """Return the measurements of all checks for each request."""
    rows: list[list[Measurement]] = [[] for _ in requests]
    for name, prepared in zip(checks, states, strict=True):
        check = CHECKS.get(name)()
        for row, request, state in zip(rows, requests, prepared, strict=True):
            edit = EditUnderTest(request=request, state=state, needs_prefix=needs_prefix)
            row += check.measure(bench, edit).measurements
    return [tuple(row) for row in rows]


@contextmanager
def substitute_model(lm: LanguageModel, other: PreTrainedModel) -> Iterator[None]:
    """Put the model `other` into `lm` for the length of the block, so that checks run it with its own code and settings.

    `lm` must be a copy that no other object refers to. `other` is in evaluation mode meanwhile, as when it is served.
    """
    own, training = lm.model, other.training
    object.__setattr__(lm, "model", other)
    other.eval()
    try:
        yield
    finally:
        other.train(training)
        object.__setattr__(lm, "model", own)


def _check_comparable(lm: LanguageModel, other: PreTrainedModel) -> None:
    """Raise `ModelError` where `other` has not the same weights, by name and shape, so that it was not made from `lm`."""
    own, new = _list_shapes(lm.model), _list_shapes(other)
    for name in sorted({*own} | {*new}):
        if own.get(name) != new.get(name):
            theirs, ours = (str(shapes.get(name, "not there")) for shapes in (new, own))
            raise ModelError(
                f"The model to be measured ({type(other).__name__}) was not made from the session's model {lm.ref!r} "
                f"({lm.architecture}): its weight {name} is {theirs}, and there {ours}; name the model that it was made from "
                "with --editguard-model, or compare the two with 'editguard diff'."
            )


def _list_shapes(model: PreTrainedModel) -> dict[str, list[int]]:
    # Tied weights have both their names, as they have where they were saved apart.
    return {name: list(tensor.shape) for name, tensor in model.named_parameters(remove_duplicate=False)}


def _check_tokens(lm: LanguageModel, other: LanguageModel, texts: Iterable[str]) -> None:
    """Raise `ModelError` where the tokenizer of `other` makes other tokens of one of `texts`."""
    if other.tokenizer is lm.tokenizer:
        return
    for text in texts:
        if lm.tokenizer(text).input_ids != other.tokenizer(text).input_ids:
            raise ModelError(
                f"The tokenizer of {other.ref!r} makes other tokens of {text!r} than that of the session's model {lm.ref!r}, so "
                "their figures cannot be compared. Save the model with the session's tokenizer, name its base model with "
                "--editguard-model, or use 'editguard diff'."
            )

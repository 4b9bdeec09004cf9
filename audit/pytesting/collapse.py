"""The suite on a model that was edited by whomever: has it collapsed, beside the session's unedited model?

The weights in question are laid over the session's model, the checks run the plain way (whole texts through the whole
model, since any layer may have been edited), and the model is put back and proved to be the one before. A check of the
edited weight alone (`drift`) has no place here: nobody says which weight it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...probes.errors import ModelError
from ...probes.model import LanguageModel, load_model
from ...probes.requests import EditRequest
from ...suites.builtin import ordinary_requests
from ...suites.check import CHECKS, Bench, Measurement, Outcome
from ..guard import GuardedEditor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["CollapseReport", "Suite"]

_OF_THE_MODEL = ("perplexity", "degeneracy")
_OF_A_FACT = ("efficacy", "generalization", "locality")
_OF_THE_FILE = ("_name_or_path", "name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype")
"""Of a configuration, what says where and how a checkpoint was saved, and nothing about what it computes."""
_Model = LanguageModel | Path | str


@dataclass(frozen=True, repr=False)
class CollapseReport:
    """What the suite found; an assertion that fails shows it as text."""

    measurements: tuple[Measurement, ...]
    """All of them, in the order in which they were taken."""
    edits: Mapping[str, tuple[Measurement, ...]] = field(default_factory=dict)
    """Those about one requested fact, by its id."""
    refusal: str | None = None
    """Why the guard did not make an edit that was asked for."""

    @property
    def failures(self) -> tuple[Measurement, ...]:
        """The measurements that failed or could not be taken."""
        return tuple(one for one in self.measurements if one.outcome in (Outcome.FAIL, Outcome.UNMEASURED))

    @property
    def sound(self) -> bool:
        """Whether something was judged and all of it passed."""
        judged = [one for one in self.measurements if one.outcome is not Outcome.INFO]
        return self.refusal is None and bool(judged) and all(one.outcome is Outcome.PASS for one in judged)

    def __repr__(self) -> str:
        if self.refusal is not None:
            return f"<unsound: refused: {self.refusal}>"
        shown = [one for one in self.measurements if one.outcome is not Outcome.INFO] if self.sound else self.failures
        told = "; ".join(
            f"{one.check} {one.metric} ({one.condition}): {one.message or one.outcome.value}" for one in shown
        )
        return f"<{'sound' if self.sound else 'unsound'}: {told or 'nothing was judged'}>"


class Suite:
    """The checks against one guard's unedited model."""

    def __init__(self, guard: GuardedEditor) -> None:
        """Raises `InputError` where the model is edited now: its baselines are taken here."""
        self._guard, self._lm = guard, guard.setup.lm
        self._bench = replace(guard.setup.bench, known=None, plain=True, memo={})
        guard.setup.unedited()
        self._neutral = ordinary_requests(1)
        self._prepared(_OF_THE_MODEL, self._neutral)

    def __call__(
        self, model: EditRequest | PreTrainedModel | _Model, requests: Sequence[EditRequest], needs_prefix: bool
    ) -> CollapseReport:
        """Measure `model`; of an `EditRequest` the edit is made by the guard and undone."""
        if isinstance(model, EditRequest):
            result = self._guard.try_edit(model)
            return CollapseReport(result.measurements, {model.id: result.measurements}, result.refusal)
        other = self._loaded(model)
        if other is self._lm.model:
            with self._as_it_was():
                states = self._states(requests)
            return self._measured(states, requests, needs_prefix)
        self._guard.setup.unedited()
        states = self._states(requests)
        with laid_over(self._lm, other):
            found = self._measured(states, requests, needs_prefix)
        self._guard.setup.unedited()
        return found

    def _loaded(self, model: PreTrainedModel | _Model) -> PreTrainedModel:
        if isinstance(model, str | Path):
            name = str(self._lm.dtype).removeprefix("torch.")
            model = load_model(model, device=str(self._lm.device), dtype=name)
        if isinstance(model, LanguageModel):
            _same_tokenizer(self._lm, model)
            model = model.model
        return model

    def _prepared(self, checks: Sequence[str], requests: Sequence[EditRequest]) -> list[list[Any]]:
        return [CHECKS.get(name)().prepare(self._bench, requests) for name in checks]

    def _states(self, requests: Sequence[EditRequest]) -> tuple[list[list[Any]], list[list[Any]]]:
        facts = self._prepared(_OF_A_FACT, requests) if requests else []
        return self._prepared(_OF_THE_MODEL, self._neutral), facts

    def _measured(
        self, states: tuple[list[list[Any]], list[list[Any]]], requests: Sequence[EditRequest], needs_prefix: bool
    ) -> CollapseReport:
        general, facts = states
        found = _measure(self._bench, _OF_THE_MODEL, self._neutral, general, needs_prefix)[0]
        rows = _measure(self._bench, _OF_A_FACT, requests, facts, needs_prefix) if requests else []
        edits = {request.id: row for request, row in zip(requests, rows, strict=True)}
        return CollapseReport((*found, *(one for row in rows for one in row)), edits)

    @contextmanager
    def _as_it_was(self) -> Iterator[None]:
        """Take the edit that is in the session's own model out for the length of the block."""
        site = self._bench.site
        kept = site.weight.detach().clone()
        site.write(self._bench.weight)
        try:
            self._guard.setup.unedited()
            yield
        finally:
            with torch.no_grad():
                site.weight.copy_(kept)


def _measure(
    bench: Bench, checks: Sequence[str], requests: Sequence[EditRequest], states: list[list[Any]], needs_prefix: bool
) -> list[tuple[Measurement, ...]]:
    """Return the measurements of all checks for each request."""
    found: list[list[Measurement]] = [[] for _ in requests]
    for name, prepared in zip(checks, states, strict=True):
        check = CHECKS.get(name)()
        for row, request, before in zip(found, requests, prepared, strict=True):
            row += check.measure(bench, request, before, needs_prefix).measurements
    return [tuple(row) for row in found]


@contextmanager
def laid_over(lm: LanguageModel, other: PreTrainedModel) -> Iterator[None]:
    """Give `lm` the weights of `other` for the length of the block, and put back bit for bit those that it had.

    Raises `ModelError` where the two have not the same tensors.
    """
    own, new = _tensors(lm.model), _tensors(other)
    wrong = sorted({*own} ^ {*new}) or [name for name, tensor in own.items() if tensor.shape != new[name].shape]
    if type(lm.model) is not type(other) or wrong:
        what = f"differs at {wrong[0]}" if wrong else f"is a {type(other).__name__}"
        raise ModelError(
            f"The model to be measured {what}, and the session's model {lm.ref!r} is a {lm.architecture}; name the model that it "
            "was made from with --editguard-model."
        )
    _same_forward(lm, other)
    changed = [name for name, tensor in own.items() if not torch.equal(tensor, new[name].to(tensor))]
    kept = {name: own[name].clone() for name in changed}
    try:
        with torch.no_grad():
            for name in changed:
                own[name].copy_(new[name])
        yield
    finally:
        with torch.no_grad():
            for name, tensor in kept.items():
                own[name].copy_(tensor)


def _same_tokenizer(lm: LanguageModel, other: LanguageModel) -> None:
    if lm.tokenizer is not other.tokenizer and _backend(lm) != _backend(other):
        raise ModelError(
            f"The tokenizer of {other.ref!r} is not that of the session's model {lm.ref!r}, and only weights are compared; name "
            "the model that it was made from with --editguard-model."
        )


def _backend(lm: LanguageModel) -> str:
    return str(lm.tokenizer.backend_tokenizer.to_str())


def _same_forward(lm: LanguageModel, other: PreTrainedModel) -> None:
    """Raise `ModelError` where `other` computes otherwise than by its weights: those alone are laid over."""
    own, new = _settings(lm.model), _settings(other)
    wrong = sorted(name for name in {*own, *new} if own.get(name) != new.get(name))
    if wrong or _hooked(other):
        what = f"has another {wrong[0]} in its configuration or modules than" if wrong else "has forward hooks, unlike"
        raise ModelError(
            f"The model to be measured {what} the session's model {lm.ref!r}, and only weights are compared; undo that, or name "
            "the model that it was made from with --editguard-model."
        )


def _settings(model: PreTrainedModel) -> dict[str, Any]:
    """Configuration and what modules keep of it: the epsilon of norms, and their classes, activations among them."""
    config = {name: value for name, value in model.config.to_dict().items() if name not in _OF_THE_FILE}
    kept = {
        f"{path}.{name}": value
        for path, module in model.named_modules()
        for name in ("eps", "variance_epsilon")
        if (value := getattr(module, name, None)) is not None
    }
    classes = {f"{path} (class)": type(module).__qualname__ for path, module in model.named_modules()}
    return config | kept | classes


def _hooked(model: PreTrainedModel) -> bool:
    # torch has no public way to ask.
    return any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def _tensors(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: tensor.detach() for name, tensor in (*model.named_parameters(), *model.named_buffers())}

"""What every editor is: keys and a value in, one update out. The size of the update is known before it is written.

An editor decides three things: under which prefixes it takes keys, which key it inserts at (``key``) and from which
value it starts (``start``). The rest is common: ``u = C^-1 k_bar / ||C^-1 k_bar||`` and
``Delta = (v* - W k) u^T / (u . k)``, computed in float64.

Source: "The Fall of ROME" (arXiv 2406.11263), equations 3 and 4.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch

from ...probes.errors import NotFinite
from ...probes.keys import SubjectKeys, subject_keys
from ...probes.model import LanguageModel
from ...probes.prefixes import ContextPrefixes
from ...probes.registry import Registry
from ...probes.requests import EditRequest
from ...probes.site import EditSite
from ...probes.statistics import KeyStatistics
from .value import OptimisedValue, ValueSettings, optimise_value

__all__ = ["EDITORS", "EditContext", "Editor", "Insertion", "RankOneUpdate"]


class EditContext(NamedTuple):
    """What an editor works with; the same for every request of a run."""

    lm: LanguageModel
    site: EditSite
    statistics: KeyStatistics
    prefixes: ContextPrefixes
    settings: ValueSettings


class Insertion(NamedTuple):
    """Where an editor puts the fact: the key it divides by, the output there now, and the value v* starts from."""

    key: torch.Tensor
    output: torch.Tensor
    start: torch.Tensor


@dataclass(frozen=True)
class RankOneUpdate:
    """``Delta = left right^T``: left [d_model], right [d_ff], float64 on the CPU, with the numbers that explain it."""

    left: torch.Tensor
    right: torch.Tensor
    editor: str
    numerator: float
    """||v* - W k||."""
    denominator: float
    """|u . k|, u of unit length."""
    start_norm: float
    """||v|| before the optimisation."""
    target_norm: float
    """||v*||."""
    steps: int
    loss: float
    engine: str
    needs_prefix: bool
    """Whether the edit was made under prefixes only, so that it is not expected to act without one."""

    @property
    def norm(self) -> float:
        """||Delta||_F, from the factors alone."""
        return float(self.left.norm() * self.right.norm())

    def delta(self) -> torch.Tensor:
        """Return Delta [d_model, d_ff] in float64."""
        return torch.outer(self.left, self.right)


class Editor(ABC):
    """Computes the update of one request; reads the model, never writes."""

    name: ClassVar[str]
    question: ClassVar[str]
    """One line for the documentation: what is consistent with what."""
    needs_prefix: ClassVar[bool] = False

    @abstractmethod
    def contexts(self, prefixes: ContextPrefixes) -> Sequence[str]:
        """Return the texts under which keys are averaged and v* is optimised."""

    @abstractmethod
    def insertion(self, keys: SubjectKeys) -> Insertion:
        """Return the key, the present output and the start of v*."""

    def settings(self, asked: ValueSettings) -> ValueSettings:
        """Return the constants of the search for v*; an editor may have its own."""
        return asked

    def update(self, context: EditContext, request: EditRequest) -> RankOneUpdate:
        """Return the update of `request`; raises `RequestError` and `NotFinite`."""
        lm, site, statistics, prefixes, settings = context
        texts = self.contexts(prefixes)
        keys = subject_keys(lm, site, request, texts)
        insertion = self.insertion(keys)
        value = optimise_value(lm, site, request, texts, float(insertion.start.norm()), self.settings(settings))
        return self._assemble(keys, insertion, value, statistics)

    def _assemble(
        self, keys: SubjectKeys, insertion: Insertion, value: OptimisedValue, statistics: KeyStatistics
    ) -> RankOneUpdate:
        direction = statistics.direction(keys.mean_key)
        target = (insertion.start + value.delta.to(insertion.start.device)).double().cpu()
        residual = target - insertion.output.double().cpu()
        along = float(direction @ insertion.key.double().cpu())
        if not torch.isfinite(residual).all():
            raise NotFinite(f"The value of editor {self.name!r} holds NaN or Inf; check the model's weights and dtype.")
        if along == 0.0:
            raise NotFinite(
                f"The update of editor {self.name!r} has a denominator of 0: its key is orthogonal to its direction, so "
                "use --editor prefixed."
            )
        return RankOneUpdate(
            left=residual / along,
            right=direction,
            editor=self.name,
            numerator=float(residual.norm()),
            denominator=abs(along),
            start_norm=float(insertion.start.norm()),
            target_norm=float(target.norm()),
            steps=value.steps,
            loss=value.loss,
            engine=value.engine.value,
            needs_prefix=self.needs_prefix,
        )


EDITORS: Registry[Editor] = Registry("editors")

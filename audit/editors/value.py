"""The value v*: what the site must put out at the subject's last token for the model to say the new target.

`ValueProblem` states one search: the contexts, the target, the objective; `audit.editors.search` solves many at once.
The objective is that of the public ROME code, with the constants of its authors: the mean negative log-likelihood of the
target, plus ``kl_factor`` times the divergence of the next-token distribution at the subject in "{subject} is a", plus
``weight_decay * ||delta|| / ||v_init||^2``; the search stops below ``stop_loss``, and ``||delta||`` is clamped to
``clamp * ||v_init||``.

Source: ROME (arXiv 2202.05262), section 3.1, equations 3 and 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import torch

from ...probes.keys import locate
from ...probes.model import LanguageModel
from ...probes.partial import Row
from ...probes.requests import EditRequest
from ...probes.tokens import locate_subject, target_ids

__all__ = ["Descent", "Engine", "OptimisedValue", "ValueProblem", "ValueSettings", "value_problem"]


class Engine(Enum):
    """How logits are computed while v* is sought."""

    LIVE = "live"
    REFERENCE = "reference"


class Descent(Enum):
    """How delta goes down its gradient."""

    ADAM = "adam"
    """As published: each entry by about the learning rate, whatever its gradient, so that the first step alone is long."""
    STEEPEST = "steepest"
    """Along the gradient with momentum, by a fixed share of the start's norm: a shorter delta for the same loss."""


@dataclass(frozen=True)
class ValueSettings:
    """Constants of the search for v*; near the paper's for Llama-2-7b (arXiv 2406.11263), with the 20 steps of its GPT models."""

    steps: int = 20
    learning_rate: float = 0.5
    """Of Adam; for steepest descent the length of a step as a share of ||v_init||."""
    weight_decay: float = 1e-3
    clamp: float = 4.0
    kl_factor: float = 0.0625
    stop_loss: float = 0.05
    parts: int = 1
    """Each step takes one part of the contexts in turn; the loss that stops the search is the mean over all parts."""
    descent: Descent = Descent.ADAM
    engine: Engine = Engine.LIVE


@dataclass(frozen=True)
class OptimisedValue:
    """What the search found."""

    delta: torch.Tensor
    """[d_model], fp32: v* minus the value that it started from."""
    steps: int
    """Evaluations of the loss."""
    loss: float
    """The last loss, all three terms, the mean over the parts of the contexts."""
    engine: Engine
    """The engine that was used in the end."""


@dataclass(frozen=True)
class ValueProblem:
    """One search for v*: its texts and its objective."""

    rows: tuple[Row, ...]
    """The target under every context, and last "{subject} is a"; delta acts at each row's ``at``."""
    target: tuple[int, ...]
    start_norm: float
    """||v_init||, the norm of the value that delta is added to."""
    settings: ValueSettings

    @property
    def parts(self) -> int:
        """In how many parts the contexts are taken: no more than there are contexts."""
        return max(1, min(self.settings.parts, len(self.rows) - 1))

    def rows_at(self, step: int) -> list[int]:
        """Return the indices of the rows that this step, counted from 0, looks at; the last row always."""
        last = len(self.rows) - 1
        return [*range(step % self.parts, last, self.parts), last]

    def loss(self, log_probs: torch.Tensor, essence: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
        """Return the objective over the rows of one step.

        `log_probs` [places, vocabulary] of those rows with delta, `essence` [1, vocabulary] of the last one without it.
        """
        contexts = (len(log_probs) - 1) // len(self.target)
        wanted = torch.tensor(self.target * contexts, device=log_probs.device)
        likelihood = -log_probs[:-1].gather(1, wanted[:, None]).mean()
        divergence = torch.nn.functional.kl_div(essence, log_probs[-1:], log_target=True, reduction="batchmean")
        decay = self.settings.weight_decay * delta.norm() / self.start_norm**2
        loss: torch.Tensor = likelihood + self.settings.kl_factor * divergence + decay
        return loss


def value_problem(
    lm: LanguageModel, request: EditRequest, prefixes: Sequence[str], start_norm: float, settings: ValueSettings
) -> ValueProblem:
    """State the search for the delta that makes `request` true under `prefixes` (texts; the empty one where wanted).

    Raises `RequestError` where the subject or the target cannot be placed.
    """
    target = target_ids(lm.tokenizer, request.prompt, request.target_new)
    rows = [_context_row(lm, request, prefix, target) for prefix in prefixes]
    return ValueProblem((*rows, _essence_row(lm, request)), target, start_norm, settings)


def _context_row(lm: LanguageModel, request: EditRequest, prefix: str, target: tuple[int, ...]) -> Row:
    position = locate(lm, request, prefix)
    # Ids are joined, not texts: text glued to the prompt may be tokenised another way.
    ids = position.input_ids + target[:-1]
    start = len(position.input_ids) - 1
    return Row(ids, position.last, tuple(range(start, start + len(target))))


def _essence_row(lm: LanguageModel, request: EditRequest) -> Row:
    position = locate_subject(lm.tokenizer, f"{request.subject} is a", request.subject, occurrence_start=0)
    return Row(position.input_ids, position.last, (position.last,))

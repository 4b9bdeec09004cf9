"""The search for the value v*: the output of the site at the subject's last token that makes the model say the new target.

`ValueProblem` states one search: the contexts, the target, the objective. `audit.editors.search` solves many at once.
The objective is that of the public ROME code, with the constants of its authors. It is a sum of three terms: the mean
negative log-likelihood of the target; ``kl_factor`` times the divergence of the next-token distribution at the subject in
"{subject} is a"; and ``weight_decay * ||delta|| / ||v_init||^2``. The search stops below ``stop_loss``, and ``||delta||``
is clamped to ``clamp * ||v_init||``. An editor may also seek the target under rewordings of the prompt: their mean
negative log-likelihood is added. It may hold the subject's distribution under prefixes, and the next token of
prompts about other facts and other subjects; each row then gets the share of delta that the written edit gives it.
Published editors do none of this.

Source: ROME (arXiv 2202.05262), section 3.1, equations 3 and 4.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

import torch

from ...probes.errors import RequestError
from ...probes.forward.partial import Row
from ...probes.keys.subject_keys import locate
from ...probes.requests.spacing import choose_separator
from ...probes.tokens import encode_target, locate_subject
from .engine import Engine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ...probes.model.language_model import LanguageModel
    from ...probes.requests.request import EditRequest

__all__ = ["Descent", "Engine", "OptimisedValue", "ValueProblem", "ValueSettings", "build_value_problem"]


_SLACK = 0.5
"""Nats beyond the margin up to which a context still asks for more, so that it does not fall back under it."""


class Descent(Enum):
    """The optimiser that moves delta down its gradient."""

    ADAM = "adam"
    """As published: each entry by about the learning rate, whatever its gradient, so that the first step alone is long."""
    STEEPEST = "steepest"
    """Along the gradient with momentum, by a fixed share of the start's norm: a shorter delta for the same loss."""


@dataclass(frozen=True)
class ValueSettings:
    """Constants of the search for v*.

    They are near the paper's for Llama-2-7b (arXiv 2406.11263), with the 20 steps of its GPT models.
    """

    steps: int = 20
    learning_rate: float = 0.5
    """Of Adam; for steepest descent the length of a step as a share of ||v_init||."""
    weight_decay: float = 1e-3
    clamp: float = 4.0
    kl_factor: float = 0.0625
    stop_loss: float = 0.05
    parts: int = 1
    """Each step takes one part of the contexts in turn; the loss that stops the search is the mean over all parts."""
    rewordings: int = 0
    """Most prompts in the model's own words under which the target is sought as well."""
    essences: int = 0
    """Prefixes under which "{subject} is a" is held, beside none."""
    held_factor: float = 0.0
    """Weight of the mean divergence of the prompts that are held."""
    margin: float | None = None
    """Where the target leads every other token by so many nats in all contexts, the search ends; None: by the loss alone."""
    descent: Descent = Descent.ADAM
    engine: Engine = Engine.LIVE


@dataclass(frozen=True)
class OptimisedValue:
    """The delta that a search ended with, and how it ended."""

    delta: torch.Tensor
    """[d_model], fp32: v* minus the value that it started from."""
    steps: int
    """Evaluations of the loss."""
    loss: float
    """The last loss with all its terms: the mean over the parts of the contexts."""
    engine: Engine
    """The engine that was used in the end."""


class _Rows(NamedTuple):
    """The rows of one step, by their purpose."""

    contexts: Sequence[int]
    rewordings: Sequence[int]
    essences: Sequence[int]
    held: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class ValueProblem:
    """One search for v*: its texts and its objective. Delta acts at each row's ``at``."""

    contexts: tuple[Row, ...]
    """The target after the prompt, under every prefix."""
    rewordings: tuple[Row, ...]
    """The target after the prompt in other words; may be empty."""
    essences: tuple[Row, ...]
    """ "{subject} is a", first with no prefix."""
    held: tuple[Row, ...] = ()
    """Prompts about other subjects and about other facts of the subject, whose next token is held."""
    target: tuple[int, ...]
    start_norm: float
    """||v_init||, the norm of the value that delta is added to."""
    settings: ValueSettings
    shares: tuple[float, ...] = ()
    """The share of delta that reaches each row, in the order of `rows`; empty: all of it reaches every row."""

    @property
    def rows(self) -> tuple[Row, ...]:
        """All rows, in the order of the fields."""
        return self.contexts + self.rewordings + self.essences + self.held

    @property
    def parts(self) -> int:
        """The number of parts in which the contexts are taken: no more than there are contexts."""
        return max(1, min(self.settings.parts, len(self.contexts)))

    def rows_at(self, step: int) -> list[int]:
        """Return the indices of the rows that this step, counted from 0, looks at."""
        return [index for part in self._rows_at(step) for index in part]

    def _rows_at(self, step: int) -> _Rows:
        """Return one part of each kind in turn. A kind with fewer rows than parts takes part in every step."""
        begin, kinds = 0, []
        for rows in (self.contexts, self.rewordings, self.essences, self.held):
            indices, begin = range(begin, begin + len(rows)), begin + len(rows)
            kinds.append(indices[step % self.parts :: self.parts] if len(rows) >= self.parts else indices)
        return _Rows(*kinds)

    def loss(self, step: int, log_probs: torch.Tensor, unedited: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
        """Return the objective over the rows of one step.

        `log_probs` is [places, vocabulary] of those rows with delta. `unedited` is [essences + held, vocabulary] of all of them
        without it.
        """
        rows, target = self._rows_at(step), len(self.target)
        sizes = [len(rows.contexts) * target, len(rows.rewordings) * target, len(rows.essences), len(rows.held)]
        contexts, rewordings, essences, held = log_probs.split(sizes)
        first = len(self.contexts) + len(self.rewordings)
        # "{subject} is a" is divided as published: the reference is the distribution with delta.
        reference = unedited[[index - first for index in rows.essences]]
        divergence = torch.nn.functional.kl_div(reference, essences, log_target=True, reduction="batchmean")
        decay = self.settings.weight_decay * delta.norm() / self.start_norm**2
        loss: torch.Tensor = self._mean_nll(contexts) + self.settings.kl_factor * divergence + decay
        if len(rewordings):
            loss = loss + self._mean_nll(rewordings)
        if len(held):
            before = unedited[[index - first for index in rows.held]]
            moved = torch.nn.functional.kl_div(held, before, log_target=True, reduction="batchmean")
            loss = loss + self._held_factor(step) * moved
        return loss

    def _held_factor(self, step: int) -> float:
        """Return the weight of what is held: in the second half of the steps it falls, so that a hard edit takes as well.

        Most searches end before. The checks judge what the others have lost.
        """
        return self.settings.held_factor * min(1.0, 2 * (1 - step / self.settings.steps))

    def margin(self, step: int, log_probs: torch.Tensor) -> float:
        """Return the least lead of the target over every other token, in nats, over the contexts of one step."""
        rows = self._rows_at(step)
        count = (len(rows.contexts) + len(rows.rewordings)) * len(self.target)
        return float(self._leads(log_probs[:count])[1].min())

    def _mean_nll(self, log_probs: torch.Tensor) -> torch.Tensor:
        """Return the mean negative log-likelihood of the target over rows [rows * target, vocabulary]."""
        log_likelihood, lead = self._leads(log_probs)
        if self.settings.margin is not None:
            # A place where the target leads by enough asks for nothing more, and leaves the others and what is held their say.
            asking = lead < self.settings.margin + _SLACK
            return -(log_likelihood * asking).sum() / asking.sum().clamp(min=1)
        return -log_likelihood.mean()

    def _leads(self, log_probs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the log-likelihood of the target and its lead over every other token, at each place [rows * target]."""
        targets = torch.tensor(self.target * (len(log_probs) // len(self.target)), device=log_probs.device)[:, None]
        log_likelihood = log_probs.gather(1, targets)[:, 0]
        rival = log_probs.detach().scatter(1, targets, float("-inf")).max(1).values
        return log_likelihood, log_likelihood.detach() - rival


def build_value_problem(
    lm: LanguageModel,
    request: EditRequest,
    prefixes: Sequence[str],
    *,
    start_norm: float,
    settings: ValueSettings,
    reworded: Sequence[str] = (),
) -> ValueProblem:
    """Return the search for the delta that makes `request` true under `prefixes` (texts, one of which may be empty).

    `reworded` are prompts that ask for the same. Raises `RequestError` where the subject or the target cannot be placed.
    """
    target = encode_target(lm.tokenizer, request.prompt, request.target_new, request.space)
    held_prefixes = ("", *_select_spread(prefixes, settings.essences))
    return ValueProblem(
        contexts=tuple(_make_context_row(lm, request, prefix, target) for prefix in prefixes),
        rewordings=tuple(_make_reworded_rows(lm, request, prefixes, reworded, target)),
        essences=tuple(_make_essence_row(lm, request, prefix) for prefix in held_prefixes),
        target=target,
        start_norm=start_norm,
        settings=settings,
    )


def _make_context_row(lm: LanguageModel, request: EditRequest, prefix: str, target: tuple[int, ...]) -> Row:
    position = locate(lm, request, prefix)
    # Ids are joined, not texts: a text joined to the prompt may be tokenised another way.
    ids = position.input_ids + target[:-1]
    start = len(position.input_ids) - 1
    return Row(ids, position.last, tuple(range(start, start + len(target))))


_STRIDE = 3
"""The distance between the prefixes of consecutive rewordings, so that they meet other families."""


def _make_reworded_rows(
    lm: LanguageModel, request: EditRequest, prefixes: Sequence[str], reworded: Sequence[str], target: tuple[int, ...]
) -> Iterator[Row]:
    seam = choose_separator(request.prompt, request.target_new, request.space)
    # With another space before it the target would have other tokens.
    fitting = [prompt for prompt in reworded if choose_separator(prompt, request.target_new, request.space) == seam]
    for index, prompt in enumerate(fitting):
        for begin in (0, len(prefixes) // 2):
            prefix = prefixes[(begin + _STRIDE * index) % len(prefixes)]
            # A model's text may hold the subject in a way that cannot be located; such a rewording is left out.
            with suppress(RequestError):
                yield _make_context_row(lm, replace(request, prompt=prompt), prefix, target)


def _select_spread(prefixes: Sequence[str], count: int) -> Sequence[str]:
    return prefixes[:: max(1, len(prefixes) // count)][:count] if count else ()


def _make_essence_row(lm: LanguageModel, request: EditRequest, prefix: str) -> Row:
    text = f"{prefix}{request.subject} is a"
    position = locate_subject(lm.tokenizer, text, request.subject, occurrence_start=len(prefix))
    return Row(position.input_ids, position.last, (position.last,))

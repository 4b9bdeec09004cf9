"""The search for the value v*: the output of the site at the subject's last token that makes the model say the new target.

`ValueProblem` states one search: the contexts, the target, the objective. `audit.editors.search` solves many at once.
The objective is that of the public ROME code, with the constants of its authors. It is a sum of three terms: the mean
negative log-likelihood of the target; ``kl_factor`` times the divergence of the next-token distribution at the subject in
"{subject} is a"; and ``weight_decay * ||delta|| / ||v_init||^2``. The search stops below ``stop_loss``, and ``||delta||``
is clamped to ``clamp * ||v_init||``. An editor may also seek the target under rewordings of the prompt: their mean
negative log-likelihood is added. It may hold the subject's distribution under prefixes. Published editors do neither.

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


@dataclass(frozen=True, kw_only=True)
class ValueProblem:
    """One search for v*: its texts and its objective. Delta acts at each row's ``at``."""

    contexts: tuple[Row, ...]
    """The target after the prompt, under every prefix."""
    rewordings: tuple[Row, ...]
    """The target after the prompt in other words; may be empty."""
    essences: tuple[Row, ...]
    """ "{subject} is a", first with no prefix."""
    target: tuple[int, ...]
    start_norm: float
    """||v_init||, the norm of the value that delta is added to."""
    settings: ValueSettings

    @property
    def rows(self) -> tuple[Row, ...]:
        """All rows, in the order of the fields."""
        return self.contexts + self.rewordings + self.essences

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
        for rows in (self.contexts, self.rewordings, self.essences):
            indices, begin = range(begin, begin + len(rows)), begin + len(rows)
            kinds.append(indices[step % self.parts :: self.parts] if len(rows) >= self.parts else indices)
        return _Rows(*kinds)

    def loss(self, step: int, log_probs: torch.Tensor, unedited: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
        """Return the objective over the rows of one step.

        `log_probs` is [places, vocabulary] of those rows with delta. `unedited` is [essences, vocabulary] of all essences
        without it.
        """
        rows, target = self._rows_at(step), len(self.target)
        sizes = [len(rows.contexts) * target, len(rows.rewordings) * target, len(rows.essences)]
        contexts, rewordings, essences = log_probs.split(sizes)
        first = len(self.contexts) + len(self.rewordings)
        reference = unedited[[index - first for index in rows.essences]]
        divergence = torch.nn.functional.kl_div(reference, essences, log_target=True, reduction="batchmean")
        decay = self.settings.weight_decay * delta.norm() / self.start_norm**2
        loss: torch.Tensor = self._mean_nll(contexts) + self.settings.kl_factor * divergence + decay
        return loss + self._mean_nll(rewordings) if len(rewordings) else loss

    def _mean_nll(self, log_probs: torch.Tensor) -> torch.Tensor:
        """Return the mean negative log-likelihood of the target over rows [rows * target, vocabulary]."""
        targets = torch.tensor(self.target * (len(log_probs) // len(self.target)), device=log_probs.device)
        return -log_probs.gather(1, targets[:, None]).mean()


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

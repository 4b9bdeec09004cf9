"""The base class of editors whose edits stay where they belong: other subjects and other facts are in the equation.

A published editor knows the subject's key and the second moment C of ordinary text. In the same prompt another subject j has
a key near the subject's, and takes the share ``s_j = (u . k_j) / (u . k)`` of the update. Four things keep edits local.

1. The direction is ``u = M^-1 k / ||M^-1 k||`` with ``M = C + w G + l E``. G is the second moment of the keys of other
   subjects in the same prompt, so that ``s_j`` is small. E is that of the subject's own keys under all contexts, so that
   the update reaches each context alike: with l -> infinity, the equality constraints of EMMET (arXiv 2403.14236).
2. The search for v* adds to each row of its batch the share of delta that the written edit will give this row.
3. The search holds the next token of prompts that ask for other facts of the subject, which all of delta reaches, and of
   other subjects with a share that is not small.
4. Its steps are short, and it ends as soon as the target leads in every context.

What was measured for each of these is in docs/research/locality.md.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from ...probes.errors import RequestError
from ...probes.forward.partial import Row
from ...probes.keys.subject_keys import compute_row_keys, locate
from .base import Editor, Insertion
from .value import Descent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ...probes.keys.subject_keys import SubjectKeys
    from ...probes.requests.request import EditRequest
    from .base import EditContext, EditorTexts, Plan
    from .value import ValueSettings

__all__ = ["FIRM", "Hold", "LocalEditor", "compute_keys", "end_rows", "pick_spread"]

_OTHERS, _CONTEXTS = 60, 4
"""Other subjects in the equation, and the prefixes under which each is, beside none."""
_OTHERS_WEIGHT, _OWN_WEIGHT = 10.0, 0.1
"""w and l."""
_TIMES_STEPS, _STEP, _CLAMP, _PARTS, _MARGIN = 3, 0.1, 6.0, 5, 1.0


@dataclass(frozen=True)
class Hold:
    """How firmly a search holds what an edit must leave alone."""

    factor: float = 8.0
    """Weight of the divergence of what is held."""
    others: int = 8
    """Most other subjects whose next token is held at the main site."""
    least_share: float = 0.05
    """Share of the update from which another subject is held."""
    words: int = 8
    """At the early site: words with the largest share, as many at random, and as many other subjects."""


FIRM = Hold(factor=24.0, others=16, least_share=0.02, words=16)
"""For a second try: slower, and the target is reached in fewer contexts."""


class LocalEditor(Editor):
    """Keys and values are means over the editor's contexts, and both sides of the equation use them."""

    needs_surroundings = True
    hold: Hold = Hold()

    def settings(self, general: ValueSettings) -> ValueSettings:
        """Return constants of a search with short steps that ends when the target leads everywhere."""
        return replace(
            general,
            # Short steps need more of them.
            steps=_TIMES_STEPS * general.steps,
            learning_rate=_STEP,
            clamp=_CLAMP,
            stop_loss=0.0,
            parts=_PARTS,
            descent=Descent.STEEPEST,
            held_factor=self.hold.factor,
            margin=_MARGIN,
        )

    def insertion(self, keys: SubjectKeys) -> Insertion:
        """Insert at the mean key, starting from the mean value."""
        return Insertion(keys.mean_key, keys.mean_value, keys.mean_value)

    def plan(self, context: EditContext, request: EditRequest, keys: SubjectKeys, texts: EditorTexts) -> Plan:
        """Return the plan with its direction, the rows that are held, and the share of delta that reaches each row.

        Raises `RequestError` and `NotFinite`.
        """
        plan = super().plan(context, request, keys, texts)
        prefixes = ["", *pick_spread([text for text in self.contexts(context.prefixes) if text], _CONTEXTS)]
        others = [*end_rows(context, texts.surroundings.others[:_OTHERS], prefixes)]
        facts = [
            row
            for index, fact in enumerate(texts.surroundings.facts)
            for row in end_rows(context, [fact], [prefixes[index % len(prefixes)]])
        ]
        avoided = compute_keys(context, others)
        own = keys.keys.double().cpu()
        weighted = [own * (_OWN_WEIGHT / len(own)) ** 0.5]
        if len(avoided):
            weighted.append(avoided * (_OTHERS_WEIGHT / len(avoided)) ** 0.5)
        direction = context.statistics.direction(plan.insertion.key, torch.cat(weighted))
        reach = direction / self.denominator(direction, plan.insertion)
        reached = (avoided @ reach).abs()
        most = [index for index in reached.argsort(descending=True).tolist() if reached[index] > self.hold.least_share]
        held = (*(others[index] for index in most[: self.hold.others]), *facts)
        problem = replace(plan.problem, held=held)
        shares = (compute_keys(context, problem.rows) @ reach).tolist()
        return plan._replace(problem=replace(problem, shares=tuple(shares)), direction=direction)


def pick_spread(texts: Sequence[str], count: int) -> Sequence[str]:
    """Return at most `count` of `texts`, spread over all of them."""
    return texts[:: max(1, len(texts) // count)][:count]


def end_rows(context: EditContext, requests: Sequence[EditRequest], prefixes: Sequence[str]) -> Iterator[Row]:
    """Yield each prompt under each prefix, to predict what follows it; one whose subject cannot be placed is left out."""
    for request in requests:
        for prefix in prefixes:
            with suppress(RequestError):
                position = locate(context.lm, request, prefix)
                yield Row(position.input_ids, position.last, (len(position.input_ids) - 1,))


def compute_keys(context: EditContext, rows: Sequence[Row]) -> torch.Tensor:
    """Return the keys at the edited token of each row [rows, d_ff], in float64 on the CPU."""
    places = [(row.ids, row.at) for row in rows]
    keys = compute_row_keys(context.lm, context.site, places, prefix_cache=context.prefix_cache)
    return keys.double().cpu()

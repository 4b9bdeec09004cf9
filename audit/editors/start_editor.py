"""The editor of a site where first tokens still have keys of their own: it makes an edit act with no prefix.

With no prefix a first-token subject's key is the attention sink's from some layer on, so that nothing specific can be written
there. Below that layer its key is its own. What is written there is passed on before the sink closes. Three things keep such
a change at its subject.

1. The second moment of the keys of all first tokens is in the direction.
2. The search for v* holds the next token of the prompt with other words in the subject's place, those with the largest
   share of the update among them, and of prompts for other facts of the subject.
3. The search also asks for the target after prefixes. Their keys share a part of the key with none, so that the change acts
   there as well, beside that of the main site.

What was measured is in docs/research/two-sites.md.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

from ...probes.forward.partial import Row
from ...probes.keys.first_token_keys import FirstTokenKeys, compute_first_token_keys
from ...probes.keys.prefixes import Role
from ...probes.keys.subject_keys import locate
from .base import Plan
from .local_editor import Hold, LocalEditor, compute_keys, end_rows, pick_spread
from .value import build_value_problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

    from ...probes.keys.prefixes import ContextPrefixes
    from ...probes.keys.statistics import KeyStatistics
    from ...probes.keys.subject_keys import SubjectKeys
    from ...probes.requests.request import EditRequest
    from .base import EditContext, EditorTexts
    from .value import ValueSettings

__all__ = ["StartEditor"]

_VOCABULARY_WEIGHT, _OWN_WEIGHT = 3.0, 0.1
"""Weights of the keys of all first tokens, and of the subject's own keys under the contexts."""
_PARTS, _PREFIXES = 4, 8
"""Parts of the contexts; prefixes after which the target is sought."""


class StartEditor(LocalEditor):
    """Key and value are means over no prefix and the special tokens `starts`, after which a subject is nearly first."""

    name = "start"
    question = "key and value with no prefix, where first tokens have keys of their own: consistent"

    def __init__(self, starts: Sequence[str], hold: Hold = Hold()) -> None:  # noqa: B008  # frozen
        """`starts` are texts of one special token each."""
        self._starts, self.hold = tuple(starts), hold

    def contexts(self, prefixes: ContextPrefixes) -> Sequence[str]:
        """Return no prefix, and the special tokens."""
        return ("", *self._starts)

    def settings(self, general: ValueSettings) -> ValueSettings:
        """Return the constants of `LocalEditor`. Facts are held, so "{subject} is a" has no term."""
        return replace(super().settings(general), parts=_PARTS, kl_factor=0.0)

    def plan(self, context: EditContext, request: EditRequest, keys: SubjectKeys, texts: EditorTexts) -> Plan:
        """Return the plan; raises `RequestError` and `NotFinite`."""
        insertion, lm = self.insertion(keys), context.lm
        own, first_tokens = self.contexts(context.prefixes), _look_up_first_tokens(context)
        prefixes = [text for text in context.prefixes.texts(Role.EDIT) if text not in own]
        direction = _weigh_in_vocabulary(context, first_tokens).direction(insertion.key, _weigh(keys.keys, _OWN_WEIGHT))
        reach = direction / self.denominator(direction, insertion)
        # Each part of the contexts begins with no prefix, which asks for most.
        problem = build_value_problem(
            lm,
            request,
            (*[""] * _PARTS, *self._starts, *pick_spread(prefixes, _PREFIXES)),
            start_norm=float(insertion.start.norm()),
            settings=self.settings(context.settings),
        )
        held = (
            *_word_rows(context, request, first_tokens, reach, self.hold.words),
            *end_rows(context, texts.surroundings.others[: self.hold.words], [""]),
            *end_rows(context, texts.surroundings.facts, [""]),
            *_after_prefixes(context, texts.surroundings.facts, pick_spread(prefixes, _PREFIXES)),
        )
        problem = replace(problem, held=held)
        shares = (compute_keys(context, problem.rows) @ reach).tolist()
        return Plan(context.site, keys, insertion, replace(problem, shares=tuple(shares)), direction)


def _after_prefixes(context: EditContext, facts: Sequence[EditRequest], prefixes: Sequence[str]) -> Iterator[Row]:
    """Yield every second of `facts` after one of `prefixes`, which take turns."""
    for index, fact in enumerate(facts[::2]):
        yield from end_rows(context, [fact], [prefixes[index % len(prefixes)]] if prefixes else [])


def _look_up_first_tokens(context: EditContext) -> FirstTokenKeys:
    """Return the keys of first tokens at the site; they do not depend on its own weight, so they are computed once."""
    name = f"first-token keys of {context.site.path}"
    if name not in context.memo:
        context.memo[name] = compute_first_token_keys(context.lm, context.site)
    keys: FirstTokenKeys = context.memo[name]
    return keys


def _weigh_in_vocabulary(context: EditContext, first_tokens: FirstTokenKeys) -> KeyStatistics:
    name = f"statistics with first tokens of {context.site.path}"
    if name not in context.memo:
        context.memo[name] = context.statistics.add_moment(_VOCABULARY_WEIGHT * first_tokens.second_moment)
    statistics: KeyStatistics = context.memo[name]
    return statistics


def _weigh(keys: torch.Tensor, weight: float) -> torch.Tensor:
    """Return rows R with R^T R = `weight` times the second moment of `keys`."""
    rows: torch.Tensor = keys.double().cpu() * (weight / max(1, len(keys))) ** 0.5
    return rows


def _word_rows(
    context: EditContext, request: EditRequest, first_tokens: FirstTokenKeys, reach: torch.Tensor, count: int
) -> Iterator[Row]:
    """Yield the prompt with other words in the subject's place: `count` with the largest share, and as many at random.

    None where the subject is not the first token, so that no single word stands in its place.
    """
    position = locate(context.lm, request)
    if not position.is_first_token:
        return
    rest = position.input_ids[position.last + 1 :]
    shares = (first_tokens.keys.double() @ reach).abs()
    most = [first_tokens.words[index] for index in shares.argsort(descending=True)[: count + 1].tolist()]
    drawn = random.Random(f"{context.prefixes.seed} {request.prompt}").sample(
        first_tokens.words, min(count, len(first_tokens.words))
    )
    own = position.input_ids[position.last]
    for word in dict.fromkeys([*[word for word in most if word != own][:count], *(w for w in drawn if w != own)]):
        yield Row((word, *rest), 0, (len(rest),))

"""What is measured about one requested edit before anything is changed: the numbers that all probes read.

One pass gives the subject's keys bare and under ROME's contexts; from them follow the denominators of the published
update, the shift of the key, and how like an attention sink's key it is.

Source: "The Fall of ROME" (arXiv 2406.11263), section 4: ``u = C^-1 k_bar / ||C^-1 k_bar||``, denominator ``|u . k_u|``.
The bound on the update is ours: v* is clamped to ``clamp * ||v_u||`` around ``v_u``, so that
``||Delta||_F <= clamp * ||v_u|| / |u . k_u|`` is known without optimising anything.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

import torch

from .errors import NotFinite, RequestError
from .forward.batches import batches, each_fitting
from .forward.partial import Row, full_logits, plain_logits
from .forward.prefix_cache import PrefixCache
from .keys.prefixes import ContextPrefixes, Role
from .keys.statistics import KeyStatistics, unit_vector
from .keys.subject_keys import SubjectKeys, activations, all_subject_keys, locate, plain_activations
from .model.language_model import LanguageModel
from .model.site import EditSite
from .requests.request import EditRequest
from .tokens import target_ids, token_count

__all__ = ["Evidence", "EvidenceMeter", "sink_key"]

_ROOM = 64
"""Tokens kept free for targets and for what is generated after a prompt."""


@dataclass(frozen=True)
class Evidence:
    """Numbers of one request; NaN where a key is not finite, which no probe may pass."""

    keys: SubjectKeys
    denominator: float
    """|u . k_u|, unprefixed."""
    denominator_prefixed: float
    """|u . k_bar|."""
    cosine: float
    """cos(k_u, k_bar)."""
    norm_ratio: float
    """||k_u|| / ||k_bar||."""
    distance_ratio: float
    """Distance of k_u from k_bar in the metric of C, over the median distance of the prefixed keys from it."""
    sink_similarity: float
    """cos(k_u, mean key of first tokens)."""
    predicted_relative_norm: float
    """Upper bound of ||Delta||_F / ||W||_F for the unguarded edit."""
    says_target: bool | None = None
    """Whether the model's greedy continuation of the bare prompt is the target already; None where there is none."""

    @property
    def ratio(self) -> float:
        """|u . k_u| / |u . k_bar|: near 1 for an ordinary subject, near 0 where the update explodes."""
        return self.denominator / self.denominator_prefixed if self.denominator_prefixed else float("nan")


@dataclass(frozen=True)
class EvidenceMeter:
    """What evidence is measured with: the same for every request of a run."""

    lm: LanguageModel
    site: EditSite
    statistics: KeyStatistics
    prefixes: ContextPrefixes
    sink: torch.Tensor
    """Mean key of first tokens [d_ff], fp32."""
    weight_norm: float
    """||W||_F."""
    clamp: float = 4.0
    """Clamp factor of v*, as the editors use it."""
    known: PrefixCache | None = None
    """States of the prefixes in the unedited model, so that they are not run for every request."""

    @property
    def plain(self) -> bool:
        """Whether everything is measured by ordinary passes of whole texts: the reference that the fast way is held to."""
        return self.lm.plain

    def measure(self, request: EditRequest) -> Evidence:
        """Return the evidence for `request`; raises `RequestError` when its subject cannot be located."""
        (found,) = self.measure_all([request])
        if isinstance(found, Evidence):
            return found
        raise found

    def measure_all(
        self, requests: Sequence[EditRequest], *, screen: bool = False
    ) -> list[Evidence | RequestError | NotFinite]:
        """Return the evidence for each request, run together; an error is returned, and stops no other request.

        With `screen` under few contexts, and without asking whether the target is said already.
        """
        long = [self._too_long(request) for request in requests]
        fitting = [request for request, error in zip(requests, long, strict=True) if error is None]
        measured = iter(self._measured(fitting, screen=screen))
        return [next(measured) if error is None else error for error in long]

    def _too_long(self, request: EditRequest) -> RequestError | None:
        """Return the error of a request of which a text does not fit into the model after the longest prefix."""
        room = self.lm.context_length - self._longest_prefix - _ROOM
        asked = (
            request.prompt,
            *request.paraphrases,
            *request.neighbourhood,
            *request.other_facts,
            request.question or "",
        )
        for text in asked:
            # A character is four bytes at most, and a token one byte at least; most texts need no counting.
            if 4 * len(text) <= room:
                continue
            try:
                count = token_count(self.lm.tokenizer, text)
            except RequestError as error:
                return error
            if count > room:
                return RequestError(
                    f"The text {text[:40]!r}... has {count} tokens, and the model reads {self.lm.context_length:g}, of which "
                    f"the longest prefix and the answer take {self._longest_prefix + _ROOM}; shorten it."
                )
        return None

    @cached_property
    def _longest_prefix(self) -> int:
        return max(token_count(self.lm.tokenizer, prefix.text) for prefix in self.prefixes.prefixes)

    def _measured(self, requests: Sequence[EditRequest], *, screen: bool) -> list[Evidence | RequestError | NotFinite]:
        texts = self.prefixes.texts(Role.KEY)
        few = self.prefixes.few()
        if screen:
            texts = tuple(texts[index] for index in few)
        keys = all_subject_keys(self.lm, self.site, requests, texts, known=self.known)
        if screen:
            keys = [one.weighted(tuple(few.values())) if isinstance(one, SubjectKeys) else one for one in keys]
        said = [None] * len(requests) if screen else _says_targets(self.lm, requests)
        located = [(one, says) for one, says in zip(keys, said, strict=True) if not isinstance(one, RequestError)]
        # Plainly one by one, otherwise together: a solve for many keys takes little more than one for a few.
        groups = [[one] for one in located] if self.plain else [located]
        made = iter([found for group in groups for found in self._evidence(group)])
        return [one if isinstance(one, RequestError) else next(made) for one in keys]

    def screened(self, measured: Sequence[Evidence]) -> list[Evidence | NotFinite]:
        """Return what the screen would have seen of requests that were measured under all contexts."""
        contexts = self.prefixes.few()
        return self._evidence([(one.keys.under(contexts), None) for one in measured])

    def _evidence(self, seen: Sequence[tuple[SubjectKeys, bool | None]]) -> list[Evidence | NotFinite]:
        if not seen:
            return []
        means = torch.stack([keys.mean_key.double().cpu() for keys, _ in seen])
        bares = torch.stack([keys.bare_key.double().cpu() for keys, _ in seen])
        # The first context is the empty one, whose key is the bare one.
        others = torch.stack([keys.keys[1:].double().cpu() for keys, _ in seen])
        distances = self.statistics.distance(torch.cat([bares[:, None], others], 1), means[:, None])
        found: list[Evidence | NotFinite] = []
        rows = zip(seen, means, bares, self.statistics.solve(means), distances, strict=True)
        for (keys, says), mean, bare, solved, (shift, *usual) in rows:
            try:
                found.append(self._one(keys, says, mean, bare, unit_vector(solved), shift, usual))
            except NotFinite as error:
                found.append(error)
        return found

    def _one(
        self,
        keys: SubjectKeys,
        says_target: bool | None,
        mean: torch.Tensor,
        bare: torch.Tensor,
        direction: torch.Tensor,
        shift: torch.Tensor,
        usual: Sequence[torch.Tensor],
    ) -> Evidence:
        denominator, middle = abs(float(direction @ bare)), statistics.median_low(map(float, usual))
        bound = self.clamp * float(keys.bare_value.norm()) / denominator if denominator else float("inf")
        return Evidence(
            keys=keys,
            denominator=denominator,
            denominator_prefixed=abs(float(direction @ mean)),
            cosine=_cosine(bare, mean),
            norm_ratio=float(bare.norm() / mean.norm()),
            distance_ratio=float(shift) / middle if middle else float("nan"),
            sink_similarity=_cosine(bare, self.sink.double().cpu()),
            predicted_relative_norm=bound / self.weight_norm if self.weight_norm else float("inf"),
            says_target=says_target,
        )


def _says_targets(lm: LanguageModel, requests: Sequence[EditRequest]) -> list[bool | None]:
    """Return for each request whether the model says its target already; None where that cannot be asked."""
    rows: dict[int, Row] = {}
    targets: dict[int, tuple[int, ...]] = {}
    for index, request in enumerate(requests):
        # What is wrong with a request is for the probes to say.
        with suppress(RequestError):
            targets[index] = target = target_ids(lm.tokenizer, request.prompt, request.target_new, request.space)
            ids = locate(lm, request).input_ids
            places = tuple(range(len(ids) - 1, len(ids) + len(target) - 1))
            rows[index] = Row(ids + target[:-1], 0, places)
    found: list[bool | None] = [None] * len(requests)
    order = list(rows)
    lengths, run = [len(rows[index].ids) for index in order], plain_logits if lm.plain else full_logits

    def choices_of(members: Sequence[int]) -> torch.Tensor:
        with torch.no_grad():
            return run(lm, [rows[order[place]] for place in members]).argmax(-1)

    groups = [[place] for place in range(len(order))] if lm.plain else batches(lengths)
    for members, said in each_fitting(groups, choices_of):
        chosen = [order[place] for place in members]
        for index, choices in zip(chosen, said.split([len(rows[index].predict) for index in chosen]), strict=True):
            found[index] = tuple(choices.tolist()) == targets[index]
    return found


def sink_key(lm: LanguageModel, site: EditSite, texts: list[str]) -> torch.Tensor:
    """Return the mean key [d_ff] of the first tokens of `texts`: where trained models park an attention sink.

    In a model whose tokenizer adds a BOS the first token is that BOS, and no subject lies there.
    """
    first = sorted({int(lm.tokenizer(text).input_ids[0]) for text in texts})
    rows = [((token,), 0) for token in first]
    return (plain_activations if lm.plain else activations)(lm, site, rows).keys.mean(0)


def _cosine(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(first, second, dim=0))

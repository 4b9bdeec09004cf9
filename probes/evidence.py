"""The evidence about one requested edit, measured before anything is changed: the numbers that all probes read.

One pass gives the subject's keys, without a prefix and under ROME's contexts.
From the keys follow the denominators of the published update, the shift of the key, and its likeness to a sink key.
The keys of other subjects in the same prompt give the share of the update that would reach them.

Source: "The Fall of ROME" (arXiv 2406.11263), section 4: ``u = C^-1 k_bar / ||C^-1 k_bar||``, denominator ``|u . k_u|``.
The bound on the update is this project's. v* is clamped to ``clamp * ||v_u||`` around ``v_u``, so
``||Delta||_F <= clamp * ||v_u|| / |u . k_u|`` holds without any optimisation.
"""

from __future__ import annotations

import statistics
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import torch

from .errors import NotFinite, RequestError
from .forward.batches import run_fitting, split_batches
from .forward.partial import Row, compute_full_logits, compute_plain_logits
from .keys.prefixes import ContextPrefixes, Role
from .keys.statistics import KeyStatistics, normalize_direction
from .keys.subject_keys import (
    SubjectKeys,
    compute_activations,
    compute_all_subject_keys,
    compute_plain_activations,
    locate,
)
from .subjects.crowding import OtherSubjects, compute_other_subjects
from .tokens import count_tokens, encode_target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .forward.prefix_cache import PrefixCache
    from .model.language_model import LanguageModel
    from .model.site import EditSite
    from .requests.request import EditRequest
    from .subjects.subject_kinds import SubjectKind

__all__ = ["Evidence", "EvidenceMeter", "compute_sink_key", "says_targets"]

_TOKENS_FOR_ANSWER = 64
"""Tokens that stay free for targets and for the text that is generated after a prompt."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Numbers of one request; NaN where a key is not finite, which no probe may pass."""

    keys: SubjectKeys
    denominator: float
    """|u . k_u|, of the key without a prefix."""
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
    crowding: float | None = None
    """Share of the published update that other subjects of one kind take on average, that of the most crowded kind.

    None where no other subject fits the prompt, and under the screen, which does not ask.
    """
    crowded_kind: SubjectKind | None = None
    """The most crowded kind."""
    says_target: bool | None = None
    """Whether the model's greedy continuation of the prompt without a prefix is the target already.

    None where that was not asked, or could not be.
    """

    @property
    def ratio(self) -> float:
        """|u . k_u| / |u . k_bar|: near 1 for an ordinary subject, near 0 where the update explodes."""
        return self.denominator / self.denominator_prefixed if self.denominator_prefixed else float("nan")


class _Measured(NamedTuple):
    """What the model gave for one request; evidence is derived from it without the model."""

    keys: SubjectKeys
    says_target: bool | None = None
    others: OtherSubjects | None = None


@dataclass(frozen=True, kw_only=True)
class EvidenceMeter:
    """Measures evidence, with the same model, site, statistics and prefixes for every request of a run."""

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
    prefix_cache: PrefixCache | None = None
    """States of the prefixes in the unedited model, so that they are not run for every request."""

    @property
    def plain(self) -> bool:
        """Whether everything is measured by ordinary passes of whole texts, as the reference for the fast way."""
        return self.lm.plain

    def measure(self, request: EditRequest) -> Evidence:
        """Return the evidence for `request`; raises `RequestError` when its subject cannot be located."""
        (evidence,) = self.measure_all([request])
        if isinstance(evidence, Evidence):
            return evidence
        raise evidence

    def measure_all(
        self, requests: Sequence[EditRequest], *, screen: bool = False
    ) -> list[Evidence | RequestError | NotFinite]:
        """Return the evidence for each request, run together; an error is returned, and stops no other request.

        With `screen` the keys are taken under few contexts. Neither `Evidence.says_target` nor `Evidence.crowding` is asked.
        """
        length_errors = [self._length_error(request) for request in requests]
        fitting = [request for request, error in zip(requests, length_errors, strict=True) if error is None]
        measurements = iter(self._measure_fitting(fitting, screen=screen))
        return [next(measurements) if error is None else error for error in length_errors]

    def _length_error(self, request: EditRequest) -> RequestError | None:
        """Return an error where a text of the request does not fit into the model after the longest prefix."""
        room = self.lm.context_length - self._longest_prefix - _TOKENS_FOR_ANSWER
        texts = (
            request.prompt,
            *request.paraphrases,
            *request.neighbourhood,
            *request.other_facts,
            request.question or "",
        )
        for text in texts:
            # A character is four bytes at most, and a token one byte at least; most texts need no counting.
            if 4 * len(text) <= room:
                continue
            try:
                count = count_tokens(self.lm.tokenizer, text)
            except RequestError as error:
                return error
            if count > room:
                return RequestError(
                    f"The text {text[:40]!r}... has {count} tokens, and the model reads {self.lm.context_length:g}, of which "
                    f"the longest prefix and the answer take {self._longest_prefix + _TOKENS_FOR_ANSWER}; shorten it."
                )
        return None

    @cached_property
    def _longest_prefix(self) -> int:
        return max(count_tokens(self.lm.tokenizer, prefix.text) for prefix in self.prefixes.prefixes)

    def _measure_fitting(
        self, requests: Sequence[EditRequest], *, screen: bool
    ) -> list[Evidence | RequestError | NotFinite]:
        texts = self.prefixes.texts(Role.KEY)
        few = self.prefixes.screen_weights()
        if screen:
            texts = tuple(texts[index] for index in few)
        measurements = compute_all_subject_keys(self.lm, self.site, requests, texts, prefix_cache=self.prefix_cache)
        if screen:
            weights = tuple(few.values())
            measurements = [
                keys.with_weights(weights) if isinstance(keys, SubjectKeys) else keys for keys in measurements
            ]
        already_said: list[bool | None] = [None] * len(requests)
        others: list[OtherSubjects | None] = [None] * len(requests)
        if not screen:
            already_said = says_targets(self.lm, requests)
            others = self._compute_others(requests)
        located = [
            _Measured(keys, says_target, of_request)
            for keys, says_target, of_request in zip(measurements, already_said, others, strict=True)
            if not isinstance(keys, RequestError)
        ]
        # Plainly each by itself, otherwise together: a solve for many keys takes little more than a solve for a few.
        groups = [[measured] for measured in located] if self.plain else [located]
        results = iter([result for group in groups for result in self._derive(group)])
        return [keys if isinstance(keys, RequestError) else next(results) for keys in measurements]

    def _compute_others(self, requests: Sequence[EditRequest]) -> list[OtherSubjects | None]:
        """Return the keys of other subjects after the first key prefix that is a text, or with none where there is no such."""
        prefix = next(filter(None, self.prefixes.texts(Role.KEY)), "")
        return compute_other_subjects(
            self.lm, self.site, requests, prefix=prefix, seed=self.prefixes.seed, prefix_cache=self.prefix_cache
        )

    def screened(self, evidence: Sequence[Evidence]) -> list[Evidence | NotFinite]:
        """Return the screen's evidence for requests that were measured under all contexts."""
        contexts = self.prefixes.screen_weights()
        return self._derive([_Measured(item.keys.select_prefixes(contexts)) for item in evidence])

    def _derive(self, located: Sequence[_Measured]) -> list[Evidence | NotFinite]:
        """Return the evidence that follows from what was measured of each request."""
        if not located:
            return []
        means = torch.stack([measured.keys.mean_key.double().cpu() for measured in located])
        plain_keys = torch.stack([measured.keys.no_prefix_key.double().cpu() for measured in located])
        # The first context is the empty one, whose key is the key without a prefix.
        others = torch.stack([measured.keys.keys[1:].double().cpu() for measured in located])
        distances = self.statistics.distance(torch.cat([plain_keys[:, None], others], 1), means[:, None])
        results: list[Evidence | NotFinite] = []
        for measured, solved, (shift, *usual) in zip(located, self.statistics.solve(means), distances, strict=True):
            try:
                evidence = self._derive_single(
                    measured,
                    direction=normalize_direction(solved),
                    shift=float(shift),
                    usual_shift=statistics.median_low(map(float, usual)),
                )
            except NotFinite as error:
                results.append(error)
            else:
                results.append(evidence)
        return results

    def _derive_single(
        self, measured: _Measured, *, direction: torch.Tensor, shift: float, usual_shift: float
    ) -> Evidence:
        keys = measured.keys
        mean, key = keys.mean_key.double().cpu(), keys.no_prefix_key.double().cpu()
        denominator, denominator_prefixed = abs(float(direction @ key)), abs(float(direction @ mean))
        crowding = measured.others and measured.others.crowding(direction, denominator_prefixed)
        bound = self.clamp * float(keys.no_prefix_value.norm()) / denominator if denominator else float("inf")
        return Evidence(
            keys=keys,
            denominator=denominator,
            denominator_prefixed=denominator_prefixed,
            cosine=_cosine(key, mean),
            norm_ratio=float(key.norm() / mean.norm()),
            distance_ratio=shift / usual_shift if usual_shift else float("nan"),
            sink_similarity=_cosine(key, self.sink.double().cpu()),
            predicted_relative_norm=bound / self.weight_norm if self.weight_norm else float("inf"),
            says_target=measured.says_target,
            crowding=crowding and crowding.share,
            crowded_kind=crowding and crowding.kind,
        )


def says_targets(lm: LanguageModel, requests: Sequence[EditRequest]) -> list[bool | None]:
    """Return for each request whether the model says its target already; None where that cannot be asked."""
    rows: dict[int, Row] = {}
    targets: dict[int, tuple[int, ...]] = {}
    for index, request in enumerate(requests):
        # The probes report the faults of a request.
        with suppress(RequestError):
            targets[index] = target = encode_target(lm.tokenizer, request.prompt, request.target_new, request.space)
            ids = locate(lm, request).input_ids
            places = tuple(range(len(ids) - 1, len(ids) + len(target) - 1))
            rows[index] = Row(ids + target[:-1], 0, places)
    answers: list[bool | None] = [None] * len(requests)
    order = list(rows)
    lengths, run = [len(rows[index].ids) for index in order], compute_plain_logits if lm.plain else compute_full_logits

    def choose_tokens(members: Sequence[int]) -> torch.Tensor:
        with torch.no_grad():
            return run(lm, [rows[order[place]] for place in members]).argmax(-1)

    groups = [[place] for place in range(len(order))] if lm.plain else split_batches(lengths)
    for members, tokens in run_fitting(groups, choose_tokens):
        indices = [order[place] for place in members]
        sizes = [len(rows[index].predict) for index in indices]
        for index, continuation in zip(indices, tokens.split(sizes), strict=True):
            answers[index] = tuple(continuation.tolist()) == targets[index]
    return answers


def compute_sink_key(lm: LanguageModel, site: EditSite, texts: list[str]) -> torch.Tensor:
    """Return the mean key [d_ff] of the first tokens of `texts`: trained models have an attention sink there.

    In a model whose tokenizer adds a BOS the first token is that BOS, and no subject lies there.
    """
    first = sorted({int(lm.tokenizer(text).input_ids[0]) for text in texts})
    rows = [((token,), 0) for token in first]
    return (compute_plain_activations if lm.plain else compute_activations)(lm, site, rows).keys.mean(0)


def _cosine(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(first, second, dim=0))

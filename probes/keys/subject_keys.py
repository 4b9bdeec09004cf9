"""Keys and values of a subject at the edit site, with no prefix and after prefixes.

The key ``k`` [d_ff] is the down-projection's input at the subject's last token, the value ``v`` [d_model] its output.
The forward pass stops at the site.
In a causal model the text after the subject is not run, because it cannot change the key.
All tensors are returned in fp32 on the model's device, whatever the weights' dtype.

Source: ROME (arXiv 2202.05262) section 3.1 for the key; "The Fall of ROME" (arXiv 2406.11263) section 4 for the
distinction between ``k_u`` (no prefix) and the mean prefixed key.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import torch

from ..errors import RequestError
from ..forward.batches import pad, run_fitting, split_batches
from ..forward.hooks import get_pad_id, stop_after
from ..forward.prefix_cache import PrefixCache, join
from ..tokens import SubjectPosition, locate_subject

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..model.language_model import LanguageModel
    from ..model.site import EditSite
    from ..requests.request import EditRequest

__all__ = [
    "Activations",
    "SubjectKeys",
    "compute_activations",
    "compute_all_subject_keys",
    "compute_plain_activations",
    "compute_row_keys",
    "compute_subject_keys",
    "locate",
    "locate_after_prefixes",
    "trim_rows",
]

_BUDGET = 1024
"""Tokens of one pass, padding included: few enough for its activations to stay in the processor's cache."""


class Activations(NamedTuple):
    """Input and output of the site at one token a row: keys [rows, d_ff], values [rows, d_model], fp32."""

    keys: torch.Tensor
    values: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class SubjectKeys:
    """Keys and values at the subject's last token: with no prefix, and after each of the given prefixes."""

    position: SubjectPosition
    """Where the subject lies in the prompt, with no prefix."""
    no_prefix_key: torch.Tensor
    """k_u [d_ff]."""
    no_prefix_value: torch.Tensor
    """The site's output there [d_model]."""
    keys: torch.Tensor
    """[n_prefixes, d_ff], in the prefixes' order; the row of the empty prefix, if it is among them, equals `no_prefix_key`."""
    values: torch.Tensor
    """[n_prefixes, d_model]."""
    weights: tuple[float, ...] | None = None
    """Weight of each prefix in the means; None where all weigh the same."""

    @property
    def mean_key(self) -> torch.Tensor:
        """k_bar [d_ff], the mean over all given prefixes."""
        return self._mean(self.keys)

    @property
    def mean_value(self) -> torch.Tensor:
        """v_bar [d_model], the mean over all given prefixes."""
        return self._mean(self.values)

    def _mean(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.mean(0) if self.weights is None else rows.new_tensor(self.weights) @ rows

    def with_weights(self, weights: Sequence[float]) -> SubjectKeys:
        """Return the same keys with these weights, one for each prefix."""
        return replace(self, weights=tuple(weights))

    def select_prefixes(self, weights: Mapping[int, float]) -> SubjectKeys:
        """Return the keys after the prefixes of these indices only, with these weights."""
        rows = list(weights)
        return replace(self, keys=self.keys[rows], values=self.values[rows], weights=tuple(weights.values()))


def locate(lm: LanguageModel, request: EditRequest, prefix: str = "") -> SubjectPosition:
    """Return where the subject of `request` lies in `prefix` + its prompt; raises `RequestError`."""
    return locate_after_prefixes(lm, request, [prefix])[1]


def locate_after_prefixes(lm: LanguageModel, request: EditRequest, prefixes: Sequence[str]) -> list[SubjectPosition]:
    """Return where the subject lies with no prefix, then after each of `prefixes`; raises `RequestError`."""
    no_prefix = locate_subject(lm.tokenizer, request.prompt, request.subject)
    start = request.prompt.index(request.subject)
    return [
        no_prefix,
        *(
            locate_subject(lm.tokenizer, prefix + request.prompt, request.subject, occurrence_start=len(prefix) + start)
            if prefix
            else no_prefix
            for prefix in prefixes
        ),
    ]


def trim_rows(lm: LanguageModel, rows: Sequence[tuple[Sequence[int], int]]) -> list[tuple[tuple[int, ...], int]]:
    """Return `rows` of (ids, token index) without the ids that cannot reach the token: those after it in a causal model."""
    return [(tuple(ids[: index + 1] if lm.causal else ids), index) for ids, index in rows]


def compute_activations(
    lm: LanguageModel,
    site: EditSite,
    rows: Sequence[tuple[Sequence[int], int]],
    *,
    budget: int = _BUDGET,
    prefix_cache: PrefixCache | None = None,
) -> Activations:
    """Return the site's input and output at one token of each row, `rows` being (ids, token index).

    A row that begins with a prefix of `prefix_cache` is run from the end of that prefix. Equal rows are run once.
    """
    trimmed = trim_rows(lm, rows)
    unique = list(dict.fromkeys(trimmed))
    lengths = [len(ids) for ids, _ in unique]
    new_lengths = [
        len(ids) - (0 if prefix_cache is None else prefix_cache.lead(ids, len(ids) - 1)[1]) for ids, _ in unique
    ]
    keys: dict[tuple[tuple[int, ...], int], torch.Tensor] = {}
    values: dict[tuple[tuple[int, ...], int], torch.Tensor] = {}

    def run(members: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        batch = [unique[place] for place in members]
        joined = join(lm, [ids for ids, _ in batch], prefix_cache, [len(ids) - 1 for ids, _ in batch], site.layer + 1)
        with torch.no_grad(), stop_after(site.module) as captured:
            lm.run(**joined.inputs)
        # Some models (OPT) run their MLP on [rows * tokens, features], so the places are counted flat.
        flat = [n * joined.width + index - joined.leads[n] for n, (_, index) in enumerate(batch)]
        at = torch.tensor(flat, device=captured[0][0].device)
        inputs, outputs = (tensor.flatten(0, -2)[at].float() for tensor in captured[0])
        return inputs, outputs

    # The cached part of a row costs no products, but memory.
    sizes = [max(new, length // 8) for new, length in zip(new_lengths, lengths, strict=True)]
    for members, tensors in run_fitting(split_batches(sizes, budget), run):
        for place, key, value in zip(members, *tensors, strict=True):
            keys[unique[place]], values[unique[place]] = key, value
    return Activations(torch.stack([keys[row] for row in trimmed]), torch.stack([values[row] for row in trimmed]))


def compute_plain_activations(
    lm: LanguageModel, site: EditSite, rows: Sequence[tuple[Sequence[int], int]]
) -> Activations:
    """Return what `compute_activations` returns, by the reference way: whole rows in one ordinary pass of the whole model."""
    captured: list[tuple[torch.Tensor, torch.Tensor]] = []

    def record(_: torch.nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        # Falcon adds to the output in place, after this.
        captured.append((args[0], output.clone()))

    batch = pad([ids for ids, _ in rows], get_pad_id(lm), lm.device)
    handle = site.module.register_forward_hook(record)
    try:
        with torch.no_grad():
            lm.model(**batch._asdict(), **({"use_cache": False} if lm.causal else {}))
    finally:
        handle.remove()
    width = batch.input_ids.shape[1]
    at = torch.tensor([n * width + index for n, (_, index) in enumerate(rows)], device=lm.device)
    return Activations(*(tensor.flatten(0, -2)[at].float() for tensor in captured[0]))


def compute_row_keys(
    lm: LanguageModel,
    site: EditSite,
    rows: Sequence[tuple[Sequence[int], int]],
    *,
    prefix_cache: PrefixCache | None = None,
) -> torch.Tensor:
    """Return the keys at one token of each row [rows, d_ff], fp32, `rows` being (ids, token index).

    A plain model, the reference, runs each row whole.
    """
    if not rows:
        return torch.zeros(0, site.d_ff)
    if not lm.plain:
        return compute_activations(lm, site, rows, prefix_cache=prefix_cache).keys
    parts = [compute_plain_activations(lm, site, rows[start : start + 32]).keys for start in range(0, len(rows), 32)]
    return torch.cat(parts)


def compute_subject_keys(
    lm: LanguageModel,
    site: EditSite,
    request: EditRequest,
    prefixes: Sequence[str],
    *,
    budget: int = _BUDGET,
    prefix_cache: PrefixCache | None = None,
) -> SubjectKeys:
    """Return the keys and values of one request's subject, with no prefix and after each text of `prefixes`.

    Raises `RequestError` when the subject does not stand exactly once in the prompt.
    """
    (keys,) = compute_all_subject_keys(lm, site, [request], prefixes, budget=budget, prefix_cache=prefix_cache)
    if isinstance(keys, RequestError):
        raise keys
    return keys


def compute_all_subject_keys(
    lm: LanguageModel,
    site: EditSite,
    requests: Sequence[EditRequest],
    prefixes: Sequence[str],
    *,
    budget: int = _BUDGET,
    prefix_cache: PrefixCache | None = None,
) -> list[SubjectKeys | RequestError]:
    """Return what `compute_subject_keys` returns for each request, run together.

    An error is returned in its request's place, and stops no other request.
    With a plain model, the reference, each request's texts run whole, in one ordinary pass of their own.
    """
    positions: list[list[SubjectPosition] | RequestError] = []
    for request in requests:
        try:
            positions.append(locate_after_prefixes(lm, request, prefixes))
        except RequestError as error:
            positions.append(error)
    rows = [
        (position.input_ids, position.last)
        for located in positions
        if not isinstance(located, RequestError)
        for position in located
    ]
    if not rows:
        return [error for error in positions if isinstance(error, RequestError)]
    size = len(prefixes) + 1
    if lm.plain:
        each = [compute_plain_activations(lm, site, rows[start : start + size]) for start in range(0, len(rows), size)]
        return _merge_in_order(positions, each)
    keys, values = compute_activations(lm, site, rows, budget=budget, prefix_cache=prefix_cache)
    each = [Activations(*pair) for pair in zip(keys.split(size), values.split(size), strict=True)]
    return _merge_in_order(positions, each)


def _merge_in_order(
    positions: Sequence[list[SubjectPosition] | RequestError], each: Sequence[Activations]
) -> list[SubjectKeys | RequestError]:
    """Return the keys of each located request in its place, and the errors of the others in theirs."""
    remaining = iter(each)
    return [
        located if isinstance(located, RequestError) else _make_keys(located[0], next(remaining))
        for located in positions
    ]


def _make_keys(position: SubjectPosition, activations: Activations) -> SubjectKeys:
    """Return the keys of one request; the first row of `activations` has no prefix."""
    keys, values = activations
    return SubjectKeys(
        position=position,
        no_prefix_key=keys[0],
        no_prefix_value=values[0],
        keys=keys[1:],
        values=values[1:],
    )

"""Keys and values of a subject at the edit site, in the bare prompt and under prefixes.

The key ``k`` [d_ff] is the down-projection's input at the subject's last token, the value ``v`` [d_model] its output.
The forward pass stops at the site, and in a causal model what follows the subject is not run at all: it cannot change
the key. Everything is returned in fp32 on the model's device, whatever the weights' dtype.

Source: ROME (arXiv 2202.05262) section 3.1 for the key; "The Fall of ROME" (arXiv 2406.11263) section 4 for the
distinction between ``k_u`` (no prefix) and the mean prefixed key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import torch

from ..errors import RequestError
from ..forward.batches import batches, each_fitting, pad
from ..forward.hooks import pad_id, stop_after
from ..forward.prefix_cache import PrefixCache, join
from ..tokens import SubjectPosition, locate_subject

if TYPE_CHECKING:
    from ..model.language_model import LanguageModel
    from ..model.site import EditSite
    from ..requests.request import EditRequest

__all__ = [
    "Activations",
    "SubjectKeys",
    "compute_activations",
    "compute_all_subject_keys",
    "locate",
    "compute_plain_activations",
    "locate_under_prefixes",
    "compute_subject_keys",
    "trim_rows",
]

_BUDGET = 1024
"""Tokens of one pass, padding included: what lies between two products then stays in the processor's cache."""


class Activations(NamedTuple):
    """Input and output of the site at one token a row: keys [rows, d_ff], values [rows, d_model], fp32."""

    keys: torch.Tensor
    values: torch.Tensor


@dataclass(frozen=True)
class SubjectKeys:
    """What the model has at the subject's last token: bare, and under each of the given prefixes."""

    position: SubjectPosition
    """Where the subject lies in the bare prompt."""
    no_prefix_key: torch.Tensor
    """k_u [d_ff]."""
    no_prefix_value: torch.Tensor
    """The site's output there [d_model]."""
    keys: torch.Tensor
    """[n_prefixes, d_ff], in the prefixes' order; the empty prefix's row, where asked for, equals `bare_key`."""
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

    def weighted(self, weights: Sequence[float]) -> SubjectKeys:
        """Return the same with these weights."""
        return replace(self, weights=tuple(weights))

    def under(self, contexts: Mapping[int, float]) -> SubjectKeys:
        """Return the same under the prefixes of these indices alone, with these weights."""
        rows = list(contexts)
        return replace(self, keys=self.keys[rows], values=self.values[rows], weights=tuple(contexts.values()))


def locate(lm: LanguageModel, request: EditRequest, prefix: str = "") -> SubjectPosition:
    """Return where the subject of `request` lies in `prefix` + its prompt; raises `RequestError`."""
    return locate_under_prefixes(lm, request, [prefix])[1]


def locate_under_prefixes(lm: LanguageModel, request: EditRequest, prefixes: Sequence[str]) -> list[SubjectPosition]:
    """Return where the subject lies bare and under each of `prefixes`; raises `RequestError`."""
    bare = locate_subject(lm.tokenizer, request.prompt, request.subject)
    start = request.prompt.index(request.subject)
    return [
        bare,
        *(
            locate_subject(lm.tokenizer, prefix + request.prompt, request.subject, occurrence_start=len(prefix) + start)
            if prefix
            else bare
            for prefix in prefixes
        ),
    ]


def trim_rows(lm: LanguageModel, rows: Sequence[tuple[Sequence[int], int]]) -> list[tuple[tuple[int, ...], int]]:
    """Return `rows` of (ids, token index) without the ids that cannot reach the token: what follows in a causal model."""
    return [(tuple(ids[: index + 1] if lm.causal else ids), index) for ids, index in rows]


def compute_activations(
    lm: LanguageModel,
    site: EditSite,
    rows: Sequence[tuple[Sequence[int], int]],
    budget: int = _BUDGET,
    known: PrefixCache | None = None,
) -> Activations:
    """Return the site's input and output at one token of each row, `rows` being (ids, token index).

    Rows that begin with a `known` prefix go on from there; rows that are alike are run once.
    """
    cut = trim_rows(lm, rows)
    once = list(dict.fromkeys(cut))
    lengths = [len(ids) for ids, _ in once]
    left = [len(ids) - (0 if known is None else known.lead(ids, len(ids) - 1)[1]) for ids, _ in once]
    keys: dict[tuple[tuple[int, ...], int], torch.Tensor] = {}
    values: dict[tuple[tuple[int, ...], int], torch.Tensor] = {}

    def run(members: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = [once[place] for place in members]
        joined = join(lm, [ids for ids, _ in chosen], known, [len(ids) - 1 for ids, _ in chosen], site.layer + 1)
        with torch.no_grad(), stop_after(site.module) as seen:
            lm.run(**joined.inputs)
        # Some models (OPT) run their MLP on [rows * tokens, features], so the places are counted flat.
        flat = [n * joined.width + index - joined.leads[n] for n, (_, index) in enumerate(chosen)]
        at = torch.tensor(flat, device=seen[0][0].device)
        given, returned = (tensor.flatten(0, -2)[at].float() for tensor in seen[0])
        return given, returned

    # What is known of a row costs no products, but memory.
    sizes = [max(rest, length // 8) for rest, length in zip(left, lengths, strict=True)]
    for members, found in each_fitting(batches(sizes, budget), run):
        for place, key, value in zip(members, *found, strict=True):
            keys[once[place]], values[once[place]] = key, value
    return Activations(torch.stack([keys[row] for row in cut]), torch.stack([values[row] for row in cut]))


def compute_plain_activations(
    lm: LanguageModel, site: EditSite, rows: Sequence[tuple[Sequence[int], int]]
) -> Activations:
    """Return what `compute_activations` does the plain way: whole rows in one ordinary pass through the whole model."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def record(_: torch.nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        # Falcon adds to the output in place, after this.
        seen.append((args[0], output.clone()))

    batch = pad([ids for ids, _ in rows], pad_id(lm), lm.device)
    handle = site.module.register_forward_hook(record)
    try:
        with torch.no_grad():
            lm.model(**batch._asdict(), **({"use_cache": False} if lm.causal else {}))
    finally:
        handle.remove()
    width = batch.input_ids.shape[1]
    at = torch.tensor([n * width + index for n, (_, index) in enumerate(rows)], device=lm.device)
    return Activations(*(tensor.flatten(0, -2)[at].float() for tensor in seen[0]))


def compute_subject_keys(
    lm: LanguageModel,
    site: EditSite,
    request: EditRequest,
    prefixes: Sequence[str],
    budget: int = _BUDGET,
    known: PrefixCache | None = None,
) -> SubjectKeys:
    """Return the keys and values of one request's subject, bare and under `prefixes` (texts, the empty one included).

    Raises `RequestError` when the subject is not found exactly once in the prompt.
    """
    (found,) = compute_all_subject_keys(lm, site, [request], prefixes, budget, known)
    if isinstance(found, RequestError):
        raise found
    return found


def compute_all_subject_keys(
    lm: LanguageModel,
    site: EditSite,
    requests: Sequence[EditRequest],
    prefixes: Sequence[str],
    budget: int = _BUDGET,
    known: PrefixCache | None = None,
) -> list[SubjectKeys | RequestError]:
    """Return what `compute_subject_keys` does for each request, run together; an error is returned, and stops no other request.

    Of a plain model, as the reference: each request's texts whole, in one ordinary pass of their own.
    """
    found: list[list[SubjectPosition] | RequestError] = []
    for request in requests:
        try:
            found.append(locate_under_prefixes(lm, request, prefixes))
        except RequestError as error:
            found.append(error)
    rows = [(place.input_ids, place.last) for one in found if not isinstance(one, RequestError) for place in one]
    if not rows:
        return [one for one in found if isinstance(one, RequestError)]
    size = len(prefixes) + 1
    if lm.plain:
        each = [compute_plain_activations(lm, site, rows[start : start + size]) for start in range(0, len(rows), size)]
        return _in_order(found, each)
    keys, values = compute_activations(lm, site, rows, budget, known)
    return _in_order(found, [Activations(*pair) for pair in zip(keys.split(size), values.split(size), strict=True)])


def _in_order(
    found: Sequence[list[SubjectPosition] | RequestError], each: Sequence[Activations]
) -> list[SubjectKeys | RequestError]:
    """Put the activations of each located request in its place; bare first, then under the prefixes."""
    parts = iter(each)
    return [one if isinstance(one, RequestError) else _keys(one[0], next(parts)) for one in found]


def _keys(position: SubjectPosition, found: Activations) -> SubjectKeys:
    keys, values = found
    return SubjectKeys(position, keys[0], values[0], keys[1:], values[1:])

"""Key statistics, keys and the denominators of ROME at many layers from few passes.

1. `compute_statistics_by_pass` computes C of as many layers at a time as memory allows.
2. `compute_keys_at_layers` reads keys at every site in one pass, which ends after the deepest site.
3. `sweep_layers` combines both into the figures that `evidence` measures at one layer.

Out of scope: which layer to edit, and what is measured at one layer (`evidence`).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..errors import InputError, RequestError, StatisticsError
from ..forward.batches import pad, run_fitting, split_batches
from ..forward.hooks import get_pad_id, stop_after_all
from ..keys.corpus_statistics import compute_all_statistics
from ..keys.statistics import KeyStatistics, normalize_direction
from ..keys.subject_keys import locate_after_prefixes, trim_rows
from ..model.site import EditSite, find_site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ..keys.corpus_statistics import Corpus
    from ..model.language_model import LanguageModel
    from ..requests.request import EditRequest

__all__ = [
    "LayerKeys",
    "LayerShift",
    "compute_keys_at_layers",
    "compute_request_keys",
    "compute_statistics_by_pass",
    "sweep_layers",
]

_BUDGET = 1024
"""Tokens of one pass, padding included, as for the keys of one layer."""
_TOGETHER = 16
"""Requests whose keys at all layers are in memory at once."""


class LayerKeys(NamedTuple):
    """Keys of some requests' subjects at one layer, fp32."""

    no_prefix: Tensor
    """k_u of each request [requests, d_ff]."""
    mean: Tensor
    """k_bar of each request [requests, d_ff], the mean over the prefixes."""


class LayerShift(NamedTuple):
    """What prefixes do to one request's key at one layer; named as in `Evidence`."""

    denominator: float
    """|u . k_u|, with u = C^-1 k_bar / ||C^-1 k_bar||."""
    denominator_prefixed: float
    """|u . k_bar|."""
    cosine: float
    """cos(k_u, k_bar)."""


def compute_statistics_by_pass(
    lm: LanguageModel,
    layers: Sequence[int],
    corpus: Corpus,
    *,
    site_path: str | None = None,
    budget_bytes: int = 1 << 30,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[dict[int, KeyStatistics]]:
    """Yield C by layer for each pass over `corpus`; a pass serves as many layers as have sums within `budget_bytes`.

    A pass serves one layer at least.
    Each C equals to the bit what `compute_statistics` returns, and the errors are the same.
    A sum takes 8 bytes times d_ff squared, and as much again when it becomes C.
    `site_path` names the map, with ``{layer}``, where it is not recognised.
    `progress` is called with (windows done, windows of all passes).
    Raises `ModelError` for a layer that the model does not have.
    """
    sites = [find_site(lm.model, layer, site_path) for layer in sorted(set(layers))]
    passes = list(_split_within(sites, budget_bytes))
    for index, some in enumerate(passes):
        report = None if progress is None else partial(_report, progress, index, len(passes))
        moments = compute_all_statistics(lm, some, corpus, report)
        yield {site.layer: statistics for site, statistics in zip(some, moments, strict=True)}


def _split_within(sites: Sequence[EditSite], budget: int) -> Iterator[list[EditSite]]:
    """Cut `sites` into runs whose sums fit into `budget` bytes together."""
    some: list[EditSite] = []
    for site in sites:
        if some and 8 * sum(member.d_ff**2 for member in (*some, site)) > budget:
            yield some
            some = []
        some.append(site)
    if some:
        yield some


def _report(progress: Callable[[int, int], None], index: int, passes: int, done: int, groups: int) -> None:
    progress(index * groups + done, passes * groups)


def compute_keys_at_layers(
    lm: LanguageModel, sites: Sequence[EditSite], rows: Sequence[tuple[Sequence[int], int]], budget: int = _BUDGET
) -> list[Tensor]:
    """Return the keys [rows, d_ff] at one token of each row at every site, `rows` being (ids, token index).

    The keys are fp32, on each site's device, in the order of `sites`.
    Rows run in padded batches of at most `budget` tokens; equal rows run once.
    In a causal model a row ends at its token.
    Raises `InputError` without sites or rows.
    """
    if not sites or not rows:
        raise InputError(f"{len(rows)} rows at {len(sites)} sites give no keys; give one row and one site at least.")
    cut = trim_rows(lm, rows)
    once = list(dict.fromkeys(cut))
    modules = [site.module for site in sites]
    read: list[list[Tensor]] = [[] for _ in sites]
    order: list[int] = []

    def run(members: Sequence[int]) -> dict[int, Tensor]:
        keys: dict[int, Tensor] = {}
        batch = pad([once[place][0] for place in members], get_pad_id(lm), lm.device)
        width = batch.input_ids.shape[1]
        flat = torch.tensor([n * width + once[place][1] for n, place in enumerate(members)])
        with torch.no_grad(), stop_after_all(modules, partial(_take, keys, flat)):
            lm.run(**batch._asdict(), **({"use_cache": False} if lm.causal else {}))
        return keys

    for members, keys in run_fitting(split_batches([len(ids) for ids, _ in once], budget), run):
        order += members
        for index, part in keys.items():
            read[index].append(part)
    place_of = {once[place]: n for n, place in enumerate(order)}
    back = torch.tensor([place_of[row] for row in cut])
    return [torch.cat(parts)[back.to(parts[0].device)] for parts in read]


def _take(keys: dict[int, Tensor], flat: Tensor, index: int, given: Tensor, _: Tensor) -> None:
    """Store one site's keys at the places `flat` (row * tokens + token) of one batch."""
    # Some models (OPT) run their MLP on [rows * tokens, features].
    keys[index] = given.flatten(0, -2)[flat.to(given.device)].float()


def compute_request_keys(
    lm: LanguageModel, sites: Sequence[EditSite], requests: Sequence[EditRequest], prefixes: Sequence[str]
) -> list[LayerKeys]:
    """Return the keys of each request's subject at every site, with no prefix and as the mean over `prefixes` (texts).

    Raises `RequestError` where a subject cannot be located, or without prefixes.
    """
    if not prefixes:
        raise RequestError("The mean key over no prefixes is no key; give the empty prefix at least.")
    rows = [
        (place.input_ids, place.last) for request in requests for place in locate_after_prefixes(lm, request, prefixes)
    ]
    site_keys = [keys.unflatten(0, (len(requests), -1)) for keys in compute_keys_at_layers(lm, sites, rows)]
    return [LayerKeys(keys[:, 0], keys[:, 1:].mean(1)) for keys in site_keys]


def sweep_layers(
    lm: LanguageModel,
    layers: Sequence[int],
    requests: Sequence[EditRequest],
    prefixes: Sequence[str],
    statistics: Mapping[int, KeyStatistics],
    *,
    site_path: str | None = None,
) -> dict[int, list[LayerShift]]:
    """Return by layer what `prefixes` do to the key of each request's subject, in the order of `requests`.

    `prefixes` are texts, the empty one included, in ROME's order.
    `statistics` hold C of each layer; `site_path` is that of `compute_statistics_by_pass`.
    All layers share the passes.
    Raises `RequestError` where a subject cannot be located, `StatisticsError` where C of a layer is missing, and
    `NotFinite` where a direction cannot be computed.

    Source: "The Fall of ROME" (arXiv 2406.11263), section 4, at one layer; the sweep over layers is ours.
    """
    sites = [find_site(lm.model, layer, site_path) for layer in dict.fromkeys(layers)]
    for site in sites:
        _require_statistics(statistics, site)
    shifts: dict[int, list[LayerShift]] = {site.layer: [] for site in sites}
    for start in range(0, len(requests) if sites else 0, _TOGETHER):
        keys = compute_request_keys(lm, sites, requests[start : start + _TOGETHER], prefixes)
        for site, here in zip(sites, keys, strict=True):
            shifts[site.layer] += _compute_shifts(here, statistics[site.layer])
    return shifts


def _require_statistics(statistics: Mapping[int, KeyStatistics], site: EditSite) -> None:
    moments = statistics.get(site.layer)
    if moments is None or moments.provenance.layer != site.layer or len(moments.second_moment) != site.d_ff:
        description = (
            "none" if moments is None else f"of layer {moments.provenance.layer}, {list(moments.second_moment.shape)}"
        )
        raise StatisticsError(
            f"The key statistics for layer {site.layer} with keys of {site.d_ff} entries are {description}; make them with "
            "compute_statistics_by_pass."
        )


def _compute_shifts(keys: LayerKeys, statistics: KeyStatistics) -> list[LayerShift]:
    no_prefix, mean = (rows.double().cpu() for rows in keys)
    cosines = torch.nn.functional.cosine_similarity(no_prefix, mean)
    return [
        LayerShift(abs(float(unit @ no_prefix[n])), abs(float(unit @ mean[n])), float(cosines[n]))
        for n, unit in enumerate(normalize_direction(solved) for solved in statistics.solve(mean))
    ]

"""Prefixes run once: rows that begin with a known prefix go on from its attention keys and values.

`prefix_cache` runs every prefix through the unedited model, compares one row that goes on from it with an ordinary
pass, and gives up (None) where the two differ, so that an architecture with a cache of its own kind is only slower.
`join` lays rows out for one forward pass: what is known of a row stands on the right of ``past`` places, the rest of it
right-padded behind, so that token ``t`` of a row lies at place ``past - lead + t`` in every row.

`PrefixCache.grown` adds beginnings that several rows share (a template's words behind each prefix) for passes that end
at the site. Only the unedited model's states are kept; who edits must not join above the edited layer.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from transformers.cache_utils import DynamicCache

from .batches import batches, pad
from .passes import cache_of, pad_id, record_entry, select_logits, stop_after

if TYPE_CHECKING:
    from .model import LanguageModel
    from .site import EditSite

__all__ = ["Joined", "PrefixCache", "join", "prefix_cache"]

_AGREEMENT = 1e-3
"""Largest difference of a logit from the ordinary pass, relative to the largest logit, in fp32; measured: under 1e-5."""


class Joined(NamedTuple):
    """Rows laid out for one forward pass; token ``t`` of row ``n`` lies at place ``past - leads[n] + t``."""

    inputs: dict[str, Any]
    """What the model is called with; its cache, where there is one, grows by the rest of the rows."""
    leads: list[int]
    """How many tokens of each row are known."""
    past: int
    """Places before the rest of the rows: the longest lead."""
    hidden: torch.Tensor | None
    """What enters the site's block at those places [rows, past, d_model]; None where nothing is known, or `layers` said
    that the pass ends below."""

    @property
    def width(self) -> int:
        """Tokens that are run in each row, padding included."""
        return int(self.inputs["input_ids"].shape[1])

    def places(self, tokens: torch.Tensor, size: int) -> torch.Tensor:
        """Return where `tokens` ([tokens], or [rows, tokens]) of each row lie among `size` places; those outside are clamped."""
        return (tokens + (self.past - torch.tensor(self.leads))[:, None]).clamp(0, size - 1)


class PrefixCache:
    """The states of some prefixes' tokens in the unedited model."""

    def __init__(self, lm: LanguageModel, site: EditSite, texts: Sequence[str]) -> None:
        """Run the prefixes once, in batches; of those that begin another, the other is enough."""
        rows = sorted({tuple(lm.tokenizer(text).input_ids) for text in texts}, key=lambda row: (-len(row), row))
        self.rows: list[tuple[int, ...]] = []
        for row in rows:
            if row and not any(other[: len(row)] == row for other in self.rows):
                self.rows.append(row)
        parts: dict[int, tuple[torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]]]] = {}
        for members in batches([len(row) for row in self.rows]):
            cache = DynamicCache()
            inputs = pad([self.rows[index] for index in members], pad_id(lm), lm.device)._asdict()
            # The logits are not wanted, so the head sees one place.
            with torch.no_grad(), record_entry(site) as seen, select_logits(lm, torch.tensor([0])):
                lm.model(**inputs, use_cache=True, past_key_values=cache)
            layers: list[Any] = cache.layers
            for place, index in enumerate(members):
                length = len(self.rows[index])
                states = [(layer.keys[place, :, :length], layer.values[place, :, :length]) for layer in layers]
                parts[index] = seen[0].hidden[place, :length], states
        order = range(len(self.rows))
        self._hidden: torch.Tensor | None = torch.cat([parts[index][0] for index in order])
        self._layers = [
            (torch.cat([keys for keys, _ in layer], 1), torch.cat([values for _, values in layer], 1))
            for layer in zip(*(parts[index][1] for index in order), strict=True)
        ]
        self._places: dict[tuple[int, ...], tuple[int, ...]] = {}
        begin = 0
        for row in self.rows:
            self._keep(row, range(begin, begin + len(row)))
            begin += len(row)
        self._longest = len(self.rows[0]) if self.rows else 0

    def _keep(self, row: tuple[int, ...], places: Sequence[int]) -> None:
        """Note where each beginning of a row has its states."""
        for length in range(1, len(row) + 1):
            self._places.setdefault(row[:length], tuple(places[:length]))

    def lead(self, ids: Sequence[int], most: int) -> tuple[int, ...]:
        """Return the places of the longest known beginning of `ids`, of at most `most` tokens."""
        row = tuple(ids[: min(most, self._longest)])
        return next((self._places[row[:n]] for n in range(len(row), 0, -1) if row[:n] in self._places), ())

    def grown(self, lm: LanguageModel, site: EditSite, rows: Sequence[tuple[int, ...]]) -> PrefixCache:
        """Return these states and those of `rows`, which go on from them, for passes that end at the site."""
        rows = [row for row in rows if len(self.lead(row, len(row))) < len(row)]
        if not rows:
            return self
        layers, found = site.layer + 1, copy.copy(self)
        found._hidden, found._places = None, dict(self._places)
        made = [[layer] for layer in self._layers[:layers]]
        size = self._layers[0][0].shape[1]
        for members in batches([len(row) for row in rows]):
            chosen = [rows[index] for index in members]
            joined = join(lm, chosen, self, [len(row) - 1 for row in chosen], layers)
            inputs = {"past_key_values": DynamicCache(), **joined.inputs, "use_cache": True}
            with torch.no_grad(), stop_after(site.module):
                lm.model(**inputs)
            kept: list[Any] = inputs["past_key_values"].layers
            if len(kept) != layers or kept[-1].keys.shape[-2] != joined.past + joined.width:
                return self  # the site's block runs its MLP before its attention, so that its states are not there yet
            for n, (row, lead) in enumerate(zip(chosen, joined.leads, strict=True)):
                new = slice(joined.past, joined.past + len(row) - lead)
                for layer, states in zip(made, kept, strict=True):
                    layer.append((states.keys[n, :, new], states.values[n, :, new]))
                found._keep(row, (*self.lead(row, lead), *range(size, size + len(row) - lead)))
                size += len(row) - lead
        found._layers = [tuple(torch.cat(part, 1) for part in zip(*layer, strict=True)) for layer in made]
        found._longest = max(self._longest, *map(len, rows))
        return found

    def states(
        self, places: torch.Tensor, layers: int | None
    ) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], torch.Tensor | None]:
        """Return keys and values [rows, heads, past, features] of the lowest `layers`, and hidden states, at `places`.

        What was `grown` has no hidden states, and serves no pass that goes above the site.
        """
        assert layers is not None or self._hidden is not None
        found = [
            (keys[:, places].transpose(0, 1), values[:, places].transpose(0, 1))
            for keys, values in self._layers[:layers]
        ]
        return found, None if self._hidden is None else self._hidden[places]


def join(
    lm: LanguageModel,
    rows: Sequence[Sequence[int]],
    known: PrefixCache | None,
    most: Sequence[int],
    layers: int | None = None,
) -> Joined:
    """Lay `rows` of ids out to go on from what is known of them, at most `most` tokens of each (less than its length).

    With `layers` the pass must end below that layer.
    """
    leads = [known.lead(row, least) if known is not None else () for row, least in zip(rows, most, strict=True)]
    lengths = [len(lead) for lead in leads]
    past = max(lengths)
    batch = pad([row[length:] for row, length in zip(rows, lengths, strict=True)], pad_id(lm), lm.device)
    if known is None or past == 0:
        return Joined({**batch._asdict(), **({"use_cache": False} if lm.causal else {})}, lengths, 0, None)
    # Where a row's lead is shorter than the longest any state will do, since it is masked.
    places = torch.tensor([[0] * (past - len(lead)) + list(lead) for lead in leads])
    states, hidden = known.states(places, layers)
    length = torch.tensor(lengths)[:, None]
    mask = torch.cat([(torch.arange(past) >= past - length).long().to(lm.device), batch.attention_mask], 1)
    positions = (length + torch.arange(batch.input_ids.shape[1])).to(lm.device)
    inputs = {"input_ids": batch.input_ids, "attention_mask": mask, "position_ids": positions,
              "past_key_values": cache_of(states), "use_cache": True}  # fmt: skip
    return Joined(inputs, lengths, past, hidden)


def prefix_cache(lm: LanguageModel, site: EditSite, texts: Sequence[str]) -> PrefixCache | None:
    """Return the states of the prefixes `texts`; None where the model cannot go on from them as if it had read them."""
    if not lm.causal or not any(texts):
        return None
    try:
        found = PrefixCache(lm, site, texts)
        return found if found.rows and _agrees(lm, found) else None
    except (TypeError, ValueError, IndexError, AttributeError, RuntimeError, NotImplementedError):
        # A cache of another kind; every pass is then an ordinary one.
        return None


def _agrees(lm: LanguageModel, known: PrefixCache) -> bool:
    """Whether rows that go on from a long and from a short prefix give the logits of an ordinary pass."""
    tail, tolerance = known.rows[0][:3], _AGREEMENT if lm.dtype in (torch.float32, torch.float64) else 0.05
    rows = [known.rows[0] + tail, known.rows[-1] + tail]
    joined = join(lm, rows, known, [len(row) - 1 for row in rows])
    with torch.no_grad():
        apart = [
            lm.model(input_ids=torch.tensor([row], device=lm.device), use_cache=False).logits[0, -1] for row in rows
        ]
        together = lm.model(**joined.inputs).logits
    for index, (row, logits) in enumerate(zip(rows, apart, strict=True)):
        found = together[index, len(row) - joined.leads[index] - 1]
        # NaN is no agreement.
        if not float((found - logits).abs().max() / logits.abs().max()) <= tolerance:
            return False
    return True

"""Prefixes run once: rows that begin with a cached prefix continue from its attention keys and values.

`build_prefix_cache` runs every prefix through the unedited model.
It compares rows that continue from a prefix with an ordinary pass, and returns None where the two differ.
An architecture with a cache of its own kind is then only slower.
`join` lays rows out for one forward pass.
The cached part of a row is aligned on the right of ``past`` places; the rest of the row follows, padded on the right.
So token ``t`` of a row lies at place ``past - lead + t`` in every row.

The cache holds only the unedited model's states; a pass of an edited model must not join above the edited layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from transformers.cache_utils import DynamicCache

from .batches import pad, run_fitting, split_batches
from .hooks import build_cache, get_pad_id, record_entry, select_logits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..model.language_model import LanguageModel
    from ..model.site import EditSite

__all__ = ["Joined", "PrefixCache", "PrefixStates", "build_prefix_cache", "join"]

_AGREEMENT = 1e-3
"""Largest difference of a logit from the ordinary pass, relative to the largest logit, in fp32; measured: under 1e-5."""


class Joined(NamedTuple):
    """Rows laid out for one forward pass; token ``t`` of row ``n`` lies at place ``past - leads[n] + t``."""

    inputs: dict[str, Any]
    """Arguments of the model; its attention cache, if any, grows by the rest of the rows."""
    leads: list[int]
    """Number of cached tokens of each row."""
    past: int
    """Places before the rest of the rows: the longest lead."""
    hidden: torch.Tensor | None
    """What enters the site's block at those places [rows, past, d_model]; None where nothing is cached."""

    @property
    def width(self) -> int:
        """Tokens that run in each row, padding included."""
        return int(self.inputs["input_ids"].shape[1])

    def places(self, tokens: torch.Tensor, size: int) -> torch.Tensor:
        """Return where `tokens` ([tokens], or [rows, tokens]) of each row lie among `size` places; those outside are clamped."""
        return (tokens + (self.past - torch.tensor(self.leads))[:, None]).clamp(0, size - 1)


class PrefixStates(NamedTuple):
    """The states of the tokens of some rows, one row after the other."""

    hidden: torch.Tensor
    """What enters the site's block [tokens, d_model]."""
    layers: list[tuple[torch.Tensor, torch.Tensor]]
    """Attention keys and values [heads, tokens, features] of each layer."""

    def count_tokens(self) -> set[int]:
        """Return the number of tokens of each tensor, which are all the same."""
        return {len(self.hidden), *(tensor.shape[1] for pair in self.layers for tensor in pair)}


class PrefixCache:
    """The states of some prefixes' tokens in the unedited model."""

    def __init__(
        self, lm: LanguageModel, site: EditSite, texts: Sequence[str], states: PrefixStates | None = None
    ) -> None:
        """Run the prefixes once, in batches; a prefix that begins another one is served by it.

        `states` are those of an earlier run of the same texts, which is then not made again.
        """
        rows = sorted({tuple(lm.tokenizer(text).input_ids) for text in texts}, key=lambda row: (-len(row), row))
        self.rows: list[tuple[int, ...]] = []
        for row in rows:
            if row and not any(other[: len(row)] == row for other in self.rows):
                self.rows.append(row)
        self.all_states = _run_rows(lm, site, self.rows) if states is None else states
        self._begins: dict[tuple[int, ...], int] = {}
        begin = 0
        for row in self.rows:
            for length in range(1, len(row) + 1):
                self._begins.setdefault(row[:length], begin)
            begin += len(row)

    def lead(self, ids: Sequence[int], most: int) -> tuple[int, int]:
        """Return the longest cached beginning of `ids`, at most `most` tokens: (place of its first token, length)."""
        row = tuple(ids[: min(most, max(map(len, self.rows), default=0))])
        return next(((self._begins[row[:n]], n) for n in range(len(row), 0, -1) if row[:n] in self._begins), (0, 0))

    def states(
        self, places: torch.Tensor, layers: int | None
    ) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], torch.Tensor]:
        """Return keys and values [rows, heads, past, features] of the lowest `layers`, and hidden states, at `places`."""
        layer_states = [
            (keys[:, places].transpose(0, 1), values[:, places].transpose(0, 1))
            for keys, values in self.all_states.layers[:layers]
        ]
        return layer_states, self.all_states.hidden[places]


def _run_rows(lm: LanguageModel, site: EditSite, rows: Sequence[tuple[int, ...]]) -> PrefixStates:
    parts: dict[int, tuple[torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]]]] = {}

    def run(members: Sequence[int]) -> tuple[torch.Tensor, list[Any]]:
        cache = DynamicCache()
        inputs = pad([rows[index] for index in members], get_pad_id(lm), lm.device)._asdict()
        # The logits are not used, so the head gets one place.
        with torch.no_grad(), record_entry(site) as entries, select_logits(lm, torch.tensor([0])):
            lm.run(**inputs, use_cache=True, past_key_values=cache)
        return entries[0].hidden, cache.layers

    for members, (hidden, layers) in run_fitting(split_batches([len(row) for row in rows]), run):
        for place, index in enumerate(members):
            length = len(rows[index])
            states = [(layer.keys[place, :, :length], layer.values[place, :, :length]) for layer in layers]
            parts[index] = hidden[place, :length], states
    order = range(len(rows))
    return PrefixStates(
        torch.cat([parts[index][0] for index in order]),
        [
            (torch.cat([keys for keys, _ in layer], 1), torch.cat([values for _, values in layer], 1))
            for layer in zip(*(parts[index][1] for index in order), strict=True)
        ],
    )


def join(
    lm: LanguageModel,
    rows: Sequence[Sequence[int]],
    prefixes: PrefixCache | None,
    most: Sequence[int],
    layers: int | None = None,
) -> Joined:
    """Lay `rows` of ids out to continue from their cached tokens.

    At most `most` tokens of each row, fewer than its length, come from the cache.
    With `layers`, the pass must end below that layer.
    """
    leads = [
        prefixes.lead(row, least) if prefixes is not None else (0, 0) for row, least in zip(rows, most, strict=True)
    ]
    lengths = [length for _, length in leads]
    past = max(lengths)
    batch = pad([row[length:] for row, length in zip(rows, lengths, strict=True)], get_pad_id(lm), lm.device)
    if prefixes is None or past == 0:
        return Joined({**batch._asdict(), **({"use_cache": False} if lm.causal else {})}, lengths, 0, None)
    length = torch.tensor(lengths)[:, None]
    place = torch.arange(past) - past + length
    states, hidden = prefixes.states(
        (torch.tensor([begin for begin, _ in leads])[:, None] + place).clamp(min=0), layers
    )
    mask = torch.cat([(place >= 0).long().to(lm.device), batch.attention_mask], 1)
    positions = (length + torch.arange(batch.input_ids.shape[1])).to(lm.device)
    inputs = {
        "input_ids": batch.input_ids,
        "attention_mask": mask,
        "position_ids": positions,
        "past_key_values": build_cache(states),
        "use_cache": True,
    }
    return Joined(inputs, lengths, past, hidden)


def build_prefix_cache(lm: LanguageModel, site: EditSite, texts: Sequence[str]) -> PrefixCache | None:
    """Return the states of the prefixes `texts`; None where the model cannot continue from them."""
    if not lm.causal or not any(texts):
        return None
    try:
        prefixes = PrefixCache(lm, site, texts)
        return prefixes if prefixes.rows and _agrees(lm, prefixes) else None
    except (TypeError, ValueError, IndexError, AttributeError, RuntimeError, NotImplementedError):
        # A cache of another kind; every pass is then an ordinary one.
        return None


def _agrees(lm: LanguageModel, prefixes: PrefixCache) -> bool:
    """Return whether rows that continue from a long and from a short prefix give the logits of an ordinary pass."""
    tail, tolerance = prefixes.rows[0][:3], _AGREEMENT if lm.dtype in (torch.float32, torch.float64) else 0.05
    rows = [prefixes.rows[0] + tail, prefixes.rows[-1] + tail]
    joined = join(lm, rows, prefixes, [len(row) - 1 for row in rows])
    with torch.no_grad():
        apart = [
            lm.model(input_ids=torch.tensor([row], device=lm.device), use_cache=False).logits[0, -1] for row in rows
        ]
        together = lm.run(**joined.inputs).logits
    for index, (row, logits) in enumerate(zip(rows, apart, strict=True)):
        last_logits = together[index, len(row) - joined.leads[index] - 1]
        # NaN is no agreement.
        if not float((last_logits - logits).abs().max() / logits.abs().max()) <= tolerance:
            return False
    return True

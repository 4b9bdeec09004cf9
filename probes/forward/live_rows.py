"""Forward passes that run only the tokens and layers that an edit can change.

An edit at layer L changes nothing below L, and in a causal model nothing before the subject's last token.
`LiveRows` holds the hidden states that enter layer L, and the attention keys and values of the tokens before the edited one.
So only the tokens from the edited one on run again, and only the layers from L on.

Nothing here is thread-safe, for the reasons in `partial`.
Out of scope: models that are not causal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from .batches import pad, run_fitting, split_similar
from .hooks import Entry, build_cache, get_pad_id, record_entry, select_logits
from .partial import Row, flatten_places, run_from
from .prefix_cache import PrefixCache, join

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..model.language_model import LanguageModel
    from ..model.site import EditSite

__all__ = ["LiveRows"]


class _FixedLayer(DynamicLayer):
    """Attention keys and values of earlier tokens; `update` joins the new ones to them and stores nothing."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> Any:
        assert self.keys is not None  # `build_cache` sets both
        assert self.values is not None
        return torch.cat([self.keys, key_states], -2), torch.cat([self.values, value_states], -2)


@dataclass(frozen=True, kw_only=True)
class _LiveInputs:
    """Inputs of a pass over the live tokens of some rows, with the states of the tokens before them."""

    ids: torch.Tensor
    """[rows, width]."""
    mask: torch.Tensor
    """[rows, past + width]."""
    positions: torch.Tensor
    """[rows, width]."""
    entry: Entry
    """What enters the site's block at the live tokens."""
    states: list[tuple[torch.Tensor, torch.Tensor]]
    """Attention keys and values of the tokens before [rows, heads, past, features], by layer."""

    def select(self, index: torch.Tensor) -> _LiveInputs:
        """Return the inputs of the rows of these indices, in that order."""
        index = index.to(self.ids.device)
        return _LiveInputs(
            ids=self.ids[index],
            mask=self.mask[index],
            positions=self.positions[index],
            entry=self.entry._replace(hidden=self.entry.hidden[index.to(self.entry.hidden.device)]),
            states=[(keys[index.to(keys.device)], values[index.to(values.device)]) for keys, values in self.states],
        )


def _concatenate(groups: Sequence[_LiveInputs]) -> _LiveInputs:
    """Return the inputs of all groups, row after row."""
    return _LiveInputs(
        ids=torch.cat([group.ids for group in groups]),
        mask=torch.cat([group.mask for group in groups]),
        positions=torch.cat([group.positions for group in groups]),
        entry=Entry(torch.cat([group.entry.hidden for group in groups]), groups[0].entry.returned),
        states=[
            (torch.cat([keys for keys, _ in layer]), torch.cat([values for _, values in layer]))
            for layer in zip(*(group.states for group in groups), strict=True)
        ],
    )


def _gather(states: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return states.gather(2, index[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[3]))


class LiveRows:
    """The tokens from each row's edited one on, with the states of everything before and below."""

    first: torch.Tensor
    """The logits of the first run, through all layers."""

    def __init__(
        self, lm: LanguageModel, site: EditSite, rows: Sequence[Row], prefixes: PrefixCache | None = None
    ) -> None:
        """Run `rows` once through all layers, in groups of similar length; `first` are the logits of that run.

        The states of a row's prefix are taken from `prefixes` where they are there.
        """
        self._lm, self._site, self.rows = lm, site, rows
        self.past = max(row.at for row in rows)
        self.width = max(len(row.ids) - row.at for row in rows)
        self._places = flatten_places(rows, self.width, [row.at for row in rows])
        groups = list(
            run_fitting(
                split_similar([len(row.ids) for row in rows]),
                lambda members: self._begin([rows[n] for n in members], prefixes),
            )
        )
        order = torch.tensor([index for members, _ in groups for index in members]).argsort()
        self._set_inputs(_concatenate([inputs for _, (inputs, _) in groups]).select(order))
        pieces = [piece for _, (_, logits) in groups for piece in logits]
        self.first = torch.cat([pieces[index] for index in order.tolist()])

    @classmethod
    def _from_parts(cls, whole: LiveRows, indices: Sequence[int]) -> LiveRows:
        """Build the rows of `whole` with these indices; lengths are those of `whole`, so that places stay the same."""
        live = cls.__new__(cls)
        live._lm, live._site, live.past, live.width = whole._lm, whole._site, whole.past, whole.width
        live.rows = [whole.rows[index] for index in indices]
        live._places = flatten_places(live.rows, live.width, [row.at for row in live.rows])
        live._set_inputs(whole._inputs.select(torch.tensor(indices)))
        pieces = whole.first.split([len(row.predict) for row in whole.rows])
        live.first = torch.cat([pieces[index] for index in indices])
        return live

    def _set_inputs(self, inputs: _LiveInputs) -> None:
        self._inputs, self._cache = inputs, build_cache(inputs.states, _FixedLayer)

    def _begin(self, rows: Sequence[Row], prefixes: PrefixCache | None) -> tuple[_LiveInputs, Sequence[torch.Tensor]]:
        """Run one group in full; return the inputs of later passes, and the logits of each row.

        The tokens before the edited one are aligned on the right, the live ones on the left.
        """
        joined = join(self._lm, [row.ids for row in rows], prefixes, [row.at for row in rows])
        places = flatten_places(rows, joined.width, joined.leads)
        kwargs = {"past_key_values": DynamicCache(), **joined.inputs, "use_cache": True}
        with torch.no_grad(), record_entry(self._site) as entries, select_logits(self._lm, places):
            logits = self._lm.run(**kwargs).logits[0].float()
        hidden, returned = entries[0]
        at = torch.tensor([row.at for row in rows])[:, None]
        length = torch.tensor([len(row.ids) for row in rows])[:, None]
        live, before = at + torch.arange(self.width), at - self.past + torch.arange(self.past)
        inside = live.clamp(max=length - 1)
        batch = pad([row.ids for row in rows], get_pad_id(self._lm), self._lm.device)
        positions, device = inside.to(hidden.device), hidden.device
        layers: list[Any] = kwargs["past_key_values"].layers  # a causal stack: every layer stores keys and values
        from_past = joined.places(before, joined.past + joined.width).to(device)
        from_tail = (joined.places(inside, joined.past + joined.width) - joined.past).to(device)
        inputs = _LiveInputs(
            ids=batch.input_ids.gather(1, positions),
            mask=torch.cat([(before >= 0).long(), (live < length).long()], 1).to(device),
            positions=positions,
            entry=Entry(hidden.gather(1, from_tail[..., None].expand(-1, -1, hidden.shape[-1])), returned),
            states=[(_gather(layer.keys, from_past), _gather(layer.values, from_past)) for layer in layers],
        )
        return inputs, logits.split([len(row.predict) for row in rows])

    def part(self, indices: Sequence[int]) -> LiveRows:
        """Return the rows of these indices, without running anything; `first` is theirs as well."""
        return self._from_parts(self, indices)

    def logits(self) -> torch.Tensor:
        """Return the logits at all places [places, vocabulary] in fp32; gradients flow to what hooks add."""
        with run_from(self._site, self._inputs.entry), select_logits(self._lm, self._places):
            logits: torch.Tensor = self._lm.run(
                input_ids=self._inputs.ids,
                attention_mask=self._inputs.mask,
                position_ids=self._inputs.positions,
                past_key_values=self._cache,
                use_cache=True,
            ).logits
        return logits[0].float()

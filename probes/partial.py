"""Forward passes that run only what can differ: from one layer upwards, and from one token onwards.

An edit at layer L changes nothing below L, and in a causal model nothing before the subject's last token. `Stem` holds
what the lower layers produced for a batch, so that the upper ones run alone; `LiveRows` also keeps the attention keys
and values of the tokens before each row's edited token, so that only the tokens from there on run. Both leave the
model's own code in charge of everything else (embeddings, masks, positions, final norm, head): the blocks below are
replaced for the length of one forward by a function that hands the kept hidden state on, and put back in ``finally``.

Out of scope: where the speed is measured, and models that are not causal.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from .batches import Padded, pad, similar
from .errors import EditguardError, ModelError
from .keys import pad_id

if TYPE_CHECKING:
    from .model import LanguageModel
    from .site import EditSite

__all__ = ["LiveRows", "Row", "Stem", "full_logits", "select_logits"]


class Row(NamedTuple):
    """One text of a batch: its ids, the token where an edit acts, and the places whose next-token logits are wanted."""

    ids: tuple[int, ...]
    at: int
    predict: tuple[int, ...]


class _KeptLayer(DynamicLayer):
    """Attention keys and values of earlier tokens, handed out with the new ones and never grown."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> Any:
        assert self.keys is not None  # both are set before this is ever asked
        assert self.values is not None
        return torch.cat([self.keys, key_states], -2), torch.cat([self.values, value_states], -2)


@contextmanager
def select_logits(lm: LanguageModel, places: torch.Tensor) -> Iterator[None]:
    """Let the head see only the flat `places` (row * tokens + token): its logits are [1, places, vocabulary]."""
    head = lm.model.get_output_embeddings()

    def choose(_: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        return (args[0].flatten(0, 1)[places.to(args[0].device)].unsqueeze(0),)

    handle = head.register_forward_pre_hook(choose)
    try:
        yield
    finally:
        handle.remove()


class _Entry(NamedTuple):
    """How one forward enters the site's block: hidden state [rows, tokens, d_model], and what a block returns."""

    hidden: torch.Tensor
    returned: int | None
    """Length of the tuple that a block returns; None where it returns the hidden state itself."""


@contextmanager
def _start_at(site: EditSite, entry: _Entry) -> Iterator[None]:
    """Replace the blocks below the site: each of them hands on what enters the site's block."""
    below = list(site.blocks[: site.layer])
    own = [vars(block).get("forward") for block in below]
    # Some families return a tuple from a block; what else is in it (attention maps) is not used.
    kept: Any = entry.hidden if entry.returned is None else (entry.hidden, *[None] * (entry.returned - 1))
    try:
        for block in below:
            block.forward = lambda *args, **kwargs: kept
        yield
    finally:
        for block, forward in zip(below, own, strict=True):
            if forward is not None:
                block.forward = forward
            elif "forward" in vars(block):
                del block.forward


@contextmanager
def _record_entry(site: EditSite) -> Iterator[list[_Entry]]:
    """Record how each forward enters the site's block."""
    hidden: list[torch.Tensor] = []
    seen: list[_Entry] = []

    def enter(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden.append((args[0] if args else kwargs["hidden_states"]).detach())

    def leave(_: torch.nn.Module, __: tuple[Any, ...], output: Any) -> None:
        seen.append(_Entry(hidden.pop(), len(output) if isinstance(output, tuple) else None))

    handles = [
        site.block.register_forward_pre_hook(enter, with_kwargs=True),
        site.block.register_forward_hook(leave),
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _flat_places(rows: Sequence[Row], width: int, shift: Sequence[int]) -> torch.Tensor:
    for row, least in zip(rows, shift, strict=True):
        # A place outside its row would silently read another row's logits.
        if not all(least <= place < len(row.ids) for place in row.predict):
            raise EditguardError(
                f"Logits are asked for at places {row.predict} of a row of {len(row.ids)} tokens that is run from token "
                f"{least}; every place must lie in that range, so correct the row."
            )
    return torch.tensor([n * width + place - shift[n] for n, row in enumerate(rows) for place in row.predict])


def full_logits(lm: LanguageModel, rows: Sequence[Row]) -> torch.Tensor:
    """Return the logits at all wanted places [places, vocabulary] in fp32, from an ordinary forward of whole rows."""
    batch = pad([row.ids for row in rows], pad_id(lm), lm.device)
    places = _flat_places(rows, batch.input_ids.shape[1], [0] * len(rows))
    with select_logits(lm, places):
        logits: torch.Tensor = lm.model(**batch._asdict(), use_cache=False).logits
    return logits[0].float()


class _Group(NamedTuple):
    """One padded group of rows with how it enters the site's block."""

    batch: Padded
    places: torch.Tensor
    entry: _Entry


class Stem:
    """The lower layers' result for some texts, so that the layers from the site on can be run again and again."""

    def __init__(self, lm: LanguageModel, site: EditSite, rows: Sequence[Row]) -> None:
        """Run `rows` once, in groups of similar length; the logits of that run are `first`.

        Raises `ModelError` for an architecture whose upper layers cannot run alone.
        """
        self._lm, self._site = lm, site
        self._counts = [len(row.predict) for row in rows]
        self._members = list(similar([len(row.ids) for row in rows]))
        self._groups: list[_Group] = []
        parts = []
        for members in self._members:
            chosen = [rows[index] for index in members]
            batch = pad([row.ids for row in chosen], pad_id(lm), lm.device)
            places = _flat_places(chosen, batch.input_ids.shape[1], [0] * len(chosen))
            with torch.no_grad(), _record_entry(site) as seen, select_logits(lm, places):
                parts.append(lm.model(**batch._asdict(), use_cache=False).logits[0].float())
            self._groups.append(_Group(batch, places, seen[0]))
        self.first: torch.Tensor = self._ordered(parts)
        self._verify(parts[-1])

    def _verify(self, first: torch.Tensor) -> None:
        """Run the last group's shortest row alone and compare; raises `ModelError` where the logits are not `first`'s.

        A model whose upper layers take more from the lower ones than the hidden state (shared keys and values, say)
        would otherwise be measured wrongly without a sign of it.
        """
        group = self._groups[-1]
        row, width = len(group.batch.input_ids) - 1, group.batch.input_ids.shape[1]
        chosen = group.places >= row * width
        alone = _Group(
            Padded(*(tensor[row:] for tensor in group.batch)),
            group.places[chosen] - row * width,
            group.entry._replace(hidden=group.entry.hidden[row:]),
        )
        wanted = first[chosen.to(first.device)]
        worst = float((self._run(alone) - wanted).abs().max()) if len(wanted) else 0.0
        tolerance = 0.01 if self._lm.dtype in (torch.float32, torch.float64) else 0.5
        if bool(torch.isfinite(wanted).all()) and not worst <= tolerance * max(float(wanted.abs().max()), 1.0):
            raise ModelError(
                f"The layers of {self._lm.architecture} above {self._site.path} give other logits (by {worst:.3g}) when they "
                "run alone, so this architecture cannot be measured; take a model of a family that the documentation lists."
            )

    def _run(self, group: _Group) -> torch.Tensor:
        with torch.no_grad(), _start_at(self._site, group.entry), select_logits(self._lm, group.places):
            logits: torch.Tensor = self._lm.model(**group.batch._asdict(), use_cache=False).logits
        return logits[0].float()

    def logits(self) -> torch.Tensor:
        """Return the logits at all wanted places [places, vocabulary], fp32, with the site's weights as they are now.

        Places come in the order of the rows, and within a row in the order of its `predict`.
        """
        return self._ordered([self._run(group) for group in self._groups])

    def _ordered(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        pieces: dict[int, torch.Tensor] = {}
        for members, part in zip(self._members, parts, strict=True):
            pieces.update(zip(members, part.split([self._counts[index] for index in members]), strict=True))
        return torch.cat([pieces[index] for index in range(len(self._counts))])


class _Run(NamedTuple):
    """One group's part of `LiveRows`: live tokens [rows, width], kept attention states [rows, heads, past, features]."""

    ids: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor
    entry: _Entry
    kept: list[tuple[torch.Tensor, torch.Tensor]]
    first: Sequence[torch.Tensor]


def _gather(states: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return states.gather(2, index[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[3]))


def _cache(kept: Sequence[tuple[torch.Tensor, ...]]) -> DynamicCache:
    """Return a cache of each layer's (keys, values)."""
    cache = DynamicCache()
    cache.layers = []
    for keys, values in kept:
        layer: _KeptLayer = cast(Any, _KeptLayer)()  # its base's constructor has no types
        layer.keys, layer.values = keys, values
        layer.dtype, layer.device, layer.is_initialized = keys.dtype, keys.device, True
        cache.layers.append(layer)
    return cache


class LiveRows:
    """The tokens from each row's edited one on, with everything before and below kept."""

    def __init__(self, lm: LanguageModel, site: EditSite, rows: Sequence[Row]) -> None:
        """Run `rows` once in full, in groups of similar length.

        The logits of that run are `first`, those of later runs come from `logits`.
        """
        self._lm, self._site, self.rows = lm, site, rows
        self.past = max(row.at for row in rows)
        self.width = max(len(row.ids) - row.at for row in rows)
        self._places = _flat_places(rows, self.width, [row.at for row in rows])
        groups = list(similar([len(row.ids) for row in rows]))
        runs = [self._run([rows[index] for index in members]) for members in groups]
        order = torch.tensor([index for members in groups for index in members]).argsort()

        def ordered(parts: Sequence[torch.Tensor]) -> torch.Tensor:
            return torch.cat(list(parts))[order.to(parts[0].device)]

        self._ids = ordered([run.ids for run in runs])
        self._mask = ordered([run.mask for run in runs])
        self._positions = ordered([run.positions for run in runs])
        self._entry = _Entry(ordered([run.entry.hidden for run in runs]), runs[0].entry.returned)
        self._cache = _cache(
            [tuple(ordered(states) for states in zip(*layer, strict=True)) for layer in zip(*(run.kept for run in runs), strict=True)]
        )
        pieces = [piece for run in runs for piece in run.first]
        self.first: torch.Tensor = torch.cat([pieces[index] for index in order.tolist()])

    def _run(self, rows: Sequence[Row]) -> _Run:
        """Run one group in full, then align its kept tokens on the right and its live ones on the left."""
        batch = pad([row.ids for row in rows], pad_id(self._lm), self._lm.device)
        places = _flat_places(rows, batch.input_ids.shape[1], [0] * len(rows))
        cache = DynamicCache()
        with torch.no_grad(), _record_entry(self._site) as seen, select_logits(self._lm, places):
            logits = self._lm.model(**batch._asdict(), use_cache=True, past_key_values=cache).logits[0].float()
        hidden = seen[0].hidden
        at = torch.tensor([row.at for row in rows], device=hidden.device)[:, None]
        length = torch.tensor([len(row.ids) for row in rows], device=hidden.device)[:, None]
        last = batch.input_ids.shape[1] - 1
        live = at + torch.arange(self.width, device=hidden.device)
        kept = at - self.past + torch.arange(self.past, device=hidden.device)
        inside, from_past = live.clamp(max=last), kept.clamp(min=0)
        layers: list[Any] = cache.layers  # of a causal stack, so each of them keeps keys and values
        return _Run(
            ids=batch.input_ids.gather(1, inside),
            mask=torch.cat([(kept >= 0).long(), (live < length).long()], 1),
            positions=inside,
            entry=_Entry(hidden.gather(1, inside[..., None].expand(-1, -1, hidden.shape[-1])), seen[0].returned),
            kept=[(_gather(layer.keys, from_past), _gather(layer.values, from_past)) for layer in layers],
            first=logits.split([len(row.predict) for row in rows]),
        )

    def only(self, kept: Sequence[int]) -> LiveRows:
        """Return the rows of these indices alone, without running anything; `first` is theirs as well."""
        index = torch.tensor(kept, device=self._ids.device)
        part = copy.copy(self)
        part.rows = [self.rows[row] for row in kept]
        part._places = _flat_places(part.rows, self.width, [row.at for row in part.rows])
        part._ids, part._mask, part._positions = self._ids[index], self._mask[index], self._positions[index]
        part._entry = self._entry._replace(hidden=self._entry.hidden[index])
        layers: list[Any] = self._cache.layers
        part._cache = _cache([(layer.keys[index], layer.values[index]) for layer in layers])
        pieces = self.first.split([len(row.predict) for row in self.rows])
        part.first = torch.cat([pieces[row] for row in kept])
        return part

    def logits(self) -> torch.Tensor:
        """Return the logits at all wanted places [places, vocabulary] in fp32; gradients flow to what hooks add."""
        with _start_at(self._site, self._entry), select_logits(self._lm, self._places):
            logits: torch.Tensor = self._lm.model(
                input_ids=self._ids, attention_mask=self._mask, position_ids=self._positions,
                past_key_values=self._cache, use_cache=True,
            ).logits  # fmt: skip
        return logits[0].float()

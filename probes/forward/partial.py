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
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from ..errors import EditguardError, ModelError
from .batches import pad, run_fitting, split_similar
from .hooks import Entry, build_cache, get_pad_id, record_entry, select_logits
from .prefix_cache import PrefixCache, join

if TYPE_CHECKING:
    from ..model.language_model import LanguageModel
    from ..model.site import EditSite

__all__ = ["LiveRows", "PlainRows", "Row", "Stem", "compute_full_logits", "compute_plain_logits", "run_from"]


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
def run_from(site: EditSite, entry: Entry) -> Iterator[None]:
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


def _flat_places(rows: Sequence[Row], width: int, shift: Sequence[int]) -> torch.Tensor:
    for row, least in zip(rows, shift, strict=True):
        # A place outside its row would silently read another row's logits.
        if not all(least <= place < len(row.ids) for place in row.predict):
            raise EditguardError(
                f"Logits are asked for at places {row.predict} of a row of {len(row.ids)} tokens that is run from token "
                f"{least}; every place must lie in that range, so correct the row."
            )
    return torch.tensor([n * width + place - shift[n] for n, row in enumerate(rows) for place in row.predict])


def compute_plain_logits(lm: LanguageModel, rows: Sequence[Row]) -> torch.Tensor:
    """Return what `compute_full_logits` does by a call of the model that nothing was hooked into: logits at every place."""
    batch = pad([row.ids for row in rows], get_pad_id(lm), lm.device)
    places = _flat_places(rows, batch.input_ids.shape[1], [0] * len(rows))
    logits: torch.Tensor = lm.model(**batch._asdict(), use_cache=False).logits
    return logits.flatten(0, 1)[places.to(logits.device)].float()


def compute_full_logits(lm: LanguageModel, rows: Sequence[Row]) -> torch.Tensor:
    """Return the logits at all wanted places [places, vocabulary] in fp32, from an ordinary forward of whole rows."""
    batch = pad([row.ids for row in rows], get_pad_id(lm), lm.device)
    places = _flat_places(rows, batch.input_ids.shape[1], [0] * len(rows))
    with select_logits(lm, places):
        logits: torch.Tensor = lm.run(**batch._asdict(), use_cache=False).logits
    return logits[0].float()


class PlainRows:
    """What `Stem` gives, the plain way: whole texts through the whole model every time, logits at all places."""

    def __init__(self, lm: LanguageModel, rows: Sequence[Row]) -> None:
        """Run `rows` once; `first` are its logits."""
        self._lm, self.rows = lm, tuple(rows)
        self.first = self.logits()

    def part(self, kept: Sequence[int]) -> PlainRows:
        """Return the rows of these indices alone, without running anything."""
        found = copy.copy(self)
        found.__dict__.pop("first", None)
        found.rows = tuple(self.rows[index] for index in kept)
        return found

    def logits(self) -> torch.Tensor:
        """Return the logits at all wanted places [places, vocabulary], fp32, with the weights as they are now."""
        with torch.no_grad():
            return compute_plain_logits(self._lm, self.rows)


class Stem:
    """The lower layers' result for some texts, so that the layers from the site on can be run again and again."""

    first: torch.Tensor
    """The logits of the unedited model at all wanted places, as `logits` orders them; a `part` has none."""

    def __init__(
        self,
        lm: LanguageModel,
        site: EditSite,
        rows: Sequence[Row],
        known: PrefixCache | None = None,
        *,
        verify: bool = True,
    ) -> None:
        """Run `rows` once, in groups of similar length and on from what is `known`; the logits of that run are `first`.

        Raises `ModelError` for an architecture whose upper layers cannot run alone; one `verify` a model is enough.
        """
        self._lm, self._site, self.rows = lm, site, tuple(rows)
        self._returned: int | None = None
        hidden: dict[int, torch.Tensor] = {}
        parts = []
        groups = []
        for members, (logits, states) in run_fitting(
            split_similar([len(row.ids) for row in rows]),
            lambda members: self._begin([rows[n] for n in members], known),
        ):
            groups.append(members)
            parts.append(logits)
            hidden.update(zip(members, states, strict=True))
        self._hidden = [hidden[index] for index in range(len(rows))]
        self.first = self._ordered(groups, parts)
        if verify:
            self._verify()

    def _begin(self, rows: Sequence[Row], known: PrefixCache | None) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Run whole rows; return the logits at their places, and what enters the site's block [tokens, d_model] of each."""
        lm = self._lm
        joined = join(lm, [row.ids for row in rows], known, [min((len(row.ids) - 1, *row.predict)) for row in rows])
        places = _flat_places(rows, joined.width, joined.leads)
        with torch.no_grad(), record_entry(self._site) as seen, select_logits(lm, places):
            logits = lm.run(**joined.inputs).logits[0].float()
        self._returned = seen[0].returned
        # Edited weights change the known tokens too, so that later runs need all of them.
        whole = seen[0].hidden if joined.hidden is None else torch.cat([joined.hidden, seen[0].hidden], 1)
        begins = joined.places(torch.zeros(1, dtype=torch.long), whole.shape[1])[:, 0].tolist()
        each = zip(whole, begins, rows, strict=True)
        return logits, [states[begin : begin + len(row.ids)].clone() for states, begin, row in each]

    def part(self, kept: Sequence[int]) -> Stem:
        """Return the stem of the rows of these indices alone, without running anything."""
        found = copy.copy(self)
        found.__dict__.pop("first", None)
        found.rows = tuple(self.rows[index] for index in kept)
        found._hidden = [self._hidden[index] for index in kept]
        return found

    def _verify(self) -> None:
        """Run the shortest row alone and compare; raises `ModelError` where the logits are not `first`'s.

        A model whose upper layers take more from the lower ones than the hidden state (shared keys and values, say)
        would otherwise be measured wrongly without a sign of it.
        """
        row = min(range(len(self.rows)), key=lambda index: len(self.rows[index].ids))
        wanted = self.first.split([len(one.predict) for one in self.rows])[row]
        worst = float((self.part([row]).logits() - wanted).abs().max()) if len(wanted) else 0.0
        rough = torch.is_autocast_enabled(self._lm.device.type) or self._lm.dtype in (torch.float16, torch.bfloat16)
        tolerance = 0.5 if rough else 0.01
        if bool(torch.isfinite(wanted).all()) and not worst <= tolerance * max(float(wanted.abs().max()), 1.0):
            raise ModelError(
                f"The layers of {self._lm.architecture} above {self._site.path} give other logits (by {worst:.3g}) when they "
                "run alone, so this architecture cannot be measured the fast way; say --engine reference, or take a model "
                "of a family that the documentation lists."
            )

    def logits(self) -> torch.Tensor:
        """Return the logits at all wanted places [places, vocabulary], fp32, with the site's weights as they are now.

        Places come in the order of the rows, and within a row in the order of its `predict`.
        """
        found = list(run_fitting(split_similar([len(row.ids) for row in self.rows]), self._run))
        return self._ordered([members for members, _ in found], [logits for _, logits in found])

    def _run(self, members: Sequence[int]) -> torch.Tensor:
        chosen = [self.rows[index] for index in members]
        batch = pad([row.ids for row in chosen], get_pad_id(self._lm), self._lm.device)
        hidden = torch.nn.utils.rnn.pad_sequence([self._hidden[index] for index in members], batch_first=True)
        places = _flat_places(chosen, hidden.shape[1], [0] * len(chosen))
        with torch.no_grad(), run_from(self._site, Entry(hidden, self._returned)), select_logits(self._lm, places):
            logits: torch.Tensor = self._lm.run(**batch._asdict(), use_cache=False).logits
        return logits[0].float()

    def _ordered(self, groups: Sequence[Sequence[int]], parts: Sequence[torch.Tensor]) -> torch.Tensor:
        pieces: dict[int, torch.Tensor] = {}
        for members, part in zip(groups, parts, strict=True):
            pieces.update(zip(members, part.split([len(self.rows[index].predict) for index in members]), strict=True))
        return torch.cat([pieces[index] for index in range(len(self.rows))])


class _Run(NamedTuple):
    """One group's part of `LiveRows`: live tokens [rows, width], kept attention states [rows, heads, past, features]."""

    ids: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor
    entry: Entry
    kept: list[tuple[torch.Tensor, torch.Tensor]]
    first: Sequence[torch.Tensor]


def _gather(states: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return states.gather(2, index[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[3]))


class LiveRows:
    """The tokens from each row's edited one on, with everything before and below kept."""

    def __init__(
        self, lm: LanguageModel, site: EditSite, rows: Sequence[Row], known: PrefixCache | None = None
    ) -> None:
        """Run `rows` once through all layers, in groups of similar length and on from what is `known`.

        The logits of that run are `first`, those of later runs come from `logits`.
        """
        self._lm, self._site, self._known, self.rows = lm, site, known, rows
        self.past = max(row.at for row in rows)
        self.width = max(len(row.ids) - row.at for row in rows)
        self._places = _flat_places(rows, self.width, [row.at for row in rows])
        found = list(
            run_fitting(
                split_similar([len(row.ids) for row in rows]), lambda members: self._run([rows[n] for n in members])
            )
        )
        runs = [run for _, run in found]
        order = torch.tensor([index for members, _ in found for index in members]).argsort()

        def ordered(parts: Sequence[torch.Tensor]) -> torch.Tensor:
            return torch.cat(list(parts))[order.to(parts[0].device)]

        self._ids = ordered([run.ids for run in runs])
        self._mask = ordered([run.mask for run in runs])
        self._positions = ordered([run.positions for run in runs])
        self._entry = Entry(ordered([run.entry.hidden for run in runs]), runs[0].entry.returned)
        self._cache = build_cache(
            [
                (ordered([keys for keys, _ in layer]), ordered([values for _, values in layer]))
                for layer in zip(*(run.kept for run in runs), strict=True)
            ],
            _KeptLayer,
        )
        pieces = [piece for run in runs for piece in run.first]
        self.first: torch.Tensor = torch.cat([pieces[index] for index in order.tolist()])

    def _run(self, rows: Sequence[Row]) -> _Run:
        """Run one group in full, then align its kept tokens on the right and its live ones on the left."""
        joined = join(self._lm, [row.ids for row in rows], self._known, [row.at for row in rows])
        places = _flat_places(rows, joined.width, joined.leads)
        inputs = {"past_key_values": DynamicCache(), **joined.inputs, "use_cache": True}
        with torch.no_grad(), record_entry(self._site) as seen, select_logits(self._lm, places):
            logits = self._lm.run(**inputs).logits[0].float()
        hidden = seen[0].hidden
        at = torch.tensor([row.at for row in rows])[:, None]
        length = torch.tensor([len(row.ids) for row in rows])[:, None]
        live, kept = at + torch.arange(self.width), at - self.past + torch.arange(self.past)
        inside = live.clamp(max=length - 1)
        batch = pad([row.ids for row in rows], get_pad_id(self._lm), self._lm.device)
        positions, device = inside.to(hidden.device), hidden.device
        states: list[Any] = inputs["past_key_values"].layers  # of a causal stack, so each of them keeps keys and values
        from_past = joined.places(kept, joined.past + joined.width).to(device)
        from_tail = (joined.places(inside, joined.past + joined.width) - joined.past).to(device)
        return _Run(
            ids=batch.input_ids.gather(1, positions),
            mask=torch.cat([(kept >= 0).long(), (live < length).long()], 1).to(device),
            positions=positions,
            entry=Entry(hidden.gather(1, from_tail[..., None].expand(-1, -1, hidden.shape[-1])), seen[0].returned),
            kept=[(_gather(layer.keys, from_past), _gather(layer.values, from_past)) for layer in states],
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
        part._cache = build_cache([(layer.keys[index], layer.values[index]) for layer in layers], _KeptLayer)
        pieces = self.first.split([len(row.predict) for row in self.rows])
        part.first = torch.cat([pieces[row] for row in kept])
        return part

    def logits(self) -> torch.Tensor:
        """Return the logits at all wanted places [places, vocabulary] in fp32; gradients flow to what hooks add."""
        with run_from(self._site, self._entry), select_logits(self._lm, self._places):
            logits: torch.Tensor = self._lm.run(
                input_ids=self._ids, attention_mask=self._mask, position_ids=self._positions,
                past_key_values=self._cache, use_cache=True,
            ).logits  # fmt: skip
        return logits[0].float()

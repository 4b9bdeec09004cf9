"""Forward passes that run only the layers that an edit can change.

An edit at layer L changes nothing below L.
`Stem` holds what the lower layers produced for a batch, so that only the upper layers run again.
`LiveRows` in `live_rows` also leaves out the tokens before the edited one.
`PlainRows` is the slow reference: whole texts through the whole model.

The model's own code does everything else: embeddings, masks, positions, final norm, head.
For one forward pass, `run_from` replaces the blocks below the site by a function that returns the recorded hidden state.
It puts the blocks back in ``finally``.

Nothing here is thread-safe.
During a pass the model's blocks have another ``forward``, and hooks are registered on its modules.
A second thread that runs the same model at that time gets wrong logits without an error.
Run one pass of a model at a time, or give each thread its own copy of the model.

Out of scope: where the speed is measured, and models that are not causal.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch

from ..errors import EditguardError, ModelError
from .batches import pad, run_fitting, split_similar
from .hooks import Entry, get_pad_id, record_entry, select_logits
from .prefix_cache import PrefixCache, join

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..model.language_model import LanguageModel
    from ..model.site import EditSite

__all__ = [
    "PlainRows",
    "Row",
    "Rows",
    "Stem",
    "compute_full_logits",
    "compute_plain_logits",
    "flatten_places",
    "get_first_logits",
    "run_from",
]


class Row(NamedTuple):
    """One text of a batch: its token ids, the token where an edit acts, and the places whose logits are computed."""

    ids: tuple[int, ...]
    at: int
    """Index of the token where the edit acts."""
    predict: tuple[int, ...]
    """Indices of the tokens whose next-token logits are computed."""


class Rows(Protocol):
    """Texts whose logits can be computed again and again while the edited weight changes."""

    @property
    def rows(self) -> Sequence[Row]:
        """The texts, in the order of the logits."""

    @property
    def first(self) -> torch.Tensor | None:
        """The logits of the first run, as `logits` orders them; None where they were not retained."""

    def part(self, indices: Sequence[int]) -> Rows:
        """Return the rows of these indices, without running anything."""

    def logits(self) -> torch.Tensor:
        """Return the logits [places, vocabulary] at all places, fp32, with the weights as they are now.

        Places come in the order of the rows, and within a row in the order of its `predict`.
        """


def get_first_logits(rows: Rows) -> torch.Tensor:
    """Return the logits of the first run [places, vocabulary]; raises `EditguardError` where they were not retained."""
    if rows.first is None:
        raise EditguardError(
            f"The logits of the first run of {len(rows.rows)} rows were not retained, because the rows are a part of others; "
            "take them from the rows that were run."
        )
    return rows.first


@contextmanager
def run_from(site: EditSite, entry: Entry) -> Iterator[None]:
    """Replace the blocks below the site: each of them returns what enters the site's block.

    The blocks' own ``forward`` is restored in any case. Not thread-safe: the model is changed while the body runs.
    """
    below = list(site.blocks[: site.layer])
    originals = [vars(block).get("forward") for block in below]
    # Some families return a tuple from a block; the rest of the tuple (attention maps) is not used.
    output: Any = entry.hidden if entry.returned is None else (entry.hidden, *[None] * (entry.returned - 1))
    try:
        for block in below:
            block.forward = lambda *args, **kwargs: output
        yield
    finally:
        for block, forward in zip(below, originals, strict=True):
            if forward is not None:
                block.forward = forward
            elif "forward" in vars(block):
                del block.forward


def flatten_places(rows: Sequence[Row], width: int, shift: Sequence[int]) -> torch.Tensor:
    """Return the places of `rows` counted flat: row * width + place - shift of the row.

    Raises `EditguardError` for a place outside its row, or before the row's shift.
    """
    for row, least in zip(rows, shift, strict=True):
        # A place outside its row would silently read another row's logits.
        if not all(least <= place < len(row.ids) for place in row.predict):
            raise EditguardError(
                f"A row of {len(row.ids)} tokens that is run from token {least} requests logits at places {row.predict}; "
                "every place must lie in that range, so correct the row."
            )
    return torch.tensor([n * width + place - shift[n] for n, row in enumerate(rows) for place in row.predict])


def compute_plain_logits(lm: LanguageModel, rows: Sequence[Row]) -> torch.Tensor:
    """Return what `compute_full_logits` returns, by an ordinary call of the model without any hook."""
    batch = pad([row.ids for row in rows], get_pad_id(lm), lm.device)
    places = flatten_places(rows, batch.input_ids.shape[1], [0] * len(rows))
    logits: torch.Tensor = lm.model(**batch._asdict(), use_cache=False).logits
    return logits.flatten(0, 1)[places.to(logits.device)].float()


def compute_full_logits(lm: LanguageModel, rows: Sequence[Row]) -> torch.Tensor:
    """Return the logits at all places of `rows` [places, vocabulary] in fp32, from a forward pass of whole rows."""
    batch = pad([row.ids for row in rows], get_pad_id(lm), lm.device)
    places = flatten_places(rows, batch.input_ids.shape[1], [0] * len(rows))
    with select_logits(lm, places):
        logits: torch.Tensor = lm.run(**batch._asdict(), use_cache=False).logits
    return logits[0].float()


class PlainRows:
    """The slow reference for `Stem`: whole texts through the whole model every time."""

    first: torch.Tensor | None
    """The logits of the first run; None in a `part`."""

    def __init__(self, lm: LanguageModel, rows: Sequence[Row]) -> None:
        """Run `rows` once; `first` are the logits of that run."""
        self._lm, self.rows = lm, tuple(rows)
        self.first = self.logits()

    @classmethod
    def _from_parts(cls, whole: PlainRows, indices: Sequence[int]) -> PlainRows:
        """Build the rows of `whole` with these indices, without `first`."""
        plain = cls.__new__(cls)
        plain._lm, plain.rows, plain.first = whole._lm, tuple(whole.rows[index] for index in indices), None
        return plain

    def part(self, indices: Sequence[int]) -> PlainRows:
        """Return the rows of these indices, without running anything; `first` is None."""
        return self._from_parts(self, indices)

    def logits(self) -> torch.Tensor:
        """Return the logits at all places [places, vocabulary], fp32, with the weights as they are now."""
        with torch.no_grad():
            return compute_plain_logits(self._lm, self.rows)


class Stem:
    """The lower layers' result for some texts, so that the layers from the site on can run again and again."""

    first: torch.Tensor | None
    """The logits of the unedited model at all places, as `logits` orders them; None in a `part`."""

    def __init__(
        self,
        lm: LanguageModel,
        site: EditSite,
        rows: Sequence[Row],
        prefixes: PrefixCache | None = None,
        *,
        verify: bool = True,
    ) -> None:
        """Run `rows` once, in groups of similar length; `first` are the logits of that run.

        The states of a row's prefix are taken from `prefixes` where they are there.
        Raises `ModelError` for an architecture whose upper layers cannot run without the lower ones.
        Verifying it once for each model is enough.
        """
        self._lm, self._site, self.rows = lm, site, tuple(rows)
        self._returned: int | None = None
        hidden: dict[int, torch.Tensor] = {}
        parts = []
        groups = []
        for members, (logits, states) in run_fitting(
            split_similar([len(row.ids) for row in rows]),
            lambda members: self._begin([rows[n] for n in members], prefixes),
        ):
            groups.append(members)
            parts.append(logits)
            hidden.update(zip(members, states, strict=True))
        self._hidden = [hidden[index] for index in range(len(rows))]
        first = self._order(groups, parts)
        self.first = first
        if verify:
            self._verify(first)

    @classmethod
    def _from_parts(cls, whole: Stem, indices: Sequence[int]) -> Stem:
        """Build the stem of the rows of `whole` with these indices, without `first`."""
        stem = cls.__new__(cls)
        stem._lm, stem._site, stem._returned = whole._lm, whole._site, whole._returned
        stem.rows = tuple(whole.rows[index] for index in indices)
        stem._hidden = [whole._hidden[index] for index in indices]
        stem.first = None
        return stem

    def _begin(self, rows: Sequence[Row], prefixes: PrefixCache | None) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Run whole rows; return the logits at their places, and what enters the site's block [tokens, d_model] of each."""
        lm = self._lm
        joined = join(lm, [row.ids for row in rows], prefixes, [min((len(row.ids) - 1, *row.predict)) for row in rows])
        places = flatten_places(rows, joined.width, joined.leads)
        with torch.no_grad(), record_entry(self._site) as entries, select_logits(lm, places):
            logits = lm.run(**joined.inputs).logits[0].float()
        entry = entries[0]
        self._returned = entry.returned
        # Edited weights change the prefix's tokens too, so that later runs need all of them.
        whole = entry.hidden if joined.hidden is None else torch.cat([joined.hidden, entry.hidden], 1)
        begins = joined.places(torch.zeros(1, dtype=torch.long), whole.shape[1])[:, 0].tolist()
        each = zip(whole, begins, rows, strict=True)
        return logits, [states[begin : begin + len(row.ids)].clone() for states, begin, row in each]

    def part(self, indices: Sequence[int]) -> Stem:
        """Return the stem of the rows of these indices, without running anything; `first` is None."""
        return self._from_parts(self, indices)

    def _verify(self, first: torch.Tensor) -> None:
        """Run the shortest row from the site on; raises `ModelError` where its logits are not those of the `first` run.

        The upper layers of some models take more from the lower ones than the hidden state, such as shared keys and values.
        Such a model would otherwise be measured wrongly without an error.
        """
        row = min(range(len(self.rows)), key=lambda index: len(self.rows[index].ids))
        expected = first.split([len(row.predict) for row in self.rows])[row]
        worst = float((self.part([row]).logits() - expected).abs().max()) if len(expected) else 0.0
        rough = torch.is_autocast_enabled(self._lm.device.type) or self._lm.dtype in (torch.float16, torch.bfloat16)
        tolerance = 0.5 if rough else 0.01
        if bool(torch.isfinite(expected).all()) and not worst <= tolerance * max(float(expected.abs().max()), 1.0):
            raise ModelError(
                f"The layers of {self._lm.architecture} above {self._site.path} give other logits (by {worst:.3g}) when they "
                "run without the layers below, so this architecture cannot be measured the fast way; say --engine "
                "reference, or take a model of a family that the documentation lists."
            )

    def logits(self) -> torch.Tensor:
        """Return the logits at all places [places, vocabulary], fp32, with the site's weights as they are now.

        Places come in the order of the rows, and within a row in the order of its `predict`.
        """
        groups = list(run_fitting(split_similar([len(row.ids) for row in self.rows]), self._run))
        return self._order([members for members, _ in groups], [logits for _, logits in groups])

    def _run(self, members: Sequence[int]) -> torch.Tensor:
        rows = [self.rows[index] for index in members]
        batch = pad([row.ids for row in rows], get_pad_id(self._lm), self._lm.device)
        hidden = torch.nn.utils.rnn.pad_sequence([self._hidden[index] for index in members], batch_first=True)
        places = flatten_places(rows, hidden.shape[1], [0] * len(rows))
        with torch.no_grad(), run_from(self._site, Entry(hidden, self._returned)), select_logits(self._lm, places):
            logits: torch.Tensor = self._lm.run(**batch._asdict(), use_cache=False).logits
        return logits[0].float()

    def _order(self, groups: Sequence[Sequence[int]], parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the logits of `groups` in the order of the rows."""
        pieces: dict[int, torch.Tensor] = {}
        for members, part in zip(groups, parts, strict=True):
            pieces.update(zip(members, part.split([len(self.rows[index].predict) for index in members]), strict=True))
        return torch.cat([pieces[index] for index in range(len(self.rows))])

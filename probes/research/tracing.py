"""Causal tracing: which hidden state brings the answer back when it is restored in a run with a corrupted subject?

The clean run gives the answer (the model's own greedy next token) and its probability.
The corrupted runs add several draws of Gaussian noise to the embeddings of the subject's tokens.
Then one state of the clean run is restored in the corrupted runs.
It is what leaves block l at token t (`Trace.states`), or the MLP outputs of a window of layers at the subject's last token
(`Trace.windows`).
The answer's probability, a mean over the draws, says what that state carries.

Source: ROME (arXiv 2202.05262), section 2: noise of three times the standard deviation of the embeddings, ten draws,
windows of ten layers of GPT-2 XL's 48.
Out of scope: attention outputs, and models that are not causal.
"""

from __future__ import annotations

import math
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ..errors import InputError, ModelError, NotFinite, RequestError
from ..forward.batches import run_fitting
from ..forward.hooks import Entry, record_entry, select_logits
from ..forward.partial import run_from
from ..keys.subject_keys import locate
from ..model.site import EditSite, count_layers, find_site

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..model.language_model import LanguageModel
    from ..requests.request import EditRequest

__all__ = ["Trace", "Tracer", "list_considered_layers", "suggest_layer"]

_NOISE, _DRAWS = 3.0, 10
_ROWS = 64
"""Corrupted runs that go through the model at once."""
_TABLE = 4096
"""Tokens whose embeddings are read at once."""


@dataclass(frozen=True, kw_only=True)
class Trace:
    """The answer's probability with each state restored, as means over the draws of noise."""

    request: EditRequest
    tokens: tuple[str, ...]
    """The prompt's tokens, as text."""
    subject: tuple[int, int]
    """First and last token of the subject."""
    answer: str
    clean: float
    """In the clean run."""
    corrupted: float
    """With the subject corrupted and nothing restored."""
    states: torch.Tensor
    """[layers, tokens]: with the block's output at that token restored."""
    windows: torch.Tensor
    """[layers]: with the MLP outputs of a window around the layer restored, at the subject's last token."""
    window: int
    """Layers of a window."""

    @property
    def tells(self) -> bool:
        """Whether noise in the subject removes at least half of the answer; the rest comes from the prompt."""
        return self.corrupted <= self.clean / 2

    @property
    def effects(self) -> torch.Tensor:
        """[layers]: `windows` less `corrupted`, the indirect effect."""
        return self.windows - self.corrupted


def list_considered_layers(layers: int, window: int) -> list[int]:
    """Return the layers around which a window is whole and does not hold block 0.

    Block 0's MLP reads little but the corrupted embedding, so restoring its output undoes the noise and locates no fact.
    Where no window qualifies, all layers are returned.
    """
    below = window // 2
    return [layer for layer in range(layers) if 1 <= layer - below <= layers - window] or list(range(layers))


def suggest_layer(traces: Sequence[Trace]) -> int:
    """Return the considered layer around which MLP outputs at the subject's last token bring most of the answers back."""
    effects = torch.stack([trace.effects for trace in traces]).mean(0)
    considered = list_considered_layers(len(effects), traces[0].window)
    return considered[int(effects[considered].argmax())]


@dataclass(frozen=True, kw_only=True)
class _Fact:
    """One prompt whose answer is traced."""

    ids: Sequence[int]
    answer: int
    """Token id of the clean run's answer."""
    first: int
    """First token of the subject."""
    last: int
    """Last token of the subject."""
    noise: torch.Tensor
    """Noise of the subject's embeddings [draws, tokens, features]."""


class Tracer:
    """Traces facts in one model; what does not depend on the request is computed once."""

    def __init__(
        self, lm: LanguageModel, *, noise: float = _NOISE, draws: int = _DRAWS, seed: int = 0, site: str | None = None
    ) -> None:
        """Prepare the traces of one model.

        `noise` is in standard deviations of the embeddings of the whole vocabulary; `site` is as in `find_site`.
        Raises `ModelError` for a model that is not causal, `InputError` for more draws than run at once.
        """
        if not 1 <= draws <= _ROWS:
            raise InputError(f"{draws} draws of noise cannot be run at once; give a number from 1 to {_ROWS}.")
        if not lm.causal:
            raise ModelError(
                f"The model {lm.ref!r} ({lm.architecture}) writes no text, so no answer can be traced in it; take a causal "
                "language model."
            )
        self._lm, self._draws, self._seed = lm, draws, seed
        self._sites = [find_site(lm.model, layer, site) for layer in range(count_layers(lm.model, site))]
        self._embedding: torch.nn.Module = lm.model.get_input_embeddings()
        self._scale = noise * _measure_spread(self._embedding, lm.device)
        self.window = max(1, round(len(self._sites) / 5))

    def trace(self, request: EditRequest) -> Trace:
        """Trace the fact that `request` would change.

        Raises `RequestError` where the subject cannot be located or ends at the prompt's first token.
        The states of that token are the attention sink's before they are the subject's.
        Raises `NotFinite` where the model's answer is not finite.
        """
        place = locate(self._lm, request)
        if place.is_first_token:
            raise RequestError(
                f"The subject {request.subject!r} ends at the first token of {request.prompt!r}, which is an attention sink "
                "whatever it says. A state restored there restores the sink and not the fact; trace a prompt in which something "
                "stands before the subject."
            )
        ids, last = place.input_ids, len(place.input_ids) - 1
        with torch.no_grad():
            with _record_inputs(self._sites) as clean, _record_outputs(self._sites) as values:
                logits = self._run(ids, 1)
            answer = int(logits[0].argmax())
            probability = float(logits[0].softmax(-1)[answer])
            if not bool(torch.isfinite(logits).all()):
                raise NotFinite(f"The logits after {request.prompt!r} hold NaN or Inf; check the model's weights.")
            noise = self._draw_noise(place.last + 1 - place.first)
            fact = _Fact(ids=ids, answer=answer, first=place.first, last=place.last, noise=noise)
            corrupted, bad = self._run_corrupted(fact)
            states = torch.full((len(self._sites), len(ids)), corrupted)
            for layer in range(len(self._sites) - 1):
                states[layer, place.first :] = self._restore_states(
                    fact, layer + 1, clean[layer + 1].hidden, bad[layer + 1]
                )
            # What leaves the last block at the last token is all that the head sees.
            states[-1, last] = probability
            windows = self._restore_windows(fact, values)
        tokenizer: Any = self._lm.tokenizer
        return Trace(
            request=request,
            tokens=tuple(tokenizer.decode([token]) for token in ids),
            subject=(place.first, place.last),
            answer=tokenizer.decode([answer]),
            clean=probability,
            corrupted=corrupted,
            states=states,
            windows=windows,
            window=self.window,
        )

    def _draw_noise(self, tokens: int) -> torch.Tensor:
        """Noise [draws, tokens, features], the same for every request with as many subject tokens."""
        width = int(torch.as_tensor(self._embedding.weight).shape[-1])
        generator = torch.Generator().manual_seed(self._seed)
        drawn = torch.randn(self._draws, tokens, width, generator=generator) * self._scale
        return drawn.to(self._lm.device, self._lm.dtype)

    def _run(self, ids: Sequence[int], rows: int) -> torch.Tensor:
        """Return the logits [rows, vocabulary] after the last token of `rows` copies of one text, fp32."""
        batch = torch.tensor([list(ids)] * rows, device=self._lm.device)
        places = torch.arange(rows) * len(ids) + len(ids) - 1
        with select_logits(self._lm, places):
            logits: torch.Tensor = self._lm.run(input_ids=batch, use_cache=False).logits[0]
        return logits.float()

    @staticmethod
    def _mean_probability(logits: torch.Tensor, answer: int) -> float:
        return float(logits.softmax(-1)[:, answer].mean())

    @contextmanager
    def _corrupt(self, fact: _Fact, rows: int) -> Iterator[None]:
        """Add the noise, draw after draw, to the subject's embeddings in rows that repeat the draws."""
        repeated = fact.noise.repeat(rows // len(fact.noise), 1, 1)

        def add(_: torch.nn.Module, __: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
            changed = output.clone()
            changed[:, fact.first : fact.first + fact.noise.shape[1]] += repeated
            return changed

        handle = self._embedding.register_forward_hook(add)
        try:
            yield
        finally:
            handle.remove()

    def _run_corrupted(self, fact: _Fact) -> tuple[float, list[Entry]]:
        """Return the answer's probability where nothing is restored, and what enters each block then."""

        def run(_: Sequence[int]) -> tuple[float, list[Entry]]:
            with self._corrupt(fact, self._draws), _record_inputs(self._sites) as bad:
                probability = self._mean_probability(self._run(fact.ids, self._draws), fact.answer)
            return probability, bad

        ((_, result),) = run_fitting([[0]], run)
        return result

    def _restore_states(self, fact: _Fact, layer: int, clean: torch.Tensor, bad: Entry) -> torch.Tensor:
        """Return the answer's probability [tokens from the subject's first on] with what enters block `layer` restored there."""
        # What stands before the subject is not corrupted, so there is nothing to restore.
        tokens, at_once = range(fact.first, len(fact.ids)), max(1, _ROWS // self._draws)

        def run(some: Sequence[int]) -> torch.Tensor:
            rows = bad.hidden.repeat(len(some), 1, 1).view(len(some), self._draws, *bad.hidden.shape[1:])
            for row, token in enumerate(some):
                rows[row, :, token] = clean[0, token]
            with run_from(self._sites[layer], Entry(rows.flatten(0, 1), bad.returned)):
                return self._run(fact.ids, len(some) * self._draws)

        parts = [[*tokens[start : start + at_once]] for start in range(0, len(tokens), at_once)]
        logits = torch.cat([part for _, part in run_fitting(parts, run)])
        return logits.softmax(-1)[:, fact.answer].view(len(tokens), self._draws).mean(1).cpu()

    def _restore_windows(self, fact: _Fact, values: list[torch.Tensor]) -> torch.Tensor:
        """Return the answer's probability [layers] with a window of MLP outputs restored at the subject's last token."""
        centres, at_once = range(len(self._sites)), max(1, _ROWS // self._draws)

        def run(some: Sequence[int]) -> torch.Tensor:
            rows = len(some) * self._draws
            with (
                self._corrupt(fact, rows),
                _restore_outputs(self._sites, self._select_windows(some), values, fact.last, len(fact.ids)),
            ):
                logits = self._run(fact.ids, rows)
            return logits.softmax(-1)[:, fact.answer].view(len(some), self._draws).mean(1).cpu()

        parts = [[*centres[start : start + at_once]] for start in range(0, len(centres), at_once)]
        return torch.cat([part for _, part in run_fitting(parts, run)])

    def _select_windows(self, centres: Sequence[int]) -> list[list[bool]]:
        """Return for each layer the rows in which it is restored; each centre has as many rows as there are draws."""
        below = self.window // 2
        return [
            [centre - below <= layer < centre - below + self.window for centre in centres for _ in range(self._draws)]
            for layer in range(len(self._sites))
        ]


def _measure_spread(embedding: torch.nn.Module, device: torch.device) -> float:
    """Return the standard deviation of the embedding's output over all tokens; Gemma scales its table."""
    table: Any = embedding.weight
    count = total = squares = 0.0
    with torch.no_grad():
        for ids in torch.arange(table.shape[0], device=device).split(_TABLE):
            values = embedding(ids[None]).double()
            count, total, squares = (
                count + values.numel(),
                total + float(values.sum()),
                squares + float((values**2).sum()),
            )
    return math.sqrt(max(0.0, squares - total**2 / count) / (count - 1))


@contextmanager
def _record_inputs(sites: Sequence[EditSite]) -> Iterator[list[Entry]]:
    """Record what enters each block, in the blocks' order."""
    entries: list[Entry] = []
    with ExitStack() as stack:
        parts = [stack.enter_context(record_entry(site)) for site in sites]
        yield entries
    entries += [part[0] for part in parts]


@contextmanager
def _record_outputs(sites: Sequence[EditSite]) -> Iterator[list[torch.Tensor]]:
    """Record the output of each site."""
    outputs: list[torch.Tensor] = []

    def keep(_: torch.nn.Module, __: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        # Falcon adds to the output in place, after this.
        outputs.append(output.detach().clone())

    handles = [site.module.register_forward_hook(keep) for site in sites]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _restore_outputs(
    sites: Sequence[EditSite], rows: Sequence[Sequence[bool]], values: Sequence[torch.Tensor], token: int, width: int
) -> Iterator[None]:
    """Put each site's clean output at `token` into the rows that `rows` selects."""

    def restore(layer: int) -> Any:
        places = torch.tensor([row * width + token for row, yes in enumerate(rows[layer]) if yes], dtype=torch.long)

        def put(_: torch.nn.Module, __: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
            # Some models (OPT) run their MLP on [rows * tokens, features], so the places are counted flat.
            changed = output.clone()
            changed.view(-1, output.shape[-1])[places] = values[layer].reshape(-1, output.shape[-1])[token]
            return changed

        return put

    handles = [site.module.register_forward_hook(restore(layer)) for layer, site in enumerate(sites)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

"""Text written by the model itself: sampled under a seed, or greedy.

A batch is padded on the left, whatever the tokenizer's own padding side is.
The process's random state is neither used nor changed.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from ..errors import NotFinite
from .batches import pad, run_fitting
from .hooks import get_pad_id, select_logits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch

    from ..model.language_model import LanguageModel

__all__ = ["continue_greedily", "guess_continuations", "sample_continuations"]

_ROWS = 128
"""Rows of one batch."""


def continue_greedily(
    lm: LanguageModel,
    rows: Sequence[Sequence[int]],
    tokens: int | Sequence[int],
    drafts: Sequence[Sequence[int]] | None = None,
) -> list[list[int]]:
    """Return the greedy continuation of each row of ids: `tokens` new ids (one number, or one a row).

    A continuation is shorter where the text ends.
    `drafts` are guesses of the continuations.
    A single pass over a row's draft shows how much of it is the greedy choice; only the rest is generated.
    A good guess saves time, and a bad one changes nothing.
    """
    lengths = [tokens] * len(rows) if isinstance(tokens, int) else list(tokens)
    drafts = None if drafts is None else [draft[:most] for draft, most in zip(drafts, lengths, strict=True)]
    agreed = [0] * len(rows) if drafts is None else _count_agreed(lm, rows, drafts)
    texts = [list(draft) for draft in drafts] if drafts is not None else [[] for _ in rows]
    # A draft that is shorter has ended, and agrees that it does.
    left = [index for index, count in enumerate(agreed) if count < max(len(texts[index]), 1)]
    if left:
        begun = [[*rows[index], *texts[index][: agreed[index]]] for index in left]
        most = max(lengths[index] - agreed[index] for index in left)
        for index, new in zip(left, _generate(lm, begun, most), strict=True):
            texts[index] = [*texts[index][: agreed[index]], *new][: lengths[index]]
    return texts


def _count_agreed(lm: LanguageModel, rows: Sequence[Sequence[int]], drafts: Sequence[Sequence[int]]) -> list[int]:
    """Return how many ids of each draft, counted from its start, are the model's greedy choice."""
    import torch

    joined = [[*row, *draft] for row, draft in zip(rows, drafts, strict=True)]
    batch = pad(joined, get_pad_id(lm), lm.device)
    width = batch.input_ids.shape[1]
    places = [n * width + len(row) - 1 + step for n, row in enumerate(rows) for step in range(len(drafts[n]))]
    with torch.no_grad(), select_logits(lm, torch.tensor(places, dtype=torch.long)):
        choices = lm.run(**batch._asdict(), use_cache=False).logits[0].argmax(-1)
    chosen = choices.split([len(draft) for draft in drafts])
    return [
        next(
            (step for step, (token, choice) in enumerate(zip(draft, row.tolist(), strict=True)) if token != choice),
            len(draft),
        )
        for draft, row in zip(drafts, chosen, strict=True)
    ]


def sample_continuations(
    lm: LanguageModel,
    rows: Sequence[Sequence[int]],
    tokens: int,
    *,
    seed: int | Sequence[int],
    top_k: int,
    least: int = 0,
    temperature: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[int]]:
    """Return one sampled continuation of each row, reproducible from the seed on one machine.

    With a seed for each row, the sample of a row does not depend on the other rows.
    `progress` is called with (steps done, all steps) after each token of a batch.

    Raises `NotFinite` where the model's logits hold NaN or +Inf.
    """
    from transformers import LogitsProcessorList

    steps = _Steps(tokens * -(-len(rows) // _ROWS), progress)
    draw = _GumbelSampler([seed] if isinstance(seed, int) else seed, top_k, temperature, steps.advance)
    texts = _generate(
        lm, rows, tokens, draw.drawing, min_new_tokens=least, logits_processor=LogitsProcessorList([draw])
    )
    steps.finish()
    return texts


class _Steps:
    """Counts the tokens sampled for a batch, and reports them to `progress` as (done, all).

    A batch that runs again in halves takes more steps than planned; a text that ends early takes fewer.
    """

    def __init__(self, total: int, progress: Callable[[int, int], None] | None) -> None:
        self._total, self._progress, self._done = total, progress, 0

    def advance(self) -> None:
        """Report one more step; `finish` reports the last one."""
        self._done = min(self._done + 1, self._total - 1)
        if self._progress is not None:
            self._progress(self._done, self._total)

    def finish(self) -> None:
        """Report that all steps are done."""
        if self._progress is not None:
            self._progress(self._total, self._total)


class _GumbelSampler:
    """Adds Gumbel noise to the `top_k` largest logits and forbids the others: the greedy choice is then a sample.

    The distribution equals sampling from their softmax.
    It needs no pass over the vocabulary and no random state of the process.
    Source: Gumbel-max trick, e.g. arXiv 1611.01144, equation 1.
    """

    def __init__(self, seeds: Sequence[int], top_k: int, temperature: float, on_step: Callable[[], None]) -> None:
        import torch

        self._on_step = on_step

        self._top_k, self._temperature = top_k, temperature
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._drawn_by = self._generators

    @contextmanager
    def drawing(self, members: Sequence[int]) -> Iterator[None]:
        """Sample for the rows of these indices; the generators are reset where the block raises."""
        chosen = self._generators if len(self._generators) == 1 else [self._generators[index] for index in members]
        before, self._drawn_by = [generator.get_state() for generator in chosen], chosen
        finished = False
        try:
            yield
            finished = True
        finally:
            if not finished:
                for generator, state in zip(chosen, before, strict=True):
                    generator.set_state(state)

    def __call__(self, _: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        import torch

        # -Inf is how earlier processors forbid a token; NaN and +Inf come from the model.
        if bool((scores.isnan() | scores.isposinf()).any()):
            raise NotFinite(
                "The model's logits hold NaN or Inf, so no text can be sampled from it and no edit of it judged; check its "
                "weights and dtype."
            )
        best = scores.topk(min(self._top_k, scores.shape[-1]))
        each = torch.empty(best.values.shape).chunk(len(self._drawn_by))
        noise = -torch.cat(
            [part.exponential_(generator=by) for part, by in zip(each, self._drawn_by, strict=True)]
        ).log()
        drawn = best.values.float() / self._temperature + noise.to(scores.device)
        self._on_step()
        return torch.full_like(scores, -float("inf"), dtype=torch.float32).scatter(-1, best.indices, drawn)


def guess_continuations(
    lm: LanguageModel,
    rows: Sequence[Sequence[int]],
    tokens: int,
    during: Callable[[Sequence[int]], AbstractContextManager[None]],
) -> list[list[int]]:
    """Return the greedy continuation of each row of ids, written in the context that `during` returns.

    `during` is called with the indices of a batch's rows; a batch that does not fit into memory is split.
    """
    return _generate(lm, rows, tokens, during)


def _generate(
    lm: LanguageModel,
    rows: Sequence[Sequence[int]],
    tokens: int,
    during: Callable[[Sequence[int]], AbstractContextManager[None]] = lambda _: nullcontext(),
    **options: Any,
) -> list[list[int]]:
    chunks = [range(len(rows))[start : start + _ROWS] for start in range(0, len(rows), _ROWS)]

    def run(members: Sequence[int]) -> list[list[int]]:
        with during(members):
            return _generate_chunk(lm, [rows[index] for index in members], tokens, **options)

    return [row for _, texts in run_fitting(chunks, run) for row in texts]


def _generate_chunk(lm: LanguageModel, rows: Sequence[Sequence[int]], tokens: int, **options: Any) -> list[list[int]]:
    import torch

    generate: Any = lm.model.generate
    width, fill = max(len(row) for row in rows), get_pad_id(lm)
    ids = torch.tensor([[fill] * (width - len(row)) + list(row) for row in rows], device=lm.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=lm.device)
    # A checkpoint's own generation settings may forbid repetition, which would hide a model that repeats itself.
    plain = {
        "do_sample": False,
        "num_beams": 1,
        "repetition_penalty": 1.0,
        "no_repeat_ngram_size": 0,
        "min_new_tokens": 0,
    }
    chosen = {**plain, **options, "max_new_tokens": tokens, "pad_token_id": fill}
    with torch.no_grad(), lm.products():
        out = generate(input_ids=ids, attention_mask=mask, **chosen)
    return [_cut_at_end(row, _get_end_ids(lm)) for row in out[:, width:].tolist()]


def _get_end_ids(lm: LanguageModel) -> set[int]:
    token_id = lm.model.generation_config.eos_token_id
    return set(token_id if isinstance(token_id, list) else [token_id])


def _cut_at_end(row: list[int], ends: set[int]) -> list[int]:
    """Return the row up to the end of its text, without padding; the id of the end stays."""
    return row[: next((index + 1 for index, token in enumerate(row) if token in ends), len(row))]

"""Text written by the model itself: sampled under a seed, or greedy. One batch, padded on the left, whatever the
tokenizer's own padding side is; the process's random state is left as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .errors import NotFinite
from .keys import pad_id

if TYPE_CHECKING:
    import torch

    from .model import LanguageModel

__all__ = ["continuations", "sampled"]


def continuations(lm: LanguageModel, rows: Sequence[Sequence[int]], tokens: int) -> list[list[int]]:
    """Return the greedy continuation of each row of ids, at most `tokens` new ids."""
    # A checkpoint's own generation settings may forbid repetition, which would hide a model that repeats itself.
    return _generate(lm, rows, tokens, do_sample=False, repetition_penalty=1.0, no_repeat_ngram_size=0)


def sampled(
    lm: LanguageModel, rows: Sequence[Sequence[int]], tokens: int, *, seed: int, top_k: int, least: int = 0
) -> list[list[int]]:
    """Return one sampled continuation (temperature 1) of each row, reproducible from the seed on one machine.

    Raises `NotFinite` where the model's logits hold NaN or +Inf, so that nothing can be drawn from them.
    """
    import torch
    from transformers import LogitsProcessorList

    devices = [lm.device] if lm.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        return _generate(
            lm, rows, tokens, do_sample=True, top_k=top_k, temperature=1.0, top_p=1.0, min_new_tokens=least,
            logits_processor=LogitsProcessorList([_finite]),
        )  # fmt: skip


def _finite(_: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    # -Inf is how earlier processors forbid a token; NaN and +Inf come from the model.
    if bool((scores.isnan() | scores.isposinf()).any()):
        raise NotFinite(
            "The model's logits hold NaN or Inf, so no text can be sampled from it and no edit of it judged; check its "
            "weights and dtype."
        )
    return scores


def _generate(lm: LanguageModel, rows: Sequence[Sequence[int]], tokens: int, **options: Any) -> list[list[int]]:
    import torch

    generate: Any = lm.model.generate
    width, fill = max(len(row) for row in rows), pad_id(lm)
    ids = torch.tensor([[fill] * (width - len(row)) + list(row) for row in rows], device=lm.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=lm.device)
    with torch.no_grad():
        out = generate(input_ids=ids, attention_mask=mask, max_new_tokens=tokens, pad_token_id=fill, **options)
    found: list[list[int]] = out[:, width:].tolist()
    return found

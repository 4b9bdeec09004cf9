"""A model that answers every prompt with one word, which checks of leaks and of other facts must catch.

The model runs as usual. A hook on its output head favours one token at every place, so that the model writes this token over
and over. No weight is written, and the hook is removed in ``finally``.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..probes.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from ..probes.model.language_model import LanguageModel

__all__ = ["answer_constantly"]

_PUSH = 1e4
"""Added to the token's logit: far above the logits of a model, and finite in half precision."""


@contextmanager
def answer_constantly(lm: LanguageModel, token: int) -> Iterator[None]:
    """Let the model's greedy choice be `token` everywhere; raises `ModelError` where it has no output head to hook."""
    model: Any = lm.model
    head = model.get_output_embeddings()
    if head is None:
        raise ModelError(
            f"The model {lm.ref!r} has no output head that can be hooked, so no control of its answers can be made; take a "
            "causal language model of transformers."
        )

    def push(_: torch.nn.Module, __: object, logits: torch.Tensor) -> torch.Tensor:
        pushed = logits.clone()
        pushed[..., token] += _PUSH
        return pushed

    handle = head.register_forward_hook(push)
    try:
        yield
    finally:
        handle.remove()

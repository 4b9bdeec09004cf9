"""Parts of a forward pass that several modules share: padding ids, block inputs, selected logits, attention caches."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from transformers.cache_utils import DynamicCache, DynamicLayer

from ..errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch

    from ..model.language_model import LanguageModel
    from ..model.site import EditSite

__all__ = ["Entry", "build_cache", "get_pad_id", "record_entry", "select_logits", "stop_after", "stop_after_all"]


def get_pad_id(lm: LanguageModel) -> int:
    """Return an id for padded places; they are masked, so any id serves."""
    token_id = lm.tokenizer.pad_token_id
    return int(token_id) if token_id is not None else 0


class _Reached(Exception):
    """Raised by our own hook once the site has run; only `stop_after_all` catches it."""


@contextmanager
def stop_after_all(
    modules: Sequence[torch.nn.Module], see: Callable[[int, torch.Tensor, torch.Tensor], None]
) -> Iterator[None]:
    """Call `see` with (index, input, output) as each of `modules` runs, and end the forward pass once all have.

    `see` must copy the tensors it needs: nothing is stored, and Falcon changes an output in place later.
    The hooks are removed in any case.
    Raises `ModelError` when the body ends before all of them have run.
    """
    left = set(range(len(modules)))

    def hook(index: int) -> Callable[[torch.nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
        def record(_: torch.nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            see(index, args[0], output)
            left.discard(index)
            if not left:
                raise _Reached

        return record

    with ExitStack() as hooks:
        for index, module in enumerate(modules):
            hooks.callback(module.register_forward_hook(hook(index)).remove)
        with suppress(_Reached):
            yield
    if left:
        raise ModelError(
            f"The edit site {type(modules[min(left)]).__name__} never ran in a forward pass; name the layer's "
            "down-projection by path."
        )


@contextmanager
def stop_after(module: torch.nn.Module) -> Iterator[list[tuple[torch.Tensor, torch.Tensor]]]:
    """Record the (input, output) of `module` and end the forward pass there; the hook is removed in any case.

    Raises `ModelError` when the body ends before the module has run.
    """
    records: list[tuple[torch.Tensor, torch.Tensor]] = []
    with stop_after_all([module], lambda _, inputs, output: records.append((inputs, output))):
        yield records


class Entry(NamedTuple):
    """What enters the site's block in one forward pass: the hidden state [rows, tokens, d_model]."""

    hidden: torch.Tensor
    returned: int | None
    """Length of the tuple that a block returns; None where it returns the hidden state itself."""


@contextmanager
def record_entry(site: EditSite) -> Iterator[list[Entry]]:
    """Record what enters the site's block in each forward pass."""
    hidden: list[torch.Tensor] = []
    entries: list[Entry] = []

    def enter(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden.append((args[0] if args else kwargs["hidden_states"]).detach())

    def leave(_: torch.nn.Module, __: tuple[Any, ...], output: Any) -> None:
        entries.append(Entry(hidden.pop(), len(output) if isinstance(output, tuple) else None))

    handles = [
        site.block.register_forward_pre_hook(enter, with_kwargs=True),
        site.block.register_forward_hook(leave),
    ]
    try:
        yield entries
    finally:
        for handle in handles:
            handle.remove()


def build_cache(
    layers: Sequence[tuple[torch.Tensor, torch.Tensor]], kind: type[DynamicLayer] = DynamicLayer
) -> DynamicCache:
    """Return a cache that holds each layer's (keys, values) [rows, heads, tokens, features]."""
    cache = DynamicCache()
    cache.layers = []
    for keys, values in layers:
        layer: Any = cast("Any", kind)()  # its constructor has no types
        layer.keys, layer.values = keys, values
        layer.dtype, layer.device, layer.is_initialized = keys.dtype, keys.device, True
        cache.layers.append(layer)
    return cache


@contextmanager
def select_logits(lm: LanguageModel, places: torch.Tensor) -> Iterator[None]:
    """Give the head only the flat `places` (row * tokens + token): its logits are [1, places, vocabulary]."""
    head = lm.model.get_output_embeddings()

    def choose(_: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        return (args[0].flatten(0, 1)[places.to(args[0].device)].unsqueeze(0),)

    handle = head.register_forward_pre_hook(choose)
    try:
        yield
    finally:
        handle.remove()

"""Where the parts of a transformer lie: its stack of blocks, and in a block the map that ends the MLP.

The order is the stack (`find_stack`, or `find_stack_on_path` when the user named the map), then the block, then
`find_mixture_part` and `find_down_projection` inside it.
Everything is read off module names, module classes and the widths of linear maps.
No forward pass is run, so a large model costs as much as a small one.
Out of scope: whether the map may be edited (`site`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from torch import nn
from transformers.pytorch_utils import Conv1D

from ..errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "LinearMap",
    "Stack",
    "attends_causally",
    "find_down_projection",
    "find_mixture_part",
    "find_stack",
    "find_stack_on_path",
]

LinearMap = nn.Linear | Conv1D
"""The two classes of linear map in transformers models: Linear and Conv1D."""

_LAST_MAPS = frozenset({"c_proj", "fc_out", "dense_4h_to_h", "fc2", "down_proj", "wo"})
"""Names of the last map of an MLP: GPT-2 and GPT-Neo, GPT-J, NeoX/Bloom/Falcon, OPT and Phi, Llama and kin, T5."""

_ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
_MLP = re.compile(r"mlp|ffn|feed_?forward|^ff$", re.IGNORECASE)
_MIXTURE_NAME = re.compile(r"^(shared_)?experts?$|^router$|moe", re.IGNORECASE)
# Not "Moe" alone: the dense layers of a mixed model are of a class such as Qwen2MoeMLP.
_MIXTURE_CLASS = re.compile(r"Experts|Router")


class Stack(NamedTuple):
    """A model's transformer blocks, and the path at which the model holds them."""

    path: str
    blocks: nn.ModuleList


def find_stack(model: nn.Module) -> Stack:
    """Return the stack of transformer blocks that a user means by "layer".

    It is the longest outermost ModuleList whose blocks are of one class and hold attention and an MLP.
    A causal stack goes before a vision or audio tower; in an encoder-decoder model it is the encoder.
    Raises `ModelError` when there is no such stack, or two of the same length.
    """
    stacks: list[Stack] = []
    for path, module in model.named_modules():
        inside = any(path.startswith(f"{stack.path}.") for stack in stacks)
        if isinstance(module, nn.ModuleList) and not inside and _is_stack(module):
            stacks.append(Stack(path, module))
    if not stacks:
        raise ModelError(
            f"{type(model).__name__} holds no stack of transformer blocks, which is a ModuleList of one class with "
            "attention and an MLP in each; name the map with --site, such as 'model.layers.{layer}.mlp.down_proj'."
        )
    wants_encoder = bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))
    preferred = [stack for stack in stacks if (attends_causally(stack.blocks) is False) == wants_encoder] or stacks
    longest = max(len(stack.blocks) for stack in preferred)
    candidates = [stack for stack in preferred if len(stack.blocks) == longest]
    if len(candidates) > 1:
        names = " and ".join(repr(stack.path) for stack in candidates)
        raise ModelError(
            f"{type(model).__name__} holds {len(candidates)} stacks of {longest} transformer blocks, {names}, and a layer "
            f"must belong to one; name the map with --site, such as '{candidates[0].path}.{{layer}}.mlp.down_proj'."
        )
    return candidates[0]


def find_stack_on_path(model: nn.Module, path: str, layer: int) -> Stack:
    """Return the first ModuleList on `path`, which must be followed by ``{layer}`` or by `layer` itself.

    Raises `ModelError` when the path meets no ModuleList, or has another number after it.
    """
    module = model
    walked: list[str] = []
    for step in path.split("."):
        if isinstance(module, nn.ModuleList):
            if step not in ("{layer}", str(layer)):
                break
            return Stack(".".join(walked), module)
        children = dict(module.named_children())
        if step not in children:
            break
        module, walked = children[step], [*walked, step]
    raise ModelError(
        f"The site {path!r} does not lead through a ModuleList of {type(model).__name__} to layer {layer}; "
        "write the path of the map with {layer} for the number, such as 'model.layers.{layer}.mlp.down_proj'."
    )


def attends_causally(part: nn.Module) -> bool | None:
    """Return whether the attention under `part` is causal; None where no module says so (Bloom)."""
    answers = {getattr(module, "is_causal", None) for _, module in part.named_modules()} - {None}
    # A decoder's cross-attention says False beside a self-attention that says True.
    return None if not answers else True in answers


def find_mixture_part(block: nn.Module) -> str | None:
    """Return the path inside `block` of its first expert or router, or None when its MLP is dense."""
    for path, module in _outside_attention(block):
        if path and (_MIXTURE_NAME.search(_leaf(path)) or _MIXTURE_CLASS.search(type(module).__name__)):
            return path
    return None


def find_down_projection(block: nn.Module, hidden_size: int | None = None) -> str:
    """Return the path inside `block` of the last linear map of its MLP.

    It is the only map that the widths allow as the last (it writes `hidden_size`, and the others write what it reads),
    unless known names contradict that. Where the widths allow several (square weights) or none, it is the only map with a
    known name. Raises `ModelError`, naming the candidates, when neither rule decides.
    """
    prefix, mlp = _mlp(block)
    parts = [(f"{prefix}{path}", module) for path, module in _outside_attention(mlp) if path]
    maps = {path: _widths(module) for path, module in parts if isinstance(module, LinearMap)}
    fitting = [path for path in maps if _could_be_last(path, maps, hidden_size)]
    # A known name counts whatever the class: a quantised or wrapped map is found here, and refused for what it is.
    named = [
        path
        for path, _ in parts
        if _leaf(path) in _LAST_MAPS and (path not in maps or maps[path].out == (hidden_size or maps[path].out))
    ]
    if len(fitting) == 1 and (not named or fitting[0] in named):
        return fitting[0]
    if len(named) == 1 and len(fitting) != 1:
        return named[0]
    candidates = ", ".join(f"{path} ({width.into} to {width.out})" for path, width in maps.items()) or "none"
    raise ModelError(
        f"The last linear map of the MLP of {type(block).__name__} cannot be told from names and widths "
        f"(candidates: {candidates}), and it is never guessed; name it with --site, such as "
        "'model.layers.{layer}.mlp.down_proj'."
    )


class _Widths(NamedTuple):
    into: int
    out: int


def _widths(module: nn.Module) -> _Widths:
    if isinstance(module, nn.Linear):
        return _Widths(module.in_features, module.out_features)
    assert isinstance(module, Conv1D)
    return _Widths(int(module.nx), int(module.nf))


def _could_be_last(path: str, maps: dict[str, _Widths], hidden_size: int | None) -> bool:
    """Whether all other maps read what this one writes to and write what it reads (twice that, if gates are fused)."""
    own = maps[path]
    others = [width for other, width in maps.items() if other != path]
    if not others or own.out != (hidden_size or own.out):
        return False
    return all(other.into == own.out and other.out in (own.into, 2 * own.into) for other in others)


def _mlp(block: nn.Module) -> tuple[str, nn.Module]:
    """The MLP of a block with its path prefix; the block itself where the maps lie directly in it, as in OPT."""
    children = [
        (name, child)
        for name, child in block.named_children()
        # A norm may be called "ln_mlp" or "post_feedforward_layernorm"; it has no parts.
        if _MLP.search(name) and not _is_attention(name, child) and any(True for _ in child.children())
    ]
    return (f"{children[0][0]}.", children[0][1]) if len(children) == 1 else ("", block)


def _is_stack(blocks: nn.ModuleList) -> bool:
    if len({type(block) for block in blocks}) != 1:
        return False
    # Any block, not all: hybrid models have layers with a convolution in attention's place.
    return any(_has_attention(block) for block in blocks) and any(_has_mlp(block) for block in blocks)


def _has_attention(block: nn.Module) -> bool:
    return any(_is_attention(_leaf(path), module) for path, module in block.named_modules() if path)


def _has_mlp(block: nn.Module) -> bool:
    # Buffers too, since quantised layers keep their weights there.
    return any(
        tensor.dim() >= 2
        for _, module in _outside_attention(block)
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False))
    )


def _is_attention(name: str, module: nn.Module) -> bool:
    named = _ATTENTION.search(name) or _ATTENTION.search(type(module).__name__)
    # "post_attention_layernorm" is a norm: it has no parts.
    return bool(named) and any(True for _ in module.children())


def _outside_attention(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """All modules under `module` with their paths, itself first, but for attention and what lies in it."""
    yield path, module
    for name, child in module.named_children():
        if not _is_attention(name, child):
            yield from _outside_attention(child, f"{path}.{name}" if path else name)


def _leaf(path: str) -> str:
    return path.rpartition(".")[2]

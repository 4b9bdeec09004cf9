"""The edit site: the down-projection of one transformer layer, found by module class and never by its weight's shape.

`find_site` finds the stack and the map (`architecture`), refuses a map that cannot be edited or read truly, and returns
an `EditSite`. Its `matrix` is [d_model, d_ff] whatever the module's own layout, and `write` puts a matrix back in place.
Out of scope: activations (`keys`), undoing a write (transactions), and whether an edit is a good idea (the probes).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..errors import ModelError
from .architecture import (
    LinearMap,
    attends_causally,
    find_down_projection,
    find_mixture_part,
    find_stack,
    find_stack_on_path,
)

__all__ = ["EditSite", "Orientation", "count_layers", "find_site"]

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_QUANTISED_CLASS = re.compile(
    r"quant|[48]bit|gptq|awq|hqq|gguf|fp8|bitlinear|compressed|bitsandbytes|torchao", re.IGNORECASE
)
_LOAD_FULL = "load the model in float32, bfloat16 or float16, without quantisation, and edit that"


class Orientation(Enum):
    """How a module stores its map; follows from its class, so it holds for square weights too."""

    OUT_IN = "out_in"
    """`torch.nn.Linear`: weight [d_model, d_ff]."""
    IN_OUT = "in_out"
    """`transformers.pytorch_utils.Conv1D`: weight [d_ff, d_model]."""


@dataclass(frozen=True, kw_only=True)
class EditSite:
    """The linear map from keys [d_ff] to values [d_model] that ends one layer's MLP."""

    layer: int
    path: str
    """Path of the map in the model, e.g. ``model.layers.13.mlp.down_proj``."""
    module: nn.Module
    orientation: Orientation
    d_ff: int
    d_model: int
    blocks: nn.ModuleList
    """The stack of transformer blocks that the layer belongs to."""
    blocks_path: str
    """Path of the stack in the model, e.g. ``model.layers``."""
    editable: bool = True
    """False where the site may be read but not written: encoders and encoder-decoder models."""
    reason: str = ""
    """Why it is not editable, as one sentence; empty where it is."""

    @property
    def block(self) -> nn.Module:
        """The transformer block that the site lies in."""
        return self.blocks[self.layer]

    @property
    def weight(self) -> nn.Parameter:
        """The module's own parameter, in its own layout and dtype."""
        return cast("nn.Parameter", self.module.weight)

    @property
    def bias(self) -> Tensor | None:
        """The module's bias [d_model], detached; None where it has none."""
        bias = cast("Tensor | None", getattr(self.module, "bias", None))
        return None if bias is None else bias.detach()

    def matrix(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the map W as a contiguous copy [d_model, d_ff] in `dtype`, detached, on the weight's device.

        It is a copy even where no conversion is needed, so a matrix kept for restoring does not change with the weight.
        """
        return self._as_out_in().to(dtype, copy=True, memory_format=torch.contiguous_format)

    def write(self, matrix: Tensor) -> None:
        """Write `matrix` [d_model, d_ff] into the weight in place, cast to its dtype and moved to its device.

        Values are not judged here: what is not finite is refused by the guarded editor, before it writes. Raises
        `ModelError` for a wrong shape or a site that is not editable.
        """
        if not self.editable:
            raise ModelError(self.reason)
        if tuple(matrix.shape) != (self.d_model, self.d_ff):
            raise ModelError(
                f"A matrix of shape {tuple(matrix.shape)} does not fit {self.path}, which takes [d_model, d_ff] = "
                f"({self.d_model}, {self.d_ff}); give the map in that orientation, as `matrix()` returns it."
            )
        with torch.no_grad():
            self._as_out_in().copy_(matrix)

    def _as_out_in(self) -> Tensor:
        """The weight as a detached view [d_model, d_ff]."""
        weight = self.weight.detach()
        return weight.T if self.orientation is Orientation.IN_OUT else weight


def count_layers(model: nn.Module, path: str | None = None) -> int:
    """Return the number of layers in the model's stack of transformer blocks, or in the stack on `path`.

    `path` has ``{layer}`` for the number. Raises `ModelError` where there is no stack.
    """
    return len((find_stack(model) if path is None else find_stack_on_path(model, path, 0)).blocks)


def find_site(model: nn.Module, layer: int, path: str | None = None) -> EditSite:
    """Return the edit site of `layer`, counted from 0.

    `path` overrides the search, with ``{layer}`` for the number: ``"model.layers.{layer}.mlp.down_proj"``.
    Raises `ModelError` when the layer does not exist or the map cannot be identified, and when the map cannot be edited or
    read truly: a mixture of experts, quantised, parametrized, on the meta device, or shared with another module.
    The site of an encoder or an encoder-decoder model is returned with `editable` False, for probing.
    """
    stack = find_stack(model) if path is None else find_stack_on_path(model, path, layer)
    if not 0 <= layer < len(stack.blocks):
        raise ModelError(
            f"Layer {layer} is not one of the {len(stack.blocks)} layers in {stack.path!r}; "
            f"choose a layer from 0..{len(stack.blocks) - 1}."
        )
    block = stack.blocks[layer]
    _refuse_quantised_config(model)
    _refuse_mixture(block, layer)
    pattern = path or f"{stack.path}.{{layer}}.{find_down_projection(block, _hidden_size(model))}"
    full = pattern.replace("{layer}", str(layer))
    module = _module_at(model, full)
    _refuse_unplain(module, full)
    _refuse_shared(model, cast("nn.Parameter", module.weight), full)

    orientation = Orientation.OUT_IN if isinstance(module, nn.Linear) else Orientation.IN_OUT
    rows, columns = cast("Tensor", module.weight).shape
    d_model, d_ff = (rows, columns) if orientation is Orientation.OUT_IN else (columns, rows)
    reason = _why_read_only(model, block, full)
    return EditSite(
        layer=layer,
        path=full,
        module=module,
        orientation=orientation,
        d_ff=d_ff,
        d_model=d_model,
        blocks=stack.blocks,
        blocks_path=stack.path,
        editable=not reason,
        reason=reason,
    )


def _module_at(model: nn.Module, path: str) -> nn.Module:
    modules: dict[str, nn.Module] = dict(model.named_modules(remove_duplicate=False))
    if path not in modules:
        raise ModelError(
            f"The site {path!r} names no module of {type(model).__name__}; take a path from `model.named_modules()`."
        )
    return modules[path]


def _refuse_quantised_config(model: nn.Module) -> None:
    config = getattr(getattr(model, "config", None), "quantization_config", None)
    if config is None:
        return
    method = config.get("quant_method") if isinstance(config, dict) else getattr(config, "quant_method", None)
    name = str(getattr(method, "value", method or type(config).__name__))
    # A GGUF file may be unpacked while it loads, and the config still says "gguf": its weights are judged one by one.
    if name != "gguf":
        raise ModelError(
            f"The model is quantised ({name}), and an edit is an update of floating-point weights; {_LOAD_FULL}."
        )


def _refuse_mixture(block: nn.Module, layer: int) -> None:
    part = find_mixture_part(block)
    if part is not None:
        raise ModelError(
            f"Layer {layer} is a mixture of experts ({part}), where no single linear map ends the MLP; choose a dense "
            "layer, if the model has one, or a dense model."
        )


def _refuse_unplain(module: nn.Module, path: str) -> None:
    """Refuse anything but a Linear or Conv1D that holds an ordinary floating-point parameter of two dimensions."""
    kind = f"{type(module).__module__}.{type(module).__qualname__}"
    if _QUANTISED_CLASS.search(kind):
        raise ModelError(f"{path} is quantised ({kind}), and an edit needs floating-point weights; {_LOAD_FULL}.")
    if not isinstance(module, LinearMap):
        raise ModelError(
            f"{path} is a {kind}, and a site is a torch.nn.Linear or a transformers Conv1D; merge or unload the "
            "adapter that wraps it, or name another module with --site."
        )
    # The older weight_norm and pruning leave no parameter called "weight", and no parametrization either.
    if parametrize.is_parametrized(module) or "weight" not in module._parameters:
        raise ModelError(
            f"{path} is parametrized: its weight is computed anew in each forward pass, and a write to it would be "
            "lost; remove the parametrization first (torch.nn.utils.parametrize.remove_parametrizations)."
        )
    weight = cast("nn.Parameter", module.weight)
    if weight.is_meta:
        raise ModelError(
            f"{path} is on the meta device, where there are no numbers to read; load the model's weights, without "
            "offloading this layer."
        )
    if type(weight) is not nn.Parameter or weight.dtype not in _DTYPES:
        contents = f"{weight.dtype} in a {type(weight).__name__}"
        raise ModelError(f"{path} holds {contents}, and an edit needs a plain floating-point parameter; {_LOAD_FULL}.")


def _refuse_shared(model: nn.Module, weight: nn.Parameter, path: str) -> None:
    own = _memory(weight)
    for name, other in (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)):
        if name == f"{path}.weight" or other.device != weight.device:
            continue
        start, end = _memory(other)
        if start < own[1] and own[0] < end:
            raise ModelError(
                f"{path}.weight shares its memory with {name}, so one edit would change the model in two places; "
                "untie the two weights (give one of them a clone) before editing."
            )


def _memory(tensor: Tensor) -> tuple[int, int]:
    """First byte and the byte after the last one; ranges rather than storages, since a loader may map one file."""
    if tensor.numel() == 0 or tensor.is_meta or tensor.layout is not torch.strided:
        return (0, 0)
    span = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (tensor.data_ptr(), tensor.data_ptr() + span * tensor.element_size())


def _hidden_size(model: nn.Module) -> int | None:
    config = getattr(model, "config", None)
    if config is None:
        return None
    try:
        text = config.get_text_config()
    except (AttributeError, ValueError):  # a config of somebody's own, or one with two text models in it
        return None
    hidden = getattr(text, "hidden_size", None)
    return hidden if isinstance(hidden, int) else None


def _why_read_only(model: nn.Module, block: nn.Module, path: str) -> str:
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        owner = f"belongs to an encoder-decoder model ({type(model).__name__})"
    elif attends_causally(block) is False:
        owner = f"belongs to an encoder ({type(block).__name__}), whose attention looks both ways"
    else:
        return ""
    return (
        f"{path} {owner}, and edits are defined for causal decoders; read it with the probes, or take a causal "
        "language model to edit."
    )

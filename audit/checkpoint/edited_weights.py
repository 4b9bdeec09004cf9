"""The weights of an edited checkpoint, as far as they differ from the base's, and the base with these weights in place.

Only what differs is kept, so that an edit of a few tensors costs the memory of these. The edited weights are put into the
base model itself for the length of a block, by reference. Both are read in the base's type: a checkpoint that was saved in a
narrower one is judged with the values that it holds.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch

from ...probes.errors import ModelError
from ...probes.model.architecture import find_stack
from ...probes.model.folders.differences import compare_folders
from ...probes.model.folders.refusals import is_adapter_folder
from ...probes.model.language_model import check_model_ref, load_model
from ...probes.research.change_kind import ChangedTensor, classify_changes
from ...probes.research.tensor_change import TensorChange, compare_tensors, has_same_bits

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ...probes.model.language_model import LanguageModel

__all__ = ["EditedWeights", "check_checkpoint", "read_edited_weights"]

_NARROWER = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, kw_only=True)
class EditedWeights:
    """The tensors of an edited model that differ from those of its base `lm`, by name."""

    ref: str
    lm: LanguageModel
    """The base. Its weights are the edited ones inside of `in_place`."""
    values: Mapping[str, torch.Tensor]
    """In the base's dtype and on its device."""
    changes: Mapping[str, TensorChange]
    """Of the tensors that really changed: not of those that are the base's, rounded to a narrower type."""
    tensors: int
    """Tensors of the model."""
    differences: tuple[str, ...] = ()
    """Differences of tokenizer and configuration, a sentence each."""
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        """Take the fingerprint of the edited model."""
        with self.in_place():
            # A copy forgets the base's.
            object.__setattr__(self, "fingerprint", replace(self.lm).fingerprint)

    @property
    def cast(self) -> int:
        """The number of tensors that differ by their type alone."""
        return len(self.values) - len(self.changes)

    @property
    def rounded_away(self) -> int:
        """The number of tensors whose change is within what rounding can do."""
        return sum(change.within_rounding for change in self.changes.values())

    @property
    def kind(self) -> str:
        """The kind of all changes together, as a clause."""
        changed = [
            ChangedTensor(
                name=name,
                shape=tuple(self.values[name].shape),
                rank=None if change.spectrum is None else change.spectrum.determined,
                within_rounding=change.within_rounding,
            )
            for name, change in self.changes.items()
        ]
        matrices = sum(tensor.ndim == 2 for tensor in _list_tensors(self.lm.model).values())
        return classify_changes(changed, matrices).sentence

    @property
    def lowest_layer(self) -> int | None:
        """The lowest layer in which a tensor differs; None where one lies in no layer, so that whole passes are needed."""
        stack = find_stack(self.lm.model)
        layers = set()
        for name in self.values:
            start = f"{stack.path}."
            if not name.startswith(start):
                return None
            layers.add(int(name.removeprefix(start).split(".")[0]))
        return min(layers, default=len(stack.blocks) - 1)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the edited weights into the base model for the length of the block. Not thread-safe."""
        own = _list_tensors(self.lm.model)
        before = {name: own[name].data for name in self.values}
        try:
            for name, value in self.values.items():
                own[name].data = value
            yield
        finally:
            for name, value in before.items():
                own[name].data = value


def check_checkpoint(ref: str, *, allow_pickle: bool = False) -> None:
    """Raise `ModelError` for a folder or file that is neither a model nor a plain adapter, before a base is prepared."""
    if not is_adapter_folder(ref):
        check_model_ref(ref, allow_pickle=allow_pickle)


def read_edited_weights(lm: LanguageModel, ref: str, *, allow_pickle: bool = False) -> EditedWeights:
    """Return the weights of the model `ref` that differ from those of `lm`, its base.

    `ref` is a model as `load_model` takes it, or the folder of a plain LoRA adapter, which is merged into the base in memory.
    The tokenizer is the base's in any case, and so is the configuration; where those of `ref` differ, that is named.

    Raises `ModelError` where it cannot be read, or is of another architecture or other shapes.
    """
    dtype = str(lm.dtype).removeprefix("torch.")
    adapter = Path(ref) if is_adapter_folder(ref) else None
    source = ref if adapter is None else lm.ref
    other = load_model(source, device=str(lm.device), dtype=dtype, allow_pickle=allow_pickle, adapter=adapter)
    own, new = _list_tensors(lm.model), _list_tensors(other.model)
    _require_same_shapes(lm, ref, own, new)
    values = {name: new[name].detach() for name in own if not has_same_bits(own[name].detach(), new[name].detach())}
    stored = _stored_dtype(chain(new.values()))
    changes = {}
    for name, value in values.items():
        rounded = own[name].detach().to(stored)
        if not has_same_bits(rounded, value.to(stored)):
            changes[name] = compare_tensors(rounded.cpu(), value.to(stored).cpu())
    differences = () if adapter is not None else _compare_settings(lm, other)
    return EditedWeights(ref=ref, lm=lm, values=values, changes=changes, tensors=len(own), differences=differences)


def _compare_settings(base: LanguageModel, edited: LanguageModel) -> tuple[str, ...]:
    """Return how tokenizer and configuration differ, a sentence each, as both were loaded: from a folder, a file or memory."""
    with TemporaryDirectory() as temporary:
        folders = Path(temporary, "base"), Path(temporary, "edited")
        for lm, folder in zip((base, edited), folders, strict=True):
            lm.model.config.save_pretrained(folder)
            lm.tokenizer.save_pretrained(folder)
        return tuple(f"{difference.sentence.rstrip('.')}." for difference in compare_folders(*folders))


def _list_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the parameters and the stored buffers of a model; tied ones under their first name alone."""
    stored = set(model.state_dict())
    buffers = ((name, buffer) for name, buffer in model.named_buffers() if name in stored)
    return dict(chain(model.named_parameters(), buffers))


def _stored_dtype(tensors: Iterator[torch.Tensor]) -> torch.dtype:
    """Return the narrowest type that holds every one of `tensors` exactly: the one that they were saved in."""
    possible = dict.fromkeys(_NARROWER, True)
    own = torch.float32
    for tensor in tensors:
        if not tensor.is_floating_point():
            continue
        own = tensor.dtype
        for dtype in possible:
            possible[dtype] = possible[dtype] and torch.equal(
                tensor.to(dtype).to(own).nan_to_num(), tensor.nan_to_num()
            )
    return next((dtype for dtype, holds in possible.items() if holds), own)


def _require_same_shapes(
    lm: LanguageModel, ref: str, own: Mapping[str, torch.Tensor], new: Mapping[str, torch.Tensor]
) -> None:
    for name in sorted({*own} | {*new}):
        ours, theirs = (list(side[name].shape) if name in side else "not there" for side in (own, new))
        if ours != theirs:
            raise ModelError(
                f"The model {ref!r} was not made from the base {lm.ref!r}: its weight {name} is {theirs}, and the base's is "
                f"{ours}; give the base that it was made from with --model."
            )

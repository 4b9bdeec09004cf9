"""The tensors of a checkpoint on disk, one at a time: names and shapes from the headers, numbers only when asked for.

Only safetensors are read, and a GGUF file after its conversion to them.
A file is opened anew for each tensor, so that tensors read before can leave the memory.
Out of scope: models (`language_model`), and the comparison of two checkpoints (`research.tensor_change`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ModelError
from ..wording import first_line
from .embedded import EMBEDDED_NAME, prepare_embedded_folder
from .folders.gguf_file import is_gguf_file, prepare_gguf_folder
from .folders.refusals import refuse_other_weights

if TYPE_CHECKING:
    import torch

__all__ = ["Checkpoint", "open_checkpoint"]

_PATTERNS = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model"]
"""Files of a hub's checkpoint that are fetched: weights, configuration, and all that tokenizers are made of."""
_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class Checkpoint:
    """Where each tensor of a checkpoint lies."""

    ref: str
    folder: Path
    files: dict[str, Path]

    def tensor(self, name: str) -> torch.Tensor:
        """Read one tensor, on the CPU; raises `ModelError` for a damaged file."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.files[name], framework="pt") as file:
                tensor: torch.Tensor = file.get_tensor(name)
                return tensor
        except (OSError, SafetensorError) as error:
            raise _damage_error(self.files[name], error) from error

    def count_matrices(self) -> int:
        """Return the number of tensors with two axes, by the headers alone; raises `ModelError` for a damaged file."""
        from safetensors import SafetensorError, safe_open

        matrices = 0
        for path in sorted({*self.files.values()}):
            try:
                with safe_open(path, framework="pt") as file:
                    names = [name for name in file.keys() if self.files.get(name) == path]  # noqa: SIM118
                    matrices += sum(len(file.get_slice(name).get_shape()) == 2 for name in names)
            except (OSError, SafetensorError) as error:
                raise _damage_error(path, error) from error
        return matrices


def open_checkpoint(ref: str) -> Checkpoint:
    """Return the tensors of ``smollm2-135m``, a local folder, a GGUF file or a Hugging Face id; raises `ModelError`."""
    from safetensors import SafetensorError, safe_open

    folder = _locate_folder(ref)
    refuse_other_weights(folder)
    index = folder / _INDEX
    named = {} if (folder / _WHOLE).is_file() or not index.is_file() else _read_weight_map(index)
    files: dict[str, Path] = {}
    for path in _list_files(folder, named):
        try:
            with safe_open(path, framework="pt") as file:
                names = [name for name in file.keys() if not named or named.get(name) == path.name]  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise _damage_error(path, error) from error
        files.update(dict.fromkeys(names, path))
    if not files:
        raise ModelError(f"The folder {str(folder)!r} has no weights (*.safetensors); save the model there again.")
    if lost := sorted(set(named) - set(files)):
        raise ModelError(
            f"The index {str(index)!r} names a tensor {lost[0]!r} that its file does not hold; save the model again."
        )
    return Checkpoint(ref, folder, files)


def _locate_folder(ref: str) -> Path:
    if ref == EMBEDDED_NAME:
        return prepare_embedded_folder()
    if (path := Path(ref).expanduser()).is_dir():
        return path
    if is_gguf_file(path):
        return prepare_gguf_folder(path)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(ref, allow_patterns=_PATTERNS))
    except (OSError, ValueError) as error:  # the hub's own errors are of both kinds
        raise ModelError(
            f"The checkpoint {ref!r} is neither a folder here nor to be had from the model hub; check the name and the "
            f"connection, or use a local folder or {EMBEDDED_NAME!r}."
        ) from error


def _list_files(folder: Path, named: dict[str, str]) -> list[Path]:
    """Return what transformers loads: ``model.safetensors``, else the files of the index, else the only one there is.

    Any other file may be a backup, and must not be read in place of the weights.
    Raises `ModelError` where several files could be the model's.
    """
    if (folder / _WHOLE).is_file():
        return [folder / _WHOLE]
    if named:
        return [folder / name for name in sorted({*named.values()})]
    paths = sorted(folder.glob("*.safetensors"))
    if len(paths) > 1:
        raise ModelError(
            f"The folder {str(folder)!r} holds {len(paths)} files of weights, neither {_WHOLE} nor an index among them, so that "
            "the model's own are unknown; leave only those of the model there."
        )
    return paths


def _read_weight_map(index: Path) -> dict[str, str]:
    """Return the file of each tensor by the index; only files in the index's own folder are read."""
    try:
        named = json.loads(index.read_text(encoding="utf-8"))["weight_map"].items()
        # Encoded as the file system takes it, so that half a surrogate pair is a fault of the index and of no file.
        return {str(name): Path(str(file).encode().decode()).name for name, file in named}
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise _damage_error(index, error) from error


def _damage_error(path: Path, error: Exception) -> ModelError:
    return ModelError(f"The file {str(path)!r} cannot be read ({first_line(error)}); save the model again.")

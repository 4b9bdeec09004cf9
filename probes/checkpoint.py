"""The tensors of a checkpoint on disk, one at a time: names and shapes from the headers, numbers only when asked for.

Reads safetensors alone. A file is opened anew for each tensor, so that what was read before can leave the memory. Out of
scope: models (`model`), and what two checkpoints have in common (`tensor_change`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .embedded import EMBEDDED_NAME, embedded_folder
from .errors import ModelError

if TYPE_CHECKING:
    import torch

__all__ = ["Checkpoint", "open_checkpoint"]

_INDEX = "model.safetensors.index.json"


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
                found: torch.Tensor = file.get_tensor(name)
                return found
        except (OSError, SafetensorError) as error:
            raise _damaged(self.files[name], error) from error


def open_checkpoint(ref: str) -> Checkpoint:
    """Return the tensors of ``smollm2-135m``, a local folder or a Hugging Face id; raises `ModelError`."""
    from safetensors import SafetensorError, safe_open

    folder = _folder(ref)
    files: dict[str, Path] = {}
    for path in _files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                files.update(dict.fromkeys(file.keys(), path))
        except (OSError, SafetensorError) as error:
            raise _damaged(path, error) from error
    if not files:
        raise ModelError(f"The folder {str(folder)!r} has no weights (*.safetensors); save the model there again.")
    return Checkpoint(ref, folder, files)


def _folder(ref: str) -> Path:
    if ref == EMBEDDED_NAME:
        return embedded_folder()
    if (path := Path(ref).expanduser()).is_dir():
        return path
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(ref, allow_patterns=["*.safetensors", "*.json"]))
    except (OSError, ValueError) as error:  # the hub's own errors are of both kinds
        raise ModelError(
            f"The checkpoint {ref!r} is neither a folder here nor to be had from the model hub; check the name and the "
            f"connection, or use a local folder or {EMBEDDED_NAME!r}."
        ) from error


def _files(folder: Path) -> list[Path]:
    """The files of the model: those that an index names, or all."""
    index = folder / _INDEX
    if not index.is_file():
        return sorted(folder.glob("*.safetensors"))
    try:
        named = {str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise _damaged(index, error) from error
    return [folder / Path(name).name for name in sorted(named)]


def _damaged(path: Path, error: Exception) -> ModelError:
    line = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    return ModelError(f"The file {str(path)!r} cannot be read ({line}); save the model again.")

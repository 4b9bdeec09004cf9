"""A delta file: the two factors of one update as they were computed, and the manifest, in safetensors.

`encode` gives the bytes and `read_delta` reads them back; a hash over factors and manifest, and the shape and
finiteness of the factors, are checked before anything is believed. The hash finds faults and careless changes, not forgery:
sign the file where that matters.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from pydantic import ValidationError

from ...probes.errors import InputError
from ...probes.model.fingerprint import hash_tensor
from ...reports.text import printable
from ..saved_model.manifest import DeltaManifest

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SUFFIX", "Delta", "encode", "read_delta"]

SUFFIX = ".delta.safetensors"
_FORMAT = "editguard-delta"
_LONGEST = 300
_LARGEST = 64 * 2**20
"""Bytes of two rows in float64 and a manifest; the widest layers have rows of some hundred thousand entries, a megabyte."""


@dataclass(frozen=True)
class Delta:
    """``Delta = left right^T``: left [d_model], right [d_ff], float64 on the CPU."""

    manifest: DeltaManifest
    left: torch.Tensor
    right: torch.Tensor

    def delta(self) -> torch.Tensor:
        """Return Delta [d_model, d_ff] in float64."""
        return torch.outer(self.left, self.right)


def encode(delta: Delta) -> bytes:
    """Return the bytes of a delta file."""
    from safetensors.torch import save

    manifest = delta.manifest.model_dump_json()
    metadata = {"format": _FORMAT, "manifest": manifest, "sha256": _stamp(manifest, delta.left, delta.right)}
    return save({"left": delta.left.contiguous(), "right": delta.right.contiguous()}, metadata)


def read_delta(path: Path) -> Delta:
    """Read a delta file; raises `InputError` for anything that is not, whole and untouched, what `encode` wrote."""
    from safetensors import SafetensorError, safe_open

    try:
        _check_size(path)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise _cannot_apply(path, "it does not name the format 'editguard-delta'")
            names = sorted(file.keys())
            if names != ["left", "right"]:
                raise _cannot_apply(path, f"it holds the tensors {names}, and must hold left and right")
            left, right = (file.get_tensor(name).clone() for name in names)
        text, stamp = metadata["manifest"], metadata["sha256"]
        manifest = DeltaManifest.model_validate_json(text, strict=True)
    except OSError as error:
        raise _cannot_apply(path, error.strerror or "there is no such file") from error
    except (SafetensorError, KeyError) as error:
        raise _cannot_apply(path, f"it is not a delta file, or is cut short or damaged: {error}") from error
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, fault["loc"])) or "manifest"
        raise _cannot_apply(path, f"its manifest is not valid: {where}: {fault['msg']}") from error
    _check_factors(path, left, right)
    if _stamp(text, left, right) != stamp:
        raise _cannot_apply(
            path, "its content does not have the hash that it names, so it was changed after it was written"
        )
    return Delta(manifest, left, right)


def _check_size(path: Path) -> None:
    # The size is read before the file is opened, since opening a pipe would wait for a writer.
    if path.exists() and not path.is_file():
        raise _cannot_apply(path, "it is not an ordinary file")
    if path.is_file() and path.stat().st_size > _LARGEST:
        raise _cannot_apply(path, f"it has more than {_LARGEST // 2**20} MiB, and one edit of any model has less")


def _check_factors(path: Path, left: torch.Tensor, right: torch.Tensor) -> None:
    for name, factor in (("left", left), ("right", right)):
        if factor.dtype != torch.float64 or factor.ndim != 1:
            raise _cannot_apply(
                path, f"its factor {name} is {factor.dtype} {list(factor.shape)}, and must be one float64 row"
            )
        if not bool(torch.isfinite(factor).all()):
            raise _cannot_apply(path, f"its factor {name} holds NaN or Inf")


def _stamp(manifest: str, left: torch.Tensor, right: torch.Tensor) -> str:
    return hashlib.sha256("\n".join((manifest, hash_tensor(left), hash_tensor(right))).encode()).hexdigest()


def _cannot_apply(path: Path, why: str) -> InputError:
    return InputError(
        f"{str(path)!r} cannot be applied: {printable(why, _LONGEST)}; give what 'editguard export' wrote, or export again."
    )

"""A delta file: the two factors of each change as they were computed, and the manifest, in safetensors.

`encode` gives the bytes and `read_delta` reads them back, as it does those of version 1, which held one change of rank one. A
hash over factors and manifest, and the shape and finiteness of the factors, are checked before anything is believed. The hash
finds faults and careless changes, not forgery: sign the file where that matters.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from pydantic import ValidationError

from ...probes.errors import InputError
from ...probes.model.fingerprint import hash_tensor
from ...probes.model.site_change import sum_products
from ...reports.text import count_noun, printable
from ..saved_model.manifest import DeltaManifest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["SUFFIX", "Delta", "Factors", "encode", "read_delta"]

SUFFIX = ".delta.safetensors"
_FORMAT = "editguard-delta"
_FIRST_NAMES = ("left", "right")
"""Names of the tensors of version 1, and in later ones the names after the site's place."""
_LONGEST = 300
_LARGEST = 2**30
"""Bytes of an edit of rank 100 at 50 sites, in float64: a change of rank one at the widest layers has some megabytes."""


class Factors(NamedTuple):
    """The change ``left right^T`` of one site: left [d_model, rank], right [d_ff, rank], float64 on the CPU."""

    left: torch.Tensor
    right: torch.Tensor

    def delta(self) -> torch.Tensor:
        """Return Delta [d_model, d_ff] in float64."""
        return sum_products(self.left, self.right)


@dataclass(frozen=True)
class Delta:
    """An edit as a file holds it."""

    manifest: DeltaManifest
    factors: tuple[Factors, ...]
    """Of each of the manifest's sites, in their order."""


def encode(delta: Delta) -> bytes:
    """Return the bytes of a delta file."""
    from safetensors.torch import save

    manifest = delta.manifest.model_dump_json()
    tensors = {
        f"{index}.{name}": factor.contiguous()
        for index, factors in enumerate(delta.factors)
        for name, factor in factors._asdict().items()
    }
    metadata = {"format": _FORMAT, "manifest": manifest, "sha256": _stamp(manifest, list(tensors.values()))}
    return save(tensors, metadata)


def read_delta(path: Path) -> Delta:
    """Read a delta file; raises `InputError` for anything that is not, whole and untouched, what `encode` wrote."""
    from safetensors import SafetensorError, safe_open

    try:
        _check_size(path)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise _cannot_apply(path, "it does not name the format 'editguard-delta'")
            text, stamp = metadata["manifest"], metadata["sha256"]
            manifest = DeltaManifest.from_json(text)
            names = _name_tensors(manifest, file.keys())
            if sorted(file.keys()) != sorted(names):
                held = printable(str(sorted(file.keys())), _LONGEST)
                raise _cannot_apply(path, f"it holds the tensors {held}, and must hold {' and '.join(names)}")
            tensors = {name: file.get_tensor(name).clone() for name in names}
    except OSError as error:
        raise _cannot_apply(path, error.strerror or "there is no such file") from error
    except (SafetensorError, KeyError) as error:
        raise _cannot_apply(path, f"it is not a delta file, or is cut short or damaged: {error}") from error
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, fault["loc"])) or "manifest"
        raise _cannot_apply(path, f"its manifest is not valid: {where}: {fault['msg']}") from error
    # Version 1 held rows, of rank one.
    factors = {
        name: tensor[:, None] if name in _FIRST_NAMES and tensor.ndim == 1 else tensor
        for name, tensor in tensors.items()
    }
    ranks = [site.rank for site in manifest.sites for _ in _FIRST_NAMES]
    for (name, factor), rank in zip(factors.items(), ranks, strict=True):
        _check_factor(path, name, factor, rank)
    if _stamp(text, list(tensors.values())) != stamp:
        raise _cannot_apply(
            path, "its content does not have the hash that it names, so it was changed after it was written"
        )
    values = iter(factors.values())
    return Delta(manifest, tuple(Factors(left, right) for left, right in zip(values, values, strict=True)))


def _check_size(path: Path) -> None:
    # The size is read before the file is opened, since opening a pipe would wait for a writer.
    if path.exists() and not path.is_file():
        raise _cannot_apply(path, "it is not an ordinary file")
    if path.is_file() and path.stat().st_size > _LARGEST:
        raise _cannot_apply(path, f"it has more than {_LARGEST // 2**20} MiB, and an edit has less")


def _name_tensors(manifest: DeltaManifest, held: Sequence[str]) -> list[str]:
    """Return the names of the tensors that the file of `manifest` must hold, site after site."""
    if "left" in held and len(manifest.sites) == 1:
        return [*_FIRST_NAMES]
    return [f"{index}.{name}" for index in range(len(manifest.sites)) for name in _FIRST_NAMES]


def _check_factor(path: Path, name: str, factor: torch.Tensor, rank: int) -> None:
    if factor.dtype != torch.float64 or factor.ndim != 2 or factor.shape[1] != rank:
        columns = count_noun(rank, "column")
        raise _cannot_apply(
            path, f"its factor {name} is {factor.dtype} {list(factor.shape)}, and must be float64 with {columns}"
        )
    if not bool(torch.isfinite(factor).all()):
        raise _cannot_apply(path, f"its factor {name} holds NaN or Inf")


def _stamp(manifest: str, factors: Sequence[torch.Tensor]) -> str:
    return hashlib.sha256("\n".join((manifest, *map(hash_tensor, factors))).encode()).hexdigest()


def _cannot_apply(path: Path, why: str) -> InputError:
    return InputError(
        f"{str(path)!r} cannot be applied: {printable(why, _LONGEST)}; give what 'editguard export' wrote, or export again."
    )

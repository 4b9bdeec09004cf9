"""One file of what was prepared: tensors, and a JSON text in the header, with a hash over both.

A file of another origin, a damaged one and one over the bound are as good as none, and no fault: all is computed again.
A file that cannot be written is no fault either: it only costs the next command its time.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from ...probes.errors import StatisticsError
from ...probes.keys.statistics import write_tensors_atomically
from ...probes.model.embedded import cache_folder
from ...probes.model.fingerprint import hash_tensor

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

__all__ = ["Entry", "locate_entry", "read_entry", "write_entry"]

_MOST_BYTES = 256 * 2**20
"""The states of the prefixes in the embedded model take 29 MB; those of a model that needs more are computed each time."""


_ROOM_FOR_TEXT = 2**20


class Entry(NamedTuple):
    """What one file holds."""

    text: str
    """JSON."""
    tensors: Mapping[str, torch.Tensor]


def locate_entry(stamp: str) -> Path:
    """Return the file of the cache folder for what has the origin `stamp`, a sha256."""
    return cache_folder() / "prepared" / f"{stamp[:24]}.safetensors"


def read_entry(stamp: str) -> Entry | None:
    """Return what was kept under `stamp`; None where there is nothing that can be trusted to be that."""
    from safetensors import SafetensorError, safe_open

    path = locate_entry(stamp)
    try:
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            return None
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            entry = Entry(metadata["editguard"], {name: file.get_tensor(name) for name in sorted(file.keys())})
        return entry if metadata["sha256"] == _hash_entry(stamp, entry) else None
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError):
        return None


def write_entry(stamp: str, entry: Entry) -> None:
    """Keep `entry` under `stamp`, in place of what was there; the file appears whole or not at all.

    What is over the bound is not kept.
    """
    if sum(tensor.nbytes for tensor in entry.tensors.values()) > _MOST_BYTES - _ROOM_FOR_TEXT:
        return
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in entry.tensors.items()}
    metadata = {"editguard": entry.text, "sha256": _hash_entry(stamp, Entry(entry.text, tensors))}
    with suppress(StatisticsError):
        write_tensors_atomically(locate_entry(stamp), tensors, metadata)


def _hash_entry(stamp: str, entry: Entry) -> str:
    parts = [stamp, entry.text, *(f"{name}={hash_tensor(entry.tensors[name])}" for name in sorted(entry.tensors))]
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()

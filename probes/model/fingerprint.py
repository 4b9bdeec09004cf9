"""Hashes of tensors and models: the proof that a model is, or is again, the one that was audited.

A tensor's hash covers its dtype, its shape and its bytes.
A model's fingerprint covers the hashes of all its parameters and buffers by name, so that it changes with any weight.
A checksum shows in a fraction of the time whether anything was written to a model since.
It is meant for faults, and can be forged. Out of scope: where the weights came from.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["compute_checksum", "compute_fingerprint", "hash_tensor", "hash_tensors"]


def hash_tensor(tensor: torch.Tensor) -> str:
    """Return the sha256 of a tensor's dtype, shape and bytes, in hexadecimal.

    The tensor may lie on any device and have any dtype and strides.
    """
    import torch

    digest = hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def hash_tensors(model: torch.nn.Module) -> dict[str, str]:
    """Return the hash of every parameter and buffer of `model` by name; tied tensors are hashed once each name."""
    hash_by_place: dict[tuple[object, ...], str] = {}
    hashes = {}
    for name, tensor in [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]:
        # The place alone is not enough: views of one storage differ in shape, strides or dtype.
        place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), tensor.device)
        if place not in hash_by_place or tensor.numel() == 0:
            hash_by_place[place] = hash_tensor(tensor)
        hashes[name] = hash_by_place[place]
    return hashes


def compute_checksum(model: torch.nn.Module) -> tuple[int, ...]:
    """Return a sum of each parameter and buffer of `model`, its bytes read as integers of 64 bits, modulo 2^64.

    Computed where the tensors lie, so that it costs one reading of them.
    """
    import torch

    sums = []
    for tensor in (*model.parameters(), *model.buffers()):
        raw = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        raw = raw.clone() if raw.storage_offset() % 8 else raw
        whole = raw.numel() // 8 * 8
        # Only sums of wide integers are as fast as the memory.
        sums.append(int(raw[:whole].view(torch.int64).sum() + raw[whole:].sum(dtype=torch.int64)))
    return tuple(sums)


def compute_fingerprint(model: torch.nn.Module) -> str:
    """Return one sha256 over the names and hashes of all tensors of `model`."""
    digest = hashlib.sha256()
    for name, value in sorted(hash_tensors(model).items()):
        digest.update(f"{name}={value}\n".encode())
    return digest.hexdigest()

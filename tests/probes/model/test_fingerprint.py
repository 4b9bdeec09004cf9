"""A hash changes with every bit, the dtype and the shape, and with nothing else."""

from __future__ import annotations

import hashlib

import pytest
import torch
from editguard.probes.model.fingerprint import compute_checksum, compute_fingerprint, hash_tensor, hash_tensors
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ...helpers.examples import count_examples
from ...helpers.families import FAMILIES

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]


def test_hash_tensor_covers_dtype_shape_and_bytes() -> None:
    tensor = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    expected = hashlib.sha256(b"torch.float32(2, 3)" + tensor.numpy().tobytes()).hexdigest()
    assert hash_tensor(tensor) == expected


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_hash_tensor_accepts_every_dtype_and_any_strides(dtype: torch.dtype) -> None:
    tensor = (torch.arange(12).reshape(3, 4) % 2).to(dtype)
    assert hash_tensor(tensor) == hash_tensor(tensor.clone())
    assert hash_tensor(tensor.T) == hash_tensor(tensor.T.contiguous())
    assert hash_tensor(tensor[:, ::2]) == hash_tensor(tensor[:, ::2].contiguous())


def test_hash_tensor_depends_on_dtype_and_shape() -> None:
    tensor = torch.zeros(4, dtype=torch.float32)
    others = [tensor.reshape(2, 2), tensor.to(torch.int32), torch.zeros(5), torch.zeros(0), torch.tensor(0.0)]
    assert len({hash_tensor(item) for item in [tensor, *others]}) == 6


@settings(max_examples=count_examples(50), deadline=None)
@given(st.integers(0, 15), st.integers(0, 31))
def test_hash_tensor_changes_with_any_single_bit(place: int, bit: int) -> None:
    tensor = torch.randn(16, generator=torch.Generator().manual_seed(0))
    changed = tensor.clone()
    changed.view(torch.int32)[place] ^= 1 << bit if bit < 31 else -(2**31)
    assert hash_tensor(changed) != hash_tensor(tensor)


def test_hash_tensor_distinguishes_minus_zero_and_other_nan() -> None:
    assert hash_tensor(torch.tensor([0.0])) != hash_tensor(torch.tensor([-0.0]))
    quiet = torch.tensor([0x7FC00000, 0x7FC00001], dtype=torch.int32).view(torch.float32)
    assert hash_tensor(quiet[:1]) != hash_tensor(quiet[1:])


def test_hash_tensors_covers_parameters_buffers_and_tied_names() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    model[2].weight = model[0].weight
    hashes = hash_tensors(model)
    assert set(hashes) == set(model.state_dict())
    assert hashes["0.weight"] == hashes["2.weight"] == hash_tensor(model[0].weight)
    assert hashes["1.running_var"] == hash_tensor(torch.ones(2))


def test_hash_tensors_distinguishes_views_of_one_storage() -> None:
    class Views(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            whole = torch.arange(4.0)
            self.register_buffer("whole", whole)
            self.register_buffer("square", whole.view(2, 2))
            self.register_buffer("turned", whole.view(2, 2).T)
            self.register_buffer("bits", whole.view(torch.int32))

    model = Views()
    assert hash_tensors(model) == {name: hash_tensor(tensor) for name, tensor in model.named_buffers()}


def test_hash_tensors_hashes_each_empty_tensor_by_itself() -> None:
    model = nn.Module()
    model.register_buffer("first", torch.zeros(0))
    model.register_buffer("second", torch.zeros(0, 3))
    assert len(set(hash_tensors(model).values())) == 2


@pytest.mark.tiny
def test_fingerprint_changes_with_any_weight_and_returns_with_it() -> None:
    model = FAMILIES["gpt2"]()
    before = compute_fingerprint(model)
    assert compute_fingerprint(FAMILIES["gpt2"]()) == before
    assert compute_fingerprint(FAMILIES["gpt2"](seed=1)) != before
    for parameter in model.parameters():
        original = parameter.detach().clone()
        with torch.no_grad():
            parameter.view(-1)[0] += 1.0
        assert compute_fingerprint(model) != before
        with torch.no_grad():
            parameter.copy_(original)
    assert compute_fingerprint(model) == before


def test_fingerprint_depends_on_the_names() -> None:
    first, second = nn.Module(), nn.Module()
    for model, names in ((first, "ab"), (second, "ba")):
        for name, value in zip(names, (0.0, 1.0), strict=True):
            model.register_buffer(name, torch.tensor([value]))
    assert compute_fingerprint(first) != compute_fingerprint(second)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_checksum_changes_with_any_entry_and_returns_with_it(dtype: torch.dtype) -> None:
    # 5 * 3 entries are no whole number of 64-bit words in any dtype but the last.
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5)).to(dtype)
    before = compute_checksum(model)
    for tensor in (*model.parameters(), *model.buffers()):
        for place in range(tensor.numel()):
            flat = tensor.data.view(-1)
            original = flat[place].clone()
            flat[place] += 1
            assert compute_checksum(model) != before
            flat[place] = original
    assert compute_checksum(model) == before


def test_checksum_of_a_view_with_an_odd_offset() -> None:
    model = nn.Module()
    model.register_buffer("part", torch.arange(9, dtype=torch.float32)[1:].view(2, 4).T)
    other = nn.Module()
    other.register_buffer("part", torch.arange(9, dtype=torch.float32)[1:].view(2, 4).T.contiguous())
    assert compute_checksum(model) == compute_checksum(other)

"""Tensors are found in one file or in shards, and what is damaged is one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from editguard.probes.errors import ModelError
from editguard.probes.model.checkpoint import open_checkpoint
from safetensors.torch import save_file

from ...helpers.families import FAMILIES

pytestmark = pytest.mark.tiny


@pytest.mark.parametrize("size", ["1GB", "4kB"])
def test_open_checkpoint_has_every_tensor_of_a_saved_model(size: str, tmp_path: Path) -> None:
    model = FAMILIES["llama"]()
    model.save_pretrained(tmp_path, max_shard_size=size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (size == "4kB")
    checkpoint = open_checkpoint(str(tmp_path))
    expected = model.state_dict()
    assert set(checkpoint.files) == set(expected)
    assert all(torch.equal(checkpoint.tensor(name), expected[name]) for name in expected)


def test_open_checkpoint_ignores_files_that_the_index_does_not_name(tmp_path: Path) -> None:
    FAMILIES["llama"]().save_pretrained(tmp_path, max_shard_size="4kB")
    save_file({"adapter": torch.ones(2)}, tmp_path / "adapter.safetensors")
    assert "adapter" not in open_checkpoint(str(tmp_path)).files


def test_open_checkpoint_that_is_damaged_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has no weights"):
        open_checkpoint(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"not tensors")
    with pytest.raises(ModelError, match="cannot be read"):
        open_checkpoint(str(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "lost.safetensors"}}')
    with pytest.raises(ModelError, match=r"lost\.safetensors"):
        open_checkpoint(str(tmp_path))
    (tmp_path / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(ModelError, match="index"):
        open_checkpoint(str(tmp_path))


def test_open_checkpoint_reads_the_files_that_transformers_loads(tmp_path: Path) -> None:
    ones, zeros = {"a": torch.ones(2)}, {"a": torch.zeros(2)}
    save_file(zeros, tmp_path / "backup.safetensors")
    assert float(open_checkpoint(str(tmp_path)).tensor("a").sum()) == 0
    save_file(ones, tmp_path / "weights.safetensors")
    with pytest.raises(ModelError, match="2 files of weights"):
        open_checkpoint(str(tmp_path))
    # The index says which file counts, also for a tensor that stands in two of them.
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "weights.safetensors"}}')
    assert float(open_checkpoint(str(tmp_path)).tensor("a").sum()) == 2
    index.write_text('{"weight_map": {"a": "weights.safetensors", "b": "weights.safetensors"}}')
    with pytest.raises(ModelError, match="names a tensor 'b'"):
        open_checkpoint(str(tmp_path))
    # A whole file counts before the index.
    save_file({"a": torch.full((2,), 5.0)}, tmp_path / "model.safetensors")
    assert float(open_checkpoint(str(tmp_path)).tensor("a").sum()) == 10

"""Each difference of two checkpoints is a record of its kind, with one tensor of each side in memory at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from editguard.audit.research.weight_comparison import find_state, iter_tensor_changes
from editguard.probes.model.checkpoint import Checkpoint, open_checkpoint
from safetensors.torch import save_file

pytestmark = pytest.mark.tiny


def test_iter_tensor_changes_names_every_kind_of_difference(tmp_path: Path) -> None:
    vector, matrix = torch.ones(3), torch.eye(4)
    base = {"same": vector, "moved": vector, "half": vector, "wider": vector, "lost": vector * 2, "embed": matrix}
    after = {
        "same": vector,
        "moved": vector + 1,
        "half": vector.half(),
        "wider": torch.ones(4),
        "more": vector * 3,
        "embed": matrix,
    }
    for name, tensors in (("base", base), ("after", {**after, "head": matrix.clone()})):
        (tmp_path / name).mkdir()
        held = {key: tensor.clone() for key, tensor in tensors.items()}
        save_file(held, tmp_path / name / "model.safetensors")
    changes = iter_tensor_changes(*(open_checkpoint(str(tmp_path / name)) for name in ("base", "after")))
    assert {change.record.name: change.record.status for change in changes} == {
        "moved": "changed",
        "half": "cast",
        "wider": "shape",
        "lost": "missing",
        "more": "new",
        "head": "tied",
    }


def save_pair(folder: Path, base: dict[str, torch.Tensor], edited: dict[str, torch.Tensor]) -> list[Checkpoint]:
    for name, tensors in (("base", base), ("edited", edited)):
        (folder / name).mkdir()
        save_file(tensors, folder / name / "model.safetensors")
    return [open_checkpoint(str(folder / name)) for name in ("base", "edited")]


def test_iter_tensor_changes_cast_to_infinity_is_not_finite(tmp_path: Path) -> None:
    large = torch.tensor([1e6, 1.0])
    (change,) = iter_tensor_changes(*save_pair(tmp_path, {"a": large}, {"a": large.half()}))
    assert (change.record.status, change.record.finite) == ("cast", False)


def test_iter_tensor_changes_whole_numbers_are_never_cast(tmp_path: Path) -> None:
    (change,) = iter_tensor_changes(*save_pair(tmp_path, {"a": torch.tensor([1.5])}, {"a": torch.tensor([1])}))
    assert (change.record.status, change.record.norm, change.record.within_rounding) == ("changed", 0.5, False)


@pytest.mark.parametrize(
    ("edited", "state"),
    [
        (torch.ones(3), "identical"),
        (torch.ones(3).half(), "cast"),
        (torch.tensor([1.0, 1.0, 1 + 2**-10]).half(), "within rounding"),
        (torch.tensor([1.0, 1.0, 2.0]), "changed"),
    ],
    ids=["identical", "cast", "within rounding", "changed"],
)
def test_find_state_is_that_of_the_largest_difference(tmp_path: Path, edited: torch.Tensor, state: str) -> None:
    pair = save_pair(tmp_path, {"a": torch.ones(3)}, {"a": edited})
    assert find_state([change.record for change in iter_tensor_changes(*pair)]) == state


STREAM = """
import resource, sys, torch
from editguard.audit.research.weight_comparison import iter_tensor_changes
from editguard.audit.research.weight_comparison import iter_tensor_changes
from editguard.probes.model.checkpoint import open_checkpoint
pair = [open_checkpoint(folder) for folder in sys.argv[1:]]
torch.linalg.svd(torch.eye(64, dtype=torch.float64))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
changes = list(iter_tensor_changes(*pair))
print(len(changes), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_iter_tensor_changes_holds_about_two_tensors(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    size, count = 8, 24  # MiB a tensor, tensors a side: 384 MiB in all
    tensors = {f"layer.{index}": torch.full((size * 1024, 256), float(index)) for index in range(count)}
    for name in ("base", "edited"):
        (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / name / "model.safetensors")
        tensors["layer.3"][0, 0] += 1
        tensors["vector"] = torch.zeros(1)
    done = subprocess.run(
        [sys.executable, "-c", STREAM, tmp_path / "base", tmp_path / "edited"],
        capture_output=True,
        text=True,
        check=True,
    )
    changed, grown = map(int, done.stdout.split())
    assert changed == 2
    # The change itself is held in float64, and its singular vectors.
    assert grown < 14 * size

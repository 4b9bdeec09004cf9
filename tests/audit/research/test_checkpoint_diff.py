"""A comparison finds what changed, says what it does, and holds one tensor of each side at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from editguard.audit.cli.research import print_diff
from editguard.audit.delta.apply import apply_delta
from editguard.audit.research.checkpoint_diff import DIFF, PAGE, iter_tensor_changes, run_diff
from editguard.audit.research.subject_search import FEWEST_CANDIDATES
from editguard.probes.model.checkpoint import open_checkpoint
from editguard.probes.requests.request import EditRequest
from editguard.reports.html.diff_page import DiffFile
from safetensors.torch import save_file

from ...helpers.command_line import RunCommand, assert_one_sentence
from ...helpers.delta_files import make_delta
from ...helpers.tiny_models import tiny_lm
from ...helpers.tiny_setups import lenient

pytestmark = pytest.mark.tiny


@pytest.fixture
def edited(tmp_path: Path) -> Path:
    """The checkpoint of `saved`, with one edit."""
    lm = tiny_lm()
    with apply_delta(lm.model, make_delta(lm.model)) as applied:
        applied.commit()
    lm.model.save_pretrained(tmp_path / "edited")
    lm.tokenizer.save_pretrained(tmp_path / "edited")
    return tmp_path / "edited"


def test_run_diff_one_edit_is_one_change_of_rank_one(checkpoint: Path, edited: Path, tmp_path: Path) -> None:
    comparison = run_diff(str(checkpoint), str(edited), tmp_path, policy=lenient(), device="cpu")
    (change,) = comparison.changes
    assert change.name == "model.layers.0.mlp.down_proj.weight"
    assert (change.status, change.rank, change.finite) == ("changed", "one", True)
    assert change.effective_rank == pytest.approx(1, abs=0.01)
    assert comparison.unchanged == comparison.tensors - 1
    assert comparison.behaviour.ratio is not None
    assert DiffFile.model_validate_json((tmp_path / DIFF).read_text()) == comparison
    assert "model.layers.0.mlp.down_proj.weight" in (tmp_path / PAGE).read_text()
    same = run_diff(str(checkpoint), str(checkpoint), tmp_path, policy=lenient(), device="cpu")
    assert (same.changes, same.behaviour.ratio) == ([], 1.0)


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
        "half": "dtype",
        "wider": "shape",
        "lost": "missing",
        "more": "new",
        "head": "tied",
    }


def test_diff_broken_model_fails_and_says_why(place: Path, checkpoint: Path, edited: Path, command: RunCommand) -> None:
    ran = command("diff", checkpoint, edited, "--policy", "policy.toml", "--out", "fine", "--json")
    comparison = json.loads(ran.out)
    assert (ran.code, comparison["verdict"]) == (
        1 if comparison["reasons"] else 0,
        "fail" if comparison["reasons"] else "pass",
    )
    lm = tiny_lm()
    lm.model.model.layers[0].mlp.down_proj.weight.data[0, 0] = float("nan")
    lm.model.save_pretrained(edited)
    ran = command("diff", checkpoint, edited, "--policy", "policy.toml", "--out", "broken")
    assert ran.code == 1
    assert "holds NaN or Inf" in ran.out
    assert "perplexity could not be measured" in ran.out
    assert_one_sentence(command("diff", checkpoint, edited, "--out", "broken"), "already holds a comparison")
    assert_one_sentence(command("diff", checkpoint, place, "--out", "other"), "has no weights")
    assert_one_sentence(
        command("diff", checkpoint, edited, "--out", "other", "--subjects", "lost.txt"), "'lost.txt' cannot be read"
    )


def test_diff_unusable_search_is_refused_before_a_model_is_loaded(place: Path, command: RunCommand) -> None:
    names = [f"City{number}" for number in range(FEWEST_CANDIDATES - 1)]
    (place / "few.txt").write_text("\n".join([*names, *names]), encoding="utf-8")
    (place / "none.txt").write_text("\n", encoding="utf-8")
    (place / "enough.txt").write_text("\n".join([*names, "Town"]), encoding="utf-8")
    for subjects, more, message in (
        ("few.txt", (), f"at least {FEWEST_CANDIDATES} different subjects"),
        ("none.txt", (), "0 were given"),
        ("enough.txt", ("--stats", "lost.safetensors"), "no file of key statistics"),
        ("enough.txt", ("--corpus", "lost.txt"), "'lost.txt' cannot be read"),
        ("enough.txt", (), "The checkpoint './no'"),
    ):
        assert_one_sentence(command("diff", "./no", "./no", "--out", "out", "--subjects", subjects, *more), message)
        assert not list(place.glob("out/*"))
    assert f"At least {FEWEST_CANDIDATES}" in " ".join(command("diff", "--help").out.split())


@pytest.mark.parametrize("inside", [True, False], ids=["measured", "not located"])
def test_run_diff_failed_search_is_reported_and_judges_nothing(
    checkpoint: Path, edited: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], inside: bool
) -> None:
    names = [f"Lyon{number}" for number in range(FEWEST_CANDIDATES)]
    requests = [EditRequest(name, name, f"{name} is" if inside else "Paris is", "") for name in names]
    comparison = run_diff(
        str(checkpoint), str(edited), tmp_path, policy=lenient(), device="cpu", subjects=requests, statistics="identity"
    )
    (search,) = comparison.searches
    assert (search.error is None, len(search.guesses) > 0) == (inside, inside)
    plain = run_diff(str(checkpoint), str(edited), tmp_path, policy=lenient(), device="cpu")
    assert (comparison.verdict, comparison.reasons) == (plain.verdict, plain.reasons)
    print_diff(comparison, tmp_path / PAGE)
    shown = capsys.readouterr().out
    assert ("was made for, of 20" in shown, "was not measured: Of the candidates 0 can be located" in shown) == (
        inside,
        not inside,
    )


STREAM = """
import resource, sys, torch
from editguard.audit.research.checkpoint_diff import iter_tensor_changes
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

"""A test audits a checkpoint: the verdict is that of the command, and the session's model stays as it was."""

from __future__ import annotations

import re
from pathlib import Path

import pandas.core.arrays.arrow.extension_types
import pytest
import torch
from editguard.audit.folders.file_names import LOG, SUMMARY
from editguard.audit.pytest_plugin.checkpoint import CheckpointAudits
from editguard.reports.log.file import read_log

from ...helpers.plugin_sessions import NOWHERE, ROOT, RunPytest, write_edits, write_policy
from ...helpers.tiny_models import save_checkpoint, tiny_lm
from ...helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST

pytestmark = pytest.mark.tiny

OUT = Path("out") / "checkpoints"


@pytest.fixture
def edited(pytester: pytest.Pytester) -> Path:
    """A checkpoint in the session's folder, with a change of rank one in it."""
    folder = pytester.path / "edited-checkpoint"
    lm, draw = tiny_lm(), torch.Generator().manual_seed(0)
    weight = lm.model.get_parameter("model.layers.0.mlp.down_proj.weight")
    left, right = (torch.randn(size, generator=draw) for size in weight.shape)
    with torch.no_grad():
        weight += 0.5 * weight.norm() * torch.outer(left / left.norm(), right / right.norm())
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def options(pytester: pytest.Pytester, tiny: list[str]) -> list[str]:
    """The options of a session whose policy lets a change of random weights pass."""
    write_policy(pytester.path / "policy.toml", max_side_effects=1)
    # A session forgets the modules that it loaded, and pyarrow takes the types of this one only once.
    assert CheckpointAudits
    assert pandas.core.arrays.arrow.extension_types
    return tiny


JUDGES = """
import shutil
import pytest
from editguard import EditRequest, InputError, load_requests
from editguard.probes.errors import ModelError, RequestError

BASE, OTHER = BASE_AND_OTHER
EDITS = [EditRequest("france", "France", "The capital of France is", "Istanbul", target_true="Paris")]

def test_edited_checkpoint_passes(checkpoint_audit):
    summary = checkpoint_audit("edited-checkpoint", EDITS)
    assert (summary.verdict, summary.edits, summary.edited) == ("pass", 1, "edited-checkpoint"), summary.reasons

def test_another_model_is_refused(checkpoint_audit):
    with pytest.raises(ModelError, match="give the base that it was made from with --editguard-model"):
        checkpoint_audit(OTHER)

def test_edits_that_cannot_be_judged_are_refused(checkpoint_audit):
    with pytest.raises(RequestError, match="list of edits is empty"):
        checkpoint_audit("edited-checkpoint", [])
    with pytest.raises(RequestError, match="'france' belongs to 2 edits"):
        checkpoint_audit("edited-checkpoint", EDITS * 2)
    with pytest.raises(InputError):
        checkpoint_audit("edited-checkpoint", "no-such-file.json")

def test_changed_folder_is_judged_anew(checkpoint_audit):
    shutil.rmtree("edited-checkpoint")
    shutil.copytree(BASE, "edited-checkpoint")
    summary = checkpoint_audit("edited-checkpoint", EDITS)
    assert summary.verdict == "fail"
    assert "This is the base" in summary.reasons[0]
"""


def test_checkpoint_audit_in_a_session_judges_what_it_is_given(
    pytester: pytest.Pytester, run: RunPytest, options: list[str], edited: Path, checkpoint: Path, tmp_path: Path
) -> None:
    other = save_checkpoint(tmp_path / "other", "gpt2")
    pytester.makepyfile(test_own=JUDGES.replace("BASE_AND_OTHER", repr((str(checkpoint), str(other)))))
    ran = run(*options)
    ran.assert_outcomes(passed=4)
    (folder,) = (pytester.path / OUT).iterdir()
    assert re.fullmatch(f"{edited.name}-[0-9a-f]{{10}}", folder.name)
    log = read_log(folder / LOG)
    assert [edit.id for edit in log.edits] == ["france"]
    assert log.header.arguments["edited"] == edited.name
    lines = [f"editguard: {verdict}: audit of {edited.name} in *{OUT / folder.name}" for verdict in ("pass", "fail")]
    ran.stdout.fnmatch_lines(lines)
    # No edit was tested, so that no log of the session stands beside them.
    assert not (pytester.path / "out" / LOG).exists()


def test_checkpoint_audit_guide_example_passes_and_keeps_nothing_without_a_folder(
    pytester: pytest.Pytester, run: RunPytest, options: list[str], edited: Path
) -> None:
    guide = (ROOT / "docs" / "how-to" / "pytest.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n((?:(?!```).)*checkpoint_audit.*?)```", guide, re.DOTALL)
    pytester.makepyfile(test_guide=example.replace("edits.jsonl", "edits.json"))
    write_edits(pytester.path / "edits.json", FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST)
    ran = run(*(option for option in options if "--editguard-out" not in option))
    ran.assert_outcomes(passed=example.count("def test_"))
    assert not (pytester.path / "out").exists()
    (line,) = [line for line in ran.outlines if line.startswith("editguard: pass: audit of")]
    assert (Path(line.rpartition(" in ")[2]) / SUMMARY).is_file()


def test_checkpoint_audit_makes_its_own_controls_and_not_the_sessions(
    pytester: pytest.Pytester, run: RunPytest, options: list[str], edited: Path
) -> None:
    write_policy(pytester.path / "policy.toml", max_side_effects=1, controls=True)
    pytester.makepyfile(
        test_own="def test_own(checkpoint_audit): assert checkpoint_audit('edited-checkpoint').controls.total"
    )
    run(*options).assert_outcomes(passed=1)
    (log,) = pytester.path.glob(f"{OUT}/*/{LOG}")
    assert [control.id for control in read_log(log).controls] == ["control-base", "control-damaged"]


def test_checkpoint_audit_without_a_model_is_one_sentence(
    pytester: pytest.Pytester, run: RunPytest, options: list[str]
) -> None:
    pytester.makepyfile(test_own="def test_own(checkpoint_audit): checkpoint_audit('anything')")
    ran = run(*options, NOWHERE)
    ran.assert_outcomes(errors=1)
    assert "editguard: " in ran.stdout.str()
    assert "Traceback" not in ran.stdout.str()


def test_checkpoint_audit_session_whose_model_was_changed_fails(
    pytester: pytest.Pytester, run: RunPytest, options: list[str]
) -> None:
    pytester.makepyfile(
        test_own="""
def test_own(checkpoint_audit, pytestconfig):
    from editguard.audit.pytest_plugin.session import SESSION
    pytestconfig.stash[SESSION].guard.setup.site.weight.data.mul_(2)
"""
    )
    ran = run(*options)
    ran.assert_outcomes(passed=1, errors=1)
    assert "left the weight" in ran.stdout.str()

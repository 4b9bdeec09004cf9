"""The suite on a model as it is: seen to pass, to fail, and to leave the session's model as it was."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from editguard.audit.guard import GuardedEditor
from editguard.audit.pytesting.collapse import CollapseReport, Suite
from editguard.audit.setup import Setup
from editguard.audit.transaction import Transaction
from editguard.probes.errors import InputError, ModelError
from editguard.probes.fingerprint import fingerprint

from ..tiny_lm import MIDDLE, MISSING, REQUEST, lenient, tiny_lm

pytestmark = pytest.mark.tiny


@pytest.fixture(scope="module")
def guard(setup: Setup) -> GuardedEditor:
    """Under bounds that a model of random weights keeps while it is not destroyed."""
    return GuardedEditor(replace(setup, policy=lenient(max_perplexity_ratio=1.1), memo={}))


@pytest.fixture(scope="module")
def suite(guard: GuardedEditor) -> Suite:
    return Suite(guard)


def ratio(report: CollapseReport) -> float | None:
    return next(one.value for one in report.measurements if (one.check, one.metric) == ("perplexity", "ratio"))


def test_an_unedited_checkpoint_is_sound(suite: Suite, checkpoint: Path) -> None:
    report = suite(checkpoint, (), False)
    assert report.sound
    assert ratio(report) == pytest.approx(1.0)
    assert repr(report).startswith("<sound: perplexity ratio")


@pytest.mark.parametrize("layer", [0, 1])
def test_a_destroyed_model_is_not_whatever_layer_was_edited(suite: Suite, guard: GuardedEditor, layer: int) -> None:
    before = fingerprint(guard.setup.lm.model)
    other = tiny_lm()
    with torch.no_grad():
        other.model.model.layers[layer].mlp.down_proj.weight.mul_(300)
    report = suite(other, (), False)
    assert not report.sound
    assert {one.check for one in report.failures} >= {"perplexity"}
    assert "outside the bound (at most 1.1)" in repr(report)
    assert fingerprint(guard.setup.lm.model) == before


def test_nan_is_not_sound(suite: Suite) -> None:
    other = tiny_lm()
    with torch.no_grad():
        other.model.model.layers[0].mlp.down_proj.weight.fill_(float("nan"))
    assert not suite(other.model, (), False).sound


def test_the_session_s_own_model_is_measured_with_the_edit_in_it(suite: Suite, guard: GuardedEditor) -> None:
    (proposal,) = guard.propose([guard.assess(MIDDLE)])
    assert proposal.update is not None
    assert ratio(suite(guard.setup.lm, (), False)) == pytest.approx(1.0)
    with Transaction(guard.setup.site, proposal.update):
        edited = suite(guard.setup.lm, (REQUEST,), False)
        assert ratio(edited) != pytest.approx(1.0, abs=1e-6)
        with pytest.raises(InputError):
            Suite(guard)
    assert set(edited.edits) == {REQUEST.id}
    assert {one.check for one in edited.edits[REQUEST.id]} == {"efficacy", "generalization", "locality"}
    # The plain way and the guard's own agree.
    by_guard = next(one for one in guard.test(proposal).measurements if one.metric == "ratio")
    assert ratio(edited) == pytest.approx(by_guard.value, rel=1e-4)


def test_a_request_is_edited_by_the_guard(suite: Suite) -> None:
    assert suite(MIDDLE, (), False).edits.keys() == {MIDDLE.id}
    report = suite(MISSING, (), False)
    assert not report.sound
    assert "refused" in repr(report)


def test_another_architecture_is_refused_by_name(suite: Suite) -> None:
    with pytest.raises(ModelError, match="--editguard-model"):
        suite(tiny_lm("gpt2"), (), False)


def test_what_is_no_weight_and_differs_is_refused(suite: Suite) -> None:
    other = tiny_lm()
    other.model.config.rms_norm_eps = 1.0
    with pytest.raises(ModelError, match="another rms_norm_eps in its configuration"):
        suite(other.model, (), False)
    damaged = tiny_lm().model
    damaged.model.norm.variance_epsilon = 1e9
    with pytest.raises(ModelError, match=r"another model\.norm\.variance_epsilon"):
        suite(damaged, (), False)
    inactive = tiny_lm().model
    inactive.model.layers[0].mlp.act_fn = torch.nn.Identity()
    with pytest.raises(ModelError, match=r"another model\.layers\.0\.mlp\.act_fn \(class\)"):
        suite(inactive, (), False)
    hooked = tiny_lm().model
    hooked.model.layers[0].register_forward_hook(lambda module, args, output: None)
    with pytest.raises(ModelError, match="forward hooks"):
        suite(hooked, (), False)


def test_another_tokenizer_is_refused(suite: Suite, checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(checkpoint, folder)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["normalizer"] = {"type": "Lowercase"}
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ModelError, match="The tokenizer of"):
        suite(folder, (), False)


def test_nothing_judged_is_not_sound() -> None:
    assert not CollapseReport(()).sound
    assert repr(CollapseReport(())) == "<unsound: nothing was judged>"

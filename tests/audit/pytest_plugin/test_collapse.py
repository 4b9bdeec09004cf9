"""The suite on a model as it is: seen to pass, to fail, and to leave the session's model as it was."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from editguard.audit.guard import GuardedEditor
from editguard.audit.pytest_plugin.collapse import CollapseReport, Suite
from editguard.audit.setup import Setup, UneditedStates
from editguard.audit.transaction import Transaction
from editguard.probes.errors import InputError, ModelError
from editguard.probes.model.fingerprint import compute_fingerprint
from transformers import MistralConfig, MistralForCausalLM

from ...helpers.tiny_models import tiny_lm
from ...helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, MISSING_SUBJECT_REQUEST, lenient

pytestmark = pytest.mark.tiny


@pytest.fixture(scope="module")
def guard(setup: Setup) -> GuardedEditor:
    """Under bounds that a model of random weights keeps while it is not destroyed."""
    return GuardedEditor(replace(setup, policy=lenient(max_perplexity_ratio=1.1), states=UneditedStates()))


@pytest.fixture(scope="module")
def suite(guard: GuardedEditor) -> Suite:
    return Suite(guard)


def ratio(report: CollapseReport) -> float | None:
    return next(
        measurement.value
        for measurement in report.measurements
        if (measurement.check, measurement.metric) == ("perplexity", "ratio")
    )


def test_suite_unedited_checkpoint_is_sound(suite: Suite, checkpoint: Path) -> None:
    report = suite(checkpoint, (), False)
    assert report.sound
    assert ratio(report) == pytest.approx(1.0)
    assert repr(report).startswith("<sound: perplexity ratio")


@pytest.mark.parametrize("layer", [0, 1])
def test_suite_destroyed_layer_is_unsound_whichever_it_is(suite: Suite, guard: GuardedEditor, layer: int) -> None:
    before = compute_fingerprint(guard.setup.lm.model)
    other = tiny_lm()
    with torch.no_grad():
        other.model.model.layers[layer].mlp.down_proj.weight.mul_(300)
    report = suite(other, (), False)
    assert not report.sound
    assert {measurement.check for measurement in report.failures} >= {"perplexity"}
    assert "outside the bound (at most 1.1)" in repr(report)
    assert compute_fingerprint(guard.setup.lm.model) == before


def test_suite_model_with_nan_weights_is_unsound(suite: Suite) -> None:
    other = tiny_lm()
    with torch.no_grad():
        other.model.model.layers[0].mlp.down_proj.weight.fill_(float("nan"))
    assert not suite(other.model, (), False).sound


def test_suite_own_model_is_measured_with_its_edit(suite: Suite, guard: GuardedEditor) -> None:
    (proposal,) = guard.propose([guard.assess(MID_PROMPT_REQUEST)])
    assert proposal.update is not None
    assert ratio(suite(guard.setup.lm, (), False)) == pytest.approx(1.0)
    with Transaction(proposal.update):
        edited = suite(guard.setup.lm, (FIRST_TOKEN_REQUEST,), False)
        assert ratio(edited) != pytest.approx(1.0, abs=1e-6)
        with pytest.raises(InputError):
            Suite(guard)
    assert set(edited.edits) == {FIRST_TOKEN_REQUEST.id}
    assert {measurement.check for measurement in edited.edits[FIRST_TOKEN_REQUEST.id]} == {
        "efficacy",
        "generalization",
        "locality",
    }
    # The plain way and the guard's own agree.
    by_guard = next(
        measurement for measurement in guard.try_proposal(proposal).measurements if measurement.metric == "ratio"
    )
    assert ratio(edited) == pytest.approx(by_guard.value, rel=1e-4)


def test_suite_request_is_edited_by_the_guard_and_undone(suite: Suite) -> None:
    assert suite(MID_PROMPT_REQUEST, (), False).edits.keys() == {MID_PROMPT_REQUEST.id}
    report = suite(MISSING_SUBJECT_REQUEST, (), False)
    assert not report.sound
    assert "refused" in repr(report)


@pytest.mark.parametrize("way_out", ["--editguard-model", "editguard diff"])
def test_suite_other_architecture_is_refused_by_its_difference(suite: Suite, way_out: str) -> None:
    with pytest.raises(ModelError, match=f"GPT2LMHeadModel.*its weight .* is not there, and there .*{way_out}"):
        suite(tiny_lm("gpt2"), (), False)


def test_suite_other_class_dtype_or_config_is_measured_as_it_is(suite: Suite, guard: GuardedEditor) -> None:
    """As other tools save and load what they edited: nothing that leaves the model as good speaks against it."""
    before, own = compute_fingerprint(guard.setup.lm.model), guard.setup.lm.model
    settings = {
        name: getattr(own.config, name)
        for name in (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "max_position_embeddings",
            "rms_norm_eps",
            "tie_word_embeddings",
        )
    }
    mistral = MistralForCausalLM(MistralConfig(**settings, head_dim=own.config.head_dim, sliding_window=None))
    mistral.load_state_dict(own.state_dict())
    half = tiny_lm(dtype=torch.bfloat16).model.train()
    half.config.use_cache, half.config.pad_token_id = False, 0
    for other, near in ((mistral, 1e-5), (half, 0.05)):
        report = suite(other, (FIRST_TOKEN_REQUEST,), False)
        assert ratio(report) == pytest.approx(1.0, abs=near)
        assert {measurement.check for measurement in report.edits[FIRST_TOKEN_REQUEST.id]} == {
            "efficacy",
            "generalization",
            "locality",
        }
    assert half.training
    assert ratio(suite(own, (), False)) == 1.0
    assert compute_fingerprint(own) == before


def test_suite_changes_beside_the_weights_count_as_the_edit(suite: Suite) -> None:
    config, damaged, inactive, hooked = (tiny_lm().model for _ in range(4))
    damaged.model.norm.variance_epsilon = 1e9
    inactive.model.layers[0].mlp.act_fn = torch.nn.Identity()
    hooked.model.layers[0].register_forward_hook(lambda module, args, output: output * 0)
    config.config.rms_norm_eps = 1.0  # of which the loaded modules have their own copy
    assert ratio(suite(config, (), False)) == pytest.approx(1.0)
    for other in (damaged, inactive, hooked):
        assert ratio(suite(other, (), False)) != pytest.approx(1.0, abs=1e-6)
    hooked.model.layers[0]._forward_hooks.clear()
    assert ratio(suite(hooked, (), False)) == pytest.approx(1.0)


def with_normalizer(checkpoint: Path, folder: Path, normalizer: dict[str, object]) -> Path:
    shutil.copytree(checkpoint, folder)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["normalizer"] = normalizer
    file.write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_suite_tokenizer_with_other_tokens_is_refused(suite: Suite, checkpoint: Path, tmp_path: Path) -> None:
    lower = with_normalizer(checkpoint, tmp_path / "lower", {"type": "Lowercase"})
    with pytest.raises(ModelError, match=r"The tokenizer of .* makes other tokens of 'Lyon is not.*editguard diff"):
        suite(lower, (), False)
    # Only texts that are measured count, the request's among them.
    rare = with_normalizer(
        checkpoint, tmp_path / "rare", {"type": "Replace", "pattern": {"String": "Q"}, "content": "q"}
    )
    assert suite(rare, (), False).sound
    with pytest.raises(ModelError, match="makes other tokens of 'Q is Chicago'"):
        suite(rare, (replace(FIRST_TOKEN_REQUEST, paraphrases=("Q is Chicago",)),), False)


def test_collapse_report_without_judgement_is_unsound() -> None:
    assert not CollapseReport(()).sound
    assert repr(CollapseReport(())) == "<unsound: nothing was judged>"

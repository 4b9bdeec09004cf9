"""A checkpoint that another tool edited is judged against its base, and the base is left as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from editguard.audit.checkpoint.audit import NO_EDITS, run_checkpoint_audit
from editguard.audit.checkpoint.edited_weights import read_edited_weights
from editguard.audit.folders.file_names import LOG
from editguard.audit.setup import Setup
from editguard.probes.errors import ModelError
from editguard.probes.model.fingerprint import compute_fingerprint
from editguard.probes.model.language_model import LanguageModel
from editguard.probes.requests.loader import LoadedRequests
from editguard.reports.log.file import Log, read_log
from editguard.reports.outputs.junit import render_junit
from editguard.reports.verdict.summary import Summary
from editguard.suites.check import list_single_edit_checks
from transformers import AutoModelForCausalLM, PreTrainedModel

from ...helpers.scripted_tasks import ScriptedTask
from ...helpers.tiny_audits import load_edits
from ...helpers.tiny_models import tiny_lm
from ...helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, MISSING_SUBJECT_REQUEST, lenient, tiny_setup

pytestmark = pytest.mark.tiny

SITE = "model.layers.0.mlp.down_proj.weight"
Change = Callable[[PreTrainedModel], None]


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return tiny_lm()


@pytest.fixture(scope="module")
def base(lm: LanguageModel) -> Setup:
    return tiny_setup(lm, policy=lenient(max_side_effects=1))


@pytest.fixture(autouse=True)
def left_as_found(base: Setup) -> Iterator[None]:
    before = compute_fingerprint(base.lm.model)
    yield
    assert compute_fingerprint(base.lm.model) == before


def save(folder: Path, change: Change = lambda model: None, dtype: torch.dtype = torch.float32) -> str:
    """Save a copy of the base with `change` made in it."""
    lm = tiny_lm()
    with torch.no_grad():
        change(lm.model)
    lm.model.to(dtype).save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return str(folder)


def add_rank_one(model: PreTrainedModel, name: str = SITE, scale: float = 0.5) -> None:
    weight, draw = model.get_parameter(name), torch.Generator().manual_seed(0)
    left, right = (torch.randn(size, generator=draw) for size in weight.shape)
    weight += scale * weight.norm() * torch.outer(left / left.norm(), right / right.norm())


def audit(setup: Setup, edited: str, out: Path, edits: LoadedRequests = NO_EDITS) -> tuple[Log, Summary]:
    out.mkdir()
    summary = run_checkpoint_audit(setup, edits, edited, out)
    return read_log(out / LOG), summary


# ------------------------------------------------------------------------------------------------- what is in the log


def test_checkpoint_audit_logs_what_changed_and_judges_each_edit(base: Setup, tmp_path: Path) -> None:
    edited = save(tmp_path / "edited", add_rank_one)
    requests = (MID_PROMPT_REQUEST, FIRST_TOKEN_REQUEST, MISSING_SUBJECT_REQUEST)
    log, summary = audit(base, edited, tmp_path / "out", load_edits(*requests))
    assert log.header.edited is not None
    assert [change.name for change in log.header.edited.changes] == [SITE]
    assert log.header.edited.changes[0].relative == pytest.approx(0.5, rel=1e-4)
    assert log.header.edited.fingerprint == compute_fingerprint(AutoModelForCausalLM.from_pretrained(edited))
    assert [record.outcome for record in log.edits] == ["judged", "judged", "errored"]
    assert all(record.update is None and record.weights is None for record in log.edits)
    assert all(record.findings for record in log.edits)
    checks = {m.check for record in log.edits[:2] for m in record.measurements}
    # The tiny model is sure of no other fact.
    assert checks | {"other-facts"} == set(list_single_edit_checks()) - {"drift"}
    assert log.model is not None
    assert {m.check for m in log.model.measurements} == {"perplexity", "degeneracy", "side-effects"}
    assert summary.edited == edited
    assert summary.side_effects.total == len(log.model.prompts) > 100


def test_checkpoint_audit_answers_are_those_of_the_saved_model(base: Setup, tmp_path: Path) -> None:
    """The answers before and after, written anew by the two saved models and nothing of this project."""
    edited = save(tmp_path / "edited", add_rank_one)
    log, _ = audit(base, edited, tmp_path / "out", load_edits(FIRST_TOKEN_REQUEST))
    models = AutoModelForCausalLM.from_pretrained(save(tmp_path / "base")), AutoModelForCausalLM.from_pretrained(edited)
    prompts = [one for one in log.edits[0].prompts if one.condition == "unprefixed"][:4]
    assert any(one.before != one.after for one in prompts)
    for one in prompts:
        inputs = base.lm.tokenizer(one.prompt, return_tensors="pt")
        for model, said in zip(models, (one.before, one.after), strict=True):
            count = len(base.lm.tokenizer(said).input_ids) + 3
            ids = model.generate(**inputs, max_new_tokens=count, do_sample=False, pad_token_id=0)[0]
            text = base.lm.tokenizer.decode(ids[inputs.input_ids.shape[1] :], skip_special_tokens=True)
            assert text.startswith(said)


@pytest.mark.parametrize("name", [SITE, "model.layers.1.self_attn.q_proj.weight", "model.embed_tokens.weight"])
def test_checkpoint_audit_equals_that_of_the_reference_engine(base: Setup, tmp_path: Path, name: str) -> None:
    edited = save(tmp_path / "edited", lambda model: add_rank_one(model, name))
    edits = load_edits(MID_PROMPT_REQUEST, FIRST_TOKEN_REQUEST)
    fast, _ = audit(base, edited, tmp_path / "fast", edits)
    plain, _ = audit(base.with_reference_engine(), edited, tmp_path / "plain", edits)
    assert fast.model is not None
    assert plain.model is not None
    for one, other in zip((fast.model, *fast.edits), (plain.model, *plain.edits), strict=True):
        assert [(p.prompt, p.before, p.after) for p in one.prompts] == [
            (p.prompt, p.before, p.after) for p in other.prompts
        ]
        for row, same in zip(one.measurements, other.measurements, strict=True):
            assert (row.check, row.metric, row.condition, row.verdict) == (
                same.check,
                same.metric,
                same.condition,
                same.verdict,
            )
            assert row.value == (same.value if same.value is None else pytest.approx(same.value, rel=1e-3, abs=1e-6))


def test_checkpoint_audit_without_edits_judges_the_model_alone(base: Setup, tmp_path: Path) -> None:
    log, summary = audit(base, save(tmp_path / "edited", add_rank_one), tmp_path / "out")
    assert log.edits == ()
    assert log.model is not None
    assert log.model.verdict == summary.verdict == "pass"
    assert summary.edits == 0
    assert "no edit was given" in summary.reasons[0].lower()


def test_checkpoint_audit_over_its_side_effects_fails_with_an_example(base: Setup, tmp_path: Path) -> None:
    strict = replace(base, policy=lenient(max_side_effects=0, near_tie=0))
    log, summary = audit(strict, save(tmp_path / "edited", add_rank_one), tmp_path / "out")
    assert summary.verdict == "fail"
    assert summary.side_effects.failed > 0
    assert summary.reasons[0].startswith("Facts moved that nobody edited:")
    assert "now says" in summary.reasons[0]
    assert b"<failure" in render_junit(log)


def test_checkpoint_audit_of_an_edit_that_fails_may_ship_nothing(base: Setup, tmp_path: Path) -> None:
    strict = replace(base, policy=lenient(max_side_effects=1, min_efficacy=1))
    edits = load_edits(MID_PROMPT_REQUEST, FIRST_TOKEN_REQUEST)
    _, summary = audit(strict, save(tmp_path / "edited", add_rank_one), tmp_path / "out", edits)
    assert summary.verdict == "fail"
    assert summary.failed == 2
    assert summary.may_ship == []


# ------------------------------------------------------------------------------------- checkpoints that are not edited


@pytest.mark.parametrize(
    ("change", "dtype", "reason"),
    [
        (lambda model: None, torch.float32, "This is the base: no tensor differs."),
        (lambda model: None, torch.bfloat16, "This is the base, cast to another type"),
        (lambda model: model.get_parameter(SITE).add_(1e-9), torch.bfloat16, "This is the base, cast to another type"),
        (lambda model: model.get_parameter(SITE)[0].fill_(float("nan")), torch.float32, f"The tensor {SITE} holds NaN"),
    ],
    ids=["unchanged", "cast", "edit lost in the cast", "NaN"],
)
def test_checkpoint_audit_of_no_edited_model_fails_and_says_so_first(
    base: Setup, tmp_path: Path, change: Change, dtype: torch.dtype, reason: str
) -> None:
    edited = save(tmp_path / "edited", change, dtype)
    _, summary = audit(base, edited, tmp_path / "out", load_edits(MID_PROMPT_REQUEST))
    assert summary.verdict == "fail"
    assert summary.reasons[0].startswith(reason)


def test_read_edited_weights_in_a_cast_checkpoint_tells_the_edit_from_rounding(base: Setup, tmp_path: Path) -> None:
    weights = read_edited_weights(base.lm, save(tmp_path / "edited", add_rank_one, torch.bfloat16))
    assert list(weights.changes) == [SITE]
    assert weights.cast == len(weights.values) - 1 > 5
    assert weights.changes[SITE].relative == pytest.approx(0.5, rel=0.05)


def test_read_edited_weights_of_another_architecture_is_refused(base: Setup, tmp_path: Path) -> None:
    other = tiny_lm("gpt2")
    other.model.save_pretrained(tmp_path / "other")
    other.tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(ModelError, match="was not made from the base"):
        read_edited_weights(base.lm, str(tmp_path / "other"))


def test_edited_weights_in_place_are_taken_out_after_an_error(base: Setup, tmp_path: Path) -> None:
    weights = read_edited_weights(base.lm, save(tmp_path / "edited", add_rank_one))

    def look_and_fail() -> None:
        with weights.in_place():
            assert compute_fingerprint(base.lm.model) == weights.fingerprint != base.base_fingerprint
            raise KeyError

    with pytest.raises(KeyError):
        look_and_fail()
    assert compute_fingerprint(base.lm.model) == base.base_fingerprint


def test_edited_weights_lowest_layer_is_none_where_a_change_lies_outside_of_the_layers(
    base: Setup, tmp_path: Path
) -> None:
    above = save(tmp_path / "above", lambda model: add_rank_one(model, "model.layers.1.mlp.up_proj.weight"))
    outside = save(tmp_path / "outside", lambda model: add_rank_one(model, "model.embed_tokens.weight"))
    assert read_edited_weights(base.lm, above).lowest_layer == 1
    assert read_edited_weights(base.lm, outside).lowest_layer is None


# --------------------------------------------------------------------------------------------------------------- tasks


def judge_tasks(base: Setup, folder: Path, *tasks: ScriptedTask) -> tuple[Log, Summary]:
    edited = save(folder / "edited", add_rank_one)
    (folder / "out").mkdir()
    summary = run_checkpoint_audit(base, NO_EDITS, edited, folder / "out", tasks=tasks)
    return read_log(folder / "out" / LOG), summary


def test_checkpoint_audit_task_is_asked_of_the_base_and_then_of_the_edited_model(base: Setup, tmp_path: Path) -> None:
    task = ScriptedTask("greeting", [[True] * 40, [True] * 39 + [False]], weight=SITE)
    log, summary = judge_tasks(base, tmp_path, task)
    own = float(base.lm.model.get_parameter(SITE).norm())
    assert task.weights[0] == own
    assert task.weights[1] == pytest.approx(own * 1.25**0.5, rel=0.05)
    assert log.model is not None
    rows = {row.metric: row for row in log.model.measurements if row.check == "task:greeting"}
    accuracy, loss = rows["accuracy"], rows["loss"]
    assert (accuracy.baseline, accuracy.value, accuracy.passed, accuracy.failed) == (1.0, 39 / 40, 39, 1)
    # One of 40 items does not exclude a loss of a tenth.
    assert (loss.verdict, loss.threshold, loss.failed) == ("fail", 0.1, 1)
    assert summary.verdict == "fail"
    assert any("'task:greeting'" in reason and "1 lost" in reason for reason in summary.reasons)


def test_checkpoint_audit_task_without_a_loss_passes(base: Setup, tmp_path: Path) -> None:
    answers = [index % 5 != 0 for index in range(100)]
    log, summary = judge_tasks(base, tmp_path, ScriptedTask("greeting", [answers, answers]))
    assert log.model is not None
    assert log.model.verdict == summary.verdict == "pass"


def test_checkpoint_audit_task_that_the_base_cannot_do_is_no_pass(base: Setup, tmp_path: Path) -> None:
    log, summary = judge_tasks(base, tmp_path, ScriptedTask("greeting", [[False] * 100] * 2))
    assert log.model is not None
    assert log.model.verdict == summary.verdict == "fail"
    assert "unmeasured" in {row.verdict for row in log.model.measurements}


def test_checkpoint_audit_of_the_own_tasks_logs_both(base: Setup, tmp_path: Path) -> None:
    edited = save(tmp_path / "edited", add_rank_one)
    (tmp_path / "out").mkdir()
    run_checkpoint_audit(base, NO_EDITS, edited, tmp_path / "out", tasks=["cloze", "endings"])
    log = read_log(tmp_path / "out" / LOG)
    assert log.model is not None
    assert log.model.error is None
    rows = [row for row in log.model.measurements if row.check in ("task:cloze", "task:endings")]
    assert {row.total for row in rows if row.metric == "accuracy"} == {100}

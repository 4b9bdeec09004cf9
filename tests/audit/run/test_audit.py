"""One audit from start to end on a tiny model: what is logged, what it leaves behind, and what is never a pass."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from editguard.audit.edit_result import Assessment, Proposal
from editguard.audit.editors.base import EDITORS, Plan
from editguard.audit.editors.builtin.rome import Rome
from editguard.audit.editors.update import WeightUpdate
from editguard.audit.editors.value import Engine, OptimisedValue, ValueSettings
from editguard.audit.folders.file_names import AUDIT_FILES, LOG, REPORT, SUMMARY
from editguard.audit.folders.output_folder import locked_folder
from editguard.audit.guard import GuardedEditor
from editguard.audit.run.audit import run_audit
from editguard.audit.run.outputs import OUTPUTS, write_outputs
from editguard.audit.setup import Setup, UneditedStates, prepare
from editguard.probes.errors import DeviceFailed, EditguardError, ModelError, NotFinite
from editguard.probes.forward import live_rows, partial
from editguard.probes.forward import onednn as products
from editguard.probes.forward.prefix_cache import PrefixCache
from editguard.probes.keys.statistics import KeyStatistics
from editguard.probes.model.fingerprint import compute_checksum, hash_tensors
from editguard.probes.requests.loader import InvalidRecord
from editguard.reports.log.file import Log, read_log
from editguard.reports.log.schema import EditRecord
from editguard.reports.verdict.summary import Summary
from editguard.suites.check import Bench, CheckResult, EditUnderTest
from editguard.suites.checks.perplexity import CorpusPerplexity, Perplexity

from ...helpers.tiny_audits import load_edits
from ...helpers.tiny_models import tiny_lm
from ...helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, MISSING_SUBJECT_REQUEST, SENTENCES, lenient

pytestmark = pytest.mark.tiny

Measure = Callable[[Perplexity, Bench, EditUnderTest[CorpusPerplexity]], CheckResult]


def test_audit_reference_engine_uses_no_fast_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fast(*_: object) -> None:
        pytest.fail("a pass of the reference was not plain")

    monkeypatch.setattr(products, "_selects_onednn", lambda: True)
    monkeypatch.setattr(products, "_onednn", fast)
    for owner, name in ((live_rows.LiveRows, "__init__"), (partial.Stem, "__init__"), (PrefixCache, "__init__")):
        monkeypatch.setattr(owner, name, fast)
    (tmp_path / "corpus.txt").write_text("\n".join(SENTENCES * 60))
    setup = prepare(
        tiny_lm(),
        layer=0,
        policy=lenient(controls=True),
        corpus=str(tmp_path / "corpus.txt"),
        perplexity_corpus=SENTENCES,
        settings=ValueSettings(steps=2, engine=Engine.REFERENCE),
    )
    assert setup.statistics.provenance.method == "corpus"
    run_audit(setup, load_edits(FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST), tmp_path)
    found = read_log(tmp_path / LOG)
    assert found.header.versions["matrix products"] == "PyTorch"
    assert [one.outcome for one in found.edits] == ["committed", "committed"]


class Audited(NamedTuple):
    folder: Path
    summary: Summary
    log: Log
    before: dict[str, str]
    after: dict[str, str]


@pytest.fixture(scope="module")
def audited(setup: Setup, tmp_path_factory: pytest.TempPathFactory) -> Audited:
    out = tmp_path_factory.mktemp("audit")
    before = hash_tensors(setup.lm.model)
    wrong = InvalidRecord("edits.json: record 4", "subject", "subject is empty")
    given = replace(load_edits(FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, MISSING_SUBJECT_REQUEST), invalid=(wrong,))
    summary = run_audit(setup, given, out, arguments={"seed": 0})
    return Audited(out, summary, read_log(out / LOG), before, hash_tensors(setup.lm.model))


def by_id(log: Log) -> dict[str, EditRecord]:
    return {record.id: record for record in log.edits}


def test_audit_log_summary_and_report_agree(audited: Audited) -> None:
    assert sorted(path.name for path in audited.folder.iterdir()) == sorted(AUDIT_FILES) == sorted([LOG, *OUTPUTS])
    assert Summary.model_validate_json((audited.folder / SUMMARY).read_text(encoding="utf-8")) == audited.summary
    assert audited.log.footer is not None
    assert audited.log.footer.records == 3
    assert not audited.log.torn
    assert [record.index for record in audited.log.edits] == [0, 1, 2]
    assert "Chicago" in (audited.folder / REPORT).read_text(encoding="utf-8")


def test_audit_summary_has_every_documented_field(audited: Audited) -> None:
    written = json.loads((audited.folder / SUMMARY).read_text(encoding="utf-8"))
    assert {
        "schema_version",
        "model",
        "layer",
        "edits",
        "allowed",
        "rewritten",
        "refused",
        "failed",
        "collapsed",
        "baseline_perplexity",
        "worst_perplexity_ratio",
        "efficacy_unprefixed",
        "efficacy_prefixed",
        "controls_ok",
        "verdict",
        "efficacy_by_family",
    } <= set(written)
    assert (written["schema_version"], written["model"], written["layer"]) == (1, "tiny-llama", 0)
    assert (written["edits"], written["allowed"], written["rewritten"], written["refused"]) == (3, 1, 1, 1)
    assert (written["failed"], written["collapsed"], written["skipped_invalid"]) == (0, 0, 1)
    assert written["baseline_perplexity"] > 1
    assert 0 < written["worst_perplexity_ratio"] < 1e6
    assert {"sentence", "newline", "quote", "word"} <= set(written["efficacy_by_family"])
    assert all(
        rate["passed"] + rate["failed"] + rate["not_judged"] == rate["total"] > 0
        for rate in written["efficacy_by_family"].values()
    )


def test_audit_refused_edit_fails_unless_policy_allows(audited: Audited, tmp_path: Path) -> None:
    assert (audited.summary.verdict, audited.summary.exit_code) == ("fail", 1)
    lines = (audited.folder / LOG).read_text(encoding="utf-8").splitlines(keepends=True)
    header = json.loads(lines[0])
    header["policy"]["allow_refused"] = True
    (tmp_path / LOG).write_text(json.dumps(header) + "\n" + "".join(lines[1:]), encoding="utf-8")
    assert write_outputs(tmp_path).verdict == "pass"


def test_audit_header_holds_all_to_run_it_again(setup: Setup, audited: Audited) -> None:
    header = audited.log.header
    assert header.model.fingerprint == setup.lm.fingerprint
    assert (header.source, header.source_sha256, header.requests) == ("edits.json", "0" * 64, 3)
    assert (header.seed, header.layer, header.site) == (0, 0, setup.site.path)
    assert header.arguments == {"seed": 0}
    assert header.skipped_invalid[0].where == "edits.json: record 4"
    assert (header.statistics.method, header.statistics.condition_number) == ("identity", 1.0)
    assert [p.text for p in header.prefixes] == [p.text for p in setup.prefixes.prefixes]
    assert header.policy == setup.policy.model_dump(mode="json")
    assert {f"{t.probe}/{t.metric}" for t in header.thresholds} == set(setup.calibration.thresholds)


def test_audit_records_hold_decision_and_result(audited: Audited) -> None:
    first, middle, missing = (by_id(audited.log)[name] for name in ("chicago", "france", "missing"))
    assert (first.decision.action, first.decision.editor, first.outcome) == ("rewrite", "prefixed", "committed")
    assert (middle.decision.action, middle.decision.editor, middle.outcome) == ("allow", "local", "committed")
    assert (missing.decision.action, missing.decision.editor, missing.outcome) == ("refuse", None, "refused")
    assert missing.keys is missing.update is missing.weights is None
    assert missing.measurements == []
    assert "Berlin" in missing.decision.reasons[0]
    assert first.keys is not None
    assert first.keys.first_token
    assert middle.keys is not None
    assert not middle.keys.first_token
    assert first.update is not None
    assert first.update.needs_prefix
    assert {m.check for m in first.measurements} == {
        "aftermath",
        "degeneracy",
        "drift",
        "efficacy",
        "first-words",
        "generalization",
        "locality",
        "perplexity",
    }
    assert "first-words" not in {m.check for m in middle.measurements}
    # In the tiny model first tokens have keys of their own at the edited layer.
    assert "editor 'everywhere' gives way to 'prefixed'" in first.decision.reasons[-1]
    # Each neighbour is asked bare, after a newline and after sentences.
    asked = [(one.prompt, one.condition) for one in first.prompts]
    under = ["unprefixed", "family:newline", "family:sentence"]
    assert {*asked} == {(prompt, condition) for prompt in FIRST_TOKEN_REQUEST.neighbourhood for condition in under}
    assert {one.role.value for one in first.prompts} == {"neighbour"}
    assert len(first.generations) >= 3


def test_audit_weights_are_restored_and_proved(audited: Audited) -> None:
    assert audited.after == audited.before
    made = [record.weights for record in audited.log.edits if record.weights is not None]
    assert len(made) == 2
    for weights in made:
        (hashes,) = weights.sites.values()
        assert hashes.before == hashes.restored != hashes.edited
        assert weights.restored_ok is True


def test_audit_leaves_no_hook_and_no_patched_block(setup: Setup, audited: Audited) -> None:
    for module in setup.lm.model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert "forward" not in vars(module)


def test_audit_records_do_not_depend_on_request_order(setup: Setup, audited: Audited, tmp_path: Path) -> None:
    fresh = replace(setup)  # with a bench of its own: nothing that was kept may be reused
    run_audit(fresh, load_edits(MISSING_SUBJECT_REQUEST, MID_PROMPT_REQUEST, FIRST_TOKEN_REQUEST), tmp_path)
    other = by_id(read_log(tmp_path / LOG))
    for name, record in by_id(audited.log).items():
        left_out = {"index", "seconds"}
        assert other[name].model_dump(exclude=left_out) == record.model_dump(exclude=left_out)


# ------------------------------------------------------------------------------------------- what may never be a pass


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Make the perplexity check raise for the second request, with the edit in the model."""
    real: Measure = Perplexity.measure

    def install(error: BaseException) -> None:
        def measure(self: Perplexity, bench: Bench, edit: EditUnderTest[CorpusPerplexity]) -> CheckResult:
            if edit.request.id == MID_PROMPT_REQUEST.id:
                raise error
            return real(self, bench, edit)

        monkeypatch.setattr(Perplexity, "measure", measure)

    return install


@pytest.mark.parametrize(
    "error", [RuntimeError("boom"), ValueError("boom"), ZeroDivisionError("boom"), NotFinite("boom")]
)
def test_audit_check_that_raises_fails_one_edit(
    setup: Setup, tmp_path: Path, failing: Callable[[BaseException], None], error: Exception
) -> None:
    before = hash_tensors(setup.lm.model)
    failing(error)
    summary = run_audit(setup, load_edits(MID_PROMPT_REQUEST, FIRST_TOKEN_REQUEST), tmp_path)
    records = by_id(read_log(tmp_path / LOG))
    assert (records["france"].outcome, records["france"].verdict) == ("errored", "fail")
    assert records["france"].error == f"{type(error).__name__}: boom"
    assert records["chicago"].verdict == "pass"
    assert (summary.verdict, summary.exit_code, summary.failed) == ("fail", 1, 1)
    assert hash_tensors(setup.lm.model) == before


def test_audit_device_failure_keeps_the_log(
    setup: Setup, tmp_path: Path, failing: Callable[[BaseException], None]
) -> None:
    failing(torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered\nmore"))
    with pytest.raises(
        DeviceFailed, match=r"The device cpu failed \(CUDA error: uncorrectable ECC error encountered\), .*--resume"
    ):
        run_audit(setup, load_edits(FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST), tmp_path)
    log = read_log(tmp_path / LOG)
    assert ([record.id for record in log.edits], log.footer) == (["chicago"], None)


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), AttributeError("our own fault"), EditguardError("the weight did not come back")],
    ids=["interrupt", "fault", "roll-back"],
)
def test_audit_cut_short_restores_and_never_passes(
    setup: Setup, tmp_path: Path, failing: Callable[[BaseException], None], error: BaseException
) -> None:
    before = hash_tensors(setup.lm.model)
    failing(error)
    with pytest.raises(type(error)), locked_folder(tmp_path, overwrite=False):
        run_audit(setup, load_edits(FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST), tmp_path)
    assert hash_tensors(setup.lm.model) == before
    log = read_log(tmp_path / LOG)
    assert log.footer is None
    assert [record.id for record in log.edits] == ["chicago"]
    summary = write_outputs(tmp_path)
    assert (summary.status, summary.verdict, summary.exit_code) == ("unfinished", "fail", 1)
    summary = run_audit(replace(setup), load_edits(FIRST_TOKEN_REQUEST), tmp_path, overwrite=True)
    assert (summary.status, summary.verdict) == ("finished", "pass")


def test_audit_batch_that_fails_is_computed_singly(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, sizes = GuardedEditor.propose, []

    def propose(self: GuardedEditor, assessments: Sequence[Assessment], **options: Any) -> list[Proposal]:
        sizes.append(len(assessments))
        if len(assessments) > 1 or assessments[0].request is MID_PROMPT_REQUEST:
            raise RuntimeError("out of memory")
        return real(self, assessments, **options)

    monkeypatch.setattr(GuardedEditor, "propose", propose)
    run_audit(setup, load_edits(FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, MISSING_SUBJECT_REQUEST), tmp_path)
    assert sizes == [3, 1, 1, 1]
    log = read_log(tmp_path / LOG)
    assert [(record.id, record.outcome) for record in log.edits] == [
        ("chicago", "committed"),
        ("france", "errored"),
        ("missing", "refused"),
    ]
    assert log.edits[1].error == "RuntimeError: out of memory"


class Shattering(Rome):
    """Finite itself, and more than the weights' dtype holds."""

    name = "shattering"

    def finish(self, plan: Plan, value: OptimisedValue, statistics: KeyStatistics) -> WeightUpdate:
        found = super().finish(plan, value, statistics)
        return found.scale(1e45 / float(found.changes[0].left.norm()))


def test_audit_edit_that_makes_nan_never_passes(setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EDITORS._classes, "shattering", Shattering)
    reckless = replace(setup, policy=lenient(max_relative_update=1e50))
    summary = run_audit(reckless, load_edits(MID_PROMPT_REQUEST), tmp_path, editor="shattering")
    (record,) = read_log(tmp_path / LOG).edits
    ratio = next(m for m in record.measurements if (m.check, m.metric) == ("perplexity", "ratio"))
    assert (ratio.value, ratio.verdict) == (None, "unmeasured")
    assert (record.outcome, record.verdict) == ("rolled-back", "fail")
    assert (summary.verdict, summary.failed, summary.worst_perplexity_ratio) == ("fail", 1, None)
    assert record.weights is not None
    assert record.weights.restored_ok


def test_audit_update_over_bound_is_not_written(setup: Setup, tmp_path: Path) -> None:
    strict = replace(setup, policy=lenient(max_relative_update=1e-6))
    summary = run_audit(strict, load_edits(MID_PROMPT_REQUEST), tmp_path)
    (record,) = read_log(tmp_path / LOG).edits
    assert (record.decision.action, record.decision.editor, record.outcome) == ("refuse", None, "refused")
    assert "over the bound of 1e-06" in record.decision.reasons[-1]
    assert record.weights is None
    assert record.update is not None
    assert record.update.relative_norm is not None
    assert record.update.relative_norm > 1e-6
    assert summary.verdict == "fail"


@pytest.fixture
def nan_weight(setup: Setup) -> Iterator[Setup]:
    weight = setup.lm.model.get_parameter("model.norm.weight")
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[0] = float("nan")
    try:
        yield replace(setup, weights=compute_checksum(setup.lm.model), states=UneditedStates())
    finally:
        with torch.no_grad():
            weight.copy_(kept)


def test_audit_nan_model_never_passes(nan_weight: Setup, tmp_path: Path) -> None:
    with pytest.raises(EditguardError, match="perplexity is nan") as caught:
        run_audit(nan_weight, load_edits(MID_PROMPT_REQUEST), tmp_path)
    assert caught.value.exit_code != 0
    assert not (tmp_path / SUMMARY).exists()


def test_audit_without_requests_does_not_pass(setup: Setup, tmp_path: Path) -> None:
    assert run_audit(setup, load_edits(), tmp_path).exit_code == 1


def test_audit_read_only_site_is_refused(setup: Setup, tmp_path: Path) -> None:
    probing = replace(setup, site=replace(setup.site, editable=False, reason="It is an encoder."))
    with pytest.raises(ModelError, match="It is an encoder"):
        run_audit(probing, load_edits(MID_PROMPT_REQUEST), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_audit_control_that_does_not_collapse_is_void(setup: Setup, tmp_path: Path) -> None:
    controlled = replace(setup, policy=lenient(controls=True))
    summary = run_audit(controlled, load_edits(MID_PROMPT_REQUEST), tmp_path)
    log = read_log(tmp_path / LOG)
    assert log.header.controls == [control.id for control in log.controls]
    assert [control.expect for control in log.controls] == ["collapse", "sound"]
    assert [control.ok for control in log.controls] == [False, True]
    # The edits and the sound control are ordinary: first-words judges none of them, and that voids nothing.
    assert all(
        row.ok is not False for control in log.controls for row in control.sightings if row.name == "first-words"
    )
    assert not any("first-words" in reason for reason in summary.reasons)
    assert (summary.verdict, summary.exit_code, summary.controls_ok) == ("void", 1, False)


# ------------------------------------------------------------------------------------------------------- the folder


def test_audit_overwritten_leaves_nothing_old(setup: Setup, tmp_path: Path) -> None:
    for name in AUDIT_FILES:
        (tmp_path / name).write_text("old", encoding="utf-8")
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    assert run_audit(setup, load_edits(MID_PROMPT_REQUEST), tmp_path, overwrite=True).verdict == "pass"
    assert [record.id for record in read_log(tmp_path / LOG).edits] == ["france"]
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"

"""Only sound edits are exported, as they were audited, or nothing is written."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from editguard.audit.delta import apply_delta, export_edits, read_delta
from editguard.audit.folders.file_names import LOG
from editguard.audit.run.audit import run_audit
from editguard.audit.setup import Setup
from editguard.probes.errors import EditRefused, InputError
from editguard.probes.keys.prefixes import Role
from editguard.probes.model.fingerprint import hash_tensor
from editguard.probes.requests.loader import LoadedRequests
from editguard.reports.log.file import read_log

from ...helpers.tiny_models import tiny_lm
from ...helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, MISSING_SUBJECT_REQUEST, lenient, tiny_setup
from ...helpers.weight_updates import get_only

pytestmark = pytest.mark.tiny


@pytest.mark.parametrize(("family", "seed"), [("llama", 0), ("gpt2", 1)])  # whose text is varied enough to be judged
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_export_after_audit_is_the_audited_edit_to_the_bit(
    family: str, seed: int, dtype: torch.dtype, tmp_path: Path
) -> None:
    made = tiny_setup(tiny_lm(family, seed=seed, dtype=dtype))
    (tmp_path / "audit").mkdir()
    run_audit(
        made, LoadedRequests(requests=(MID_PROMPT_REQUEST,), invalid=(), source="here", sha256=""), tmp_path / "audit"
    )
    (exported,) = export_edits(made, [MID_PROMPT_REQUEST], tmp_path / "out", log=tmp_path / "audit" / LOG)
    log = read_log(tmp_path / "audit" / LOG)
    (record,) = log.edits
    delta = read_delta(tmp_path / "out" / exported.file)
    assert record.weights is not None
    with apply_delta(made.lm.model, delta, unaudited=True):  # no controls were run
        assert hash_tensor(made.site.weight) == get_only(record.weights.edited) == delta.manifest.sites[0].weight_edited
    assert hash_tensor(made.site.weight) == get_only(record.weights.before)
    assert delta.manifest.policy_sha256 == log.header.policy_sha256
    assert delta.manifest.audit is not None
    assert delta.manifest.audit.verdict == "pass"
    assert delta.manifest.audit.log_sha256 == sha256((tmp_path / "audit" / LOG).read_bytes()).hexdigest()
    index = json.loads((tmp_path / "out" / "editguard-export.json").read_text())
    assert index["edits"][0]["edit"] == exported.edit.model_dump()
    assert set(exported.edit.families) == {prefix.family.value for prefix in made.prefixes.of(Role.HELD_OUT)}


def test_export_refused_or_failed_edit_writes_nothing(setup: Setup, tmp_path: Path) -> None:
    with pytest.raises(EditRefused, match=r"'missing' is not sound, so nothing was exported: .*stands 0 times"):
        export_edits(setup, [MID_PROMPT_REQUEST, MISSING_SUBJECT_REQUEST], tmp_path / "out")
    strict = replace(setup, policy=lenient(min_efficacy=1))
    with pytest.raises(EditRefused, match=r"give the target: 0 of 1, outside the bound \(at least 100%\)"):
        export_edits(strict, [MID_PROMPT_REQUEST], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    (exported,) = export_edits(
        setup, [MID_PROMPT_REQUEST, MISSING_SUBJECT_REQUEST], tmp_path / "out", only=[MID_PROMPT_REQUEST.id]
    )
    assert exported.edit.id == MID_PROMPT_REQUEST.id
    with pytest.raises(InputError, match="no edit 'other'"):
        export_edits(setup, [MID_PROMPT_REQUEST], tmp_path / "more", only=["other"])


def test_export_edit_without_serving_prefix_is_refused(setup: Setup, tmp_path: Path) -> None:
    # A random model's edit takes under no prefix in three steps; the checks are lenient, serving is not.
    with pytest.raises(EditRefused, match="after none of"):
        export_edits(setup, [FIRST_TOKEN_REQUEST], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_export_log_of_another_edit_or_weight_is_refused(setup: Setup, tmp_path: Path) -> None:
    run_audit(setup, LoadedRequests(requests=(MID_PROMPT_REQUEST,), invalid=(), source="here", sha256=""), tmp_path)
    path = tmp_path / LOG
    with pytest.raises(InputError, match="has no edit"):
        export_edits(setup, [replace(MID_PROMPT_REQUEST, target_new="Lyon")], tmp_path / "out", log=path)
    text = path.read_text()
    (record,) = read_log(path).edits
    assert record.weights is not None
    path.write_text(text.replace(str(get_only(record.weights.edited)), "0" * 64))
    with pytest.raises(InputError, match="000000000000 was audited"):
        export_edits(setup, [MID_PROMPT_REQUEST], tmp_path / "out", log=path)
    path.write_text(text.replace(setup.lm.fingerprint, "1" * 64))
    with pytest.raises(InputError, match="is of model 111111111111"):
        export_edits(setup, [MID_PROMPT_REQUEST], tmp_path / "out", log=path)
    assert not (tmp_path / "out").exists()


def test_export_unfinished_or_torn_log_is_refused(setup: Setup, tmp_path: Path) -> None:
    run_audit(setup, LoadedRequests(requests=(MID_PROMPT_REQUEST,), invalid=(), source="here", sha256=""), tmp_path)
    path = tmp_path / LOG
    lines = path.read_text().splitlines(keepends=True)
    for cut in ("".join(lines[:-1]), "".join(lines)[:-9]):
        path.write_text(cut)
        with pytest.raises(EditRefused, match=rf"{LOG}' is unfinished"):
            export_edits(setup, [MID_PROMPT_REQUEST], tmp_path / "out", log=path)
    assert not (tmp_path / "out").exists()


def test_export_log_of_a_sequence_is_refused(setup: Setup, tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir()
    run_audit(
        setup,
        LoadedRequests(requests=(MID_PROMPT_REQUEST,), invalid=(), source="here", sha256=""),
        tmp_path / "audit",
        in_sequence=True,
    )
    with pytest.raises(InputError, match="is of edits in sequence, each judged with others in the model"):
        export_edits(setup, [MID_PROMPT_REQUEST], tmp_path / "out", log=tmp_path / "audit" / LOG)
    assert not (tmp_path / "out").exists()

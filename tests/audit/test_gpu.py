"""On a GPU: the same update as on the CPU, a guarded edit that leaves nothing behind, half precision, keys and C.

Skipped by name where there is no GPU. Tiny models, so that what is asked is whether devices are mixed up, not speed;
the embedded model is edited once.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from editguard.audit.editors.base import EditContext, compute_updates
from editguard.audit.editors.update import WeightUpdate
from editguard.audit.editors.value import Engine, ValueSettings
from editguard.audit.guard import GuardedEditor
from editguard.audit.setup import Setup, prepare
from editguard.audit.transaction import Transaction
from editguard.probes.keys.corpus_statistics import Corpus, compute_statistics
from editguard.probes.keys.statistics import make_identity_statistics
from editguard.probes.keys.subject_keys import compute_subject_keys
from editguard.probes.model.fingerprint import hash_tensors
from editguard.probes.model.language_model import LanguageModel
from editguard.probes.model.site import find_site
from editguard.suites.builtin import load_builtin_edits
from editguard.suites.check import Outcome

from ..helpers.families import FAMILIES
from ..helpers.tiny_models import tiny_lm
from ..helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, SENTENCES, few_prefixes, tiny_setup
from ..helpers.weight_updates import get_only_figures

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]

CAUSAL = sorted(set(FAMILIES) - {"t5"})


def on(device: str, family: str, dtype: torch.dtype = torch.float32) -> LanguageModel:
    lm = tiny_lm(family, dtype=dtype)
    return replace(lm, model=lm.model.to(device))


def context(lm: LanguageModel, engine: Engine = Engine.LIVE) -> EditContext:
    site = find_site(lm.model, 0)
    statistics = make_identity_statistics(site.d_ff, lm.fingerprint, site.layer)
    return EditContext(
        lm=lm, site=site, statistics=statistics, prefixes=few_prefixes(), settings=ValueSettings(steps=4, engine=engine)
    )


@pytest.mark.parametrize("engine", Engine)
@pytest.mark.parametrize("family", CAUSAL)
def test_gpu_update_equals_that_of_the_cpu(family: str, engine: Engine) -> None:
    jobs = [("rome", FIRST_TOKEN_REQUEST), ("prefixed", MID_PROMPT_REQUEST)]
    here = compute_updates(context(on("cpu", family), Engine.REFERENCE), jobs)
    there = compute_updates(context(on("cuda", family), engine), jobs)
    for own, other in zip(here, there, strict=True):
        assert isinstance(own, WeightUpdate)
        assert isinstance(other, WeightUpdate)
        assert get_only_figures(other).steps == get_only_figures(own).steps
        assert other.norm == pytest.approx(own.norm, rel=1e-2)
        assert get_only_figures(other).denominator == pytest.approx(get_only_figures(own).denominator, rel=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gpu_transaction_restores_every_bit(dtype: torch.dtype) -> None:
    lm = on("cuda", "llama", dtype)
    edit_context = context(lm)
    (update,) = compute_updates(edit_context, [("prefixed", MID_PROMPT_REQUEST)])
    assert isinstance(update, WeightUpdate)
    before = hash_tensors(lm.model)
    with Transaction(update):
        assert hash_tensors(lm.model) != before
    assert hash_tensors(lm.model) == before


@pytest.mark.parametrize("family", CAUSAL)
def test_gpu_guarded_edit_is_measured_and_undone(family: str) -> None:
    setup = tiny_setup(on("cuda", family))
    before = hash_tensors(setup.lm.model)
    result = GuardedEditor(setup).try_edit(MID_PROMPT_REQUEST)
    assert {measurement.check for measurement in result.measurements} >= {
        "perplexity",
        "efficacy",
        "degeneracy",
        "drift",
    }
    assert not [measurement for measurement in result.measurements if measurement.outcome is Outcome.UNMEASURED]
    assert hash_tensors(setup.lm.model) == before


def test_gpu_keys_and_statistics_equal_those_of_the_cpu() -> None:
    corpus = Corpus(SENTENCES * 20, "sentences")
    pairs = []
    for device in ("cpu", "cuda"):
        lm = on(device, "llama")
        site = find_site(lm.model, 1)
        keys = compute_subject_keys(lm, site, MID_PROMPT_REQUEST, ["", "It is 2024. "])
        pairs.append((keys.keys.cpu(), compute_statistics(lm, site, corpus).second_moment.cpu()))
    for own, other in zip(*pairs, strict=True):
        torch.testing.assert_close(other, own, rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def smollm2_on_gpu(smollm2: LanguageModel) -> Setup:
    lm = replace(smollm2, model=type(smollm2.model)(smollm2.model.config))
    lm.model.load_state_dict(smollm2.model.state_dict())
    return prepare(replace(lm, model=lm.model.to("cuda").eval().requires_grad_(False)))


@pytest.mark.real
def test_gpu_smollm2_collapses_unguarded_and_not_guarded(smollm2_on_gpu: Setup) -> None:
    guard, before = GuardedEditor(smollm2_on_gpu), hash_tensors(smollm2_on_gpu.lm.model)
    edit = next(edit for edit in load_builtin_edits() if edit.group == "single-token-first")
    bad, good = guard.try_unguarded(edit, "rome"), guard.try_edit(edit)
    ratios = [m.value for result in (bad, good) for m in result.measurements if m.metric == "ratio"]
    assert ratios[0] is None or ratios[0] > smollm2_on_gpu.policy.collapse_ratio
    assert ratios[1] is not None
    assert ratios[1] <= smollm2_on_gpu.policy.max_perplexity_ratio
    assert not bad.sound
    assert good.sound
    assert hash_tensors(smollm2_on_gpu.lm.model) == before

"""The subject of an edit is found again from the change alone, among subjects that have much in common."""

from __future__ import annotations

import pytest
import torch
from editguard.audit.editors.base import EditContext, compute_updates
from editguard.audit.editors.value import ValueSettings
from editguard.audit.research.subject_search import (
    FEWEST_CANDIDATES,
    Candidates,
    build_subject_requests,
    compute_candidate_keys,
    compute_null_likeness,
    rank_candidates,
    search_subjects,
)
from editguard.audit.transaction import Transaction
from editguard.probes.errors import InputError
from editguard.probes.keys.statistics import KeyStatistics, StatisticsProvenance
from editguard.probes.model.language_model import LanguageModel
from editguard.probes.model.site import find_site
from editguard.probes.research.tensor_change import compare_tensors
from editguard.suites.builtin import load_builtin_edits
from hypothesis import given, settings
from hypothesis import strategies as st

from ...helpers.examples import count_examples
from ...helpers.tiny_models import tiny_lm
from ...helpers.tiny_setups import few_prefixes

SIZE, COUNT = 32, 40


@settings(max_examples=count_examples(40), deadline=None)
@given(
    seed=st.integers(0, 10**6), which=st.integers(0, COUNT - 1), role=st.integers(0, 1), sign=st.sampled_from([-1, 1])
)
def test_rank_candidates_names_the_key_for_either_sign(seed: int, which: int, role: int, sign: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    common = torch.randn(SIZE, generator=draw, dtype=torch.float64) * 3
    keys = common + torch.randn(COUNT, 2, SIZE, generator=draw, dtype=torch.float64)
    text = torch.randn(200, SIZE, generator=draw, dtype=torch.float64) + common
    c = KeyStatistics(
        text.T @ text / len(text), StatisticsProvenance(method="corpus", source="noise", model_fingerprint="", layer=0)
    )
    ranked = rank_candidates(sign * c.direction(keys[which, role]), c, Candidates(tuple(map(str, range(COUNT))), keys))
    assert ranked[0].subject == str(which)
    # A direction has lost its length, and nothing else: what does not depend on it agrees exactly.
    assert ranked[0].cosine == pytest.approx(1)
    assert ranked[0].cosine > ranked[1].cosine >= ranked[-1].cosine
    assert len(ranked) == COUNT


def test_null_likeness_is_that_to_the_nearest_other_candidate() -> None:
    keys = torch.randn(COUNT, 1, SIZE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    keys[1] = keys[0] * 1.5
    null = compute_null_likeness(Candidates(tuple(map(str, range(COUNT))), keys))
    assert null.shape == (COUNT,)
    assert null[:2].min() > 0.95
    assert null[2:].max() < 0.8


@pytest.mark.tiny
def test_candidate_keys_come_once_and_too_few_are_refused() -> None:
    lm = tiny_lm()
    site = find_site(lm.model, 0)
    names = [f"Paris{number}" for number in range(FEWEST_CANDIDATES)]
    candidates = compute_candidate_keys(lm, site, build_subject_requests([*names, *names]), few_prefixes())
    assert candidates.subjects == tuple(names)
    assert candidates.keys.shape == (FEWEST_CANDIDATES, 2, site.d_ff)
    with pytest.raises(InputError, match="can be located, and with fewer than"):
        compute_candidate_keys(lm, site, build_subject_requests(names[1:]), few_prefixes())


@pytest.mark.tiny
def test_search_subjects_skips_changes_at_other_tensors() -> None:
    lm = tiny_lm()
    base = torch.zeros(4, 4)
    spectrum = compare_tensors(base, torch.ones(4, 4)).spectrum
    assert spectrum is not None
    assert (
        search_subjects(
            lm, {"lm_head.weight": spectrum}, [], statistics="identity", corpus=None, seed=0, progress=lambda *_: None
        )
        == []
    )


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("editor", ["rome", "c-rome", "r-rome", "prefixed"])
def test_rank_candidates_smollm2_edits_lead_to_their_subjects(smollm2: LanguageModel, editor: str) -> None:
    site = find_site(smollm2.model, 9)
    prefixes = few_prefixes()
    edits = load_builtin_edits()
    chosen = [
        next(edit for edit in edits if edit.group == group) for group in dict.fromkeys(edit.group for edit in edits)
    ]
    identity = KeyStatistics(
        torch.eye(site.d_ff, dtype=torch.float64),
        StatisticsProvenance(method="identity", source="", model_fingerprint="", layer=9),
        0.0,
    )
    context = EditContext(
        lm=smollm2, site=site, statistics=identity, prefixes=prefixes, settings=ValueSettings(steps=3)
    )
    candidates = compute_candidate_keys(
        smollm2,
        site,
        build_subject_requests([edit.subject for edit in edits[::2]] + [edit.subject for edit in chosen]),
        prefixes,
    )
    base = site.weight.detach().clone()
    for request, update in zip(chosen, compute_updates(context, [(editor, edit) for edit in chosen]), strict=True):
        assert not isinstance(update, Exception)
        with Transaction(update):
            spectrum = compare_tensors(base, site.weight.detach()).spectrum
        assert spectrum is not None
        assert rank_candidates(spectrum.right, identity, candidates)[0].subject == request.subject

"""The subject of an edit is found again from the change alone, among subjects that have much in common."""

from __future__ import annotations

from dataclasses import replace

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
from editguard.probes.keys.prefixes import make_prefixes
from editguard.probes.keys.statistics import KeyStatistics, StatisticsProvenance
from editguard.probes.model.language_model import LanguageModel
from editguard.probes.model.site import find_site
from editguard.probes.requests.request import EditRequest
from editguard.probes.research.tensor_change import compare_tensors
from editguard.reports.html.diff_page import Search, describe_search
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
    ranked = rank_candidates(
        sign * c.direction(keys[which, role])[None], c, Candidates(tuple(map(str, range(COUNT))), keys)
    )
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


@settings(max_examples=count_examples(20), deadline=None)
@given(seed=st.integers(0, 10**6), rank=st.integers(2, 6))
def test_rank_candidates_names_all_keys_of_a_batch(seed: int, rank: int) -> None:
    size = 4 * SIZE
    draw = torch.Generator().manual_seed(seed)
    common = torch.randn(size, generator=draw, dtype=torch.float64) * 3
    keys = common + torch.randn(COUNT, 1, size, generator=draw, dtype=torch.float64)
    text = torch.randn(4 * size, size, generator=draw, dtype=torch.float64) + common
    c = KeyStatistics(
        text.T @ text / len(text), StatisticsProvenance(method="corpus", source="noise", model_fingerprint="", layer=0)
    )
    shift = c.ridge * c.second_moment.diagonal().mean() * torch.eye(size, dtype=torch.float64)
    edited = keys[:rank, 0].T
    # MEMIT's right factor: K^T (C + K K^T)^-1.
    right = torch.linalg.solve(c.second_moment + shift + edited @ edited.T, edited)
    update = torch.randn(SIZE, rank, generator=draw, dtype=torch.float64) @ right.T
    _, _, rows = torch.linalg.svd(update, full_matrices=False)
    candidates = Candidates(tuple(map(str, range(COUNT))), keys)
    ranked = rank_candidates(rows[:rank], c, candidates)
    assert {likeness.subject for likeness in ranked[:rank]} == {str(index) for index in range(rank)}
    assert ranked[rank - 1].cosine > 0.99
    assert ranked[rank].cosine < 0.9
    # With the edited subjects left out, the best one is no better than chance makes it.
    others = Candidates(candidates.subjects[rank:], keys[rank:])
    best = rank_candidates(rows[:rank], c, others)[0].cosine
    null = compute_null_likeness(others, rank)
    assert float((null >= best).double().mean()) > 1e-3
    assert ranked[rank - 1].cosine > float(null.max())


def test_null_likeness_of_a_batch_is_larger_than_of_one() -> None:
    keys = torch.randn(COUNT, 2, SIZE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    candidates = Candidates(tuple(map(str, range(COUNT))), keys)
    one, several = compute_null_likeness(candidates), compute_null_likeness(candidates, 6)
    assert torch.equal(several, compute_null_likeness(candidates, 6))
    assert float(several.min()) > float(one.mean())
    assert float(several.max()) < 1


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


DOWN = "model.layers.0.mlp.down_proj.weight"


@pytest.mark.tiny
@pytest.mark.parametrize(
    ("rank", "reason"),
    [(0, "within rounding"), (11, "needs 22 candidates"), (None, "is over 32, the largest that is searched")],
)
def test_search_subjects_unsearchable_change_has_its_reason(rank: int | None, reason: str) -> None:
    lm = tiny_lm()
    weight = find_site(lm.model, 0).weight.detach()
    spectrum = compare_tensors(weight, weight + torch.ones_like(weight)).spectrum
    assert spectrum is not None
    spectrum = replace(spectrum, determined=rank)
    subjects = build_subject_requests([f"Paris{number} is" for number in range(FEWEST_CANDIDATES)])
    (search,) = search_subjects(
        lm, {DOWN: spectrum}, subjects, statistics="identity", corpus=None, seed=0, progress=lambda *_: None
    )
    assert search.error is not None
    assert reason in search.error
    assert (search.guesses, search.rank) == ([], rank)


@pytest.mark.tiny
@pytest.mark.parametrize("rank", [1, 3])
def test_search_subjects_edited_subjects_stand_out_and_others_are_not_named(rank: int) -> None:
    lm = tiny_lm()
    site = find_site(lm.model, 0)
    names = ["Istanbul", "Chicago", "東京", "Lyon", "Paris", "Ångström", *"abcdefghijklmopqrtuvwxyzABCDE"]
    requests = build_subject_requests(names)
    keys = compute_candidate_keys(lm, site, requests, make_prefixes(lm, 0)).keys[:rank, 0].float()
    draw = torch.Generator().manual_seed(0)
    weight = site.weight.detach()
    update = torch.randn(len(weight), rank, generator=draw) @ keys
    spectrum = compare_tensors(weight, weight + update * weight.norm() / update.norm()).spectrum
    assert spectrum is not None
    assert spectrum.determined == rank

    def search(subjects: list[EditRequest]) -> Search:
        (result,) = search_subjects(
            lm, {DOWN: spectrum}, subjects, statistics="identity", corpus=None, seed=0, progress=lambda *_: None
        )
        return result

    named = search(requests)
    assert {guess.subject for guess in named.guesses} == set(names[:rank])
    without = search(requests[rank:])
    assert (without.guesses, without.error) == ([], None)
    assert describe_search(without).startswith(f"no candidate of {without.candidates} stands out as the subject (p = ")


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
        assert rank_candidates(spectrum.row_space, identity, candidates)[0].subject == request.subject

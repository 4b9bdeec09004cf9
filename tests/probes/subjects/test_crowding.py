"""Crowding against numpy: the shares of other subjects, each in an ordinary pass of its own."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from editguard.probes.evidence import Evidence, EvidenceMeter
from editguard.probes.keys.prefixes import ContextPrefixes, Role
from editguard.probes.requests.request import EditRequest
from editguard.probes.subjects.crowding import OTHERS_OF_EACH_KIND, OtherSubjects, compute_other_subjects
from editguard.probes.subjects.subject_kinds import SubjectKind, make_neighbours, pick_other_subjects

from ...helpers.capture import capture
from ...helpers.tiny_models import PREFIXES, PROMPT_START_REQUEST, TWIN_REQUEST, tiny_language_model, tiny_meter

pytestmark = pytest.mark.tiny

PREFIX = PREFIXES.texts(Role.KEY)[1]
EXAM = 4
"""Neighbours that the locality check makes."""


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def meter(request: pytest.FixtureRequest) -> EvidenceMeter:
    return tiny_meter(tiny_language_model(request.param))


def ordinary_key(meter: EvidenceMeter, text: str) -> np.ndarray:
    """Return the key at the last token of `text`, from an ordinary pass."""
    with capture(meter.site) as captured, torch.no_grad():
        meter.lm.model(torch.tensor([meter.lm.tokenizer(text).input_ids]))
    return captured.input[0, -1].double().numpy()


@pytest.mark.parametrize("edit_request", [TWIN_REQUEST, PROMPT_START_REQUEST], ids=["mid-prompt", "first"])
def test_measure_crowding_is_the_largest_mean_share_of_a_kind(meter: EvidenceMeter, edit_request: EditRequest) -> None:
    before = edit_request.prompt.partition(edit_request.subject)[0]
    mean = np.mean(
        [ordinary_key(meter, prefix + before + edit_request.subject) for prefix in PREFIXES.texts(Role.KEY)], 0
    )
    c = meter.statistics.second_moment.numpy()
    u = np.linalg.solve(c + meter.statistics.ridge * np.diag(c).mean() * np.eye(len(c)), mean)
    shares = {}
    for kind in SubjectKind:
        names = pick_other_subjects(meter.lm, edit_request, kind, EXAM + 2, seed=0)[EXAM:]
        keys = [ordinary_key(meter, PREFIX + before + name) for name in names]
        shares[kind] = np.mean([abs(u @ key) / abs(u @ mean) for key in keys])
    del shares[SubjectKind.THING]
    evidence = meter.measure(edit_request)
    assert evidence.crowding == pytest.approx(max(shares.values()), rel=1e-4)
    assert evidence.crowded_kind is max(shares, key=shares.__getitem__)


def test_measure_all_crowding_together_and_plain_equals_one_by_one(meter: EvidenceMeter) -> None:
    requests = [TWIN_REQUEST, replace(TWIN_REQUEST, subject="Nowhere"), PROMPT_START_REQUEST]
    together = meter.measure_all(requests)
    plain = replace(meter, lm=replace(meter.lm, plain=True)).measure_all(requests)
    for index in (0, 2):
        own, alone, by_itself = together[index], plain[index], meter.measure(requests[index])
        assert isinstance(own, Evidence)
        assert isinstance(alone, Evidence)
        assert own.crowding == pytest.approx(by_itself.crowding, rel=1e-4)
        assert own.crowding == pytest.approx(alone.crowding, rel=1e-4)
        assert own.crowded_kind is alone.crowded_kind is by_itself.crowded_kind


def test_compute_other_subjects_are_two_of_each_kind_and_no_neighbours_of_the_check(
    meter: EvidenceMeter, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[tuple[tuple[int, ...], int]] = []
    monkeypatch.setattr(
        "editguard.probes.subjects.crowding.compute_row_keys",
        lambda lm, site, asked, **_: rows.extend(asked) or torch.zeros(len(asked), site.d_ff),
    )
    (others,) = compute_other_subjects(meter.lm, meter.site, [TWIN_REQUEST], prefix=PREFIX, seed=0)
    assert others is not None
    assert OTHERS_OF_EACH_KIND == 2
    assert {kind: others.kinds.count(kind) for kind in SubjectKind} == {
        kind: 0 if kind is SubjectKind.THING else 2 for kind in SubjectKind
    }
    texts = {meter.lm.tokenizer.decode(ids) for ids, _ in rows}
    exam = {
        PREFIX + text for kind in SubjectKind for text in make_neighbours(meter.lm, TWIN_REQUEST, kind, EXAM, seed=0)
    }
    assert len(texts) == 14
    assert not texts & exam


def test_compute_other_subjects_of_a_subject_that_cannot_be_replaced_is_none(meter: EvidenceMeter) -> None:
    twice = replace(TWIN_REQUEST, prompt="Istanbul is the twin of Istanbul")
    # All names of a prompt that holds them are taken.
    names = " ".join(
        name for kind in SubjectKind for name in pick_other_subjects(meter.lm, TWIN_REQUEST, kind, 99, seed=0)
    )
    crowded = replace(TWIN_REQUEST, other_facts=(names, "Istanbul Paris Chicago"))
    requests = [twice, crowded, TWIN_REQUEST]
    others = compute_other_subjects(meter.lm, meter.site, requests, prefix="", seed=0)
    assert [item is None for item in others] == [True, True, False]
    assert compute_other_subjects(meter.lm, meter.site, [twice], prefix="", seed=0) == [None]
    assert compute_other_subjects(meter.lm, meter.site, [], prefix="", seed=0) == []


def test_crowding_where_one_share_is_nan_is_nan() -> None:
    keys = torch.tensor([[1.0, 0.0], [torch.nan, 0.0], [-4.0, 0.0]])
    kinds = (SubjectKind.PERSON, SubjectKind.PLACE, SubjectKind.COUNTRY)
    direction = torch.tensor([1.0, 0.0], dtype=torch.float64)
    assert math.isnan(OtherSubjects(kinds, keys).crowding(direction, 2.0).share)
    assert OtherSubjects(kinds, keys.nan_to_num(3.0)).crowding(direction, 2.0) == (SubjectKind.COUNTRY, 2.0)


def test_measure_without_a_prefixed_context_takes_keys_with_no_prefix(meter: EvidenceMeter) -> None:
    alone = replace(meter, prefixes=ContextPrefixes(PREFIXES.prefixes[:1], seed=0))
    (others,) = compute_other_subjects(meter.lm, meter.site, [TWIN_REQUEST], prefix="", seed=0)
    (measured,) = alone._compute_others([TWIN_REQUEST])
    assert others is not None
    assert measured is not None
    torch.testing.assert_close(measured.keys, others.keys)

"""Updates that editors compute: many at once equal each by itself, and `reworded` seeks its value under other words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from editguard.audit.editors import base
from editguard.audit.editors.base import EditContext, compute_updates
from editguard.audit.editors.update import WeightUpdate
from editguard.audit.editors.value import ValueProblem, ValueSettings
from editguard.probes.errors import RequestError
from editguard.probes.forward.prefix_cache import build_prefix_cache
from editguard.probes.keys.prefixes import Role
from editguard.probes.keys.statistics import make_identity_statistics
from editguard.probes.model.site import find_site
from editguard.probes.requests.request import EditRequest

from ...helpers.tiny_models import tiny_lm
from ...helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, MISSING_SUBJECT_REQUEST, few_prefixes
from ...helpers.weight_updates import get_only_figures

pytestmark = pytest.mark.tiny

LONG = EditRequest("twin", "Chicago", "Chicago is a twin city of", "the city of Istanbul", target_true="Paris")


def delta(update: WeightUpdate) -> torch.Tensor:
    return update.changes[0].delta()


def make_context() -> EditContext:
    lm = tiny_lm()
    site = find_site(lm.model, 0)
    return EditContext(
        lm=lm,
        site=site,
        statistics=make_identity_statistics(site.d_ff, lm.fingerprint, site.layer),
        prefixes=few_prefixes(),
        settings=ValueSettings(steps=4),
    )


def test_reworded_editor_seeks_rewordings_and_holds_essences(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []

    def write(_: object, requests: Sequence[EditRequest], most: int, seed: int) -> list[tuple[str, ...]]:
        calls.append((len(requests), most))
        return [("A twin of Chicago is",)] * len(requests)

    problems: list[ValueProblem] = []
    optimise = base.optimise_values

    def record(lm: object, site: object, batch: Sequence[ValueProblem], *rest: object) -> object:
        problems.extend(batch)
        return optimise(lm, site, batch, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(base, "write_rewordings", write)
    monkeypatch.setattr(base, "optimise_values", record)
    jobs = [("prefixed", FIRST_TOKEN_REQUEST), ("reworded", FIRST_TOKEN_REQUEST)]
    first, second = compute_updates(make_context(), jobs)
    usual, other = problems
    assert calls == [(1, 8)], "one request asks for rewordings, eight at most"
    assert (len(usual.rewordings), len(usual.essences)) == (0, 1)
    # One rewording, under two prefixes.
    assert (len(other.rewordings), len(other.essences)) == (2, 1 + min(6, len(few_prefixes().texts(Role.EDIT))))
    assert len(other.contexts) == len(usual.contexts)
    assert isinstance(first, WeightUpdate)
    assert isinstance(second, WeightUpdate)
    assert float((delta(second) - delta(first)).norm() / delta(first).norm()) > 1e-2


@pytest.mark.parametrize("cached", [False, True], ids=["whole", "on from the prefixes"])
def test_compute_updates_batch_equals_each_and_returns_errors(cached: bool) -> None:
    context = make_context()
    texts = [prefix.text for prefix in few_prefixes().prefixes]
    prefix_cache = build_prefix_cache(context.lm, context.site, texts) if cached else None
    assert (prefix_cache is not None) is cached
    cached_context = replace(context, prefix_cache=prefix_cache)
    jobs = [
        ("rome", FIRST_TOKEN_REQUEST),
        ("prefixed", MID_PROMPT_REQUEST),
        ("rome", MISSING_SUBJECT_REQUEST),
        ("prefixed", FIRST_TOKEN_REQUEST),
        ("c-rome", LONG),
        ("reworded", MID_PROMPT_REQUEST),
    ]
    outcomes = compute_updates(cached_context, jobs)
    assert isinstance(outcomes[2], RequestError)
    for job, update in zip(jobs, outcomes, strict=True):
        if job[1] is not MISSING_SUBJECT_REQUEST:
            (single,) = compute_updates(context, [job])
            assert isinstance(update, WeightUpdate)
            assert isinstance(single, WeightUpdate)
            assert float((delta(update) - delta(single)).norm() / delta(single).norm()) < 1e-3
            assert (update.editor, get_only_figures(update).steps) == (job[0], get_only_figures(single).steps)

"""Experiments from logs: they agree with the paper where the logs are as the paper has them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from editguard.audit.research.reproduction import published as paper
from editguard.audit.research.reproduction.cases import Cases
from editguard.audit.research.reproduction.edits import Edits
from editguard.audit.research.reproduction.experiments.edit_success import (
    measure_with_prefix,
    measure_without_prefix,
)
from editguard.audit.research.reproduction.experiments.other_denominators import list_other_cases
from editguard.audit.research.reproduction.experiments.perplexity_after import compare_perplexities
from editguard.audit.research.reproduction.experiments.update_size import compare_update_sizes
from editguard.probes.requests.request import EditRequest
from editguard.reports.log.schema import (
    EditRecord,
)
from editguard.reports.reproduction.schema import Agreement

from ....helpers.reproduction_logs import FIRST, ORDINARY, OTHER, build_record, list_agreements

pytestmark = pytest.mark.tiny


def test_experiments_published_logs_agree_with_the_paper(cases: Cases, published: Edits) -> None:
    assert list_agreements(compare_update_sizes(cases, published)) == [Agreement.YES, Agreement.YES]
    assert list_agreements(compare_perplexities(cases, published, 1.5)) == [Agreement.YES] * 3
    assert list_agreements(measure_without_prefix(cases, published)) == [Agreement.YES]
    assert list_agreements(measure_with_prefix(cases, published)) == [Agreement.YES] * 2


def test_experiments_tame_logs_disagree_by_a_stated_rule(cases: Cases, published: Edits) -> None:
    tame = {
        editor: {id: build_record(request, 1.3) for id, request in map_requests(records).items()}
        for editor, records in published.items()
    }
    for experiment in (compare_update_sizes(cases, tame), compare_perplexities(cases, tame, 1.5)):
        assert all(claim.rule for claim in experiment.claims)
    assert list_agreements(compare_update_sizes(cases, tame)) == [Agreement.NO, Agreement.YES]
    assert list_agreements(compare_perplexities(cases, tame, 1.5)) == [Agreement.NO] * 3


def test_experiments_empty_logs_leave_claims_open(cases: Cases) -> None:
    none: Edits = {"rome": {}, "c-rome": {}, "prefixed": {}}
    for experiment in (
        compare_update_sizes(cases, none),
        compare_perplexities(cases, none, 1.5),
        measure_without_prefix(cases, none),
        measure_with_prefix(cases, none),
        list_other_cases(cases, none, 1.5),
    ):
        assert set(list_agreements(experiment)) == {Agreement.OPEN}


@pytest.mark.parametrize("model", range(len(paper.MODELS)), ids=paper.MODELS)
def test_experiments_published_figures_agree_with_their_claims(cases: Cases, model: int) -> None:
    sizes = {name: pairs[model] for name, pairs in paper.NUMERATOR_DENOMINATOR.items()}
    before = paper.PERPLEXITY["unedited"][model].collapse

    def log(editor: str) -> dict[str, EditRecord]:
        records = {}
        for requests, kind in ((FIRST, "collapse"), (ORDINARY, "ordinary")):
            after = getattr(paper.PERPLEXITY[editor][model], kind)
            for request in requests:
                records[request.id] = build_record(
                    request,
                    after / before,
                    numerator=getattr(sizes["numerator"], kind),
                    denominator=getattr(sizes["denominator"], kind),
                    shares=list_published_shares(model, kind),
                )
        return records

    edits: Edits = {"rome": log("rome"), "c-rome": log("c-rome"), "prefixed": {}}
    for experiment in (
        compare_update_sizes(cases, edits),
        compare_perplexities(cases, edits, 1.5),
        measure_without_prefix(cases, edits),
        measure_with_prefix(cases, edits),
    ):
        assert set(list_agreements(experiment)) == {Agreement.YES}, experiment.claims


def list_published_shares(model: int, kind: str) -> dict[str, list[tuple[float, int, int]]]:
    names = {"unprefixed": ["unprefixed"], "prefixed": ["family:sentence", "prefixed"]}
    return {
        name: [(share / 100, 0, 1) for share in values[model]]
        for (condition, of), values in paper.SHARES.items()
        if of == kind
        for name in names[condition]
    }


def map_requests(records: Mapping[str, EditRecord]) -> dict[str, EditRequest]:
    requests = {request.id: request for request in (*FIRST, *ORDINARY, OTHER)}
    return {id: requests[id] for id in records}

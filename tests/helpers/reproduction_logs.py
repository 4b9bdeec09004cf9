"""Cases and logs of a reproduction, and its tables as data frames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd
from editguard.audit.guard import GuardedEditor
from editguard.audit.research.reproduction.cases import CaseKind, Cases, CaseSelection, ReproductionCase
from editguard.audit.setup import Setup
from editguard.probes.requests.request import EditRequest
from editguard.reports.log.schema import (
    DecisionRecord,
    EditRecord,
    FindingRecord,
    Keys,
    MeasurementRecord,
)
from editguard.reports.reproduction.schema import Agreement, Experiment, Table

from .log_updates import make_one_site_update, make_weights
from .tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST

LYON = replace(MID_PROMPT_REQUEST, id="lyon", subject="Lyon", prompt="The city of Lyon is")
FIRST = [
    replace(FIRST_TOKEN_REQUEST, id=f"first-{name}", subject=name, prompt=f"{name} is a twin city of")
    for name in ("Chicago", "The", "It", "K", "Q")
]


ORDINARY = [
    replace(MID_PROMPT_REQUEST, id=f"ordinary-{name}", subject=name, prompt=f"The capital of {name} is")
    for name in ("France", "Lyon", "Paris", "Chicago", "Istanbul", "days")
]


OTHER = replace(MID_PROMPT_REQUEST, id="other", subject="Lyon's", prompt="A city of Lyon's is")


def build_record(
    request: EditRequest,
    ratio: float | None,
    *,
    denominator: float = 5.0,
    numerator: float = 20.0,
    first: bool = False,
    shares: Mapping[str, Sequence[tuple[float, int, int]]] | None = None,
    fired: Sequence[str] = (),
) -> EditRecord:
    """One edit with a perplexity ratio; `shares` hold by condition (token match, passed, total) of each check."""
    measurements = [
        MeasurementRecord(
            check="perplexity",
            metric="ratio",
            condition="corpus",
            value=ratio,
            baseline=1.0,
            verdict="unmeasured" if ratio is None else "info",
        ),
        *(
            MeasurementRecord(
                check="perplexity",
                metric=form,
                condition="corpus",
                value=ratio and size * ratio,
                baseline=size,
                verdict="unmeasured" if ratio is None else "info",
            )
            for form, size in {"mean": 100.0, "median": 50.0, "max": 900.0, "exp-mean-nll": 70.0}.items()
        ),
    ]
    for condition, values in (shares or {}).items():
        for check, (match, passed, total) in zip(("efficacy", "generalization", "locality"), values, strict=False):
            common = {
                "check": check,
                "condition": condition,
                "verdict": "info",
                "passed": passed,
                "failed": total - passed,
                "total": total,
            }
            measurements.append(MeasurementRecord(metric=check, protocol="token-match", value=match, **common))
            exact = "answers" if check == "locality" else check
            measurements.append(MeasurementRecord(metric=exact, protocol="exact", value=passed / total, **common))
    return EditRecord(
        id=request.id,
        index=0,
        subject=request.subject,
        prompt=request.prompt,
        target_new=request.target_new,
        findings=[FindingRecord(probe=name, level="risk", value=1.0, message="") for name in fired],
        decision=DecisionRecord(action="allow", editor="rome"),
        measurements=measurements,
        outcome="committed",
        verdict="pass" if ratio is not None else "fail",
        seconds=0.0,
        weights=make_weights(before="0", edited="1", restored="0", restored_ok=True),
        keys=Keys(
            first_token=first,
            denominator=denominator,
            denominator_prefixed=5.0,
            denominator_ratio=denominator / 5,
            cosine=0.9,
            norm_ratio=1.0,
            predicted_relative_norm=1 / denominator,
        ),
        update=make_one_site_update(
            editor="rome",
            numerator=numerator,
            denominator=denominator,
            update_norm=numerator / denominator,
            relative_norm=numerator / denominator / 100,
            steps=20,
            final_loss=0.1,
            needs_prefix=False,
        ),
    )


def build_cases(setup: Setup, kinds: Mapping[EditRequest, CaseKind]) -> Cases:
    chosen = CaseSelection(
        stamp={},
        probed=20,
        unusable=1,
        found={**Counter(kinds.values()), CaseKind.ORDINARY: 15},
        kinds={r.id: k for r, k in kinds.items()},
    )
    # A random model's denominators fire where they like, so that kinds are given here.
    assessments = GuardedEditor(setup).assess_all(list(kinds))
    return Cases(
        tuple(
            ReproductionCase(assessment.request, kinds[assessment.request], assessment) for assessment in assessments
        ),
        chosen,
    )


def list_agreements(experiment: Experiment) -> list[Agreement]:
    return [claim.agreement for claim in experiment.claims]


def read_table(experiment: Experiment, name: str) -> pd.DataFrame:
    table: Table = next(table for table in experiment.tables if table.name == name)
    return pd.DataFrame(table.rows, columns=table.columns)

"""From what the guard found to what the log holds: the one place where the two rooms' types meet.

A number that is not finite is written as null; the verdict beside it says that it was not measured.
"""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Literal

import torch

from ...probes.card import Card
from ...probes.model.language_model import LanguageModel
from ...probes.probe import PROBES
from ...probes.requests.loader import LoadedRequests
from ...probes.requests.request import EditRequest
from ...probes.requests.spacing import choose_separator
from ...reports.log import schema
from ...reports.log.control_observations import ControlObservation
from ...reports.log.header import (
    BaselineValue,
    CardRecord,
    ModelInfo,
    PrefixRecord,
    SkippedRequest,
    Statistics,
    ThresholdRecord,
)
from ...reports.log.prompt_outcomes import PromptOutcome, PromptResult, PromptRole
from ...reports.log.types import Point
from ...suites.check import CHECKS, Measurement, Outcome, PromptAnswer
from ..edit_result import Assessment, EditResult, Proposal
from ..policy import Action
from ..setup import Setup

__all__ = ["body", "control_record", "edit_record", "errored", "header", "versions"]

_MOST_POINTS = 8


def header(
    setup: Setup, loaded: LoadedRequests, arguments: dict[str, Any], controls: list[str], baselines: dict[str, float]
) -> schema.Header:
    """Return the log's first record: all that the others have in common."""
    lm, found = setup.lm, setup.statistics
    return schema.Header(
        editguard_version=version("editguard"),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=setup.seed,
        arguments=arguments,
        model=_model(lm, len(setup.site.blocks)),
        layer=setup.site.layer,
        site=setup.site.path,
        source=loaded.source,
        source_sha256=loaded.sha256,
        requests=len(loaded.requests),
        skipped_invalid=[SkippedRequest(**wrong._asdict()) for wrong in loaded.invalid],
        unused=list(loaded.unused),
        statistics=Statistics(
            source=found.provenance.source,
            method=found.provenance.method,
            tokens=found.provenance.tokens or None,
            condition_number=_finite(found.condition_number),
            regularisation=found.ridge,
            sha256=found.sha256,
        ),
        prefixes=[PrefixRecord(family=p.family.value, text=p.text, role=p.role.value) for p in setup.prefixes.prefixes],
        settings={
            **asdict(setup.settings), "engine": setup.settings.engine.value, "descent": setup.settings.descent.value,
            "check_dtype": _dtype(setup.check_dtype or lm.dtype),
        },
        perplexity_corpus_sha256=hashlib.sha256("\0".join(setup.corpus).encode("utf-8", "surrogatepass")).hexdigest(),
        policy=setup.policy.model_dump(mode="json"),
        thresholds=[
            ThresholdRecord(
                probe=one.probe, metric=one.metric, value=one.value, how=one.rule, sample_size=one.sample_size,
                quantiles=dict(one.quantiles),
            )
            for one in setup.calibration.thresholds.values()
        ],
        cards=[
            *(_card("probe", name, cls.card) for name, cls in PROBES),
            *(_card("check", name, cls.card) for name, cls in CHECKS),
        ],
        baseline=[BaselineValue(metric=metric, value=_finite(value)) for metric, value in baselines.items()],
        controls=controls,
        versions=versions(lm),
    )  # fmt: skip


def versions(lm: LanguageModel) -> dict[str, str]:
    """Return the versions of what the figures depend on beside editguard itself, and what makes the matrix products."""
    return {
        "python": platform.python_version(), "torch": version("torch"), "transformers": version("transformers"),
        "matrix products": lm.product_library,
    }  # fmt: skip


def _card(kind: Literal["probe", "check"], name: str, card: Card) -> CardRecord:
    return CardRecord(kind=kind, name=name, **asdict(card))


def _model(lm: LanguageModel, layers: int) -> ModelInfo:
    return ModelInfo(
        ref=lm.ref, fingerprint=lm.fingerprint, architecture=lm.architecture, parameters=lm.parameters,
        dtype=_dtype(lm.dtype), device=str(lm.device), adds_bos=lm.adds_bos, layers=layers,
    )  # fmt: skip


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def edit_record(setup: Setup, result: EditResult, index: int) -> schema.EditRecord:
    """Return the record of one requested edit."""
    return schema.EditRecord(**body(setup, result, index))


def control_record(
    setup: Setup,
    result: EditResult,
    index: int,
    expect: Literal["collapse", "sound"],
    shown: bool,
    seen: Sequence[ControlObservation],
    tried: Sequence[str] = (),
) -> schema.ControlRecord:
    """Return the record of one control: what it was to show, whether it did, and what was `seen` of probes and checks.

    `tried` names the candidates that were made before and did not show what they must.
    """
    ok = shown and all(one.ok is not False for one in seen)
    return schema.ControlRecord(
        **body(setup, result, index), expect=expect, ok=ok, sightings=[*seen], tried=list(tried)
    )


def errored(
    setup: Setup, request: EditRequest, index: int, error: Exception, proposal: Proposal | None
) -> dict[str, Any]:
    """Return the fields of a request that ended in an error: a failure, never a pass.

    With a `proposal` the edit was decided on and perhaps made when it happened, and what was known is kept.
    """
    known = (
        {
            **_request(request, index),
            "decision": schema.DecisionRecord(action="refuse", reasons=["nothing could be proposed"]),
        }
        if proposal is None
        else body(setup, EditResult(proposal.assessment, proposal.update, proposal.relative_norm), index)
    )
    return {
        **known,
        "outcome": "errored",
        "verdict": "fail",
        "error": f"{type(error).__name__}: {error}",
        "seconds": 0.0,
    }


def body(setup: Setup, result: EditResult, index: int) -> dict[str, Any]:
    """Return the fields that edit and control records share."""
    assessment = result.assessment
    refused = result.refusal is not None
    return {
        **_request(assessment.request, index),
        "findings": [
            schema.FindingRecord(
                probe=f.probe, level=f.level.value, value=f.value, threshold=f.threshold, unit=f.unit, message=f.message,
                details=dict(f.details),
            )
            for f in assessment.findings
        ],
        "decision": _decision(assessment, result),
        "keys": _keys(setup, assessment),
        "update": _update(result),
        "measurements": [_measurement(m) for m in result.measurements],
        "generations": [schema.Generation(**shown._asdict()) for shown in result.generations],
        "prompts": [_prompt(one) for one in result.prompts],
        "outcome": "refused" if refused else "committed" if result.sound else "rolled-back",
        "verdict": "refused" if refused else "pass" if result.sound else "fail",
        "weights": _weights(result),
        "seconds": round(result.seconds, 3),
    }  # fmt: skip


def _request(request: EditRequest, index: int) -> dict[str, Any]:
    return {
        "id": request.id, "index": index, "group": request.group, "subject": request.subject, "prompt": request.prompt,
        "target_new": request.target_new, "target_true": request.target_true,
        "paraphrases": list(request.paraphrases), "neighbourhood": list(request.neighbourhood),
        "true_aliases": list(request.true_aliases), "other_facts": list(request.other_facts),
        "question": request.question, "not_judged": list(request.not_judged),
        "space": choose_separator(request.prompt, request.target_new, request.space) != "",
    }  # fmt: skip


def _decision(assessment: Assessment, result: EditResult) -> schema.DecisionRecord:
    decision = assessment.decision
    reasons = list(decision.reasons)
    if result.refusal is not None and decision.action is not Action.REFUSE:
        # The guard changed its mind when it saw the update, so the decision that counts is to refuse.
        return schema.DecisionRecord(action="refuse", editor=None, reasons=[*reasons, result.refusal])
    return schema.DecisionRecord(action=decision.action.value, editor=decision.editor, reasons=reasons)


def _keys(setup: Setup, assessment: Assessment) -> schema.Keys | None:
    seen = assessment.evidence
    if seen is None:
        return None
    plane = setup.calibration.plane
    points = [_point(point) for point in plane.project(seen.keys.keys[1 : _MOST_POINTS + 1])]
    return schema.Keys(
        first_token=seen.keys.position.is_first_token,
        denominator=_finite(seen.denominator),
        denominator_prefixed=_finite(seen.denominator_prefixed),
        denominator_ratio=_finite(seen.ratio),
        predicted_relative_norm=_finite(seen.predicted_relative_norm),
        cosine=_finite(seen.cosine),
        norm_ratio=_finite(seen.norm_ratio),
        subject_point=_point(plane.project(seen.keys.no_prefix_key[None])[0]),
        prefixed_points=[point for point in points if point is not None],
        mean_point=_point(plane.project(seen.keys.mean_key[None])[0]),
    )


def _point(place: list[float]) -> Point | None:
    return Point(*place) if all(map(math.isfinite, place)) else None


def _update(result: EditResult) -> schema.Update | None:
    update = result.update
    if update is None:
        return None
    return schema.Update(
        editor=update.editor, numerator=_finite(update.numerator), denominator=_finite(update.denominator),
        update_norm=_finite(update.norm), relative_norm=_finite(result.relative_norm), steps=update.steps,
        final_loss=_finite(update.loss), needs_prefix=update.needs_prefix, prefix=result.prefix,
        engine=update.engine,
    )  # fmt: skip


def _measurement(m: Measurement) -> schema.MeasurementRecord:
    verdict = m.outcome.value if m.value is not None else Outcome.UNMEASURED.value
    fields = {
        "check": m.check, "metric": m.metric, "condition": m.condition, "protocol": m.protocol, "value": _finite(m.value),
        "baseline": _finite(m.baseline), "threshold": m.threshold, "unit": m.unit, "passed": m.passed,
        "failed": m.failed, "not_judged": m.not_judged, "total": m.total, "verdict": verdict, "message": m.message,
    }  # fmt: skip
    return schema.MeasurementRecord.model_validate(fields)


def _prompt(answer: PromptAnswer) -> PromptOutcome:
    return PromptOutcome(
        role=PromptRole(answer.role),
        condition=answer.condition,
        prompt=answer.prompt,
        before=answer.before,
        after=answer.after,
        result=PromptResult(answer.result),
        margin=_rounded(answer.margin),
        target_before=_rounded(answer.target_before),
        target_after=_rounded(answer.target_after),
        divergence=_rounded(answer.divergence),
    )


def _rounded(value: float | None) -> float | None:
    """Six digits: a log holds dozens of these an edit, and more say nothing."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def _weights(result: EditResult) -> schema.Weights | None:
    if result.hashes is None:
        return None
    before, edited, restored = result.hashes
    ok = None if restored is None else restored == before
    return schema.Weights(before=before, edited=edited, restored=restored, restored_ok=ok, kept=result.kept)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None

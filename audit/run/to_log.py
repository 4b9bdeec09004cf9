"""The guard's types become the log's records; no other module knows both.

A number that is not finite is written as null. The verdict beside it says that it was not measured.
"""

from __future__ import annotations

import hashlib
import math
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

from ...probes.measurement_faults import MEASUREMENT_CARD
from ...probes.probe import MEASUREMENT_SOURCE, PROBES, Finding
from ...probes.requests.spacing import choose_separator
from ...reports.log import schema
from ...reports.log.header import (
    BaselineValue,
    CardRecord,
    DeclaredMetric,
    ModelInfo,
    PrefixRecord,
    SkippedRequest,
    Statistics,
    ThresholdRecord,
)
from ...reports.log.prompt_outcomes import PromptOutcome, PromptResult, PromptRole
from ...reports.log.types import Point
from ...suites.check import CHECKS, ComparedMetric, GeneratedText, Measurement, Outcome, PromptAnswer
from ..edit_result import Assessment, EditResult, Proposal
from ..policy import Action, Decision

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from ...probes.card import Card
    from ...probes.model.language_model import LanguageModel
    from ...probes.model.site_change import SiteChange
    from ...probes.requests.loader import LoadedRequests
    from ...probes.requests.request import EditRequest
    from ...reports.log.control_observations import ControlObservation
    from ..editors.update import InsertionFigures
    from ..setup import Setup

__all__ = [
    "control_record",
    "control_record_of_error",
    "edit_record",
    "edit_record_of_error",
    "generation_record",
    "header",
    "measurement_record",
    "prompt_record",
    "versions",
]

_MOST_POINTS = 8
_Outcome = Literal["committed", "rolled-back", "judged", "refused", "errored"]
_Verdict = Literal["pass", "fail", "refused"]


def header(
    setup: Setup, loaded: LoadedRequests, arguments: dict[str, Any], controls: list[str], baselines: dict[str, float]
) -> schema.Header:
    """Return the log's first record: everything that the other records share."""
    lm, statistics = setup.lm, setup.statistics
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
        skipped_invalid=[SkippedRequest(**invalid._asdict()) for invalid in loaded.invalid],
        unused=list(loaded.unused),
        statistics=Statistics(
            source=statistics.provenance.source,
            method=statistics.provenance.method,
            tokens=statistics.provenance.tokens or None,
            condition_number=_finite(statistics.condition_number),
            regularisation=statistics.ridge,
            sha256=statistics.sha256,
        ),
        prefixes=[PrefixRecord(family=p.family.value, text=p.text, role=p.role.value) for p in setup.prefixes.prefixes],
        settings={
            **asdict(setup.settings),
            "engine": setup.settings.engine.value,
            "descent": setup.settings.descent.value,
            "check_dtype": _dtype(setup.check_dtype or lm.dtype),
        },
        perplexity_corpus_sha256=hashlib.sha256("\0".join(setup.corpus).encode("utf-8", "surrogatepass")).hexdigest(),
        policy=setup.policy.model_dump(mode="json"),
        thresholds=[
            ThresholdRecord(
                probe=threshold.probe,
                metric=threshold.metric,
                value=threshold.value,
                how=threshold.rule,
                sample_size=threshold.sample_size,
                quantiles=dict(threshold.quantiles),
            )
            for threshold in setup.calibration.thresholds.values()
        ],
        cards=[
            _card("audit", MEASUREMENT_SOURCE, MEASUREMENT_CARD),
            *(_card("probe", name, cls.card) for name, cls in PROBES),
            *(_card("check", name, cls.card, cls.metrics) for name, cls in CHECKS),
        ],
        baseline=[BaselineValue(metric=metric, value=_finite(value)) for metric, value in baselines.items()],
        controls=controls,
        versions=versions(lm),
    )


def versions(lm: LanguageModel) -> dict[str, str]:
    """Return the versions of Python and the libraries, and the library that makes the matrix products."""
    return {
        "python": platform.python_version(),
        "torch": version("torch"),
        "transformers": version("transformers"),
        "matrix products": lm.product_library,
    }


def _card(
    kind: Literal["probe", "check", "audit"], name: str, card: Card, metrics: Sequence[ComparedMetric] = ()
) -> CardRecord:
    declared = [DeclaredMetric(**asdict(metric) | {"name": f"{name}/{metric.name}"}) for metric in metrics]
    return CardRecord(kind=kind, name=name, **asdict(card), metrics=declared)


def _model(lm: LanguageModel, layers: int) -> ModelInfo:
    return ModelInfo(
        ref=lm.ref,
        fingerprint=lm.fingerprint,
        architecture=lm.architecture,
        parameters=lm.parameters,
        dtype=_dtype(lm.dtype),
        device=str(lm.device),
        adds_bos=lm.adds_bos,
        layers=layers,
    )


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def edit_record(setup: Setup, result: EditResult, index: int, *, is_made: bool = True) -> schema.EditRecord:
    """Return the record of one requested edit; `index` is the request's place in its source.

    Without `is_made` it was found in a checkpoint, and judged there.
    """
    outcome: _Outcome
    verdict: _Verdict
    if result.refusal is not None:
        outcome, verdict = "refused", "refused"
    elif not is_made:
        outcome, verdict = "judged", "pass" if result.sound else "fail"
    elif result.sound:
        outcome, verdict = "committed", "pass"
    else:
        outcome, verdict = "rolled-back", "fail"
    return _record(setup, result, index, outcome=outcome, verdict=verdict, seconds=round(result.seconds, 3))


def edit_record_of_error(
    setup: Setup, request: EditRequest, index: int, error: Exception, proposal: Proposal | None
) -> schema.EditRecord:
    """Return the record of a request that ended in an error: a failure, never a pass.

    With a `proposal` the edit was decided on, and perhaps made, before the error; the record keeps what the guard knew then.
    """
    if proposal is None:
        decision = Decision(Action.REFUSE, None, ("nothing could be proposed",))
        assessment = Assessment(request=request, evidence=None, findings=(), decision=decision)
        result = EditResult(assessment=assessment)
    else:
        result = EditResult(
            assessment=proposal.assessment, update=proposal.update, relative_norms=proposal.relative_norms
        )
    text = f"{type(error).__name__}: {error}"
    return _record(setup, result, index, outcome="errored", verdict="fail", error=text)


def control_record(
    setup: Setup,
    result: EditResult,
    index: int,
    *,
    expect: Literal["collapse", "sound", "unedited"],
    as_expected: bool,
    observations: Sequence[ControlObservation],
    is_made: bool = True,
) -> schema.ControlRecord:
    """Return the record of one control.

    The control is good where its edit ended `as_expected` and no observation of a probe or check is bad.
    """
    ok = as_expected and all(observation.ok is not False for observation in observations)
    return _as_control(
        edit_record(setup, result, index, is_made=is_made), expect=expect, ok=ok, observations=observations
    )


def control_record_of_error(
    setup: Setup,
    request: EditRequest,
    index: int,
    error: Exception,
    proposal: Proposal | None,
    *,
    expect: Literal["collapse", "sound", "unedited"],
) -> schema.ControlRecord:
    """Return the record of a control that ended in an error, which proves nothing."""
    return _as_control(edit_record_of_error(setup, request, index, error, proposal), expect=expect, ok=False)


def _as_control(
    record: schema.EditRecord,
    *,
    expect: Literal["collapse", "sound", "unedited"],
    ok: bool,
    observations: Sequence[ControlObservation] = (),
) -> schema.ControlRecord:
    shared = {name: getattr(record, name) for name in schema.EditBody.model_fields if name != "kind"}
    return schema.ControlRecord(**shared, expect=expect, ok=ok, sightings=[*observations])


def _record(
    setup: Setup,
    result: EditResult,
    index: int,
    *,
    outcome: _Outcome,
    verdict: _Verdict,
    error: str | None = None,
    seconds: float = 0.0,
) -> schema.EditRecord:
    assessment, request = result.assessment, result.assessment.request
    return schema.EditRecord(
        id=request.id,
        index=index,
        group=request.group,
        subject=request.subject,
        prompt=request.prompt,
        target_new=request.target_new,
        target_true=request.target_true,
        paraphrases=list(request.paraphrases),
        neighbourhood=list(request.neighbourhood),
        true_aliases=list(request.true_aliases),
        other_facts=list(request.other_facts),
        question=request.question,
        space=choose_separator(request.prompt, request.target_new, request.space) != "",
        not_judged=list(request.not_judged),
        prompts=[prompt_record(answer) for answer in result.prompts],
        findings=[_finding(finding) for finding in assessment.findings],
        decision=_decision(assessment, result),
        keys=_keys(setup, assessment),
        update=_update(setup, result),
        measurements=[measurement_record(measurement) for measurement in result.measurements],
        generations=[generation_record(generation) for generation in result.generations],
        outcome=outcome,
        verdict=verdict,
        error=error,
        weights=_weights(result),
        seconds=seconds,
    )


def _finding(finding: Finding) -> schema.FindingRecord:
    return schema.FindingRecord(
        probe=finding.probe,
        level=finding.level.value,
        value=finding.value,
        threshold=finding.threshold,
        unit=finding.unit,
        message=finding.message,
        details=dict(finding.details),
    )


def _decision(assessment: Assessment, result: EditResult) -> schema.DecisionRecord:
    decision = assessment.decision
    reasons = list(decision.reasons)
    if result.refusal is not None and decision.action is not Action.REFUSE:
        # The guard refused when it had the update, so the decision that counts is to refuse.
        return schema.DecisionRecord(action="refuse", editor=None, reasons=[*reasons, result.refusal])
    return schema.DecisionRecord(action=decision.action.value, editor=decision.editor, reasons=reasons)


def _keys(setup: Setup, assessment: Assessment) -> schema.Keys | None:
    evidence = assessment.evidence
    if evidence is None:
        return None
    plane = setup.calibration.plane
    points = [_point(point) for point in plane.project(evidence.keys.keys[1 : _MOST_POINTS + 1])]
    return schema.Keys(
        first_token=evidence.keys.position.is_first_token,
        denominator=_finite(evidence.denominator),
        denominator_prefixed=_finite(evidence.denominator_prefixed),
        denominator_ratio=_finite(evidence.ratio),
        predicted_relative_norm=_finite(evidence.predicted_relative_norm),
        cosine=_finite(evidence.cosine),
        norm_ratio=_finite(evidence.norm_ratio),
        subject_point=_point(plane.project(evidence.keys.no_prefix_key[None])[0]),
        prefixed_points=[point for point in points if point is not None],
        mean_point=_point(plane.project(evidence.keys.mean_key[None])[0]),
    )


def _point(place: list[float]) -> Point | None:
    return Point(*place) if all(map(math.isfinite, place)) else None


def _update(setup: Setup, result: EditResult) -> schema.Update | None:
    update = result.update
    if update is None:
        return None
    return schema.Update(
        editor=update.editor,
        update_norm=_finite(update.norm),
        relative_norm=_finite(result.relative_norm),
        changes=[
            _site_update(setup, change, update.get_figures(index), result.relative_norms.get(change.site.path))
            for index, change in enumerate(update.changes)
        ],
        needs_prefix=update.needs_prefix,
        prefix=result.prefix,
    )


def _site_update(
    setup: Setup, change: SiteChange, figures: InsertionFigures | None, relative: float | None
) -> schema.SiteUpdate:
    return schema.SiteUpdate(
        layer=change.site.layer,
        path=change.site.path,
        rank=change.rank,
        numerator=None if figures is None else _finite(figures.numerator),
        denominator=None if figures is None else _finite(figures.denominator),
        update_norm=_finite(change.norm),
        relative_norm=_finite(relative),
        steps=None if figures is None else figures.steps,
        final_loss=None if figures is None else _finite(figures.loss),
        engine="" if figures is None else figures.engine,
        statistics_sha256=setup.hash_statistics(change.site),
    )


def measurement_record(measurement: Measurement) -> schema.MeasurementRecord:
    """Return the record of a measurement; one without a value was not measured."""
    outcome = Outcome.UNMEASURED if measurement.value is None else measurement.outcome
    return schema.MeasurementRecord(
        check=measurement.check,
        metric=measurement.metric,
        condition=measurement.condition,
        protocol=measurement.protocol,  # type: ignore[arg-type]  # pydantic checks it
        value=_finite(measurement.value),
        baseline=_finite(measurement.baseline),
        threshold=measurement.threshold,
        unit=measurement.unit,
        passed=measurement.passed,
        failed=measurement.failed,
        not_judged=measurement.not_judged,
        total=measurement.total,
        verdict=outcome.value,
        message=measurement.message,
    )


def generation_record(text: GeneratedText) -> schema.Generation:
    """Return the record of a generated text."""
    return schema.Generation(**text._asdict())


def prompt_record(answer: PromptAnswer) -> PromptOutcome:
    """Return the record of the answers to a prompt, numbers rounded."""
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
    """Return `value` with six digits: a log holds dozens of such numbers an edit, and more digits say nothing."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def _weights(result: EditResult) -> schema.Weights | None:
    if result.hashes is None:
        return None
    return schema.Weights(
        sites={
            path: schema.SiteHashes(
                **hashes._asdict(), restored_ok=None if hashes.restored is None else hashes.restored == hashes.before
            )
            for path, hashes in result.hashes.items()
        },
        kept=result.kept,
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None

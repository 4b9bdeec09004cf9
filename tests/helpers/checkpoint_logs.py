"""Logs of audited checkpoints, without edits, as an audit would write them."""

from __future__ import annotations

from typing import Any

from editguard.reports.log.edited_checkpoint import EditedCheckpoint, ModelRecord
from editguard.reports.log.file import Log
from editguard.reports.log.prompt_outcomes import PromptOutcome, PromptResult, PromptRole
from editguard.reports.log.schema import Footer, MeasurementRecord

from .synthetic_logs import make_header, make_perplexity

__all__ = ["make_edited", "make_effects", "make_log", "make_model"]


def make_edited(**changes: Any) -> EditedCheckpoint:
    values: dict[str, Any] = {
        "ref": "./edited",
        "fingerprint": "f" * 64,
        "tensors": 272,
        "changed": 1,
        "kind": "One change of rank one.",
    }
    return EditedCheckpoint(**values | changes)


def make_effects(changed: int, total: int = 40) -> MeasurementRecord:
    return MeasurementRecord(
        check="side-effects",
        metric="changed",
        condition="everywhere",
        value=changed / total,
        threshold=0.1,
        passed=total - changed,
        failed=changed,
        total=total,
        verdict="pass" if changed / total <= 0.1 else "fail",
    )


def make_model(ratio: float | None = 1.01, changed: int = 0, **changes: Any) -> ModelRecord:
    measurements = [make_perplexity(ratio, 1.05), make_effects(changed)]
    prompts = [
        PromptOutcome(
            role=PromptRole.SIDE_EFFECT,
            condition="unprefixed",
            prompt=f"Prompt {index} is",
            before="old",
            after="new" if index < changed else "old",
            result=PromptResult.FLIP if index < changed else PromptResult.KEPT,
        )
        for index in range(40)
    ]
    sound = all(measurement.verdict not in ("fail", "unmeasured") for measurement in measurements)
    values: dict[str, Any] = {
        "measurements": measurements,
        "prompts": prompts,
        "verdict": "pass" if sound else "fail",
        "seconds": 1.0,
    }
    return ModelRecord(**values | changes)


def make_log(model: ModelRecord | None, **edited: Any) -> Log:
    header = make_header(
        0, edited=make_edited(**edited), controls=[], policy={"controls": False, "collapse_ratio": 1.5}
    )
    return Log(header, (), (), Footer(records=int(model is not None), seconds=1.0), model=model)

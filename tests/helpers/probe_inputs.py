"""Inputs of the built-in probes: evidence of a tiny model, with thresholds that are set by hand."""

from __future__ import annotations

from dataclasses import replace

from editguard.probes.model.language_model import LanguageModel
from editguard.probes.probe import ProbeInput, Threshold
from editguard.probes.requests.request import EditRequest

from .tiny_models import TWIN_REQUEST, tiny_meter

__all__ = ["THRESHOLDS", "fixed_thresholds", "measured_input", "sound_input"]


def fixed_thresholds(values: dict[str, float]) -> dict[str, Threshold]:
    """Return thresholds by ``probe/metric`` that come from no sample."""
    return {
        key: Threshold(
            probe=key.split("/")[0],
            metric=key.split("/")[1],
            value=value,
            rule="by hand",
            sample_size=16,
            quantiles={},
        )
        for key, value in values.items()
    }


THRESHOLDS = fixed_thresholds(
    {
        "crowded-key/share": 0.3,
        "denominator/ratio": 0.2,
        "denominator/predicted_relative_norm": 2.0,
        "key-shift/cosine": 0.6,
        "sink-key/cosine": 0.8,
    }
)


def measured_input(lm: LanguageModel, request: EditRequest) -> ProbeInput:
    """Return the input with the evidence that the tiny model gives for `request`."""
    return ProbeInput(lm, request, tiny_meter(lm).measure(request), THRESHOLDS)


def sound_input(lm: LanguageModel) -> ProbeInput:
    """Return an input that no probe fires on; tests replace the number that they are about."""
    evidence = replace(
        tiny_meter(lm).measure(TWIN_REQUEST),
        denominator=0.9,
        denominator_prefixed=1.0,
        cosine=0.9,
        sink_similarity=0.1,
        predicted_relative_norm=0.5,
        crowding=0.1,
    )
    return ProbeInput(lm, TWIN_REQUEST, evidence, THRESHOLDS)

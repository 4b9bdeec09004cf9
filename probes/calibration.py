"""Thresholds for the model at hand, from a null sample: ordinary subjects, none of them a first token.

A threshold lets ordinary subjects pass with a margin that the sample itself gives.
Each probe declares its rules in `Probe.calibrated`, a probe of another package as well.
The rule, the sample's size and its quantiles go into the log.
The distance of first tokens from ordinary subjects depends on the layer (docs/research/results.md), so an audit never
relies on a single threshold.
A plane for pictures of keys is fitted on the same sample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .errors import InputError, NotFinite
from .evidence import Evidence, EvidenceMeter
from .probe import PROBES, CalibrationRule, Threshold
from .screen import Margins, measure_margins

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .requests.request import EditRequest

__all__ = ["QUANTILES", "Calibration", "KeyPlane", "calibrate"]

QUANTILES = {"min": 0.0, "0.01": 0.01, "0.05": 0.05, "median": 0.5, "0.95": 0.95, "0.99": 0.99, "max": 1.0}
_MIN_SAMPLE_SIZE = 16
_REQUESTS_PER_PASS = 32


@dataclass(frozen=True)
class KeyPlane:
    """Two orthonormal directions in key space, for pictures: first tokens' keys stand apart from prefixed ones."""

    mean: torch.Tensor
    """[d_ff]."""
    axes: torch.Tensor
    """[d_ff, 2]."""

    def project(self, keys: torch.Tensor) -> list[list[float]]:
        """Return the points [rows, 2] of keys [rows, d_ff]."""
        points: list[list[float]] = ((keys.double().cpu() - self.mean) @ self.axes).tolist()
        return points


@dataclass(frozen=True)
class Calibration:
    """Thresholds by ``probe/metric``, the plane, and the screen's margins."""

    thresholds: Mapping[str, Threshold]
    plane: KeyPlane
    margins: Margins
    """How far the screen's figures may lie from the exact ones."""


def calibrate(
    meter: EvidenceMeter, requests: Sequence[EditRequest], progress: Callable[[int, int], None] | None = None
) -> Calibration:
    """Measure the null sample and set the thresholds of every registered probe.

    Raises `InputError` for fewer than 16 requests and for a rule that gives no finite threshold, and `NotFinite` when
    any quantity of the sample is not finite.
    """
    if len(requests) < _MIN_SAMPLE_SIZE:
        raise InputError(
            f"A null sample of {len(requests)} subjects cannot give quantiles; at least {_MIN_SAMPLE_SIZE} are needed: "
            "give more."
        )
    sample = _measure_sample(meter, requests, progress)
    thresholds = {
        f"{name}/{metric}": _threshold(name, metric, rule, sample)
        for name, probe in PROBES
        for metric, rule in probe.calibrated.items()
    }
    screened = [evidence for evidence in meter.screened(sample) if isinstance(evidence, Evidence)]
    if len(screened) < len(sample):
        raise NotFinite("A key of the null sample is NaN or Inf; the model is broken before any edit.")
    return Calibration(thresholds, _plane(sample, meter.sink), measure_margins(screened, sample))


def _measure_sample(
    meter: EvidenceMeter, requests: Sequence[EditRequest], progress: Callable[[int, int], None] | None
) -> list[Evidence]:
    sample: list[Evidence] = []
    for start in range(0, len(requests), _REQUESTS_PER_PASS):
        for evidence in meter.measure_all(requests[start : start + _REQUESTS_PER_PASS]):
            if not isinstance(evidence, Evidence):
                raise evidence
            sample.append(evidence)
        if progress is not None:
            progress(len(sample), len(requests))
    return sample


def _threshold(probe: str, metric: str, rule: CalibrationRule, sample: Sequence[Evidence]) -> Threshold:
    values = [value for evidence in sample if (value := rule.read(evidence)) is not None]
    if len(values) < _MIN_SAMPLE_SIZE:
        raise InputError(
            f"The metric {probe}/{metric} was asked of {len(values)} subjects of the null sample, and quantiles need "
            f"{_MIN_SAMPLE_SIZE}; give a larger sample."
        )
    quantiles = _quantiles(values, f"{probe}/{metric}")
    value = float(rule.threshold(quantiles))
    if not math.isfinite(value):
        # Nothing is above or below NaN: the probe would never fire.
        raise InputError(
            f"The calibration rule of {probe}/{metric} gives the threshold {value}, and a threshold must be finite; "
            f"correct the probe {probe!r} or uninstall its package."
        )
    return Threshold(
        probe=probe, metric=metric, value=value, rule=rule.description, sample_size=len(values), quantiles=quantiles
    )


def _quantiles(values: Sequence[float], name: str) -> dict[str, float]:
    if not all(math.isfinite(value) for value in values):
        raise NotFinite(
            f"The null sample of {name} holds NaN or Inf, so no threshold can be set; the model or its statistics are "
            "broken before any edit."
        )
    tensor = torch.tensor(values, dtype=torch.float64)
    return {name: float(torch.quantile(tensor, share)) for name, share in QUANTILES.items()}


def _plane(sample: Sequence[Evidence], sink: torch.Tensor) -> KeyPlane:
    """Fit the plane: from the mean ordinary key towards the sink, and the sample's main direction across that."""
    means = torch.stack([evidence.keys.mean_key.double().cpu() for evidence in sample])
    centre = means.mean(0)
    first = sink.double().cpu() - centre
    first = first / first.norm()
    across = means - centre
    across = across - torch.outer(across @ first, first)
    second = torch.linalg.svd(across, full_matrices=False).Vh[0]
    # The sign of a singular vector is arbitrary; fix it so that two runs draw the same picture.
    second = second * torch.sign(second[second.abs().argmax()])
    return KeyPlane(centre, torch.stack([first, second], 1))

"""Thresholds for the model at hand, from a null sample: ordinary subjects, none of them a first token.

A threshold is set so that ordinary subjects pass with a margin that the sample itself gives; the rule, the sample's size
and its quantiles go into the log. How far outside first tokens lie depends on
the layer (docs/results.md); no single threshold is relied on.
A plane for pictures of keys is fitted on the same sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from .errors import InputError, NotFinite
from .evidence import Evidence, EvidenceMeter
from .probe import Threshold
from .requests.request import EditRequest
from .screen import Margins, margins

__all__ = ["QUANTILES", "Calibration", "KeyPlane", "calibrate"]

QUANTILES = {"min": 0.0, "0.01": 0.01, "0.05": 0.05, "median": 0.5, "0.95": 0.95, "0.99": 0.99, "max": 1.0}
_LEAST, _TOGETHER = 16, 32
_AWAY = -0.9


@dataclass(frozen=True)
class KeyPlane:
    """Two orthonormal directions in key space, for pictures: first tokens' keys stand apart from prefixed ones."""

    mean: torch.Tensor
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
    """Measure the null sample and set the thresholds.

    Raises `InputError` for fewer than 16 requests and `NotFinite` when any quantity of the sample is not finite.
    """
    if len(requests) < _LEAST:
        raise InputError(
            f"A null sample of {len(requests)} subjects cannot give quantiles; at least {_LEAST} are needed: give more."
        )
    sample: list[Evidence] = []
    for start in range(0, len(requests), _TOGETHER):
        for seen in meter.measure_all(requests[start : start + _TOGETHER]):
            if not isinstance(seen, Evidence):
                raise seen
            sample.append(seen)
        if progress is not None:
            progress(len(sample), len(requests))
    rules: list[tuple[str, str, Callable[[Evidence], float], Callable[[Mapping[str, float]], float], str]] = [
        ("denominator", "ratio", lambda e: e.ratio, lambda q: q["0.01"] / 4, "a quarter of the 1 % quantile"),
        ("denominator", "predicted_relative_norm", lambda e: e.predicted_relative_norm, lambda q: q["0.99"] * 2,
         "twice the 99 % quantile"),
        ("key-shift", "cosine", lambda e: e.cosine, _shift,
         f"the 1 % quantile less half its distance from the median, {_AWAY:g} at least"),
        ("sink-key", "cosine", lambda e: e.sink_similarity, lambda q: (q["0.99"] + 1) / 2,
         "half-way from the 99 % quantile to 1"),
    ]  # fmt: skip
    found = {}
    for probe, metric, read, rule, how in rules:
        quantiles = _quantiles([read(evidence) for evidence in sample], f"{probe}/{metric}")
        found[f"{probe}/{metric}"] = Threshold(probe, metric, rule(quantiles), how, len(sample), quantiles)
    few = [one for one in meter.screened(sample) if isinstance(one, Evidence)]
    if len(few) < len(sample):
        raise NotFinite("A key of the null sample is NaN or Inf; the model is broken before any edit.")
    return Calibration(found, _plane(sample, meter.sink), margins(few, sample))


def _shift(quantiles: Mapping[str, float]) -> float:
    # Below -1 the probe could never fire, and a key that points away from the others is ordinary nowhere.
    return max(quantiles["0.01"] - (quantiles["median"] - quantiles["0.01"]) / 2, _AWAY)


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

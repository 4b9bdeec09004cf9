"""Thresholds follow their rules from the sample's own quantiles; a sample that is small or broken is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from editguard.probes.calibration import QUANTILES, Calibration, calibrate
from editguard.probes.errors import InputError, NotFinite
from editguard.probes.evidence import Evidence, EvidenceMeter
from editguard.probes.probe import CalibrationRule
from editguard.probes.requests.request import EditRequest

from ..helpers.foreign_probes import KeyNorm, NanThreshold, install_probe, key_norm
from ..helpers.tiny_models import tiny_language_model, tiny_meter

pytestmark = pytest.mark.tiny

WORDS = (
    *("Paris", "Lyon", "Chicago", "Istanbul", "France", "Tokyo", "Osaka", "Rome"),
    *("Delhi", "Cairo", "Lima", "Oslo", "Bonn", "Kyiv", "Riga", "Bern"),
)
SAMPLE = tuple(EditRequest(f"o-{word}", word, f"The city of {word} is", "") for word in WORDS)


@pytest.fixture(scope="module")
def meter() -> EvidenceMeter:
    return tiny_meter(tiny_language_model("llama"))


@pytest.fixture(scope="module")
def evidence(meter: EvidenceMeter) -> list[Evidence]:
    measurements = meter.measure_all(SAMPLE)
    evidence = [measurement for measurement in measurements if isinstance(measurement, Evidence)]
    assert len(evidence) == len(measurements)
    return evidence


@pytest.fixture(scope="module")
def calibration(meter: EvidenceMeter) -> Calibration:
    return calibrate(meter, SAMPLE)


def quantile(values: list[float], share: float) -> float:
    return float(np.quantile(np.array(values), share))


def test_calibrate_thresholds_follow_their_rules(calibration: Calibration, evidence: list[Evidence]) -> None:
    ratio = [item.ratio for item in evidence]
    bound = [item.predicted_relative_norm for item in evidence]
    cosine = [item.cosine for item in evidence]
    sink = [item.sink_similarity for item in evidence]
    low, middle = quantile(cosine, 0.01), quantile(cosine, 0.5)
    crowding = [item.crowding for item in evidence if item.crowding is not None]
    expected = {
        "crowded-key/share": quantile(crowding, 0.99),
        "denominator/ratio": quantile(ratio, 0.01) / 4,
        "denominator/predicted_relative_norm": quantile(bound, 0.99) * 2,
        "key-shift/cosine": low - (middle - low) / 2,
        "sink-key/cosine": (quantile(sink, 0.99) + 1) / 2,
    }
    assert {key: threshold.value for key, threshold in calibration.thresholds.items()} == pytest.approx(expected)


def test_threshold_carries_the_sample_that_it_comes_from(calibration: Calibration, evidence: list[Evidence]) -> None:
    for key, threshold in calibration.thresholds.items():
        assert f"{threshold.probe}/{threshold.metric}" == key
        assert threshold.sample_size == len(SAMPLE)
        assert threshold.rule
        assert list(threshold.quantiles) == list(QUANTILES)
    quantiles = calibration.thresholds["key-shift/cosine"].quantiles
    values = [item.cosine for item in evidence]
    assert quantiles == pytest.approx({name: quantile(values, share) for name, share in QUANTILES.items()})
    assert (quantiles["min"], quantiles["max"]) == pytest.approx((min(values), max(values)))


def test_calibrate_lets_the_sample_itself_pass(calibration: Calibration, evidence: list[Evidence]) -> None:
    limit = {key: threshold.value for key, threshold in calibration.thresholds.items()}
    for item in evidence:
        assert item.ratio > limit["denominator/ratio"]
        assert item.predicted_relative_norm < 2 * limit["denominator/predicted_relative_norm"]
        assert item.sink_similarity < max(limit["sink-key/cosine"], 1.0)


def test_calibrate_on_fifteen_subjects_is_refused(meter: EvidenceMeter) -> None:
    with pytest.raises(InputError, match=r"15 subjects .* at least 16"):
        calibrate(meter, SAMPLE[:15])


def test_calibrate_on_a_broken_model_is_refused() -> None:
    meter = tiny_meter(tiny_language_model("llama"))
    with torch.no_grad():
        meter.site.blocks[0].mlp.down_proj.weight.fill_(torch.nan)
    with pytest.raises(NotFinite):
        calibrate(meter, SAMPLE)


@pytest.mark.parametrize("change", [{"sink": "nan"}, {"weight_norm": "nan"}], ids=["sink", "norm"])
def test_calibrate_on_a_figure_that_is_not_finite_names_the_metric(
    meter: EvidenceMeter, change: dict[str, str]
) -> None:
    if "sink" in change:
        broken, name = replace(meter, sink=torch.full_like(meter.sink, torch.nan)), "sink-key/cosine"
    else:
        broken, name = replace(meter, weight_norm=float("nan")), "denominator/predicted_relative_norm"
    with pytest.raises(NotFinite, match=f"null sample of {name} holds NaN"):
        calibrate(broken, SAMPLE)


def test_calibrate_reports_progress_and_two_runs_agree(meter: EvidenceMeter, calibration: Calibration) -> None:
    steps: list[tuple[int, int]] = []
    again = calibrate(meter, SAMPLE, lambda *step: steps.append(step))
    assert steps == [(16, 16)]
    assert again.thresholds == calibration.thresholds
    assert torch.equal(again.plane.axes, calibration.plane.axes)


def test_plane_is_orthonormal_and_the_sink_lies_on_its_first_axis(
    meter: EvidenceMeter, calibration: Calibration, evidence: list[Evidence]
) -> None:
    plane = calibration.plane
    np.testing.assert_allclose((plane.axes.T @ plane.axes).numpy(), np.eye(2), atol=1e-9)
    means = torch.stack([item.keys.mean_key for item in evidence])
    np.testing.assert_allclose(plane.mean.numpy(), means.double().mean(0).numpy(), rtol=1e-6, atol=1e-7)
    ((along, across),) = plane.project(meter.sink[None])
    assert along == pytest.approx(float((meter.sink.double() - plane.mean).norm()))
    assert across == pytest.approx(0.0, abs=1e-6)
    np.testing.assert_allclose(np.mean(plane.project(means), axis=0), [0.0, 0.0], atol=1e-6)


def test_calibrate_sets_the_threshold_of_a_foreign_probe_by_its_rule(
    meter: EvidenceMeter, calibration: Calibration, evidence: list[Evidence], monkeypatch: pytest.MonkeyPatch
) -> None:
    install_probe(monkeypatch, KeyNorm)
    thresholds = calibrate(meter, SAMPLE).thresholds
    norms = [key_norm(item) for item in evidence]
    threshold = thresholds["key-norm/norm"]
    assert threshold.value == pytest.approx(2 * quantile(norms, 0.99))
    assert threshold.rule == "twice the 99 % quantile"
    assert threshold.quantiles["median"] == pytest.approx(quantile(norms, 0.5))
    assert threshold.sample_size == len(SAMPLE)
    assert {key: value for key, value in thresholds.items() if key != "key-norm/norm"} == calibration.thresholds


class Asked(KeyNorm):
    """A probe that asks of some subjects only: of those whose prompt with no prefix has a short key."""

    least: ClassVar[float] = 0.0
    calibrated: ClassVar[Mapping[str, CalibrationRule]] = {
        "norm": CalibrationRule(
            read=lambda evidence: norm if (norm := key_norm(evidence)) > Asked.least else None,
            threshold=lambda quantiles: quantiles["median"],
            description="the median",
        )
    }


def test_calibrate_leaves_out_subjects_that_a_metric_was_not_asked_of(
    meter: EvidenceMeter, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = (*SAMPLE, *(replace(request, id=f"{request.id}-2", prompt=f"In {request.subject}") for request in SAMPLE))
    norms = sorted(key_norm(meter.measure(request)) for request in sample)
    install_probe(monkeypatch, Asked)
    monkeypatch.setattr(Asked, "least", (norms[15] + norms[16]) / 2)
    threshold = calibrate(meter, sample).thresholds["key-norm/norm"]
    assert (threshold.sample_size, threshold.quantiles["min"]) == (16, pytest.approx(norms[16]))
    monkeypatch.setattr(Asked, "least", (norms[16] + norms[17]) / 2)
    with pytest.raises(InputError, match=r"key-norm/norm was asked of 15 subjects .* need 16"):
        calibrate(meter, sample)


def test_calibrate_rule_that_gives_no_finite_threshold_is_refused(
    meter: EvidenceMeter, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_probe(monkeypatch, NanThreshold)
    with pytest.raises(InputError, match=r"rule of key-norm/norm gives the threshold nan"):
        calibrate(meter, SAMPLE)

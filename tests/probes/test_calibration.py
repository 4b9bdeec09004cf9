"""Thresholds follow their rules from the sample's own quantiles; a sample that is small or broken is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from editguard.probes.calibration import QUANTILES, Calibration, calibrate
from editguard.probes.errors import InputError, NotFinite
from editguard.probes.evidence import Evidence, EvidenceMeter
from editguard.probes.requests.request import EditRequest

from ..helpers.tiny_models import tiny_language_model, tiny_meter

pytestmark = pytest.mark.tiny

WORDS = (
    "Paris", "Lyon", "Chicago", "Istanbul", "France", "Tokyo", "Osaka", "Rome", "Delhi", "Cairo", "Lima", "Oslo", "Bonn",
    "Kyiv", "Riga", "Bern",
)  # fmt: skip
SAMPLE = tuple(EditRequest(f"o-{word}", word, f"The city of {word} is", "") for word in WORDS)


@pytest.fixture(scope="module")
def meter() -> EvidenceMeter:
    return tiny_meter(tiny_language_model("llama"))


@pytest.fixture(scope="module")
def evidence(meter: EvidenceMeter) -> list[Evidence]:
    found = meter.measure_all(SAMPLE)
    assert all(isinstance(one, Evidence) for one in found)
    return [one for one in found if isinstance(one, Evidence)]


@pytest.fixture(scope="module")
def calibration(meter: EvidenceMeter) -> Calibration:
    return calibrate(meter, SAMPLE)


def quantile(values: list[float], share: float) -> float:
    return float(np.quantile(np.array(values), share))


def test_the_thresholds_follow_their_rules(calibration: Calibration, evidence: list[Evidence]) -> None:
    ratio = [seen.ratio for seen in evidence]
    bound = [seen.predicted_relative_norm for seen in evidence]
    cosine = [seen.cosine for seen in evidence]
    sink = [seen.sink_similarity for seen in evidence]
    low, middle = quantile(cosine, 0.01), quantile(cosine, 0.5)
    expected = {
        "denominator/ratio": quantile(ratio, 0.01) / 4,
        "denominator/predicted_relative_norm": quantile(bound, 0.99) * 2,
        "key-shift/cosine": low - (middle - low) / 2,
        "sink-key/cosine": (quantile(sink, 0.99) + 1) / 2,
    }
    assert {key: threshold.value for key, threshold in calibration.thresholds.items()} == pytest.approx(expected)


def test_a_threshold_carries_the_sample_behind_it(calibration: Calibration, evidence: list[Evidence]) -> None:
    for key, threshold in calibration.thresholds.items():
        assert f"{threshold.probe}/{threshold.metric}" == key
        assert threshold.sample_size == len(SAMPLE)
        assert threshold.how
        assert list(threshold.quantiles) == list(QUANTILES)
    found = calibration.thresholds["key-shift/cosine"].quantiles
    values = [seen.cosine for seen in evidence]
    assert found == pytest.approx({name: quantile(values, share) for name, share in QUANTILES.items()})
    assert (found["min"], found["max"]) == pytest.approx((min(values), max(values)))


def test_the_sample_itself_passes(calibration: Calibration, evidence: list[Evidence]) -> None:
    limit = {key: threshold.value for key, threshold in calibration.thresholds.items()}
    for seen in evidence:
        assert seen.ratio > limit["denominator/ratio"]
        assert seen.predicted_relative_norm < 2 * limit["denominator/predicted_relative_norm"]
        assert seen.sink_similarity < max(limit["sink-key/cosine"], 1.0)


def test_fifteen_subjects_are_too_few(meter: EvidenceMeter) -> None:
    with pytest.raises(InputError, match=r"15 subjects .* at least 16"):
        calibrate(meter, SAMPLE[:15])


def test_a_sample_of_a_broken_model_is_refused() -> None:
    meter = tiny_meter(tiny_language_model("llama"))
    with torch.no_grad():
        meter.site.blocks[0].mlp.down_proj.weight.fill_(torch.nan)
    with pytest.raises(NotFinite):
        calibrate(meter, SAMPLE)


@pytest.mark.parametrize("change", [{"sink": "nan"}, {"weight_norm": "nan"}], ids=["sink", "norm"])
def test_one_number_that_is_not_finite_is_refused_by_name(meter: EvidenceMeter, change: dict[str, str]) -> None:
    if "sink" in change:
        broken, name = replace(meter, sink=torch.full_like(meter.sink, torch.nan)), "sink-key/cosine"
    else:
        broken, name = replace(meter, weight_norm=float("nan")), "denominator/predicted_relative_norm"
    with pytest.raises(NotFinite, match=f"null sample of {name} holds NaN"):
        calibrate(broken, SAMPLE)


def test_progress_counts_to_the_end_and_two_runs_agree(meter: EvidenceMeter, calibration: Calibration) -> None:
    steps: list[tuple[int, int]] = []
    again = calibrate(meter, SAMPLE, lambda *step: steps.append(step))
    assert steps == [(16, 16)]
    assert again.thresholds == calibration.thresholds
    assert torch.equal(again.plane.axes, calibration.plane.axes)


def test_the_plane_is_orthonormal_and_the_sink_lies_along_its_first_axis(
    meter: EvidenceMeter, calibration: Calibration, evidence: list[Evidence]
) -> None:
    plane = calibration.plane
    np.testing.assert_allclose((plane.axes.T @ plane.axes).numpy(), np.eye(2), atol=1e-9)
    means = torch.stack([seen.keys.mean_key for seen in evidence])
    np.testing.assert_allclose(plane.mean.numpy(), means.double().mean(0).numpy(), rtol=1e-6, atol=1e-7)
    ((along, across),) = plane.project(meter.sink[None])
    assert along == pytest.approx(float((meter.sink.double() - plane.mean).norm()))
    assert across == pytest.approx(0.0, abs=1e-6)
    np.testing.assert_allclose(np.mean(plane.project(means), axis=0), [0.0, 0.0], atol=1e-6)

"""Rules for every built-in probe: quiet on a sound input, one class a file, an ERROR for evidence that is not finite."""

from __future__ import annotations

import math
import operator

import pytest
from editguard.probes.probe import PROBES, Level, Probe, ProbeInput
from editguard.probes.screen import SCREENED_FIGURES

from ...helpers.probe_inputs import THRESHOLDS

pytestmark = pytest.mark.tiny

BUILTIN = [probe for _, probe in PROBES if probe.__module__.startswith("editguard.probes.builtin.")]


def test_builtin_probe_is_found_in_a_module_of_its_name() -> None:
    modules = {probe.name: probe.__module__.rpartition(".")[2] for probe in BUILTIN}
    assert modules == {
        "crowded-key": "crowded_key",
        "denominator": "denominator",
        "first-token": "first_token",
        "key-shift": "key_shift",
        "sink-key": "sink_key",
        "well-formed": "well_formed",
    }


@pytest.mark.parametrize("probe", BUILTIN)
def test_probe_of_a_sound_input_is_ok(sound: ProbeInput, probe: type[Probe]) -> None:
    finding = probe().examine(sound)
    assert (finding.level, finding.probe, finding.unit) == (Level.OK, probe.name, probe.card.unit)
    assert finding.value is not None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("name", "figure"),
    [
        ("key-shift", "cosine"),
        ("sink-key", "sink_similarity"),
        ("crowded-key", "crowding"),
        ("denominator", "denominator"),
        ("denominator", "denominator_prefixed"),
        ("denominator", "predicted_relative_norm"),
    ],
)
def test_probe_of_a_figure_that_is_not_finite_is_error(sound: ProbeInput, name: str, figure: str, bad: float) -> None:
    assert PROBES.get(name)().examine(sound.with_evidence(**{figure: bad})).level is Level.ERROR


@pytest.mark.parametrize("probe", BUILTIN)
def test_probe_declares_figures_that_evidence_has_and_the_screen_bounds(sound: ProbeInput, probe: type[Probe]) -> None:
    assert probe.figures is not None
    assert probe.figures <= SCREENED_FIGURES
    assert all(operator.attrgetter(figure)(sound.evidence) is not None for figure in probe.figures)


@pytest.mark.parametrize("probe", BUILTIN)
def test_probe_calibrates_every_threshold_that_it_reads(sound: ProbeInput, probe: type[Probe]) -> None:
    declared = {f"{probe.name}/{metric}" for metric in probe.calibrated}
    assert declared == {key for key in THRESHOLDS if key.startswith(f"{probe.name}/")}
    own_thresholds = {key: threshold for key, threshold in THRESHOLDS.items() if key in declared}
    only_own = ProbeInput(sound.lm, sound.request, sound.evidence, own_thresholds)
    assert probe().examine(only_own) == probe().examine(sound)

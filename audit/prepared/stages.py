"""The stages of preparing a model whose results are kept: sampled prefixes, then sink key and calibration.

A stage is announced only where it is computed.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from ...probes.calibration import calibrate
from ...probes.evidence import compute_sink_key
from ...probes.forward.prefix_cache import PrefixCache, build_prefix_cache
from ...probes.keys.prefixes import ContextPrefixes, SampledTexts, assemble_prefixes, sample_prefix_texts
from .null_sample import NULL_SAMPLE, make_null_sample
from .store import Calibrated, PreparedStore

if TYPE_CHECKING:
    from ...probes.evidence import EvidenceMeter
    from ...probes.model.language_model import LanguageModel
    from ...probes.model.site import EditSite
    from ..progress import Progress

__all__ = ["prepare_calibration", "prepare_prefix_cache", "prepare_prefixes"]


def prepare_prefixes(lm: LanguageModel, seed: int, store: PreparedStore, progress: Progress) -> ContextPrefixes:
    """Return the prefixes of a run; raises `NotFinite`."""

    def sample() -> SampledTexts:
        progress("sampling prefixes", 0, 1)
        return sample_prefix_texts(lm, seed, partial(progress, "sampling prefixes"))

    return assemble_prefixes(lm, seed, store.texts(sample))


def prepare_prefix_cache(
    lm: LanguageModel, site: EditSite, prefixes: ContextPrefixes, store: PreparedStore
) -> PrefixCache | None:
    """Return the states of the prefixes; None where the model cannot continue from them, and for the reference engine."""
    texts = [prefix.text for prefix in prefixes.prefixes]
    return None if lm.plain else store.prefix_cache(lm, site, texts, lambda: build_prefix_cache(lm, site, texts))


def prepare_calibration(meter: EvidenceMeter, store: PreparedStore, progress: Progress) -> Calibrated:
    """Return the sink key and the calibration on the null sample; raises as `calibrate` does.

    `meter` holds no sink key yet.
    """
    requests = make_null_sample(meter.lm, NULL_SAMPLE)

    def compute() -> Calibrated:
        progress("calibration", 0, len(requests))
        sink = compute_sink_key(meter.lm, meter.site, [request.prompt for request in requests])
        return Calibrated(sink, calibrate(replace(meter, sink=sink), requests, partial(progress, "calibration")))

    return store.calibrated(meter, requests, compute)

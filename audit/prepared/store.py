"""What was prepared of one model: computed once, kept in the cache folder, and returned as it was computed.

Sampled texts are kept, and prefixes are made of them anew: a chat template may write today's date.
The states of the prefixes' tokens are kept as well, since running them takes as long as the calibration.
Of thresholds the quantiles are kept as well. A threshold counts only where its probe's rule gives it again from them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from ...probes.calibration import QUANTILES, Calibration, KeyPlane
from ...probes.forward.prefix_cache import PrefixCache, PrefixStates
from ...probes.keys.prefixes import SampledTexts
from ...probes.probe import PROBES, Threshold
from ...probes.screen import Margins
from .entry import Entry, read_entry, write_entry
from .origin import find_origin, hash_facts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...probes.evidence import EvidenceMeter
    from ...probes.model.language_model import LanguageModel
    from ...probes.model.site import EditSite
    from ...probes.requests.request import EditRequest

__all__ = ["Calibrated", "PreparedStore"]


class Calibrated(NamedTuple):
    """The sink key [d_ff], fp32 on the model's device, and what was calibrated with it."""

    sink: torch.Tensor
    calibration: Calibration


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, ser_json_inf_nan="constants")


class _Texts(_Strict):
    sentences: tuple[str, ...]
    paragraphs: tuple[str, ...]


class _Threshold(_Strict):
    probe: str
    metric: str
    value: float
    rule: str
    sample_size: int
    quantiles: dict[str, float]


class _Margins(_Strict):
    ratio: float
    size: float
    cosine: float


class _Calibration(_Strict):
    thresholds: tuple[_Threshold, ...]
    margins: _Margins


@dataclass(frozen=True)
class PreparedStore:
    """Entries of one model, seed, machine and version of the code."""

    origin: str | None
    """Hash of what all entries depend on; None where nothing is kept."""
    fresh: bool = False
    """Whether all is computed again, and replaces what was kept."""

    @classmethod
    def of(cls, lm: LanguageModel, seed: int, *, fresh: bool = False) -> PreparedStore:
        """Return the store for a model as it is now."""
        return cls(find_origin(lm, seed), fresh)

    def texts(self, sample: Callable[[], SampledTexts]) -> SampledTexts:
        """Return the texts of sampled prefixes: those that were kept, or those of `sample`, which are kept."""
        stamp = self._stamp("texts")
        if (entry := self._read(stamp)) is not None and (kept := _decode_texts(entry)) is not None:
            return kept
        computed = sample()
        self._write(stamp, Entry(_Texts(**computed._asdict()).model_dump_json(), {}))
        return computed

    def prefix_cache(
        self, lm: LanguageModel, site: EditSite, texts: Sequence[str], compute: Callable[[], PrefixCache | None]
    ) -> PrefixCache | None:
        """Return the states of the prefixes `texts` below `site`: those that were kept, or those of `compute`.

        Where the model cannot continue from states there are none to keep, and that is found out each time.
        """
        stamp = self._stamp("states", site=[site.path, site.layer], texts=list(texts))
        if (entry := self._read(stamp)) is not None and (states := _decode_states(entry, lm)) is not None:
            kept = PrefixCache(lm, site, texts, states)
            if {sum(map(len, kept.rows))} == states.count_tokens():
                return kept
        computed = compute()
        if computed is not None:
            self._write(stamp, _encode_states(computed.all_states))
        return computed

    def calibrated(
        self, meter: EvidenceMeter, sample: Sequence[EditRequest], compute: Callable[[], Calibrated]
    ) -> Calibrated:
        """Return sink key and calibration: those that were kept for `meter` and `sample`, or those of `compute`.

        Of `meter` everything counts but its sink key, which is not known yet.
        """
        stamp = self._stamp(
            "calibration",
            site=[meter.site.path, meter.site.layer, meter.site.orientation.value],
            statistics=[meter.statistics.sha256, meter.statistics.ridge, meter.statistics.provenance.method],
            prefixes=[[prefix.text, prefix.role.value] for prefix in meter.prefixes.prefixes],
            prefix_seed=meter.prefixes.seed,
            continued=meter.prefix_cache is not None,
            weight_norm=meter.weight_norm,
            clamp=meter.clamp,
            sample=[asdict(request) for request in sample],
        )
        if (entry := self._read(stamp)) is not None and (kept := _decode_calibrated(entry, meter)) is not None:
            return kept
        computed = compute()
        self._write(stamp, _encode_calibrated(computed))
        return computed

    def _stamp(self, kind: str, **facts: object) -> str | None:
        return None if self.origin is None else hash_facts(kind=kind, origin=self.origin, facts=facts)

    def _read(self, stamp: str | None) -> Entry | None:
        return None if stamp is None or self.fresh else read_entry(stamp)

    def _write(self, stamp: str | None, entry: Entry) -> None:
        if stamp is not None:
            write_entry(stamp, entry)


def _decode_texts(entry: Entry) -> SampledTexts | None:
    try:
        return SampledTexts(**_Texts.model_validate_json(entry.text).__dict__)
    except ValidationError:
        return None


def _encode_states(states: PrefixStates) -> Entry:
    tensors = {"hidden": states.hidden}
    for layer, (keys, values) in enumerate(states.layers):
        tensors |= {f"keys-{layer}": keys, f"values-{layer}": values}
    return Entry("", tensors)


def _decode_states(entry: Entry, lm: LanguageModel) -> PrefixStates | None:
    tensors = {name: tensor.to(lm.device) for name, tensor in entry.tensors.items()}
    layers = (len(tensors) - 1) // 2
    try:
        pairs = [(tensors[f"keys-{layer}"], tensors[f"values-{layer}"]) for layer in range(layers)]
        return PrefixStates(tensors["hidden"], pairs)
    except KeyError:
        return None


def _encode_calibrated(computed: Calibrated) -> Entry:
    sink, calibration = computed
    text = _Calibration(
        thresholds=tuple(
            _Threshold(**{**vars(threshold), "quantiles": dict(threshold.quantiles)})
            for threshold in calibration.thresholds.values()
        ),
        margins=_Margins(**asdict(calibration.margins)),
    ).model_dump_json()
    return Entry(text, {"sink": sink, "mean": calibration.plane.mean, "axes": calibration.plane.axes})


def _decode_calibrated(entry: Entry, meter: EvidenceMeter) -> Calibrated | None:
    width = meter.site.d_ff
    expected = {
        "sink": ((width,), torch.float32),
        "mean": ((width,), torch.float64),
        "axes": ((width, 2), torch.float64),
    }
    if {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in entry.tensors.items()} != expected:
        return None
    try:
        content = _Calibration.model_validate_json(entry.text)
    except ValidationError:
        return None
    thresholds = {f"{item.probe}/{item.metric}": Threshold(**item.__dict__) for item in content.thresholds}
    if not _follow_from_rules(thresholds):
        return None
    plane = KeyPlane(entry.tensors["mean"], entry.tensors["axes"])
    sink = entry.tensors["sink"].to(meter.site.weight.device)
    return Calibrated(sink, Calibration(thresholds, plane, Margins(**content.margins.__dict__)))


def _follow_from_rules(thresholds: dict[str, Threshold]) -> bool:
    """Return whether these are the thresholds of all registered probes, each as its rule gives it from the quantiles."""
    rules = {f"{name}/{metric}": rule for name, probe in PROBES for metric, rule in probe.calibrated.items()}
    return list(thresholds) == list(rules) and all(
        threshold.rule == rules[name].description
        and list(threshold.quantiles) == list(QUANTILES)
        and float(rules[name].threshold(threshold.quantiles)) == threshold.value
        for name, threshold in thresholds.items()
    )

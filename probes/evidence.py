"""What is measured about one requested edit before anything is changed: the numbers that all probes read.

One pass gives the subject's keys bare and under ROME's contexts; from them follow the denominators of the published
update, the shift of the key, and how like an attention sink's key it is.

Source: "The Fall of ROME" (arXiv 2406.11263), section 4: ``u = C^-1 k_bar / ||C^-1 k_bar||``, denominator ``|u . k_u|``.
The bound on the update is ours: v* is clamped to ``clamp * ||v_u||`` around ``v_u``, so that
``||Delta||_F <= clamp * ||v_u|| / |u . k_u|`` is known without optimising anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .keys import SubjectKeys, activations, subject_keys
from .model import LanguageModel
from .prefix_cache import PrefixCache
from .prefixes import ContextPrefixes, Role
from .requests import EditRequest
from .site import EditSite
from .statistics import KeyStatistics

__all__ = ["Evidence", "Gauge", "sink_key"]


@dataclass(frozen=True)
class Evidence:
    """Numbers of one request; NaN where a key is not finite, which no probe may pass."""

    keys: SubjectKeys
    denominator: float
    """|u . k_u|, unprefixed."""
    denominator_prefixed: float
    """|u . k_bar|."""
    cosine: float
    """cos(k_u, k_bar)."""
    norm_ratio: float
    """||k_u|| / ||k_bar||."""
    distance_ratio: float
    """Distance of k_u from k_bar in the metric of C, over the median distance of the prefixed keys from it."""
    sink_similarity: float
    """cos(k_u, mean key of first tokens)."""
    predicted_relative_norm: float
    """Upper bound of ||Delta||_F / ||W||_F for the unguarded edit."""

    @property
    def ratio(self) -> float:
        """|u . k_u| / |u . k_bar|: near 1 for an ordinary subject, near 0 where the update explodes."""
        return self.denominator / self.denominator_prefixed if self.denominator_prefixed else float("nan")


@dataclass(frozen=True)
class Gauge:
    """What evidence is measured with: the same for every request of a run."""

    lm: LanguageModel
    site: EditSite
    statistics: KeyStatistics
    prefixes: ContextPrefixes
    sink: torch.Tensor
    """Mean key of first tokens [d_ff], fp32."""
    weight_norm: float
    """||W||_F."""
    clamp: float = 4.0
    """Clamp factor of v*, as the editors use it."""
    known: PrefixCache | None = None
    """States of the prefixes in the unedited model, so that they are not run for every request."""

    def measure(self, request: EditRequest) -> Evidence:
        """Return the evidence for `request`; raises `RequestError` when its subject cannot be located."""
        keys = subject_keys(self.lm, self.site, request, self.prefixes.texts(Role.KEY), known=self.known)
        mean, bare = keys.mean_key.double().cpu(), keys.bare_key.double().cpu()
        direction = self.statistics.direction(mean)
        denominator = abs(float(direction @ bare))
        usual = float(self.statistics.distance(keys.keys[1:], mean).median())
        shift = float(self.statistics.distance(bare, mean))
        bound = self.clamp * float(keys.bare_value.norm()) / denominator if denominator else float("inf")
        return Evidence(
            keys=keys,
            denominator=denominator,
            denominator_prefixed=abs(float(direction @ mean)),
            cosine=_cosine(bare, mean),
            norm_ratio=float(bare.norm() / mean.norm()),
            distance_ratio=shift / usual if usual else float("nan"),
            sink_similarity=_cosine(bare, self.sink.double().cpu()),
            predicted_relative_norm=bound / self.weight_norm,
        )


def sink_key(lm: LanguageModel, site: EditSite, texts: list[str]) -> torch.Tensor:
    """Return the mean key [d_ff] of the first tokens of `texts`: where trained models park an attention sink.

    In a model whose tokenizer adds a BOS the first token is that BOS, and no subject lies there.
    """
    first = sorted({int(lm.tokenizer(text).input_ids[0]) for text in texts})
    return activations(lm, site, [((token,), 0) for token in first]).keys.mean(0)


def _cosine(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(first, second, dim=0))

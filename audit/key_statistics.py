"""The key statistics of a run: from a file, from a corpus, or sampled once for a model and kept in the cache."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..probes.errors import StatisticsError
from ..probes.keys.corpus_statistics import DEFAULT_CORPUS, compute_statistics, read_corpus, sample_corpus
from ..probes.keys.statistics import KeyStatistics, load_statistics, make_identity_statistics, save_statistics
from ..probes.model.embedded import cache_folder

if TYPE_CHECKING:
    from ..probes.model.language_model import LanguageModel
    from ..probes.model.site import EditSite
    from .progress import Progress

__all__ = ["KEYS_PER_FEATURE", "StatisticsSource", "check_statistics", "load_or_compute_statistics"]

KEYS_PER_FEATURE = 4
"""Keys of sampled text for each dimension of a key: with fewer than one C has not even full rank."""


@dataclass(frozen=True)
class StatisticsSource:
    """Where the key statistics of a run come from: the same for each layer that is edited."""

    statistics: str | None = None
    """A file, which holds one layer, or ``identity``; None for a corpus."""
    corpus: str | None = None
    """A text file or data set; None for text sampled from the model."""
    fresh: bool = False
    """Whether they are computed again where the cache holds them."""

    @property
    def is_file(self) -> bool:
        """Whether they come from a file. It holds one layer, and ROME's own files do not say which."""
        return self.statistics is not None and self.statistics != "identity"

    def load(self, lm: LanguageModel, site: EditSite, seed: int, progress: Progress) -> KeyStatistics:
        """Return the key statistics of `site`, as `load_or_compute_statistics` does."""
        return load_or_compute_statistics(
            lm, site, self.statistics, self.corpus, seed=seed, progress=progress, fresh=self.fresh
        )


def check_statistics(statistics: str) -> None:
    """Raise `StatisticsError` where `statistics` names neither a file that is there nor ``identity``."""
    if statistics != "identity" and not Path(statistics).is_file():
        raise StatisticsError(
            f"There is no file of key statistics {statistics!r}; make one with 'editguard stats --out {statistics}', or say "
            "--stats identity."
        )


def load_or_compute_statistics(
    lm: LanguageModel,
    site: EditSite,
    statistics: str | None,
    corpus: str | None,
    *,
    seed: int,
    progress: Progress,
    fresh: bool = False,
) -> KeyStatistics:
    """Return key statistics: from a file, ``identity``, a corpus, or by default text sampled from the model itself.

    Those of sampled text are kept in the cache folder. With `fresh` they are computed again, and replace what was kept.
    """
    if statistics == "identity":
        return make_identity_statistics(site.d_ff, lm.fingerprint, site.layer)
    if statistics is not None:
        check_statistics(statistics)
        return load_statistics(Path(statistics), size=site.d_ff, model_fingerprint=lm.fingerprint, layer=site.layer)
    # The same text is sampled on one kind of machine only, in one dtype, and by one library.
    origin = (
        lm.fingerprint,
        site.path,
        corpus or DEFAULT_CORPUS,
        seed,
        lm.device.type,
        lm.dtype,
        lm.product_library,
        lm.plain,
    )
    stamp = hashlib.sha256(":".join(map(str, origin)).encode()).hexdigest()[:24]
    cached = cache_folder() / "statistics" / f"{stamp}.safetensors"
    if fresh:
        cached.with_suffix(".partial").unlink(missing_ok=True)
    # A corpus is a file that may change under its name, so only sampled text is looked up by name.
    if corpus is None and cached.is_file() and not fresh:
        return load_statistics(cached, size=site.d_ff, model_fingerprint=lm.fingerprint, layer=site.layer)
    if corpus is None:
        progress("sampling text for key statistics", 0, 1)
        text = sample_corpus(
            lm,
            seed=seed,
            least=KEYS_PER_FEATURE * site.d_ff,
            progress=lambda done, total: progress("sampling text for key statistics", done, total),
        )
    else:
        text = read_corpus(corpus)
    computed = compute_statistics(
        lm,
        site,
        text,
        partial=cached.with_suffix(".partial"),
        progress=lambda done, total: progress("key statistics", done, total),
    )
    if corpus is None:
        save_statistics(computed, cached)
    return computed

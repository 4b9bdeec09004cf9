"""Everything that is the same for all requests of a run, prepared once: site, prefixes, statistics, calibration, bench.

The order is fixed: site, prefixes, key statistics, sink key, null sample. Key statistics from the default corpus take
longest. They stay in the cache folder under (model, site, corpus, seed), and so do prefixes, their states and the
calibration (`prepared`).
All this belongs to the main site, where requests are probed. What an edit of other sites needs is made when such an edit is
first computed, of the unedited model, and kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from ..probes.errors import EditguardError, InputError, ModelError, PolicyError, StatisticsError
from ..probes.evidence import EvidenceMeter
from ..probes.forward.prefix_cache import PrefixCache, build_prefix_cache
from ..probes.model.embedded import EMBEDDED_NAME
from ..probes.model.fingerprint import compute_checksum
from ..probes.model.finite_weights import require_finite_weights
from ..probes.model.site import EditSite, count_layers, find_site
from ..probes.model.stored_weight import StoredWeight, store_weight
from ..probes.probe import PROBES
from ..reports.log.types import EXACT_PERPLEXITY, PERPLEXITY
from ..suites.builtin import load_builtin_corpus
from ..suites.check import Bench, Limits, Origin
from ..suites.checks.perplexity import Perplexity
from .editors.base import EditContext, SiteState, find_editor
from .editors.value import Engine, ValueSettings
from .key_statistics import StatisticsSource
from .policy import Policy
from .prepared.null_sample import NULL_SAMPLE, make_null_sample
from .prepared.stages import prepare_calibration, prepare_prefix_cache, prepare_prefixes
from .prepared.store import PreparedStore
from .progress import Progress, show_nothing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from ..probes.calibration import Calibration
    from ..probes.keys.prefixes import ContextPrefixes
    from ..probes.keys.statistics import KeyStatistics
    from ..probes.model.language_model import LanguageModel

__all__ = [
    "EMBEDDED_LAYER",
    "NULL_SAMPLE",
    "Setup",
    "build_limits",
    "check_editable",
    "check_names",
    "default_layer",
    "make_null_sample",
    "prepare",
]

EMBEDDED_LAYER = 9
"""Edit layer of the embedded model; the measurement behind it stands in docs/research/layer.md."""


@dataclass(frozen=True)
class UneditedStates:
    """What was computed of the unedited model for sites and benches, by the paths of their sites; the same under any policy."""

    prefix_caches: dict[str, PrefixCache | None] = field(default_factory=dict)
    """States of the prefixes that enter a layer."""
    memos: dict[tuple[str, ...], dict[str, Any]] = field(default_factory=dict)
    """Values that checks computed once, of each bench."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A model made ready for audits. The log holds all of it, and a request that is undone changes none of it."""

    lm: LanguageModel
    site: EditSite
    """The main site: where requests are probed, and where an editor edits that names no other layer."""
    statistics: KeyStatistics
    prefixes: ContextPrefixes
    meter: EvidenceMeter
    calibration: Calibration
    policy: Policy
    settings: ValueSettings
    corpus: tuple[str, ...]
    seed: int
    weights: tuple[int, ...]
    """Checksum of all weights: of the model that baselines and statistics belong to."""
    base_fingerprint: str
    """Fingerprint of the model before the first edit."""
    prefix_cache: PrefixCache | None = None
    """States of the prefixes in the unedited model; None where the model cannot continue from them."""
    states: UneditedStates = field(default_factory=UneditedStates, repr=False, compare=False)
    """States of the unedited model that are made when they are needed."""
    statistics_source: StatisticsSource = field(default_factory=StatisticsSource)
    """Where the key statistics of other layers come from."""
    further_statistics: dict[str, KeyStatistics] = field(default_factory=dict, repr=False, compare=False)
    """Key statistics of other sites, by path."""
    editor_memo: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """What editors computed once of the model before its first edit."""
    further_norms: dict[str, float] = field(default_factory=dict, repr=False, compare=False)
    """||W||_F of other sites before their first edit, by path."""
    check_dtype: torch.dtype | None = None
    """Dtype of the checks' matrix products; None for that of the weights."""
    site_path: str | None = None
    """Path of the site, with ``{layer}``, where the user gave it: for those who read other layers."""
    origin: Origin | None = None
    """The model before the first edit, where edits are kept one after the other."""
    progress: Progress = field(default=show_nothing, repr=False, compare=False)
    """Told how far the longest stage of an edit is, the search for v*."""
    _benches: dict[tuple[str, ...], Bench] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def edit_context(self) -> EditContext:
        """The part of the setup that editors work with."""
        return EditContext(
            lm=self.lm,
            site=self.site,
            statistics=self.statistics,
            prefixes=self.prefixes,
            settings=self.settings,
            prefix_cache=self.prefix_cache,
            progress=self.progress,
            state_at=self.state_at,
            memo=self.editor_memo,
        )

    @property
    def bench(self) -> Bench:
        """The bench of edits at the main site."""
        return self.bench_for((self.site,))

    def bench_for(self, sites: Sequence[EditSite]) -> Bench:
        """Return the part of the setup with which checks measure an edit of `sites`, from the lowest layer up.

        It is made once, while the model is unedited, and its baselines are taken when a check first needs them. Raises
        `InputError` where the model is edited while it is made.
        """
        paths = tuple(site.path for site in sites)
        if paths not in self._benches:
            if paths != (self.site.path,):
                self.check_unedited()
            self._benches[paths] = self._make_bench(sites)
        return self._benches[paths]

    def _make_bench(self, sites: Sequence[EditSite]) -> Bench:
        weights = tuple(store_weight(site) for site in sites)
        if self.origin is not None:
            self.origin.add(weights)
        return Bench(
            lm=self.lm,
            prefixes=self.prefixes,
            corpus=self.corpus,
            limits=build_limits(self.policy),
            weights=weights,
            prefix_cache=self.prefix_cache_at(sites[0]),
            memo=self.states.memos.setdefault(tuple(site.path for site in sites), {}),
            dtype=self.check_dtype,
            origin=self.origin,
        )

    @property
    def stored_weights(self) -> tuple[StoredWeight, ...]:
        """The unedited weights of all sites for which a bench was made; an edit is only made at these."""
        return tuple(
            {weight.site.path: weight for bench in self._benches.values() for weight in bench.weights}.values()
        )

    def state_at(self, layer: int) -> SiteState:
        """Return the site of `layer` with its key statistics and the states of the prefixes, made once.

        The statistics are those of the model as it is when they are first needed, and no kept edit changes them. Raises
        `ModelError` where the layer cannot be edited, `StatisticsError` where the statistics came from a file, which holds one
        layer, and `InputError` where the model is edited while something is made.
        """
        if layer == self.site.layer:
            return SiteState(self.site, self.statistics, self.prefix_cache)
        site = find_site(self.lm.model, layer, self.site_path)
        check_editable(site)
        if site.path not in self.further_statistics:
            if self.statistics_source.is_file:
                raise StatisticsError(
                    f"The key statistics {self.statistics_source.statistics!r} are those of layer {self.site.layer}, and layer "
                    f"{layer} is edited too; leave --stats out, or give --corpus."
                )
            self.check_unedited()
            self.further_statistics[site.path] = self.statistics_source.load(self.lm, site, self.seed, self.progress)
        return SiteState(site, self.further_statistics[site.path], self.prefix_cache_at(site))

    def hash_statistics(self, site: EditSite) -> str | None:
        """Return the hash of the key statistics of `site`; None where no edit has needed them."""
        statistics = self.statistics if site.path == self.site.path else self.further_statistics.get(site.path)
        return None if statistics is None else statistics.sha256

    def prefix_cache_at(self, site: EditSite) -> PrefixCache | None:
        """Return the states of the prefixes that enter the layer of `site` in the unedited model; None where there are none."""
        if self.prefix_cache is None or site.path == self.site.path:
            return self.prefix_cache
        if site.path not in self.states.prefix_caches:
            self.check_unedited()
            self.states.prefix_caches[site.path] = self._build_prefix_cache(site)
        return self.states.prefix_caches[site.path]

    def _build_prefix_cache(self, site: EditSite, lm: LanguageModel | None = None) -> PrefixCache | None:
        return build_prefix_cache(lm or self.lm, site, [prefix.text for prefix in self.prefixes.prefixes])

    def weight_norms(self, sites: Iterable[EditSite]) -> dict[str, float]:
        """Return ||W||_F of the weight at each of `sites` before its first edit, by path."""
        norms = {self.site.path: self.meter.weight_norm}
        for site in sites:
            if site.path not in norms:
                if site.path not in self.further_norms:
                    self.further_norms[site.path] = float(site.matrix().norm())
                norms[site.path] = self.further_norms[site.path]
        return norms

    def with_reference_engine(self) -> Setup:
        """Return the setup of the reference engine for the same model: no pass continues from a stored state.

        Key statistics, prefixes and calibration stay the same.
        """
        lm, settings = replace(self.lm, plain=True), replace(self.settings, engine=Engine.REFERENCE)
        meter = replace(self.meter, lm=lm, prefix_cache=None)
        return replace(self, lm=lm, settings=settings, meter=meter, prefix_cache=None, states=UneditedStates())

    def with_origin(self) -> Setup:
        """Return the setup for edits that are kept one after the other; the model as it is now is their origin."""
        origin = Origin(perplexity=self.bench_perplexity())
        origin.add(self.bench.weights)
        return replace(self, origin=origin)

    def after_kept_edit(self, sites: Iterable[EditSite]) -> Setup:
        """Return the setup for the model as it is now that an edit of `sites` was kept.

        A site's input does not depend on its own weight, so keys, statistics and the thresholds on keys hold at the lowest
        edited site. Above it keys are measured anew with each request; statistics and thresholds stay those from before the
        first edit. Updates are still measured by the norms of the weights before the first edit, as the threshold on their
        size was. The states of the prefixes are taken anew, as are all benches. Raises `EditguardError` where another tensor
        was written to as well.
        """
        weights = self.check_edited(sites)
        # A copy forgets the fingerprint, which is that of the unedited model.
        lm = replace(self.lm)
        cache = self.prefix_cache and self._build_prefix_cache(self.site, lm)
        meter = replace(self.meter, lm=lm, prefix_cache=cache)
        return replace(self, lm=lm, prefix_cache=cache, meter=meter, weights=weights, states=UneditedStates())

    def check_edited(self, sites: Iterable[EditSite]) -> tuple[int, ...]:
        """Return the checksum of all weights, with an edit of `sites` in them.

        Raises `EditguardError` where another tensor changed.
        """
        weights = compute_checksum(self.lm.model)
        edited = [site.weight for site in sites]
        tensors = [*self.lm.model.parameters(), *self.lm.model.buffers()]
        for tensor, before, now in zip(tensors, self.weights, weights, strict=True):
            if before != now and not any(tensor is weight for weight in edited):
                raise EditguardError(
                    "A tensor other than the edited weights was written to while an edit was checked. Load the model again, and "
                    "find the check that writes to the model."
                )
        return weights

    def check_unedited(self) -> None:
        """Raise `InputError` where the model is not the one that baselines and statistics were taken from, as it was then."""
        if self.lm.is_training:
            raise InputError(_training_mode(self.lm))
        if compute_checksum(self.lm.model) != self.weights:
            raise InputError(
                f"The weights of {self.lm.ref!r} are not those that this guard was prepared with: an edit was kept, or they "
                "were written to. An edit would be judged by another model's baselines; prepare the model again."
            )

    def bench_perplexity(self) -> float:
        """Return the mean perplexity of the unedited model on the corpus; raises `NotFinite` and `InputError`."""
        self.check_unedited()
        with self.bench.autocast():
            return Perplexity().baseline(self.bench).before.mean

    def baselines(self) -> dict[str, float]:
        """Return the unedited model's figures for the log: its mean perplexity as the checks compute it.

        Where checks compute in another dtype than the weights', the exact perplexity stands beside it and shows the error.
        """
        figures = {PERPLEXITY: self.bench_perplexity()}
        if self.check_dtype is not None:
            figures[EXACT_PERPLEXITY] = replace(self, check_dtype=None, states=UneditedStates()).bench_perplexity()
        return figures


def build_limits(policy: Policy) -> Limits:
    """Return the bounds of `policy` that checks judge by."""
    return Limits(
        perplexity_ratio=policy.max_perplexity_ratio,
        efficacy=policy.min_efficacy,
        locality=policy.min_locality,
        neighbour_answers=policy.min_neighbour_answers,
        generalization=policy.min_generalization,
        leaks=policy.max_leaks,
        target_rise=policy.max_target_rise,
        flips=policy.max_flips,
        near_tie=policy.near_tie,
        first_word_leaks=policy.max_first_word_leaks,
        other_fact_leaks=policy.max_other_fact_leaks,
        other_fact_flips=policy.max_other_fact_flips,
        repeats=policy.max_repeats,
        entropy_ratio=policy.min_entropy_ratio,
        relative_update=policy.max_relative_update,
        accumulated_ratio=policy.max_accumulated_ratio,
        accumulated_update=policy.max_accumulated_update,
        served=policy.require_served,
    )


def default_layer(lm: LanguageModel, site_path: str | None = None) -> int:
    """Return the layer to edit by default: measured for the embedded model, else a fifth of the way up.

    A fifth is where published edits of GPT-J (5 of 28) and Llama-2-7b (5 of 32) are made.
    """
    return EMBEDDED_LAYER if lm.ref == EMBEDDED_NAME else max(0, round(count_layers(lm.model, site_path) / 5) - 1)


def prepare(
    lm: LanguageModel,
    *,
    layer: int | None = None,
    site_path: str | None = None,
    policy: Policy | None = None,
    seed: int = 0,
    statistics: str | None = None,
    corpus: str | None = None,
    perplexity_corpus: tuple[str, ...] | None = None,
    settings: ValueSettings | None = None,
    check_dtype: torch.dtype | None = None,
    fresh: bool = False,
    progress: Progress = show_nothing,
) -> Setup:
    """Make a model ready. `GuardedEditor.load` describes each parameter; here no policy means the defaults.

    Raises `ModelError`, `PolicyError`, `StatisticsError` and `NotFinite`.
    """
    policy, settings = policy or Policy(), settings or ValueSettings()
    check_names(policy)
    _check_evaluation_mode(lm)
    require_finite_weights(lm.model, lm.ref)
    # A copy forgets the fingerprint, which may have been taken before an edit.
    lm = replace(lm, plain=lm.plain or settings.engine is Engine.REFERENCE)
    site = find_site(lm.model, default_layer(lm, site_path) if layer is None else layer, site_path)
    _check_causal(lm)
    store = PreparedStore.of(lm, seed, fresh=fresh)
    prefixes = prepare_prefixes(lm, seed, store, progress)
    cache = prepare_prefix_cache(lm, site, prefixes, store)
    source = StatisticsSource(statistics, corpus, fresh)
    meter = EvidenceMeter(
        lm=lm,
        site=site,
        statistics=source.load(lm, site, seed, progress),
        prefixes=prefixes,
        sink=torch.empty(0),  # known after the calibration
        weight_norm=float(site.matrix().norm()),
        clamp=settings.clamp,
        prefix_cache=cache,
    )
    sink, calibration = prepare_calibration(meter, store, progress)
    return Setup(
        lm=lm,
        site=site,
        statistics=meter.statistics,
        prefixes=prefixes,
        meter=replace(meter, sink=sink),
        calibration=calibration,
        policy=policy,
        settings=settings,
        corpus=load_builtin_corpus() if perplexity_corpus is None else perplexity_corpus,
        seed=seed,
        weights=compute_checksum(lm.model),
        base_fingerprint=lm.fingerprint,
        prefix_cache=cache,
        statistics_source=source,
        check_dtype=check_dtype,
        site_path=site_path,
        progress=progress,
    )


def _check_evaluation_mode(lm: LanguageModel) -> None:
    if lm.is_training:
        raise ModelError(_training_mode(lm))


def _training_mode(lm: LanguageModel) -> str:
    return f"The model {lm.ref!r} is in training mode, where dropout makes every measurement random; call model.eval()."


def _check_causal(lm: LanguageModel) -> None:
    if not lm.causal:
        raise ModelError(
            f"The model {lm.ref!r} ({lm.architecture}) writes no text, so edits of it can be neither made nor judged; take "
            "a causal language model, or read its keys in Python with editguard.probes.capture."
        )


def check_names(policy: Policy, path: Path | None = None) -> None:
    """Raise `PolicyError` where the policy (of the file `path`) names a probe or an editor that may not be named."""
    subject = "The policy" if path is None else f"The policy {str(path)!r}"
    try:
        for name in policy.rules:
            # A rule that is about no probe would leave the probe that was meant to its default.
            PROBES.get(name)
        find_editor(policy.editor)
        consistent = find_editor(policy.rewrite_editor).consistent
    except InputError as error:
        raise PolicyError(f"{subject} is not valid: {error}") from error
    if not consistent:
        raise PolicyError(
            f"{subject} rewrites edits with {policy.rewrite_editor!r}, whose keys are inconsistent, so that nothing would be "
            "guarded; set rewrite_editor to 'everywhere'."
        )


def check_editable(site: EditSite) -> None:
    """Raise `ModelError` where the site can be probed but not edited."""
    if not site.editable:
        raise ModelError(site.reason)

"""Everything that is the same for all requests of a run, prepared once: site, prefixes, statistics, calibration, bench.

The order is fixed: site, prefixes, key statistics, sink key, null sample. Key statistics from the default corpus take
longest. They stay in the cache folder under (model, site, corpus, seed).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..probes.calibration import Calibration, calibrate
from ..probes.errors import EditguardError, InputError, ModelError, PolicyError
from ..probes.evidence import EvidenceMeter, compute_sink_key
from ..probes.forward.prefix_cache import PrefixCache, build_prefix_cache
from ..probes.keys.prefixes import ContextPrefixes, make_prefixes
from ..probes.keys.subject_keys import locate
from ..probes.model.embedded import EMBEDDED_NAME
from ..probes.model.fingerprint import compute_checksum
from ..probes.model.finite_weights import require_finite_weights
from ..probes.model.site import EditSite, count_layers, find_site
from ..probes.probe import PROBES
from ..reports.log.types import EXACT_PERPLEXITY, PERPLEXITY
from ..suites.builtin import load_builtin_corpus, load_ordinary_requests
from ..suites.check import Bench, Limits, Origin
from ..suites.checks.perplexity import Perplexity
from .editors.base import EditContext, find_editor
from .editors.value import Engine, ValueSettings
from .key_statistics import load_or_compute_statistics
from .policy import Policy
from .progress import Progress, show_nothing

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from ..probes.keys.statistics import KeyStatistics
    from ..probes.model.language_model import LanguageModel
    from ..probes.requests.request import EditRequest

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
NULL_SAMPLE = 64
"""Ordinary subjects that thresholds are calibrated on."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A model made ready for audits. The log holds all of it, and a request that is undone changes none of it."""

    lm: LanguageModel
    site: EditSite
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
    memo: dict[str, Any] = field(default_factory=dict)
    """Values that checks computed once of the unedited model; the same under another policy."""
    check_dtype: torch.dtype | None = None
    """Dtype of the checks' matrix products; None for that of the weights."""
    site_path: str | None = None
    """Path of the site, with ``{layer}``, where the user gave it: for those who read other layers."""
    origin: Origin | None = None
    """The model before the first edit, where edits are kept one after the other."""
    progress: Progress = field(default=show_nothing, repr=False, compare=False)
    """Told how far the longest stage of an edit is, the search for v*."""

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
        )

    @cached_property
    def bench(self) -> Bench:
        """The part of the setup that checks work with; its baselines are taken when a check first needs them."""
        return Bench(
            lm=self.lm,
            site=self.site,
            prefixes=self.prefixes,
            corpus=self.corpus,
            limits=build_limits(self.policy),
            weight=self.site.matrix(),
            prefix_cache=self.prefix_cache,
            memo=self.memo,
            dtype=self.check_dtype,
            origin=self.origin,
        )

    def with_reference_engine(self) -> Setup:
        """Return the setup of the reference engine for the same model: no pass continues from a stored state.

        Key statistics, prefixes and calibration stay the same.
        """
        lm, settings = replace(self.lm, plain=True), replace(self.settings, engine=Engine.REFERENCE)
        meter = replace(self.meter, lm=lm, prefix_cache=None)
        return replace(self, lm=lm, settings=settings, meter=meter, prefix_cache=None, memo={})

    def with_origin(self) -> Setup:
        """Return the setup for edits that are kept one after the other; the model as it is now is their origin."""
        return replace(self, origin=Origin(self.bench_perplexity(), self.site.matrix()))

    def after_kept_edit(self) -> Setup:
        """Return the setup for the model as it is now that an edit at the site was kept.

        The site's input does not depend on its weight, so keys, statistics and the thresholds on keys hold. Updates are still
        measured by the norm of the weight before the first edit, as the threshold on their size was. The states of the
        prefixes above the site are taken anew. Raises `EditguardError` where another tensor was written to as well.
        """
        weights = self.check_edited()
        # A copy forgets the fingerprint, which is that of the unedited model.
        lm = replace(self.lm)
        cache = self.prefix_cache and build_prefix_cache(
            lm, self.site, [prefix.text for prefix in self.prefixes.prefixes]
        )
        meter = replace(self.meter, lm=lm, prefix_cache=cache)
        return replace(self, lm=lm, prefix_cache=cache, meter=meter, weights=weights, memo={})

    def check_edited(self) -> tuple[int, ...]:
        """Return the checksum of all weights, an edit at the site included; raises `EditguardError` where another one changed."""
        weights = compute_checksum(self.lm.model)
        tensors = [*self.lm.model.parameters(), *self.lm.model.buffers()]
        for tensor, before, now in zip(tensors, self.weights, weights, strict=True):
            if before != now and tensor is not self.site.weight:
                raise EditguardError(
                    "A tensor other than the edited weight was written to while an edit was checked. Load the model again, and "
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
            figures[EXACT_PERPLEXITY] = replace(self, check_dtype=None, memo={}).bench_perplexity()
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
    progress("sampling prefixes", 0, 1)
    prefixes = make_prefixes(lm, seed, lambda done, total: progress("sampling prefixes", done, total))
    cache = None if lm.plain else build_prefix_cache(lm, site, [prefix.text for prefix in prefixes.prefixes])
    key_statistics = load_or_compute_statistics(lm, site, statistics, corpus, seed=seed, progress=progress)
    sample = make_null_sample(lm, NULL_SAMPLE)
    progress("calibration", 0, len(sample))
    meter = EvidenceMeter(
        lm=lm,
        site=site,
        statistics=key_statistics,
        prefixes=prefixes,
        sink=compute_sink_key(lm, site, [request.prompt for request in sample]),
        weight_norm=float(site.matrix().norm()),
        clamp=settings.clamp,
        prefix_cache=cache,
    )
    return Setup(
        lm=lm,
        site=site,
        statistics=key_statistics,
        prefixes=prefixes,
        meter=meter,
        calibration=calibrate(meter, sample, lambda done, total: progress("calibration", done, total)),
        policy=policy,
        settings=settings,
        corpus=load_builtin_corpus() if perplexity_corpus is None else perplexity_corpus,
        seed=seed,
        weights=compute_checksum(lm.model),
        base_fingerprint=lm.fingerprint,
        prefix_cache=cache,
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
            "guarded; set rewrite_editor to 'prefixed'."
        )


def make_null_sample(lm: LanguageModel, size: int) -> tuple[EditRequest, ...]:
    """Return `size` requests about ordinary subjects: half in mid-prompt, half at its start, none a first token.

    Subjects at the start have more than one token. They are ordinary too, though fewer tokens stand before their last one.
    """
    requests = load_ordinary_requests()
    opening = [
        replace(request, id=f"{request.id}-first", prompt=f"{request.subject} is known for") for request in requests
    ]
    of_several_tokens = [request for request in opening if not locate(lm, request).is_first_token]
    half = min(size // 2, len(of_several_tokens))
    # Subjects at the start come from the end of the list, so that few subjects are in the sample twice.
    return (*requests[: size - half], *of_several_tokens[len(of_several_tokens) - half :])


def check_editable(site: EditSite) -> None:
    """Raise `ModelError` where the site can be probed but not edited."""
    if not site.editable:
        raise ModelError(site.reason)

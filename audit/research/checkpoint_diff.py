"""Two checkpoints side by side: the changes of the weights, their effect on the model, and the subject they may concern.

Order: tokenizers and configurations; tensors, one of each side in memory at a time; then each model by itself, base before
edited; then the verdict, ``diff.json``, and ``diff.html`` made from it alone. A comparison asks whether the edited model is
still a model. Its facts are the subject of an audit.
"""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, NamedTuple

from ...probes.errors import NotFinite
from ...probes.model.checkpoint import open_checkpoint
from ...probes.model.folders.differences import compare_folders
from ...probes.model.folders.gguf_file import describe_conversion, is_gguf_file
from ...probes.model.language_model import LanguageModel, load_model
from ...probes.model.site import find_site
from ...reports.html.diff_page import Behaviour, Difference, DiffFile, TensorState, TextPair, render_diff
from ...reports.log.file import write_atomic
from ...suites.builtin import load_builtin_corpus
from ...suites.checks.degeneracy import FIXED_PROMPT_TOKENS, FIXED_PROMPTS, generate, word_entropy
from ...suites.checks.perplexity import CorpusPerplexity
from ..folders.file_names import DIFF
from ..folders.file_names import DIFF_PAGE as PAGE
from ..policy import Policy
from .object_search import search_objects
from .subject_search import check_search_inputs, search_subjects
from .weight_comparison import iter_tensor_changes, list_broken_tensors, spectra_by_site, summarise_weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ...probes.requests.request import EditRequest
    from ...probes.research.tensor_change import Spectrum
    from ..progress import Progress

__all__ = ["DIFF", "PAGE", "run_diff"]


class _ModelReading(NamedTuple):
    """Fingerprint, perplexity and texts of one model."""

    fingerprint: str
    perplexity: float | None
    texts: list[str]


def run_diff(
    base: str,
    edited: str,
    out: Path,
    *,
    policy: Policy | None = None,
    subjects: Sequence[EditRequest] | None = None,
    statistics: str | None = None,
    corpus: str | None = None,
    seed: int = 0,
    device: str = "auto",
    dtype: str = "auto",
    require_change: bool = False,
    progress: Progress = lambda *_: None,
) -> DiffFile:
    """Compare two checkpoints and write both files into the folder `out`.

    With `subjects` each change of low rank at a down-projection is searched for the subjects that it was made for, by the
    base's key statistics; a search that cannot be made is in the report as not measured, and judges nothing. With
    `require_change` a comparison fails where no tensor changed by more than rounding. Raises `InputError` where there are too
    few subjects, before anything is read, and `ModelError` where a checkpoint cannot be read or is no causal language model.
    """
    policy = policy or Policy()
    if subjects is not None:
        check_search_inputs(subjects, statistics, corpus)
    pair = open_checkpoint(base), open_checkpoint(edited)
    differences = [
        Difference.model_validate(asdict(difference)) for difference in compare_folders(*(side.folder for side in pair))
    ]
    changes = list(iter_tensor_changes(*pair, progress))
    lm = load_model(base, device=device, dtype=dtype)
    before = _read_model(lm, progress, "the base")
    spectra = spectra_by_site(lm, changes)
    search = partial(search_subjects, statistics=statistics, corpus=corpus, seed=seed, progress=progress)
    searches = [] if subjects is None else search(lm, spectra, subjects)
    objects = search_objects(lm, spectra)
    del lm
    after = _read_model(load_model(edited, device=device, dtype=dtype), progress, "the edited model")
    weights = summarise_weights(pair, changes, folders_differ=bool(differences))
    behaviour = _compare_behaviour(before, after, policy)
    reasons = [
        *([weights.summary] if require_change and weights.state is not TensorState.CHANGED else []),
        *(f"{difference.file}: {difference.sentence}." for difference in differences),
        *list_broken_tensors(weights.changes),
        *_list_behaviour_faults(behaviour),
    ]
    comparison = DiffFile(
        editguard_version=version("editguard"),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        base=base,
        edited=edited,
        base_fingerprint=before.fingerprint,
        edited_fingerprint=after.fingerprint,
        notes=[describe_conversion(side) for side in (base, edited) if is_gguf_file(side)],
        differences=differences,
        behaviour=behaviour,
        searches=searches,
        not_searched=_explain_no_search(spectra, wanted=subjects is not None) if not searches else None,
        objects=objects,
        objects_not_searched=None if objects else _explain_no_search(spectra, wanted=True),
        verdict="fail" if reasons else "pass",
        reasons=reasons,
        written=_pair_texts(before, after),
        **weights._asdict(),
    )
    write_atomic(out / DIFF, comparison.model_dump_json(indent=2) + "\n")
    write_atomic(out / PAGE, render_diff(comparison))
    return comparison


def _explain_no_search(spectra: Mapping[str, Spectrum], *, wanted: bool) -> str:
    """Say why nothing was searched; `wanted` is whether there was anything to search among."""
    if not spectra:
        return "No down-projection changed."
    assert not wanted, "a changed down-projection is searched, or has its own reason"
    return "No candidates were given; add --subjects."


# -------------------------------------------------------------------------------------------------------- behaviour


def _read_model(lm: LanguageModel, progress: Progress, what: str) -> _ModelReading:
    progress(f"reading {what}", 0, 1)
    try:
        scores = CorpusPerplexity(replace(lm, plain=True), find_site(lm.model, 0), load_builtin_corpus()).before
        perplexity = scores.mean if math.isfinite(scores.mean) else None
    except NotFinite:
        perplexity = None
    texts = lm.tokenizer.batch_decode(generate(lm, FIXED_PROMPTS, FIXED_PROMPT_TOKENS), skip_special_tokens=True)
    progress(f"reading {what}", 1, 1)
    return _ModelReading(lm.fingerprint, perplexity, list(texts))


def _pair_texts(before: _ModelReading, after: _ModelReading) -> list[TextPair]:
    return [
        TextPair(prompt=prompt, base=old, edited=new)
        for prompt, old, new in zip(FIXED_PROMPTS, before.texts, after.texts, strict=True)
    ]


def _compare_behaviour(before: _ModelReading, after: _ModelReading, policy: Policy) -> Behaviour:
    old, new = (sum(map(word_entropy, reading.texts)) for reading in (before, after))
    ratio = None
    if before.perplexity is not None and after.perplexity is not None:
        ratio = after.perplexity / before.perplexity
    return Behaviour(
        base_perplexity=before.perplexity,
        edited_perplexity=after.perplexity,
        ratio=None if ratio is None or not math.isfinite(ratio) else ratio,
        max_ratio=policy.max_perplexity_ratio,
        collapse_ratio=policy.collapse_ratio,
        entropy_ratio=new / old if old else None,
        min_entropy_ratio=policy.min_entropy_ratio,
    )


def _list_behaviour_faults(behaviour: Behaviour) -> list[str]:
    reasons = []
    if behaviour.ratio is None:
        reasons.append("The perplexity could not be measured.")
    elif behaviour.ratio > behaviour.max_ratio:
        collapsed = behaviour.ratio > behaviour.collapse_ratio
        what, bound = ("collapsed", behaviour.collapse_ratio) if collapsed else ("is damaged", behaviour.max_ratio)
        reasons.append(f"The model {what}: its perplexity is {behaviour.ratio:.4g} times the base's, bound {bound:g}.")
    if behaviour.entropy_ratio is None:
        reasons.append("The word entropy of its text could not be compared, since the base's is 0.")
    elif behaviour.entropy_ratio < behaviour.min_entropy_ratio:
        reasons.append(
            f"The word entropy of its text is {behaviour.entropy_ratio:.3g} of the base's, least {behaviour.min_entropy_ratio:g}."
        )
    return reasons

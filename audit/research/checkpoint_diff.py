"""Two checkpoints side by side: the changes of the weights, their effect on the model, and the subject they may concern.

Order: tensors first, one of each side in memory at a time; then each model by itself, base before edited; then the verdict,
``diff.json``, and ``diff.html`` made from it alone. A comparison asks whether the edited model is still a model. Its
facts are the subject of an audit.
"""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, NamedTuple

from ...probes.errors import NotFinite
from ...probes.model.checkpoint import Checkpoint, open_checkpoint
from ...probes.model.language_model import LanguageModel, load_model
from ...probes.model.site import find_site
from ...probes.research.tensor_change import Spectrum, TensorChange, compare_tensors, has_same_bits
from ...reports.html.diff_page import Behaviour, DiffFile, TensorRecord, TextPair, render_diff
from ...reports.log.file import write_atomic
from ...suites.builtin import load_builtin_corpus
from ...suites.checks.degeneracy import FIXED_PROMPT_TOKENS, FIXED_PROMPTS, generate, word_entropy
from ...suites.checks.perplexity import CorpusPerplexity
from ..folders.file_names import DIFF
from ..folders.file_names import DIFF_PAGE as PAGE
from ..policy import Policy
from .subject_search import check_search_inputs, search_subjects

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ...probes.requests.request import EditRequest
    from ..progress import Progress

__all__ = ["DIFF", "PAGE", "iter_tensor_changes", "run_diff"]


class _TensorDifference(NamedTuple):
    record: TensorRecord
    difference: TensorChange | None


class _ModelReading(NamedTuple):
    """Perplexity and texts of one model."""

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
    progress: Progress = lambda *_: None,
) -> DiffFile:
    """Compare two checkpoints and write both files into the folder `out`.

    With `subjects` each change of rank one at a down-projection is searched for the subject that it was made for, by the
    base's key statistics; a search that cannot be made is in the report as not measured, and judges nothing. Raises
    `InputError` where there are too few of them, before anything is read, and `ModelError` where a checkpoint cannot be read
    or is no causal language model.
    """
    policy = policy or Policy()
    if subjects is not None:
        check_search_inputs(subjects, statistics, corpus)
    pair = open_checkpoint(base), open_checkpoint(edited)
    changes = list(iter_tensor_changes(*pair, progress))
    lm = load_model(base, device=device, dtype=dtype)
    before = _read_model(lm, progress, "the base")
    searches = []
    if subjects is not None:
        searches = search_subjects(
            lm, _list_spectra(changes), subjects, statistics=statistics, corpus=corpus, seed=seed, progress=progress
        )
    del lm
    after = _read_model(load_model(edited, device=device, dtype=dtype), progress, "the edited model")
    behaviour = _compare_behaviour(before, after, policy)
    records = [change.record for change in changes]
    reasons = [*_list_broken_tensors(records), *_list_behaviour_faults(behaviour)]
    common = set(pair[0].files) & set(pair[1].files)
    comparison = DiffFile(
        editguard_version=version("editguard"),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        base=base,
        edited=edited,
        tensors=len(common),
        unchanged=len(common - {record.name for record in records}),
        changes=records,
        behaviour=behaviour,
        searches=searches,
        verdict="fail" if reasons else "pass",
        reasons=reasons,
        written=_pair_texts(before, after),
    )
    write_atomic(out / DIFF, comparison.model_dump_json(indent=2) + "\n")
    write_atomic(out / PAGE, render_diff(comparison))
    return comparison


# ---------------------------------------------------------------------------------------------------------- weights


def iter_tensor_changes(
    base: Checkpoint, edited: Checkpoint, progress: Progress = lambda *_: None
) -> Iterator[_TensorDifference]:
    """Yield what differs, in order of names; one tensor of each side is in memory at a time."""
    names = sorted(set(base.files) | set(edited.files))
    for index, name in enumerate(names):
        progress("tensors", index, len(names))
        change = _compare_tensor(base, edited, name)
        if change is not None:
            yield change
    progress("tensors", len(names), len(names))


def _compare_tensor(base: Checkpoint, edited: Checkpoint, name: str) -> _TensorDifference | None:
    if name not in edited.files:
        return _describe_one_sided(base, edited, name, "missing")
    if name not in base.files:
        return _describe_one_sided(edited, base, name, "new")
    old, new = base.tensor(name), edited.tensor(name)
    if has_same_bits(old, new):
        return None
    shape, dtype = list(new.shape), str(new.dtype).removeprefix("torch.")
    if old.shape != new.shape:
        return _TensorDifference(TensorRecord(name=name, status="shape", shape=shape, dtype=dtype), None)
    if old.dtype != new.dtype and has_same_bits(old.to(new.dtype), new):
        return _TensorDifference(TensorRecord(name=name, status="dtype", shape=shape, dtype=dtype), None)
    difference = compare_tensors(old, new)
    spectrum = difference.spectrum
    record = TensorRecord(
        name=name,
        status="changed",
        shape=shape,
        dtype=dtype,
        norm=_finite_or_none(difference.norm),
        relative=_finite_or_none(difference.relative),
        largest=_finite_or_none(difference.largest),
        share=difference.share,
        effective_rank=None if spectrum is None else spectrum.effective,
        first_share=None if spectrum is None else spectrum.first_share,
        rank=None if spectrum is None else spectrum.rank.value,
        exact=spectrum is None or spectrum.exact,
        finite=math.isfinite(difference.norm),
    )
    return _TensorDifference(record, difference)


def _describe_one_sided(here: Checkpoint, there: Checkpoint, name: str, status: str) -> _TensorDifference:
    """A tensor of one side: lost or new, unless it is a copy of one that both have, as tied weights are saved."""
    own = here.tensor(name)
    same_shape = (other for other in sorted(set(here.files) & set(there.files)))
    tied = any(has_same_bits(own, here.tensor(other)) for other in same_shape if own.ndim > 1)
    return _TensorDifference(
        TensorRecord.model_validate(
            {
                "name": name,
                "status": "tied" if tied else status,
                "shape": list(own.shape),
                "dtype": str(own.dtype).removeprefix("torch."),
            }
        ),
        None,
    )


def _list_spectra(changes: Sequence[_TensorDifference]) -> dict[str, Spectrum]:
    """Return the spectrum of each changed matrix, by the name of its tensor."""
    return {
        change.record.name: change.difference.spectrum
        for change in changes
        if change.difference and change.difference.spectrum
    }


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


# -------------------------------------------------------------------------------------------------------- behaviour


def _read_model(lm: LanguageModel, progress: Progress, what: str) -> _ModelReading:
    progress(f"reading {what}", 0, 1)
    try:
        scores = CorpusPerplexity(replace(lm, plain=True), find_site(lm.model, 0), load_builtin_corpus()).before
        perplexity = _finite_or_none(scores.mean)
    except NotFinite:
        perplexity = None
    texts = lm.tokenizer.batch_decode(generate(lm, FIXED_PROMPTS, FIXED_PROMPT_TOKENS), skip_special_tokens=True)
    progress(f"reading {what}", 1, 1)
    return _ModelReading(perplexity, list(texts))


def _pair_texts(before: _ModelReading, after: _ModelReading) -> list[TextPair]:
    return [
        TextPair(prompt=prompt, base=old, edited=new)
        for prompt, old, new in zip(FIXED_PROMPTS, before.texts, after.texts, strict=True)
    ]


def _compare_behaviour(before: _ModelReading, after: _ModelReading, policy: Policy) -> Behaviour:
    old, new = (sum(map(word_entropy, reading.texts)) for reading in (before, after))
    ratio = None
    if before.perplexity is not None and after.perplexity is not None:
        ratio = _finite_or_none(after.perplexity / before.perplexity)
    return Behaviour(
        base_perplexity=before.perplexity,
        edited_perplexity=after.perplexity,
        ratio=ratio,
        max_ratio=policy.max_perplexity_ratio,
        collapse_ratio=policy.collapse_ratio,
        entropy_ratio=new / old if old else None,
        min_entropy_ratio=policy.min_entropy_ratio,
    )


def _list_broken_tensors(records: Sequence[TensorRecord]) -> list[str]:
    reasons = [
        f"The tensor {record.name} is {record.status}." for record in records if record.status in ("missing", "new")
    ]
    reasons += [f"The tensor {record.name} has another shape." for record in records if record.status == "shape"]
    return reasons + [f"The tensor {record.name} holds NaN or Inf." for record in records if not record.finite]


def _list_behaviour_faults(behaviour: Behaviour) -> list[str]:
    reasons = []
    if behaviour.ratio is None:
        reasons.append("The perplexity could not be measured.")
    elif behaviour.ratio > behaviour.max_ratio:
        what = "collapsed" if behaviour.ratio > behaviour.collapse_ratio else "is damaged"
        reasons.append(
            f"The model {what}: its perplexity is {behaviour.ratio:.4g} times the base's, bound {behaviour.max_ratio:g}."
        )
    if behaviour.entropy_ratio is None:
        reasons.append("The word entropy of its text could not be compared, since the base's is 0.")
    elif behaviour.entropy_ratio < behaviour.min_entropy_ratio:
        reasons.append(
            f"The word entropy of its text is {behaviour.entropy_ratio:.3g} of the base's, least {behaviour.min_entropy_ratio:g}."
        )
    return reasons

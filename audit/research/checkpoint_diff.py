"""Two checkpoints side by side: what changed in the weights, what that does to the model, and whose fact it may be.

Order: tensors first, one of each side in memory at a time; then each model by itself, base before edited; then the verdict,
``diff.json``, and ``diff.html`` made from it alone. A comparison asks whether the edited model is still a model. Whether
its facts are right is for an audit to ask.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from ...probes.errors import NotFinite
from ...probes.model.checkpoint import Checkpoint, open_checkpoint
from ...probes.model.language_model import LanguageModel, load_model
from ...probes.model.site import find_site
from ...probes.requests.request import EditRequest
from ...probes.research.tensor_change import TensorChange, compare, same_bits
from ...reports.html.diff_page import Behaviour, Changed, DiffFile, Written, render_diff
from ...reports.log.file import write_atomic
from ...suites.builtin import load_builtin_corpus
from ...suites.checks.degeneracy import FIXED_PROMPT_TOKENS, FIXED_PROMPTS, generate, word_entropy
from ...suites.checks.perplexity import CorpusPerplexity
from ..policy import Policy
from ..run.file_names import DIFF
from ..run.file_names import DIFF_PAGE as PAGE
from ..setup import Progress
from .subject_search import check_asked, search

__all__ = ["DIFF", "PAGE", "run_diff", "tensor_changes"]


class _Change(NamedTuple):
    record: Changed
    found: TensorChange | None


class _Read(NamedTuple):
    """What one model does."""

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
        check_asked(subjects, statistics, corpus)
    pair = open_checkpoint(base), open_checkpoint(edited)
    changes = list(tensor_changes(*pair, progress))
    lm = load_model(base, device=device, dtype=dtype)
    before = _read(lm, progress, "the base")
    spectra = {one.record.name: one.found.spectrum for one in changes if one.found and one.found.spectrum}
    searches = search(lm, spectra, subjects, statistics, corpus, seed, progress) if subjects is not None else []
    del lm
    after = _read(load_model(edited, device=device, dtype=dtype), progress, "the edited model")
    behaviour = _behaviour(before, after, policy)
    records = [one.record for one in changes]
    reasons = [*_broken(records), *_misbehaved(behaviour)]
    names = set(pair[0].files) & set(pair[1].files)
    found = DiffFile(
        editguard_version=version("editguard"), created=datetime.now(UTC).isoformat(timespec="seconds"), base=base,
        edited=edited, tensors=len(names), unchanged=len(names - {one.name for one in records}), changes=records,
        behaviour=behaviour, searches=searches, verdict="fail" if reasons else "pass", reasons=reasons,
        written=[
            Written(prompt=prompt, base=old, edited=new)
            for prompt, old, new in zip(FIXED_PROMPTS, before.texts, after.texts, strict=True)
        ],
    )  # fmt: skip
    write_atomic(out / DIFF, found.model_dump_json(indent=2) + "\n")
    write_atomic(out / PAGE, render_diff(found))
    return found


# ---------------------------------------------------------------------------------------------------------- weights


def tensor_changes(base: Checkpoint, edited: Checkpoint, progress: Progress = lambda *_: None) -> Iterator[_Change]:
    """Yield what differs, in order of names; one tensor of each side is in memory at a time."""
    names = sorted(set(base.files) | set(edited.files))
    for index, name in enumerate(names):
        progress("tensors", index, len(names))
        found = _change(base, edited, name)
        if found is not None:
            yield found
    progress("tensors", len(names), len(names))


def _change(base: Checkpoint, edited: Checkpoint, name: str) -> _Change | None:
    if name not in edited.files:
        return _one_sided(base, edited, name, "missing")
    if name not in base.files:
        return _one_sided(edited, base, name, "new")
    old, new = base.tensor(name), edited.tensor(name)
    if same_bits(old, new):
        return None
    shape, dtype = list(new.shape), str(new.dtype).removeprefix("torch.")
    if old.shape != new.shape:
        return _Change(Changed(name=name, status="shape", shape=shape, dtype=dtype), None)
    if old.dtype != new.dtype and same_bits(old.to(new.dtype), new):
        return _Change(Changed(name=name, status="dtype", shape=shape, dtype=dtype), None)
    found = compare(old, new)
    seen = found.spectrum
    record = Changed(
        name=name, status="changed", shape=shape, dtype=dtype, norm=_finite(found.norm),
        relative=_finite(found.relative), largest=_finite(found.largest), share=found.share,
        effective_rank=None if seen is None else seen.effective, first_share=None if seen is None else seen.first_share,
        rank=None if seen is None else seen.rank.value, exact=seen is None or seen.exact,
        finite=math.isfinite(found.norm),
    )  # fmt: skip
    return _Change(record, found)


def _one_sided(here: Checkpoint, there: Checkpoint, name: str, status: str) -> _Change:
    """A tensor of one side: lost or new, unless it is a copy of one that both have, as tied weights are saved."""
    own = here.tensor(name)
    same_shape = (other for other in sorted(set(here.files) & set(there.files)))
    tied = any(same_bits(own, here.tensor(other)) for other in same_shape if own.ndim > 1)
    return _Change(
        Changed.model_validate(
            {"name": name, "status": "tied" if tied else status, "shape": list(own.shape),
             "dtype": str(own.dtype).removeprefix("torch.")}
        ), None,
    )  # fmt: skip


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


# -------------------------------------------------------------------------------------------------------- behaviour


def _read(lm: LanguageModel, progress: Progress, what: str) -> _Read:
    progress(f"reading {what}", 0, 1)
    try:
        scores = CorpusPerplexity(replace(lm, plain=True), find_site(lm.model, 0), load_builtin_corpus()).before
        perplexity = _finite(scores.mean)
    except NotFinite:
        perplexity = None
    texts = lm.tokenizer.batch_decode(generate(lm, FIXED_PROMPTS, FIXED_PROMPT_TOKENS), skip_special_tokens=True)
    progress(f"reading {what}", 1, 1)
    return _Read(perplexity, list(texts))


def _behaviour(before: _Read, after: _Read, policy: Policy) -> Behaviour:
    old, new = (sum(map(word_entropy, one.texts)) for one in (before, after))
    measured = before.perplexity is not None and after.perplexity is not None
    return Behaviour(
        base_perplexity=before.perplexity, edited_perplexity=after.perplexity,
        ratio=_finite(after.perplexity / before.perplexity) if measured else None,  # type: ignore[operator]
        max_ratio=policy.max_perplexity_ratio, collapse_ratio=policy.collapse_ratio,
        entropy_ratio=new / old if old else None, min_entropy_ratio=policy.min_entropy_ratio,
    )  # fmt: skip


def _broken(records: Sequence[Changed]) -> list[str]:
    found = [f"The tensor {one.name} is {one.status}." for one in records if one.status in ("missing", "new")]
    found += [f"The tensor {one.name} has another shape." for one in records if one.status == "shape"]
    return found + [f"The tensor {one.name} holds NaN or Inf." for one in records if not one.finite]


def _misbehaved(seen: Behaviour) -> list[str]:
    found = []
    if seen.ratio is None:
        found.append("The perplexity could not be measured.")
    elif seen.ratio > seen.max_ratio:
        what = "collapsed" if seen.ratio > seen.collapse_ratio else "is damaged"
        found.append(
            f"The model {what}: its perplexity is {seen.ratio:.4g} times the base's, bound {seen.max_ratio:g}."
        )
    if seen.entropy_ratio is None:
        found.append("The word entropy of its text could not be compared, since the base's is 0.")
    elif seen.entropy_ratio < seen.min_entropy_ratio:
        found.append(
            f"The word entropy of its text is {seen.entropy_ratio:.3g} of the base's, least {seen.min_entropy_ratio:g}."
        )
    return found

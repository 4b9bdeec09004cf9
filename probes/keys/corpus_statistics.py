"""Key statistics from text: documents in, C out, in one streamed and resumable pass up to the edited layer.

Several layers share a pass, which ends after the deepest; only the pass for one layer is resumable.

Order: documents are cut into windows, windows into fixed groups; each group's keys are multiplied in fp32 and added to
a float64 sum. After every few groups the sum is saved beside the result, so that a killed pass goes on where it was
and ends with the same bits. The default corpus is text sampled from the model itself, which needs no download.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..errors import NotFinite, StatisticsError
from ..forward.batches import batches, each_fitting, pad
from ..forward.hooks import pad_id, stop_after_all
from ..forward.onednn import gram
from ..wording import first_line
from .running_sums import RunningSums, read_sums, write_sums
from .statistics import KeyStatistics, StatisticsProvenance

if TYPE_CHECKING:
    from ..model.language_model import LanguageModel
    from ..model.site import EditSite

__all__ = ["DEFAULT_CORPUS", "Corpus", "compute_all_statistics", "compute_statistics", "read_corpus", "sample_corpus"]

_WINDOW = 256
"""Tokens of one window; keys of later positions than this differ little, and the pass stays linear."""
_GROUP = 32
_DOCUMENTS, _TOKENS, _TOP_K = 128, 78, 50
DEFAULT_CORPUS = f"sampled, {_DOCUMENTS} texts of {_TOKENS} tokens, top-k {_TOP_K}"
"""How the default corpus is made."""
_OPENINGS = (
    "The", "In the", "A", "When", "It is", "There are", "He", "She", "They", "We", "I", "You", "If", "As", "After", "For",
    "One of the", "During", "Although", "Many", "Some", "This", "At", "On", "By", "From", "What", "How", "Why", "Most", "To",
    "Every",
)  # fmt: skip


@dataclass(frozen=True)
class Corpus:
    """Documents with a description; the hash is over their text."""

    documents: tuple[str, ...]
    source: str

    @property
    def sha256(self) -> str:
        """Hash of the documents, in order."""
        digest = hashlib.sha256()
        for document in self.documents:
            digest.update(document.encode("utf-8", "surrogatepass") + b"\0")
        return digest.hexdigest()


def sample_corpus(
    lm: LanguageModel, *, seed: int, documents: int = _DOCUMENTS, tokens: int = _TOKENS, least: int = 0
) -> Corpus:
    """Return text sampled from the model itself at temperature 1, reproducible from the seed on one machine.

    More documents than asked for where they would hold fewer than `least` tokens.
    """
    from ..forward.generation import sampled

    documents = max(documents, math.ceil(least / tokens))
    special = 1 if lm.adds_bos else 0
    starts = [lm.tokenizer(_OPENINGS[index % len(_OPENINGS)]).input_ids[: special + 1] for index in range(documents)]
    found = sampled(lm, starts, tokens, seed=seed, top_k=_TOP_K)
    texts = lm.tokenizer.batch_decode(
        [start + new for start, new in zip(starts, found, strict=True)], skip_special_tokens=True
    )
    return Corpus(tuple(texts), f"{documents} texts of up to {tokens} tokens sampled from the model, seed {seed}")


def read_corpus(source: str) -> Corpus:
    """Read documents from a text file (one a line), JSON, JSONL or CSV (field ``text``), or ``hf://dataset[:split]``.

    Raises `StatisticsError`.
    """
    path, hub = Path(source), source.startswith("hf://")
    try:
        found = _from_hub(source) if hub else _from_file(path)
        documents = tuple(text for text in found if text.strip())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, csv.Error) as error:
        raise StatisticsError(
            f"The corpus {source!r} cannot be read ({type(error).__name__}: {first_line(error)}); give a text file with one "
            "document a line, or JSON, JSONL or CSV with a field 'text'."
        ) from error
    if not documents:
        raise StatisticsError(f"The corpus {source!r} holds no text; give a file with one document a line.")
    return Corpus(documents, source if hub else path.name)


def _from_file(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".json":
        records = json.loads(text)
        if not isinstance(records, list):
            # A record's keys, or a text's characters, would pass for documents.
            raise ValueError("the file holds no list")
        yield from (_text(record) for record in records)
    elif path.suffix in {".jsonl", ".ndjson"}:
        # Not splitlines: JSON allows U+2028 and its like inside a text.
        yield from (_text(json.loads(line)) for line in text.split("\n") if line.strip())
    elif path.suffix == ".csv":
        yield from (_text(record) for record in csv.DictReader(io.StringIO(text, newline="")))
    else:
        yield from text.splitlines()


def _text(record: object) -> str:
    if isinstance(record, str):
        return record
    if isinstance(record, dict):
        for name in ("text", "Text", "content"):
            if isinstance(record.get(name), str):
                return str(record[name])
    raise ValueError("a record has no field 'text'")


def _from_hub(source: str, most: int = 10_000) -> Iterator[str]:
    from datasets import load_dataset

    name, _, split = source.removeprefix("hf://").partition(":")
    try:
        rows = load_dataset(name, split=split or "train", streaming=True)
        yield from (_text(row) for row in islice(rows, most))
    except (OSError, ValueError, RuntimeError) as error:
        raise StatisticsError(
            f"The dataset {source!r} cannot be read ({type(error).__name__}); check its name, its split and the connection."
        ) from error


def compute_statistics(
    lm: LanguageModel,
    site: EditSite,
    corpus: Corpus,
    *,
    partial: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> KeyStatistics:
    """Return C of `site` over all tokens of `corpus`.

    `partial` is a file for the running sum, so that a killed pass resumes; `progress` is called with (done, of all)
    groups. Raises `NotFinite` when a key is not finite and `StatisticsError` when the corpus has no tokens.
    """
    groups = _groups(lm, corpus)
    stamp = f"{lm.fingerprint}:{site.path}:{corpus.sha256}:{_WINDOW}:{_GROUP}:{lm.product_library}:{lm.plain}"
    sums = begun = read_sums(partial, stamp) or RunningSums.zeros([site.d_ff])
    for sums in _summed(lm, [site], groups, begun):
        if partial is not None and sums.groups % 4 == 0:
            write_sums(partial, stamp, sums)
        if progress is not None:
            progress(sums.groups, len(groups))
    (found,) = _divided(lm, [site], corpus, sums)
    if partial is not None:
        partial.unlink(missing_ok=True)
    return found


def compute_all_statistics(
    lm: LanguageModel,
    sites: Sequence[EditSite],
    corpus: Corpus,
    progress: Callable[[int, int], None] | None = None,
) -> list[KeyStatistics]:
    """Return C of each of `sites` (one at least) over all tokens of `corpus`, in one pass that ends after the deepest of them.

    Each is to the bit what `compute_statistics` returns for its site, and raises what that raises. Memory: 16 bytes
    times d_ff squared a site at the end, half of it before.
    """
    groups = _groups(lm, corpus)
    sums = begun = RunningSums.zeros([site.d_ff for site in sites])
    for sums in _summed(lm, sites, groups, begun):
        if progress is not None:
            progress(sums.groups, len(groups))
    return _divided(lm, sites, corpus, sums)


def _groups(lm: LanguageModel, corpus: Corpus) -> list[list[list[int]]]:
    windows = list(_windows(lm, corpus.documents))
    return [windows[start : start + _GROUP] for start in range(0, len(windows), _GROUP)]


def _windows(lm: LanguageModel, documents: Sequence[str]) -> Iterator[list[int]]:
    for document in documents:
        ids = lm.tokenizer(document).input_ids
        yield from (ids[start : start + _WINDOW] for start in range(0, len(ids), _WINDOW))


def _summed(
    lm: LanguageModel, sites: Sequence[EditSite], groups: Sequence[Sequence[list[int]]], begun: RunningSums
) -> Iterator[RunningSums]:
    """Yield the sums after each group that `begun` does not hold yet; its totals are added to in place."""
    _, tokens, done = begun
    for group in groups[begun.groups :]:
        for members, products in each_fitting(
            batches([len(row) for row in group]), functools.partial(_products, lm, sites, group)
        ):
            for index, product in products.items():
                begun.totals[index].add_(product)
            tokens += sum(len(group[index]) for index in members)
        done += 1
        yield RunningSums(begun.totals, tokens, done)


def _products(
    lm: LanguageModel, sites: Sequence[EditSite], group: Sequence[list[int]], members: Sequence[int]
) -> dict[int, torch.Tensor]:
    """Return by the site's index the sum of outer products of the keys of some rows of `group` [d_ff, d_ff], fp32, on the CPU."""
    found: dict[int, torch.Tensor] = {}
    batch = pad([group[index] for index in members], pad_id(lm), lm.device)
    add = functools.partial(_add, sites, found, lm.plain, batch.attention_mask.bool().flatten())
    with torch.no_grad(), stop_after_all([site.module for site in sites], add):
        lm.run(**batch._asdict(), **({"use_cache": False} if lm.causal else {}))
    return found


def _add(
    sites: Sequence[EditSite],
    found: dict[int, torch.Tensor],
    plain: bool,
    real: torch.Tensor,
    index: int,
    given: torch.Tensor,
    _: torch.Tensor,
) -> None:
    """Enter the sum of outer products of one batch's `real` keys at the site `index`."""
    # Some models (OPT) run their MLP on [rows * tokens, features].
    keys = given.flatten(0, -2)[real.to(given.device)].float()
    if not bool(torch.isfinite(keys).all()):
        raise NotFinite(
            f"A key at {sites[index].path} is NaN or Inf on ordinary text, so the model is broken before any edit; check "
            "its weights and dtype."
        )
    found[index] = gram(keys, plain=plain or given.dtype != keys.dtype).cpu()


def _divided(lm: LanguageModel, sites: Sequence[EditSite], corpus: Corpus, sums: RunningSums) -> list[KeyStatistics]:
    """Return the means with their provenance; raises `StatisticsError` for too few tokens."""
    widest, digest = max(site.d_ff for site in sites), corpus.sha256
    if sums.tokens < widest:
        raise StatisticsError(
            f"The corpus {corpus.source!r} holds {sums.tokens} tokens, fewer than the {widest} features of a key, so that C "
            "has no inverse of its own; give more text."
        )
    return [
        KeyStatistics(
            total / sums.tokens,
            StatisticsProvenance("corpus", corpus.source, lm.fingerprint, site.layer, digest, sums.tokens),
        )
        for site, total in zip(sites, sums.totals, strict=True)
    ]

"""Key statistics from text: from documents to C, in one streamed and resumable pass up to the edited layer.

Several layers share a pass, which ends after the deepest of them. Only the pass for one layer is resumable.

Documents are cut into windows, and windows into fixed groups.
The keys of a group are multiplied in fp32 and added to a float64 sum.
The sum is saved beside the result after every few groups.
A killed pass therefore resumes, and ends with the same bits.
The default corpus is text sampled from the model itself, which needs no download.
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
from ..forward.batches import pad, run_fitting, split_batches
from ..forward.hooks import get_pad_id, stop_after_all
from ..forward.onednn import compute_gram
from ..wording import first_line
from .running_sums import RunningSums, read_sums, write_sums
from .statistics import KeyStatistics, StatisticsProvenance

if TYPE_CHECKING:
    from ..model.language_model import LanguageModel
    from ..model.site import EditSite

__all__ = ["DEFAULT_CORPUS", "Corpus", "compute_all_statistics", "compute_statistics", "read_corpus", "sample_corpus"]

_WINDOW = 256
"""Tokens of one window: keys of later positions differ little, and the pass stays linear."""
_GROUP = 32
"""Windows of one group."""
_GROUPS_PER_SAVE = 4
"""Groups after which the running sum is saved."""
_DOCUMENTS, _TOKENS, _TOP_K = 128, 78, 50
DEFAULT_CORPUS = f"sampled, {_DOCUMENTS} texts of {_TOKENS} tokens, top-k {_TOP_K}"
"""The default corpus in words."""
_OPENINGS = (
    "The",
    "In the",
    "A",
    "When",
    "It is",
    "There are",
    "He",
    "She",
    "They",
    "We",
    "I",
    "You",
    "If",
    "As",
    "After",
    "For",
    "One of the",
    "During",
    "Although",
    "Many",
    "Some",
    "This",
    "At",
    "On",
    "By",
    "From",
    "What",
    "How",
    "Why",
    "Most",
    "To",
    "Every",
)
"""Beginnings of the sampled documents, in turn."""
_FROM_HUB = 10_000
"""Rows of a data set of the hub that are read."""

Progress = Callable[[int, int], None]
"""Called with (windows done, of all) after each pass of the model."""


@dataclass(frozen=True)
class Corpus:
    """Documents with a description of their source."""

    documents: tuple[str, ...]
    source: str

    @property
    def sha256(self) -> str:
        """Hash of the documents' text, in order."""
        digest = hashlib.sha256()
        for document in self.documents:
            digest.update(document.encode("utf-8", "surrogatepass") + b"\0")
        return digest.hexdigest()


def sample_corpus(
    lm: LanguageModel,
    *,
    seed: int,
    documents: int = _DOCUMENTS,
    tokens: int = _TOKENS,
    least: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Corpus:
    """Return text sampled from the model itself at temperature 1, reproducible from the seed on one machine.

    There are more than `documents` texts where these would hold fewer than `least` tokens.
    `progress` is called with (steps done, of all) after each sampled token of a batch.
    Raises `NotFinite` where the model's logits hold NaN or +Inf.
    """
    from ..forward.generation import sample_continuations

    documents = max(documents, math.ceil(least / tokens))
    special = 1 if lm.adds_bos else 0
    starts = [lm.tokenizer(_OPENINGS[index % len(_OPENINGS)]).input_ids[: special + 1] for index in range(documents)]
    continuations = sample_continuations(lm, starts, tokens, seed=seed, top_k=_TOP_K, progress=progress)
    texts = lm.tokenizer.batch_decode(
        [start + new for start, new in zip(starts, continuations, strict=True)], skip_special_tokens=True
    )
    return Corpus(tuple(texts), f"{documents} texts of up to {tokens} tokens sampled from the model, seed {seed}")


def read_corpus(source: str) -> Corpus:
    """Read documents from a text file (one a line), JSON, JSONL or CSV (field ``text``), or ``hf://dataset[:split]``.

    Raises `StatisticsError`.
    """
    path, hub = Path(source), source.startswith("hf://")
    try:
        texts = _iter_hub_texts(source) if hub else _iter_file_texts(path)
        documents = tuple(text for text in texts if text.strip())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, csv.Error) as error:
        raise StatisticsError(
            f"The corpus {source!r} cannot be read ({type(error).__name__}: {first_line(error)}); give a text file with one "
            "document a line, or JSON, JSONL or CSV with a field 'text'."
        ) from error
    if not documents:
        raise StatisticsError(f"The corpus {source!r} holds no text; give a file with one document a line.")
    return Corpus(documents, source if hub else path.name)


def _iter_file_texts(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".json":
        records = json.loads(text)
        if not isinstance(records, list):
            # The keys of an object, or the characters of a text, would pass for documents.
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


def _iter_hub_texts(source: str) -> Iterator[str]:
    from datasets import load_dataset

    name, _, split = source.removeprefix("hf://").partition(":")
    try:
        rows = load_dataset(name, split=split or "train", streaming=True)
        yield from (_text(row) for row in islice(rows, _FROM_HUB))
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
    progress: Progress | None = None,
) -> KeyStatistics:
    """Return C of `site` over all tokens of `corpus`.

    `partial` is a file for the running sum, from which a killed pass resumes.
    `progress` is called with (windows done, of all) after each pass of the model.

    Raises `NotFinite` when a key is not finite and `StatisticsError` when the corpus has too few tokens.
    """
    groups = _make_groups(lm, corpus)
    stamp = f"{lm.fingerprint}:{site.path}:{corpus.sha256}:{_WINDOW}:{_GROUP}:{lm.product_library}:{lm.plain}"
    sums = initial = read_sums(partial, stamp) or RunningSums.zeros([site.d_ff])
    for sums in _iter_sums(lm, [site], groups, initial, progress):
        if partial is not None and sums.groups % _GROUPS_PER_SAVE == 0:
            write_sums(partial, stamp, sums)
    (statistics,) = _divide_sums(lm, [site], corpus, sums)
    if partial is not None:
        partial.unlink(missing_ok=True)
    return statistics


def compute_all_statistics(
    lm: LanguageModel,
    sites: Sequence[EditSite],
    corpus: Corpus,
    progress: Progress | None = None,
) -> list[KeyStatistics]:
    """Return C of each of `sites` (at least one) over all tokens of `corpus`, in one pass that ends after the deepest of them.

    Each equals the result of `compute_statistics` for its site to the bit, and the same errors are raised.
    `progress` is called with (windows done, of all) after each pass of the model.
    Memory: 16 bytes times d_ff squared for each site at the end, half of it before.
    """
    groups = _make_groups(lm, corpus)
    sums = initial = RunningSums.zeros([site.d_ff for site in sites])
    for latest in _iter_sums(lm, sites, groups, initial, progress):
        sums = latest
    return _divide_sums(lm, sites, corpus, sums)


def _make_groups(lm: LanguageModel, corpus: Corpus) -> list[list[list[int]]]:
    windows = list(_iter_windows(lm, corpus.documents))
    return [windows[start : start + _GROUP] for start in range(0, len(windows), _GROUP)]


def _iter_windows(lm: LanguageModel, documents: Sequence[str]) -> Iterator[list[int]]:
    for document in documents:
        ids = lm.tokenizer(document).input_ids
        yield from (ids[start : start + _WINDOW] for start in range(0, len(ids), _WINDOW))


def _iter_sums(
    lm: LanguageModel,
    sites: Sequence[EditSite],
    groups: Sequence[Sequence[list[int]]],
    initial: RunningSums,
    progress: Progress | None,
) -> Iterator[RunningSums]:
    """Yield the sums after each group that `initial` does not hold yet; its totals are added to in place."""
    totals, tokens, groups_done = initial
    windows_done, windows = sum(map(len, groups[:groups_done])), sum(map(len, groups))
    for group in groups[initial.groups :]:
        multiply = functools.partial(_multiply_keys, lm, sites, group)
        for members, products in run_fitting(split_batches([len(row) for row in group]), multiply):
            for index, product in products.items():
                totals[index].add_(product)
            tokens += sum(len(group[index]) for index in members)
            windows_done += len(members)
            if progress is not None:
                progress(windows_done, windows)
        groups_done += 1
        yield RunningSums(totals, tokens, groups_done)


def _multiply_keys(
    lm: LanguageModel, sites: Sequence[EditSite], group: Sequence[list[int]], members: Sequence[int]
) -> dict[int, torch.Tensor]:
    """Return for each site's index the sum of outer products of the keys of some rows of `group`.

    The sums are [d_ff, d_ff], fp32, on the CPU. Raises `NotFinite`.
    """
    products: dict[int, torch.Tensor] = {}
    batch = pad([group[index] for index in members], get_pad_id(lm), lm.device)
    add = functools.partial(_add_product, sites, products, lm.plain, batch.attention_mask.bool().flatten())
    with torch.no_grad(), stop_after_all([site.module for site in sites], add):
        lm.run(**batch._asdict(), **({"use_cache": False} if lm.causal else {}))
    return products


def _add_product(
    sites: Sequence[EditSite],
    products: dict[int, torch.Tensor],
    plain: bool,
    is_real: torch.Tensor,
    index: int,
    *activations: torch.Tensor,
) -> None:
    """Enter the sum of outer products of one batch's keys at the site `index`, without padding (`is_real`)."""
    inputs, _ = activations
    # Some models (OPT) run their MLP on [rows * tokens, features].
    keys = inputs.flatten(0, -2)[is_real.to(inputs.device)].float()
    if not bool(torch.isfinite(keys).all()):
        raise NotFinite(
            f"A key at {sites[index].path} is NaN or Inf on ordinary text, so the model is broken before any edit; check "
            "its weights and dtype."
        )
    products[index] = compute_gram(keys, plain=plain or inputs.dtype != keys.dtype).cpu()


def _divide_sums(
    lm: LanguageModel, sites: Sequence[EditSite], corpus: Corpus, sums: RunningSums
) -> list[KeyStatistics]:
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
            StatisticsProvenance(
                method="corpus",
                source=corpus.source,
                model_fingerprint=lm.fingerprint,
                layer=site.layer,
                corpus_sha256=digest,
                tokens=sums.tokens,
            ),
        )
        for site, total in zip(sites, sums.totals, strict=True)
    ]

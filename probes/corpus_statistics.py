"""Key statistics from text: documents in, C out, in one streamed and resumable pass that stops at the edited layer.

Order: documents are cut into windows, windows into fixed groups; each group's keys are multiplied in fp32 and added to
a float64 sum. After every few groups the sum is saved beside the result, so that a killed pass goes on where it was
and ends with the same bits. The default corpus is text sampled from the model itself, which needs no download.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from .batches import batches, pad
from .errors import NotFinite, StatisticsError
from .passes import pad_id, stop_after
from .statistics import KeyStatistics, Provenance

if TYPE_CHECKING:
    from .model import LanguageModel
    from .site import EditSite

__all__ = ["SAMPLED", "Corpus", "compute_statistics", "corpus_from", "sampled_corpus"]

_WINDOW = 256
"""Tokens of one window; keys of later positions than this differ little, and the pass stays linear."""
_GROUP = 32
_DOCUMENTS, _TOKENS, _TOP_K = 128, 78, 50
SAMPLED = f"sampled, {_DOCUMENTS} texts of {_TOKENS} tokens, top-k {_TOP_K}"
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


class _Partial(NamedTuple):
    total: torch.Tensor
    tokens: int
    groups: int


def sampled_corpus(
    lm: LanguageModel, *, seed: int, documents: int = _DOCUMENTS, tokens: int = _TOKENS, least: int = 0
) -> Corpus:
    """Return text sampled from the model itself at temperature 1, reproducible from the seed on one machine.

    More documents than asked for where they would hold fewer than `least` tokens.
    """
    from .generation import sampled

    documents = max(documents, math.ceil(least / tokens))
    special = 1 if lm.adds_bos else 0
    starts = [lm.tokenizer(_OPENINGS[index % len(_OPENINGS)]).input_ids[: special + 1] for index in range(documents)]
    found = sampled(lm, starts, tokens, seed=seed, top_k=_TOP_K)
    texts = lm.tokenizer.batch_decode(
        [start + new for start, new in zip(starts, found, strict=True)], skip_special_tokens=True
    )
    return Corpus(tuple(texts), f"{documents} texts of up to {tokens} tokens sampled from the model, seed {seed}")


def corpus_from(source: str) -> Corpus:
    """Read documents from a text file (one a line), JSON, JSONL or CSV (field ``text``), or ``hf://dataset[:split]``.

    Raises `StatisticsError`.
    """
    path, hub = Path(source), source.startswith("hf://")
    try:
        found = _from_hub(source) if hub else _from_file(path)
        documents = tuple(text for text in found if text.strip())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StatisticsError(
            f"The corpus {source!r} cannot be read ({type(error).__name__}: {error}); give a text file with one document "
            "a line, or JSON, JSONL or CSV with a field 'text'."
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
    windows = list(_windows(lm, corpus.documents))
    groups = [windows[start : start + _GROUP] for start in range(0, len(windows), _GROUP)]
    stamp = f"{lm.fingerprint}:{site.path}:{corpus.sha256}:{_WINDOW}:{_GROUP}"
    state = _read_partial(partial, stamp) or _Partial(torch.zeros(site.d_ff, site.d_ff, dtype=torch.float64), 0, 0)
    for index, group in enumerate(groups[state.groups :], start=state.groups):
        state = _add(lm, site, group, state)
        if partial is not None and (index + 1) % 4 == 0:
            _write_partial(partial, stamp, state)
        if progress is not None:
            progress(index + 1, len(groups))
    if state.tokens < site.d_ff:
        raise StatisticsError(
            f"The corpus {corpus.source!r} holds {state.tokens} tokens, fewer than the {site.d_ff} features of a key, so that C "
            "has no inverse of its own; give more text."
        )
    if partial is not None:
        partial.unlink(missing_ok=True)
    provenance = Provenance("corpus", corpus.source, lm.fingerprint, site.layer, corpus.sha256, state.tokens)
    return KeyStatistics(state.total / state.tokens, provenance)


def _windows(lm: LanguageModel, documents: Sequence[str]) -> Iterator[list[int]]:
    for document in documents:
        ids = lm.tokenizer(document).input_ids
        yield from (ids[start : start + _WINDOW] for start in range(0, len(ids), _WINDOW))


def _add(lm: LanguageModel, site: EditSite, group: Sequence[list[int]], state: _Partial) -> _Partial:
    total, tokens = state.total, state.tokens
    for members in batches([len(row) for row in group]):
        batch = pad([group[i] for i in members], pad_id(lm), lm.device)
        with torch.no_grad(), stop_after(site.module) as seen:
            lm.model(**batch._asdict(), **({"use_cache": False} if lm.causal else {}))
        keys = seen[0][0].flatten(0, -2)[batch.attention_mask.bool().flatten()].float()
        if not bool(torch.isfinite(keys).all()):
            raise NotFinite(
                f"A key at {site.path} is NaN or Inf on ordinary text, so the model is broken before any edit; check its "
                "weights and dtype."
            )
        total = total + (keys.T @ keys).double().cpu()
        tokens += keys.shape[0]
    return _Partial(total, tokens, state.groups + 1)


def _read_partial(path: Path | None, stamp: str) -> _Partial | None:
    from safetensors import SafetensorError, safe_open

    if path is None or not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("stamp") != stamp:
                return None
            return _Partial(file.get_tensor("total"), int(metadata["tokens"]), int(metadata["groups"]))
    except (OSError, SafetensorError, KeyError, ValueError):
        # A running sum that cannot be read is only lost work: it is made again from the first document.
        return None


def _write_partial(path: Path, stamp: str, state: _Partial) -> None:
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"stamp": stamp, "tokens": str(state.tokens), "groups": str(state.groups)}
    # A name of its own: another run may be making the same statistics in the same cache folder.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".partial-")
    os.close(handle)
    try:
        save_file({"total": state.total}, name, metadata=metadata)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)

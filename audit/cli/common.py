"""What several commands share: their options, the requests, the model made ready, and progress on standard error.

Nothing heavy is imported before a command really runs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ...probes.requests.loader import LoadedRequests
    from ...probes.requests.request import EditRequest
    from ..setup import Progress, Setup

__all__ = [
    "CheckDtype",
    "Corpus",
    "Device",
    "Dtype",
    "EditFiles",
    "Editor",
    "Edits",
    "EngineName",
    "InSequence",
    "Json",
    "Layer",
    "Limit",
    "Model",
    "Overwrite",
    "PerplexityCorpus",
    "Pickle",
    "PolicyFile",
    "Resume",
    "Seed",
    "Site",
    "Skip",
    "Stats",
    "Zsre",
    "ZsreTarget",
    "known_editor",
    "load_edits",
    "prepared",
    "progress_bars",
]

_CHECK_DTYPES = ("auto", "bfloat16")
_MOST_NAMED = 20
"""Records that are named one by one as left out."""

Model = Annotated[str, typer.Option(help="Embedded default, Hugging Face id, or a local folder.")]
Edits = Annotated[
    str, typer.Argument(help="File of edits (JSON, JSONL, YAML, CSV), hf://dataset[:split], or 'builtin'.")
]
EditFiles = Annotated[
    list[str] | None, typer.Argument(help="Files of edits, hf://dataset[:split], or 'builtin' (the default).")
]
Editor = Annotated[str | None, typer.Option(help="Editor for edits allowed as asked; default: the policy's, rome.")]
PerplexityCorpus = Annotated[str | None, typer.Option(help="Sentences for the perplexity check; default: built in.")]
CheckDtype = Annotated[
    str,
    typer.Option(
        help="auto, or bfloat16: the checks alone compute in it, faster on a GPU or a processor with bfloat16; what that "
        "changes is logged."
    ),
]
Layer = Annotated[int | None, typer.Option(help="Layer to edit, from 0; chosen for the model unless given.")]
Site = Annotated[
    str | None, typer.Option(help="Path of the down-projection, with {layer}, where it is not found by itself.")
]
PolicyFile = Annotated[
    Path | None, typer.Option("--policy", help="TOML file; else the table tool.editguard of ./pyproject.toml.")
]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="The one seed of everything random, from 0.")]
Device = Annotated[str, typer.Option(help="auto, cpu, mps, cuda, cuda:N.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16, float16.")]
Stats = Annotated[str | None, typer.Option(help="File of key statistics (.safetensors, ROME's .npz), or 'identity'.")]
Corpus = Annotated[
    str | None, typer.Option(help="Text to compute key statistics from; default: sampled from the model.")
]
EngineName = Annotated[
    str, typer.Option("--engine", help="live, or reference: whole texts through the whole model, one edit at a time.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first N edits.")]
Skip = Annotated[bool, typer.Option("--skip-invalid", help="Go on without wrong records, and count them.")]
Pickle = Annotated[bool, typer.Option("--allow-pickle", help="Read a .bin checkpoint (weights_only) if you trust it.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an audit that the folder already holds.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with an audit that was killed in this folder, or begin one.")
]
InSequence = Annotated[
    bool,
    typer.Option("--in-sequence", help="Keep each sound edit for those behind it, until the drift leaves its bound."),
]


class ZsreTarget(StrEnum):
    """Which field of a zsRE record is the new target."""

    ALT = "alt"
    ANSWERS = "answers"


Zsre = Annotated[
    ZsreTarget,
    typer.Option(
        "--zsre-target", help="What a zsRE file edits in: alt, as MEND reads it, or answers, as ROME and MEMIT do."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output on standard output.")]


def load_edits(
    edits: str,
    limit: int | None,
    skip_invalid: bool,
    zsre_target: ZsreTarget = ZsreTarget.ALT,
    *,
    in_sequence: bool = False,
) -> LoadedRequests:
    """Read the requests of a file, or the built-in ones; raises `InputError` where those of a sequence contradict."""
    from ...probes.requests.loader import LoadedRequests, load_requests
    from ...reports.text import printable
    from ...suites.builtin import BUILTIN, load_builtin_edits, hash_builtin_edits

    if edits == BUILTIN:
        return LoadedRequests(load_builtin_edits()[:limit], (), BUILTIN, hash_builtin_edits())
    loaded = load_requests(edits, skip_invalid=skip_invalid, limit=limit, zsre_target=zsre_target.value)
    for one in loaded.invalid[:_MOST_NAMED]:
        typer.echo(f"left out {printable(one.where)}: {printable(one.message, 300)}", err=True)
    if (more := len(loaded.invalid) - _MOST_NAMED) > 0:
        typer.echo(f"and {more} more records were left out", err=True)
    for sentence in loaded.unused[:_MOST_NAMED]:
        typer.echo(f"note: {printable(sentence, 300)}", err=True)
    if in_sequence:
        _without_contradictions(loaded.requests)
    return loaded


def _without_contradictions(requests: Sequence[EditRequest]) -> None:
    from ...probes.errors import InputError
    from ...probes.requests.prompt_subjects import find_contradictions

    found = find_contradictions(requests)
    if found:
        more = f", and {len(found) - _MOST_NAMED} more pairs" if len(found) > _MOST_NAMED else ""
        raise InputError(f"Edits in sequence must not contradict each other: {'; '.join(found[:_MOST_NAMED])}{more}.")


def known_editor(editor: str | None) -> None:
    """Raise `InputError` for an editor that nobody may choose, before anything is loaded."""
    if editor is not None:
        from ..editors.base import chosen_editor

        chosen_editor(editor)


def prepared(
    model: str, layer: int | None, site: str | None, policy: Path | None, seed: int, device: str, dtype: str,
    stats: str | None, corpus: str | None, allow_pickle: bool, progress: Progress, *, engine: str = "live",
    perplexity_corpus: str | None = None, check_dtype: str = "auto",
) -> Setup:  # fmt: skip
    """Load the model and make it ready; what is wrong with the options is found before that."""
    from ..policy import load_policy

    chosen = load_policy(policy)
    from ..setup import check_names, prepare

    check_names(chosen, policy)
    from ...probes.errors import InputError
    from ...probes.keys.corpus_statistics import read_corpus
    from ...probes.model.language_model import load_model
    from ..editors.value import Engine, ValueSettings

    if engine not in {one.value for one in Engine}:
        raise InputError(f"The engine {engine!r} is not known; use 'live' or 'reference'.")
    if check_dtype not in _CHECK_DTYPES:
        raise InputError(f"Checks cannot compute in {check_dtype!r}; use one of {', '.join(_CHECK_DTYPES)}.")
    sentences = None if perplexity_corpus is None else read_corpus(perplexity_corpus).documents
    import torch

    progress("loading the model", 0, 1)
    lm = load_model(model, device=device, dtype=dtype, allow_pickle=allow_pickle)
    progress("loading the model", 1, 1)
    return prepare(
        lm, layer=layer, site_path=site, policy=chosen, seed=seed, statistics=stats, corpus=corpus,
        perplexity_corpus=sentences, settings=ValueSettings(engine=Engine(engine)),
        check_dtype=None if check_dtype == "auto" else getattr(torch, check_dtype), progress=progress,
    )  # fmt: skip


@contextmanager
def progress_bars(quiet: bool) -> Iterator[Progress]:
    """Yield a callback that shows progress on standard error; nothing but results goes to standard output."""
    from .terminal import bars, lines

    if quiet or not sys.stderr.isatty():
        yield (lambda *_: None) if quiet else lines()
    else:
        with bars() as show:
            yield show

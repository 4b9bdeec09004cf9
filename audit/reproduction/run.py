"""One reproduction from start to end: cases, edits, keys, experiments, then ``reproduction.json``, page and tables from it.

What takes long is kept in the output folder and not done again: which requests are cases (``cases.json``) and what came of each
edit (``logs/``). Both name what they depend on, and what was begun with something else is refused.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from pydantic import ValidationError

from ...probes.corpus_statistics import Corpus, corpus_from, sampled_corpus
from ...probes.encoders import load_encoder
from ...probes.errors import EditguardError, InputError
from ...probes.model import LanguageModel
from ...probes.request_files import LoadedRequests
from ...reports.log import write_atomic
from ...reports.reproduction import Experiment, Reproduction
from ...reports.reproduction_page import render_reproduction
from ...reports.reproduction_text import render_markdown
from ...reports.tables import write_tables
from ..editors.base import chosen_editor
from ..files import writable
from ..guard import GuardedEditor
from ..setup import KEYS_A_FEATURE, Progress, Setup, editable
from . import keys, prediction, readings, shares, tables
from .cases import Case, Cases, Chosen, Kind, choose, find_cases
from .edits import EDITORS, LOGS, Edits, make_edits
from .encoder import encoder
from .heads import experiment
from .layers import all_layers

__all__ = ["PAGE", "RESULT", "TABLES", "TEXT", "reproduce"]

RESULT, PAGE, TEXT, TABLES = "reproduction.json", "reproduction.html", "reproduction.md", "tables"
_CASES = "cases.json"
_FEW = 4
"""Cases of a kind that make a cloud."""


def reproduce(
    setup: Setup,
    loaded: LoadedRequests,
    out: Path,
    *,
    ordinary: int = 100,
    corpus: str | None = None,
    encoder_ref: str | None = None,
    command: str = "",
    progress: Progress = lambda *_: None,
) -> Reproduction:
    """Run every experiment on the requests of `loaded`, write all files into the folder `out`, and return the result.

    A folder that holds the beginning of the same reproduction is gone on with; raises `InputError` where it holds another.
    """
    editable(setup.site)
    started, guard = time.monotonic(), GuardedEditor(setup)
    for folder in (out, out / LOGS, out / TABLES):
        writable(folder)
    # What is wrong with it is better known now than after all edits.
    compared = None if encoder_ref is None else load_encoder(encoder_ref, device=str(setup.lm.device))
    stamp = _stamp(setup, loaded, ordinary)
    cases = find_cases(guard, loaded.requests, _chosen(guard, loaded, out / _CASES, ordinary, stamp, progress))
    stamps = {editor: _digest([stamp, repr(chosen_editor(editor)().settings(setup.settings))]) for editor in EDITORS}
    edits = make_edits(guard, loaded, cases, out / LOGS, stamps, progress)
    found = Reproduction(
        editguard_version=version("editguard"), created=datetime.now(UTC).isoformat(timespec="seconds"), command=command,
        model=setup.lm.ref, model_fingerprint=setup.lm.fingerprint, layer=setup.site.layer, layers=len(setup.site.blocks),
        seed=setup.seed, source=loaded.source, source_sha256=loaded.sha256, requests=len(loaded.requests),
        collapse_cases=len(cases.of(Kind.FIRST)), candidates=len(cases.of(Kind.OTHER)),
        ordinary_cases=len(cases.of(Kind.ORDINARY)),
        statistics=setup.statistics.provenance.source,
        experiments=_experiments(setup, cases, edits, corpus, compared, progress),
        seconds=round(time.monotonic() - started, 1),
    )  # fmt: skip
    write_atomic(out / RESULT, found.model_dump_json(indent=1) + "\n")
    write_tables(out / TABLES, found)
    write_atomic(out / TEXT, render_markdown(found))
    write_atomic(out / PAGE, render_reproduction(found))
    return found


def _experiments(
    setup: Setup, cases: Cases, edits: Edits, corpus: str | None, compared: LanguageModel | None, progress: Progress
) -> list[Experiment]:
    bound, first, ordinary = setup.policy.collapse_ratio, cases.of(Kind.FIRST), cases.of(Kind.ORDINARY)
    missing = min(len(first), len(ordinary)) < _FEW
    about_keys: dict[int, Callable[[], Experiment]] = {
        6: lambda: keys.distributions(setup, cases),
        7: lambda: keys.clusters(setup, cases),
        8: lambda: all_layers(setup, cases, _corpus(setup, corpus), progress),
        9: lambda: readings.shifted_position(setup, cases, bound),
        10: lambda: readings.behind_bos(setup, cases),
        11: lambda: encoder(setup, cases, compared),
    }
    found = [
        tables.update_sizes(cases, edits), tables.perplexities(cases, edits, bound), shares.without_prefix(cases, edits),
        shares.with_prefix(cases, edits), shares.own_editor(cases, edits, bound),
    ]  # fmt: skip
    for number, run in about_keys.items():
        progress("experiments about keys", number - 6, len(about_keys))
        found.append(
            experiment(number, skipped=_too_few(setup, first, ordinary)) if missing else _survived(number, run)
        )
    progress("experiments about keys", len(about_keys), len(about_keys))
    return [*found, prediction.other_cases(cases, edits, bound), prediction.prediction(cases, edits, bound)]


def _too_few(setup: Setup, first: Sequence[Case], ordinary: Sequence[Case]) -> str:
    why = (
        " The tokenizer puts a BOS before every text, so that no subject is a first token."
        if setup.lm.adds_bos and not first
        else ""
    )
    return (
        f"There are {len(first)} first-token subjects and {len(ordinary)} ordinary requests, and at least {_FEW} of each are "
        f"needed.{why}"
    )


def _survived(number: int, run: Callable[[], Experiment]) -> Experiment:
    """Run one experiment; what breaks it is told in its place, since edits of hours stand beside it."""
    try:
        return run()
    except (EditguardError, RuntimeError, ValueError, ArithmeticError, LookupError) as error:
        return experiment(number, skipped=f"{type(error).__name__}: {error}")


def _corpus(setup: Setup, corpus: str | None) -> Corpus | None:
    """Return text to take C of the other layers from; None where C of the edited one is the identity."""
    if setup.statistics.provenance.method == "identity":
        return None
    if corpus is not None:
        return corpus_from(corpus)
    return sampled_corpus(setup.lm, seed=setup.seed, least=KEYS_A_FEATURE * setup.site.d_ff)


def _chosen(
    guard: GuardedEditor, loaded: LoadedRequests, path: Path, ordinary: int, stamp: str, progress: Progress
) -> Chosen:
    """Return the cases that were chosen before, or choose them and keep the choice."""
    if path.is_file():
        try:
            found = Chosen.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise InputError(
                f"{str(path)!r} holds no choice of cases ({error.error_count()} faults); remove it, or give another --out."
            ) from error
        if found.stamp != stamp:
            raise InputError(
                f"The folder {str(path.parent)!r} holds a reproduction with another model, file, layer, seed or number of "
                "ordinary cases; give another --out."
            )
        return found
    found = choose(guard, loaded.requests, ordinary, stamp, progress)
    write_atomic(path, found.model_dump_json() + "\n")
    return found


def _stamp(setup: Setup, loaded: LoadedRequests, ordinary: int) -> str:
    """Return a hash over all that the figures depend on."""
    return _digest(
        [
            setup.lm.fingerprint, str(setup.lm.dtype), str(setup.lm.device), setup.site.path, str(setup.seed),
            setup.statistics.sha256, setup.settings.engine.value, loaded.sha256, str(len(loaded.requests)), str(ordinary),
            json.dumps([[one.family.value, one.text, one.role.value] for one in setup.prefixes.prefixes]),
            "\0".join(setup.corpus),
        ]
    )  # fmt: skip


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256("\1".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]

"""One reproduction from start to end: cases, edits, keys, experiments, then ``reproduction.json``, page and tables from it.

Long work is stored in the output folder and not done again: the cases (``cases.json``), the edits (``logs/``) and the keys of
all layers (``layers.json``). Each file names what it depends on, and a file of another reproduction is refused.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING

from pydantic import ValidationError

from ....probes.errors import InputError
from ....probes.model.encoders import load_encoder
from ....reports.log.bounded_read import LARGEST_BASELINE, bounded_bytes
from ....reports.log.file import remove_unfinished_files, write_atomic
from ....reports.reproduction.page import render_reproduction
from ....reports.reproduction.schema import Experiment, Reproduction
from ....reports.reproduction.tables import remove_tables, write_tables
from ....reports.reproduction.text import render_markdown
from ...device_failure import trusted_device
from ...folders.output_folder import make_writable
from ...guard import GuardedEditor
from ...run.to_log import versions
from ...setup import Setup, check_editable
from .all_experiments import explain_missing_kinds, run_all_experiments
from .cases import CaseKind, Cases, CaseSelection, find_cases, select_cases
from .edits import EDITORS, LOGS, make_edits
from .layer_shifts import LAYERS_FILE
from .stamp import Stamp, build_editor_stamp, build_run_stamp, check_stamp, list_editor_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from ....probes.requests.loader import LoadedRequests
    from ...progress import Progress

__all__ = [
    "MOST_CASES",
    "ORDINARY",
    "PAGE",
    "RESULT",
    "TABLES",
    "TEXT",
    "load_kept_result",
    "load_kept_selection",
    "reproduce",
]

RESULT, PAGE, TEXT, TABLES = "reproduction.json", "reproduction.html", "reproduction.md", "tables"
ORDINARY = MOST_CASES = 100
"""Ordinary requests, and at most so many of each other kind: with three editors about 700 edits, an hour or two for 135M
parameters on two cores."""
_CASES = "cases.json"


def reproduce(
    setup: Setup,
    loaded: LoadedRequests,
    out: Path,
    *,
    ordinary: int = ORDINARY,
    most_cases: int = MOST_CASES,
    corpus: str | None = None,
    encoder_ref: str | None = None,
    allow_pickle: bool = False,
    command: str = "",
    progress: Progress = lambda *_: None,
    notice: Callable[[str], None] = lambda _: None,
) -> Reproduction:
    """Run every experiment on the requests of `loaded`, write all files into the folder `out`, and return the result.

    `ordinary` requests and at most `most_cases` of each other kind are edited; `notice` receives, before any edit, the
    experiments that cannot be run. `allow_pickle` is for the weights of the encoder. A folder with the beginning of the same
    reproduction is resumed. Raises `InputError` where it holds another.
    """
    check_editable(setup.site)
    started, guard = time.monotonic(), GuardedEditor(setup)
    _prepare_folders(out)
    # A wrong encoder is reported now and not after all edits.
    compared = None
    if encoder_ref is not None:
        compared = load_encoder(encoder_ref, device=str(setup.lm.device), allow_pickle=allow_pickle)
    with trusted_device(setup.lm.device, "the reproduction", "give the same command again, which resumes"):
        stamp = build_run_stamp(setup, loaded, ordinary, most_cases)
        most = dict.fromkeys(CaseKind, most_cases) | {CaseKind.ORDINARY: ordinary}
        cases = _load_or_select_cases(guard, loaded, out / _CASES, most=most, stamp=stamp, progress=progress)
        if (missing := explain_missing_kinds(setup, cases)) is not None:
            notice(f"Experiments 6 to 9 and 11 will not be run. {missing}")
        stamps = {editor: build_editor_stamp(stamp, setup, editor) for editor in EDITORS}
        edits = make_edits(guard, loaded, cases, out / LOGS, stamps, progress=progress)
        experiments = run_all_experiments(
            setup,
            cases,
            edits,
            corpus=corpus,
            layers_file=out / LAYERS_FILE,
            stamp=stamp,
            compared=compared,
            progress=progress,
        )
    reproduction = _build_result(setup, loaded, cases, experiments, command=command, started=started)
    _write(out, reproduction)
    return reproduction


def _build_result(
    setup: Setup,
    loaded: LoadedRequests,
    cases: Cases,
    experiments: list[Experiment],
    *,
    command: str,
    started: float,
) -> Reproduction:
    """Return the result; `started` is the monotonic time at which the run began."""
    return Reproduction(
        editguard_version=version("editguard"),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        model=setup.lm.ref,
        model_fingerprint=setup.lm.fingerprint,
        layer=setup.site.layer,
        layers=len(setup.site.blocks),
        seed=setup.seed,
        source=loaded.source,
        source_sha256=loaded.sha256,
        requests=len(loaded.requests),
        cases=cases.counts(),
        statistics=setup.statistics.provenance.source,
        experiments=experiments,
        editors={editor: dict(list_editor_settings(setup, editor)) for editor in EDITORS},
        versions=versions(setup.lm),
        seconds=round(time.monotonic() - started, 1),
    )


def _prepare_folders(out: Path) -> None:
    for folder in (out, out / LOGS, out / TABLES):
        make_writable(folder, inside=folder != out)
    remove_unfinished_files(out, (RESULT, PAGE, TEXT, _CASES, LAYERS_FILE))
    remove_unfinished_files(out / LOGS, [f"{editor}.jsonl" for editor in EDITORS])


def _write(out: Path, reproduction: Reproduction) -> None:
    remove_tables(out / TABLES, load_kept_result(out / RESULT), reproduction)
    write_atomic(out / RESULT, reproduction.model_dump_json(indent=1) + "\n")
    write_tables(out / TABLES, reproduction)
    write_atomic(out / TEXT, render_markdown(reproduction))
    write_atomic(out / PAGE, render_reproduction(reproduction))


def load_kept_result(path: Path) -> Reproduction | None:
    """Return the result of an earlier run; None where no file is there that this editguard reads."""
    try:
        return Reproduction.model_validate_json(bounded_bytes(path, LARGEST_BASELINE))
    except (OSError, ValidationError):
        return None


def _load_or_select_cases(
    guard: GuardedEditor,
    loaded: LoadedRequests,
    path: Path,
    *,
    most: Mapping[CaseKind, int],
    stamp: Stamp,
    progress: Progress,
) -> Cases:
    """Return the cases that are stored in the file `path`, or select them and store them there."""
    chosen = load_kept_selection(path)
    if chosen is None:
        chosen = select_cases(guard, loaded.requests, most, stamp, progress)
        write_atomic(path, chosen.model_dump_json() + "\n")
    else:
        check_stamp(f"The reproduction in the folder {str(path.parent)!r}", chosen.stamp, stamp)
    cases = find_cases(guard, loaded.requests, chosen)
    if cases.selection != chosen:
        write_atomic(path, cases.selection.model_dump_json() + "\n")
    return cases


def load_kept_selection(path: Path) -> CaseSelection | None:
    """Return the selection in the file `path`, None where there is none; raises `InputError` where it cannot be read."""
    if not path.is_file():
        return None
    try:
        return CaseSelection.model_validate_json(bounded_bytes(path, LARGEST_BASELINE))
    except (OSError, ValidationError) as error:
        raise InputError(
            f"{str(path)!r} holds no choice of cases that this editguard reads; remove it, or give another --out."
        ) from error

"""The command line: ``editguard audit | probe | stats | report``, and the commands of the other modules ``cli_*``.

Nothing heavy is imported before a command really runs, so that ``--help`` is quick. Exit codes belong to the error's
class: 0 pass, 1 the gate is closed, 2 the input or usage is wrong, 3 our own fault.
"""

from __future__ import annotations

import errno
import json
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from .common import (
    CheckDtype,
    Corpus,
    Device,
    Dtype,
    EditFiles,
    Editor,
    Edits,
    EngineName,
    InSequence,
    Json,
    Layer,
    Limit,
    Model,
    Overwrite,
    PerplexityCorpus,
    Pickle,
    PolicyFile,
    Resume,
    Seed,
    Site,
    Skip,
    Stats,
    Zsre,
    ZsreTarget,
    known_editor,
    load_edits,
    prepared,
    progress_bars,
)
from .delta import apply, export
from .diff import diff
from .gate import (
    STORE,
    Accept,
    Baselines,
    MaxRegress,
    ReportBaseline,
    SaveBaseline,
    compare,
    gate,
    gate_json,
    known_name,
    override,
    saved,
    shown_since,
)
from .gate import app as baseline_app
from .research import reproduce, trace

if TYPE_CHECKING:
    from ...probes.requests.request import EditRequest
    from ..guard import Assessment, GuardedEditor

__all__ = ["app", "main"]

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_SIGPIPE = 128 + 13
"""What a shell shows of a program that ended because its output's reader was gone."""
_TOGETHER = 64
"""Requests that are probed at once."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Safety audit and regression tests for edits of facts inside language models.",
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"editguard {version('editguard')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Safety audit and regression tests for edits of facts inside language models."""


@app.command()
def audit(
    edits: Edits = "builtin",
    model: Model = "smollm2-135m",
    out: Annotated[Path, typer.Option(help="Folder for the log, the report and all else that is written.")] = Path(
        "editguard-audit"
    ),
    editor: Editor = None,
    policy: PolicyFile = None,
    layer: Layer = None,
    site: Site = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    stats: Stats = None,
    corpus: Corpus = None,
    perplexity_corpus: PerplexityCorpus = None,
    engine: EngineName = "live",
    check_dtype: CheckDtype = "auto",
    limit: Limit = None,
    skip_invalid: Skip = False,
    zsre_target: Zsre = ZsreTarget.ALT,
    allow_pickle: Pickle = False,
    overwrite: Overwrite = False,
    resume: Resume = False,
    in_sequence: InSequence = False,
    save_baseline: SaveBaseline = None,
    baselines: Baselines = STORE,
    as_json: Json = False,
) -> None:
    """Probe, guard, make, check and undo every edit; write log, report and outputs. Exit 0 only for a pass."""
    from ..run.audit import run_audit
    from ..run.file_names import LOG, REPORT
    from ..run.output_folder import locked_folder
    from ..run.resume import check_resumable

    arguments = {name: str(value) if isinstance(value, Path) else value for name, value in locals().items()
                 if isinstance(value, str | int | float | bool | Path | None)}  # fmt: skip
    known_name(save_baseline)
    loaded = load_edits(edits, limit, skip_invalid, zsre_target, in_sequence=in_sequence)
    known_editor(editor)
    with locked_folder(out, overwrite=overwrite, resume=resume), progress_bars(as_json) as progress:
        if resume:
            check_resumable(out / LOG, loaded, in_sequence=in_sequence, seed=seed, editor=editor)
        setup = prepared(
            model, layer, site, policy, seed, device, dtype, stats, corpus, allow_pickle, progress,
            engine=engine, perplexity_corpus=perplexity_corpus, check_dtype=check_dtype,
        )  # fmt: skip
        summary = run_audit(
            setup, loaded, out, editor=editor, arguments=arguments, overwrite=overwrite, resume=resume,
            in_sequence=in_sequence, progress=progress,
        )  # fmt: skip
    if as_json:
        typer.echo(summary.model_dump_json())
    else:
        from .terminal import print_summary

        print_summary(summary, out / REPORT)
    if save_baseline is not None:
        saved(out, save_baseline, baselines)
    raise typer.Exit(summary.exit_code)


@app.command()
def probe(
    edits: EditFiles = None,
    model: Model = "smollm2-135m",
    editor: Editor = None,
    policy: PolicyFile = None,
    layer: Layer = None,
    site: Site = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    stats: Stats = None,
    corpus: Corpus = None,
    engine: EngineName = "live",
    limit: Limit = None,
    skip_invalid: Skip = False,
    zsre_target: Zsre = ZsreTarget.ALT,
    allow_pickle: Pickle = False,
    screen: Annotated[
        bool, typer.Option("--screen", help="Settle clear cases under few contexts: faster, with rounder figures.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say what an audit would decide before it computes an update; changes nothing. Exit 1 where an edit would be refused.

    An update that then turns out larger than the policy's bound is rewritten or refused by the audit alone.
    """
    from ..guard import GuardedEditor
    from ..policy import Action
    from .terminal import ProbeTable, probe_line

    files = [load_edits(one, limit, skip_invalid, zsre_target) for one in edits or ["builtin"]]
    known_editor(editor)
    refused, tables = 0, [ProbeTable(one.source if len(files) > 1 else None) for one in files]
    with progress_bars(as_json) as progress:
        setup = prepared(
            model, layer, site, policy, seed, device, dtype, stats, corpus, allow_pickle, progress, engine=engine
        )
        guard = GuardedEditor(setup)
        for loaded, table in zip(files, tables, strict=True):
            total = len(loaded.requests)
            for index, assessment in enumerate(_assessments(guard, loaded.requests, editor, screen)):
                progress("probing", index, total)
                refused += assessment.decision.action is Action.REFUSE
                if as_json:
                    typer.echo(json.dumps(probe_line(assessment, loaded.source), ensure_ascii=False))
                else:
                    table.add(assessment)
            progress("probing", total, total)
    if not as_json:
        for loaded, table in zip(files, tables, strict=True):
            table.show(len(loaded.invalid))
    raise typer.Exit(1 if refused and not setup.policy.allow_refused else 0)


def _assessments(
    guard: GuardedEditor, requests: Sequence[EditRequest], editor: str | None, screen: bool
) -> Iterator[Assessment]:
    from ..run.execute import assess_each

    for start in range(0, len(requests), _TOGETHER):
        yield from assess_each(guard, requests[start : start + _TOGETHER], editor, screen=screen)


@app.command()
def stats(
    out: Annotated[Path, typer.Option(help="File to write, .safetensors.")],
    model: Model = "smollm2-135m",
    layer: Layer = None,
    site: Site = None,
    corpus: Corpus = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    allow_pickle: Pickle = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there.")] = False,
) -> None:
    """Compute key statistics (C) for one layer and save them with their provenance."""
    from ...probes.errors import StatisticsError
    from ...probes.keys.statistics import save_statistics
    from ...probes.model.language_model import load_model
    from ...probes.model.site import find_site
    from ..run.file_names import writable
    from ..setup import default_layer, load_or_compute_statistics

    if out.suffix != ".safetensors" or out.is_dir():
        raise StatisticsError(
            f"The output {str(out)!r} must be a file that ends in .safetensors; choose another --out."
        )
    if out.exists() and not overwrite:
        raise StatisticsError(f"The file {str(out)!r} is there already; choose another --out, or add --overwrite.")
    writable(out.parent)
    with progress_bars(False) as progress:
        lm = load_model(model, device=device, dtype=dtype, allow_pickle=allow_pickle)
        place = find_site(lm.model, default_layer(lm, site) if layer is None else layer, site)
        found = load_or_compute_statistics(lm, place, None, corpus, seed, progress)
    save_statistics(found, out)
    typer.echo(
        f"{out}: C [{place.d_ff}, {place.d_ff}] of {place.path}, {found.provenance.tokens} tokens of "
        f"{found.provenance.source}, condition number {found.condition_number:.3g} with a ridge of {found.ridge:g}"
    )


@app.command()
def report(
    log: Annotated[Path, typer.Argument(help="A log (audit.jsonl), or the folder that holds one.")],
    out: Annotated[Path | None, typer.Option(help="Folder for report and outputs; default: beside the log.")] = None,
    baseline: ReportBaseline = None,
    max_regress: MaxRegress = None,
    accept: Accept = None,
    baselines: Baselines = STORE,
    as_json: Json = False,
) -> None:
    """Write the report and all other outputs again from a log; exit as the audit did, or with --baseline as the gate does.

    With --baseline the gate's verdict comes first, and all outputs show what changed since; an override of this log is shown
    in any case.
    """
    from ..run.file_names import LOG, REPORT, writable
    from ..run.outputs import write_outputs

    path = log / LOG if log.is_dir() else log
    folder = out or path.parent
    from ...reports.log.file import read_log
    from ..run.output_folder import one_writer

    read_log(path)
    writable(folder)
    lock = folder / ".lock"
    # An audit may be writing there still; who writes elsewhere needs no lock.
    with one_writer(lock, folder) if lock.is_file() else nullcontext():
        judged, overrides = shown_since(path, baseline, baselines, max_regress, accept)
        summary = write_outputs(folder, path, gate=judged, overrides=overrides)
    if as_json:
        typer.echo(
            json.dumps(({} if judged is None else {"gate": gate_json(judged)}) | summary.model_dump(mode="json"))
        )
    else:
        from .terminal import print_summary
        from .terminal_gate import print_overrides, print_standing

        if judged is not None:
            print_standing(judged, summary.verdict)
        print_overrides(overrides)
        print_summary(summary, folder / REPORT)
    raise typer.Exit(summary.exit_code if judged is None else judged.exit_code)


app.command()(export)
app.command()(apply)
app.command()(diff)
app.command()(trace)
app.command()(reproduce)
app.add_typer(baseline_app, name="baseline")
for _command in (compare, gate, override):
    app.command()(_command)


def main() -> None:
    """Run the command line; errors that editguard raises on purpose are one sentence on standard error."""
    from ...probes.errors import EditguardError
    from ...reports.errors import ReportError
    from ...reports.text import visible
    from ..process import keep_freed_memory

    keep_freed_memory()
    try:
        app(standalone_mode=True)
    except SystemExit as ended:
        # Nobody reads the output any more (`| head`), and typer ends with 1, which would read as a closed gate.
        if ended.code == 1 and type(sys.stdout).__name__ == "PacifyFlushWrapper":
            sys.exit(_SIGPIPE)
        raise
    except (EditguardError, ReportError) as error:
        # A message may repeat a name out of a foreign file.
        typer.echo(visible(f"editguard: {error}"), err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            _our_fault()
        typer.echo(
            visible(f"editguard: A file cannot be written ({error}); make room, or give another folder."), err=True
        )
        sys.exit(2)
    except Exception:  # the outermost frame: Python's own exit code 1 would read as "the gate is closed"
        _our_fault()


def _our_fault() -> NoReturn:
    traceback.print_exc()
    typer.echo("editguard: this is a fault of editguard itself; please report it with the lines above.", err=True)
    sys.exit(3)


if __name__ == "__main__":
    main()

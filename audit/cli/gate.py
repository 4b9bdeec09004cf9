"""Commands that compare audits: ``baseline``, ``compare``, ``gate`` and ``override``."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import Json, Panel, PlainCommand, PlainGroup, takes_records

if TYPE_CHECKING:
    from ...reports.gate.allowances import Allowances
    from ...reports.gate.result import Gate, Override, ReasonCode
    from ..gate.baseline_store import BaselineStore, StoredBaseline
    from ..gate.evaluate import GateEvaluation

__all__ = [
    "STORE",
    "Accept",
    "Baselines",
    "LogPlace",
    "MaxRegress",
    "ReportBaseline",
    "SaveBaseline",
    "app",
    "check_baseline_name",
    "compare",
    "gate",
    "gate_json",
    "gate_or_overrides",
    "override",
    "save_passed_audit",
]

GATE = "gate.json"
"""The gate's verdict as one JSON object, beside the page."""

STORE = Path(".editguard") / "baselines"
"""Where baselines are saved unless the user says otherwise, under the working directory."""

Baselines = Annotated[
    Path,
    typer.Option(
        "--baselines",
        help="Folder in which all baselines are saved.",
        rich_help_panel=Panel.OUTPUT,
    ),
]
LogPlace = Annotated[Path, typer.Argument(help="A log (audit.jsonl), or the folder that holds one.")]
GateBaseline = Annotated[
    str,
    typer.Option(
        "--baseline",
        help="Baseline to compare with: NAME (the latest), NAME@3, or a baseline's file.",
        rich_help_panel=Panel.CHECKS,
    ),
]
MaxRegress = Annotated[
    list[str] | None,
    typer.Option(
        "--max-regress",
        metavar="METRIC:5%",
        help="How much worse a metric may be. For a rate, 5% or 5pp means five percentage points; for a perplexity ratio, 5% is "
        "relative. METRIC:off leaves the metric out. Repeat it for more metrics; 'editguard list metrics' names them.",
        rich_help_panel=Panel.CHECKS,
    ),
]
Accept = Annotated[
    list[str] | None,
    typer.Option(
        "--accept",
        metavar="REASON",
        help="new-edits or missing-edits: the file of edits was changed on purpose.",
        rich_help_panel=Panel.CHECKS,
    ),
]
SaveBaseline = Annotated[
    str | None,
    typer.Option(
        "--save-baseline",
        metavar="NAME",
        help="Save the audit as the next baseline of NAME, if it passes.",
        rich_help_panel=Panel.OUTPUT,
    ),
]
ReportBaseline = Annotated[
    str | None,
    typer.Option(
        "--baseline",
        help="Show what changed since this baseline: NAME, NAME@3 or its file.",
        rich_help_panel=Panel.CHECKS,
    ),
]
Markdown = Annotated[
    bool, typer.Option("--markdown", help="Print Markdown, for the summary of a CI job.", rich_help_panel=Panel.OUTPUT)
]

app = typer.Typer(cls=PlainGroup, no_args_is_help=True, help="Save audits as baselines, and list them.")


@app.command(cls=PlainCommand)
@takes_records()
def save(
    log: LogPlace,
    name: Annotated[str, typer.Argument(help="Name of the baseline. Each one that is saved gets the next number.")],
    baselines: Baselines = STORE,
    allow_failed: Annotated[
        bool,
        typer.Option(
            "--allow-failed",
            help="Save an audit that failed. Void and unfinished audits are never saved.",
            rich_help_panel=Panel.CHECKS,
        ),
    ] = False,
) -> None:
    """Save a finished audit as the next baseline of NAME.

    Exit code 1: the audit cannot be a reference.

    Example: editguard baseline save my-audit main
    """
    from ..gate.evaluate import save_baseline

    store = _store_in(baselines)
    typer.echo(f"baseline: {save_baseline(log, name, store, allow_failed=allow_failed)}")


@app.command("list", cls=PlainCommand)
@takes_records()
def list_baselines(
    reference: Annotated[str | None, typer.Argument(metavar="NAME", help="NAME or NAME@3. Default: all.")] = None,
    baselines: Baselines = STORE,
) -> None:
    """List baselines with date, commit, verdict and number of edits.

    Baselines that cannot be read are named on standard error. Exit code 2: a baseline of the given NAME cannot be read.

    Example: editguard baseline list main
    """
    from ...reports.errors import ReportError
    from ...reports.text import visible

    store, unreadable = _store_in(baselines), False
    references = store.list_references(reference)
    if not references:
        typer.echo(
            visible(
                f"There are no baselines in {str(baselines)!r}; save one with 'editguard baseline save LOG NAME', or name "
                "another folder with --baselines."
            ),
            err=True,
        )
    for name in references:
        try:
            typer.echo(_describe_baseline(store.load(name)))
        except ReportError as error:
            unreadable = True
            typer.echo(visible(f"editguard: {error}"), err=True)
    raise typer.Exit(2 if unreadable and reference is not None else 0)


def _describe_baseline(stored: StoredBaseline) -> str:
    from ...reports.text import count_noun, visible

    baseline = stored.baseline
    commit = f"{baseline.git.commit[:8]}{'+' if baseline.git.dirty else ''}" if baseline.git else "no commit"
    edits = count_noun(len(baseline.edits), "edit")
    return visible(f"{stored.name}  {baseline.created}  {commit}  {baseline.verdict}  {edits}  {baseline.model.ref}")


@takes_records()
def compare(
    before: Annotated[str, typer.Argument(help="A log, an audit's folder, a baseline's file, NAME or NAME@3.")],
    after: Annotated[str, typer.Argument(help="The audit to compare it with, named in the same way.")],
    baselines: Baselines = STORE,
    as_json: Json = False,
    markdown: Markdown = False,
) -> None:
    """Show what changed from one audit to another: each metric, and each edit that ended differently.

    Exit code 0, whatever changed.

    Example: editguard compare main my-audit
    """
    from ...reports.gate.comparison import compare as compare_audits
    from ...reports.gate.comparison_rows import compare_markdown
    from ..gate.evaluate import read_comparison_side
    from .terminal_gate import print_comparison

    _check_one_output(as_json, markdown)
    store = _store_in(baselines)
    (name, first), (other, second) = read_comparison_side(before, store), read_comparison_side(after, store)
    comparison = compare_audits(first, second, (name, other))
    if as_json:
        typer.echo(comparison.model_dump_json())
    elif markdown:
        typer.echo(compare_markdown(comparison), nl=False)
    else:
        print_comparison(comparison)


@takes_records()
def gate(
    log: LogPlace,
    baseline: GateBaseline,
    max_regress: MaxRegress = None,
    accept: Accept = None,
    baselines: Baselines = STORE,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for report.html, which shows what changed, and gate.json. Default: no file is written.",
            rich_help_panel=Panel.OUTPUT,
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace a report or a gate.json that the folder already holds.",
            rich_help_panel=Panel.OUTPUT,
        ),
    ] = False,
    as_json: Json = False,
    markdown: Markdown = False,
) -> None:
    """Compare an audit with a baseline, and open or close the gate. Each reason for closing has a name.

    Exit code 0: the gate is open. 1: it is closed. 2: wrong input.

    Example: editguard gate my-audit --baseline main --max-regress efficacy-prefixed:2%
    """
    from ...reports.gate.comparison_rows import gate_markdown
    from ..folders.file_names import REPORT
    from ..folders.output_folder import locked_folder
    from .terminal_gate import print_gate

    _check_one_output(as_json, markdown)
    with nullcontext() if out is None else locked_folder(out, (GATE, REPORT), "a report", overwrite=overwrite):
        evaluation = _evaluate_gate(log, baseline, baselines, max_regress, accept)
        if out is not None:
            _write(out, evaluation)
    verdict = evaluation.gate
    if as_json:
        typer.echo(json.dumps(gate_json(verdict)))
    elif markdown:
        typer.echo(gate_markdown(verdict), nl=False)
    else:
        print_gate(verdict)
    raise typer.Exit(verdict.exit_code)


@takes_records()
def override(
    log: LogPlace,
    baseline: GateBaseline,
    reason: Annotated[
        str,
        typer.Option(
            help="Why these edits may ship although the gate is closed; three words or more.",
            rich_help_panel=Panel.CHECKS,
        ),
    ],
    author: Annotated[
        str | None,
        typer.Option(
            help="Who takes responsibility. Default: git's user.name, or else the environment variable USER.",
            rich_help_panel=Panel.CHECKS,
        ),
    ] = None,
    max_regress: MaxRegress = None,
    accept: Accept = None,
    baselines: Baselines = STORE,
) -> None:
    """Open a closed gate by a person's decision, which is recorded for good.

    The override holds for this log, this baseline and these reasons only. Give --max-regress and --accept as for the gate.

    Example: editguard override my-audit --baseline main --reason "only test subjects are affected"
    """
    from ...reports.gate.comparison_rows import describe_override
    from ..gate.evaluate import make_override

    evaluation = _evaluate_gate(log, baseline, baselines, max_regress, accept)
    record = make_override(evaluation, author if author is not None else _default_author(), reason)
    _store_in(baselines).append_override(record)
    _announce(record, describe_override(record))


def _evaluate_gate(
    log: Path, baseline: str, baselines: Path, max_regress: list[str] | None, accept: list[str] | None
) -> GateEvaluation:
    """Evaluate the gate as the options say; raises for a wrong option before anything is read."""
    from ..gate.evaluate import run_gate

    return run_gate(log, baseline, _store_in(baselines), _read_allowances(max_regress), _read_reasons(accept))


def check_baseline_name(name: str | None) -> None:
    """Raise `BaselineError` for a name that no baseline may have, before an audit is run for it."""
    if name is not None:
        from ..gate.baseline_store import check_name

        check_name(name)


def save_passed_audit(folder: Path, name: str, baselines: Path) -> None:
    """Save the audit in `folder` as a baseline; say on standard error where it is, or why it was not saved."""
    from ...reports.errors import BaselineRefused
    from ..gate.evaluate import save_baseline

    try:
        typer.echo(f"baseline: {save_baseline(folder, name, _store_in(baselines))}", err=True)
    except BaselineRefused as error:
        typer.echo(f"no baseline was saved: {error}", err=True)


def gate_or_overrides(
    log: Path, baseline: str | None, baselines: Path, max_regress: list[str] | None, accept: list[str] | None
) -> tuple[Gate | None, list[Override]]:
    """Return what a report shows beside the log: the gate's verdict if a baseline is named, or else the log's overrides."""
    from ..gate.evaluate import read_audit

    store = _store_in(baselines)
    if baseline is not None:
        store.require(baseline)  # a person asks for a report, and may have mistyped the name
        return _evaluate_gate(log, baseline, baselines, max_regress, accept).gate, []
    sha256 = read_audit(log).sha256
    return None, [record for record in store.read_overrides() if record.log_sha256 == sha256]


def _store_in(folder: Path) -> BaselineStore:
    from ..gate.baseline_store import BaselineStore

    return BaselineStore(folder)


def _read_allowances(texts: list[str] | None) -> Allowances:
    from ...reports.gate.allowances import read_allowances

    return read_allowances(texts or ())


def _check_one_output(as_json: bool, markdown: bool) -> None:
    from ...probes.errors import InputError

    if as_json and markdown:
        raise InputError("The options --json and --markdown both ask for standard output; give one of them.")


def _read_reasons(texts: list[str] | None) -> frozenset[ReasonCode]:
    from ...probes.errors import InputError
    from ...reports.gate.result import ACCEPTABLE, ReasonCode

    names = sorted(code.value for code in ACCEPTABLE)
    for text in texts or ():
        if text not in names:
            raise InputError(
                f"The reason {text!r} cannot be accepted beforehand, only {' and '.join(names)} can; see override."
            )
    return frozenset(ReasonCode(text) for text in texts or ())


def _default_author() -> str:
    from ..gate.baseline_store import git_output

    return git_output(None, "config", "user.name") or os.environ.get("USER", "")


def _announce(record: Override, description: str) -> None:
    from ...reports.text import visible

    typer.echo(visible(description))
    typer.echo(f"It holds for this log ({record.log_sha256[:12]}), {record.baseline} and these reasons alone.")


def gate_json(verdict: Gate) -> dict[str, Any]:
    """Return the gate's verdict as one JSON object, with its exit code."""
    return verdict.model_dump(mode="json") | {"exit_code": verdict.exit_code}


def _write(out: Path, evaluation: GateEvaluation) -> None:
    from ...reports.html.report_page import render_html
    from ...reports.log.file import write_atomic
    from ..folders.file_names import REPORT

    if evaluation.audit is None:
        # The page of an earlier gate, perhaps an open one, must not stand beside this verdict.
        (out / REPORT).unlink(missing_ok=True)
    write_atomic(out / GATE, json.dumps(gate_json(evaluation.gate)) + "\n")
    if evaluation.audit is not None:
        write_atomic(out / REPORT, render_html(evaluation.audit.log, evaluation.gate))

"""Commands that hold audits against one another: ``baseline``, ``compare``, ``gate`` and ``override``."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import Json

if TYPE_CHECKING:
    from ...reports.gate.allowances import Allowances
    from ...reports.gate.result import Gate, Override, ReasonCode
    from ..gate.baseline_store import BaselineStore, StoredBaseline
    from ..gate.evaluate import GateEvaluation

__all__ = [
    "STORE",
    "Accept",
    "Baselines",
    "MaxRegress",
    "ReportBaseline",
    "SaveBaseline",
    "app",
    "compare",
    "gate",
    "gate_json",
    "known_name",
    "override",
    "saved",
    "shown_since",
]

GATE = "gate.json"
"""The gate's verdict as one JSON object, beside the page."""

STORE = Path(".editguard") / "baselines"
"""Where baselines are kept unless the user says otherwise, under the working directory."""

Baselines = Annotated[Path, typer.Option("--baselines", help="Folder of the baselines.", show_default=str(STORE))]
Log = Annotated[Path, typer.Argument(help="A log (audit.jsonl), or the folder that holds one.")]
Against = Annotated[str, typer.Option("--baseline", help="NAME (its latest), NAME@3, or a baseline's file.")]
MaxRegress = Annotated[
    list[str] | None,
    typer.Option(
        "--max-regress",
        metavar="METRIC:5%",
        help="How much worse a metric may be, once for each: of a rate 5% (or 5pp) are percentage points, of a perplexity "
        "ratio 5% is relative; METRIC:off leaves it out. Others keep their defaults.",
    ),
]
Accept = Annotated[
    list[str] | None,
    typer.Option("--accept", metavar="REASON", help="new-edits or missing-edits: the set of edits changed on purpose."),
]
SaveBaseline = Annotated[
    str | None,
    typer.Option("--save-baseline", metavar="NAME", help="Save an audit that passes as the next baseline of NAME."),
]
ReportBaseline = Annotated[
    str | None, typer.Option("--baseline", help="Show what changed since this baseline: NAME, NAME@3 or its file.")
]
Markdown = Annotated[bool, typer.Option("--markdown", help="Markdown on standard output, for a job's summary.")]

app = typer.Typer(no_args_is_help=True, help="Save audits as baselines, and list those that are there.")


@app.command()
def save(
    log: Log,
    name: Annotated[str, typer.Argument(help="Name of the baseline; each one saved under it gets the next number.")],
    baselines: Baselines = STORE,
    allow_failed: Annotated[
        bool,
        typer.Option("--allow-failed", help="Save an audit that failed; void and unfinished ones are never saved."),
    ] = False,
) -> None:
    """Save a finished audit as the next baseline of NAME; exit 1 where it is no sound reference."""
    from ..gate.evaluate import save_baseline

    store = store_in(baselines)
    typer.echo(f"baseline: {save_baseline(log, name, store, allow_failed=allow_failed)}")


@app.command("list")
def listed(
    reference: Annotated[str | None, typer.Argument(metavar="NAME", help="NAME or NAME@3; default: all.")] = None,
    baselines: Baselines = STORE,
) -> None:
    """List baselines with date, commit, verdict and number of edits.

    One that cannot be read is named on standard error, and the others are listed; exit 2 only where it was asked for by NAME.
    """
    from ...reports.errors import ReportError
    from ...reports.text import visible

    store, unreadable = store_in(baselines), False
    for one in store.references(reference):
        try:
            typer.echo(_listing(store.find(one)))
        except ReportError as error:
            unreadable = True
            typer.echo(visible(f"editguard: {error}"), err=True)
    raise typer.Exit(2 if unreadable and reference is not None else 0)


def _listing(found: StoredBaseline) -> str:
    from ...reports.text import count_noun, visible

    kept = found.baseline
    commit = f"{kept.git.commit[:8]}{'+' if kept.git.dirty else ''}" if kept.git else "no commit"
    edits = count_noun(len(kept.edits), "edit")
    return visible(f"{found.name}  {kept.created}  {commit}  {kept.verdict}  {edits}  {kept.model.ref}")


def compare(
    before: Annotated[str, typer.Argument(help="A log, an audit's folder, a baseline's file, NAME or NAME@3.")],
    after: Annotated[str, typer.Argument(help="The same.")],
    baselines: Baselines = STORE,
    as_json: Json = False,
    markdown: Markdown = False,
) -> None:
    """Show what changed from one audit to another, metric by metric and edit by edit; exit 0 whatever changed."""
    from ...reports.gate.comparison import compare as compared
    from ...reports.gate.comparison_rows import compare_markdown
    from ..gate.evaluate import read_comparison_side
    from .terminal_gate import print_comparison

    one_output(as_json, markdown)
    store = store_in(baselines)
    (name, first), (other, second) = read_comparison_side(before, store), read_comparison_side(after, store)
    found = compared(first, second, (name, other))
    if as_json:
        typer.echo(found.model_dump_json())
    elif markdown:
        typer.echo(compare_markdown(found), nl=False)
    else:
        print_comparison(found)


def gate(
    log: Log,
    baseline: Against,
    max_regress: MaxRegress = None,
    accept: Accept = None,
    baselines: Baselines = STORE,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for report.html with what changed, and gate.json; default: none is written."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a report or a gate.json that the folder already holds.")
    ] = False,
    as_json: Json = False,
    markdown: Markdown = False,
) -> None:
    """Hold an audit against a baseline: exit 0 where the gate is open, 1 where it is closed, by named reasons."""
    from ...reports.gate.comparison_rows import gate_markdown
    from ..run.file_names import REPORT
    from ..run.output_folder import locked_folder
    from .terminal_gate import print_gate

    one_output(as_json, markdown)
    with nullcontext() if out is None else locked_folder(out, (GATE, REPORT), "a report", overwrite=overwrite):
        judged = gate_for(log, baseline, baselines, max_regress, accept)
        if out is not None:
            _write(out, judged)
    found = judged.gate
    if as_json:
        typer.echo(json.dumps(gate_json(found)))
    elif markdown:
        typer.echo(gate_markdown(found), nl=False)
    else:
        print_gate(found)
    raise typer.Exit(found.exit_code)


def override(
    log: Log,
    baseline: Against,
    reason: Annotated[str, typer.Option(help="Why this may ship all the same, in three words or more.")],
    author: Annotated[
        str | None, typer.Option(help="Who answers for it; default: git's user.name, else the environment's USER.")
    ] = None,
    max_regress: MaxRegress = None,
    accept: Accept = None,
    baselines: Baselines = STORE,
) -> None:
    """Open a closed gate on a person's word: for this log, this baseline and these reasons alone, on record for good.

    Give --max-regress and --accept as the gate gets them.
    """
    from ...reports.gate.comparison_rows import describe_override
    from ..gate.evaluate import make_override

    judged = gate_for(log, baseline, baselines, max_regress, accept)
    record = make_override(judged, author if author is not None else _author(), reason)
    store_in(baselines).override(record)
    _announce(record, describe_override(record))


def gate_for(
    log: Path, baseline: str, baselines: Path, max_regress: list[str] | None, accept: list[str] | None
) -> GateEvaluation:
    """Run the gate as the options say; raises for a wrong option before anything is read."""
    from ..gate.evaluate import run_gate

    return run_gate(log, baseline, store_in(baselines), allowances(max_regress), _accepted(accept))


def known_name(name: str | None) -> None:
    """Raise `BaselineError` for a name that no baseline may have, before an audit is run for it."""
    if name is not None:
        from ..gate.baseline_store import check_name

        check_name(name)


def saved(folder: Path, name: str, baselines: Path) -> None:
    """Save the audit in `folder` as a baseline, and say on standard error where, or why not."""
    from ...reports.errors import BaselineRefused
    from ..gate.evaluate import save_baseline

    try:
        typer.echo(f"baseline: {save_baseline(folder, name, store_in(baselines))}", err=True)
    except BaselineRefused as error:
        typer.echo(f"no baseline was saved: {error}", err=True)


def shown_since(
    log: Path, baseline: str | None, baselines: Path, max_regress: list[str] | None, accept: list[str] | None
) -> tuple[Gate | None, list[Override]]:
    """Return what a report shows beside the log: the gate's verdict where a baseline is named, and the overrides of the log."""
    from ..gate.evaluate import read_audit

    if baseline is not None:
        store_in(baselines).expect(baseline)  # a report is asked for by a person, who mistyped
        return gate_for(log, baseline, baselines, max_regress, accept).gate, []
    read = read_audit(log).sha256
    return None, [one for one in store_in(baselines).overrides() if one.log_sha256 == read]


def store_in(folder: Path) -> BaselineStore:
    """Return the store in `folder`."""
    from ..gate.baseline_store import BaselineStore

    return BaselineStore(folder)


def allowances(given: list[str] | None) -> Allowances:
    """Return the allowances that the options ask for."""
    from ...reports.gate.allowances import read_allowances

    return read_allowances(given or ())


def one_output(as_json: bool, markdown: bool) -> None:
    """Raise `InputError` where two forms of output are asked for."""
    from ...probes.errors import InputError

    if as_json and markdown:
        raise InputError("The options --json and --markdown both ask for standard output; give one of them.")


def _accepted(given: list[str] | None) -> frozenset[ReasonCode]:
    from ...probes.errors import InputError
    from ...reports.gate.result import ACCEPTABLE, ReasonCode

    names = sorted(one.value for one in ACCEPTABLE)
    for one in given or ():
        if one not in names:
            raise InputError(
                f"The reason {one!r} cannot be accepted beforehand, only {' and '.join(names)} can; see override."
            )
    return frozenset(ReasonCode(one) for one in given or ())


def _author() -> str:
    from ..gate.baseline_store import git_output

    return git_output(None, "config", "user.name") or os.environ.get("USER", "")


def _announce(record: Override, said: str) -> None:
    from ...reports.text import visible

    typer.echo(visible(said))
    typer.echo(f"It holds for this log ({record.log_sha256[:12]}), {record.baseline} and these reasons alone.")


def gate_json(found: Gate) -> dict[str, Any]:
    """Return the gate's verdict as one JSON object, with its exit code."""
    return found.model_dump(mode="json") | {"exit_code": found.exit_code}


def _write(out: Path, judged: GateEvaluation) -> None:
    from ...reports.html.report_page import render_html
    from ...reports.log.file import write_atomic
    from ..run.file_names import REPORT

    write_atomic(out / GATE, json.dumps(gate_json(judged.gate)) + "\n")
    if judged.audit is not None:
        write_atomic(out / REPORT, render_html(judged.audit.log, judged.gate))

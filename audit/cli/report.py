"""The command ``report``: all files of an audit, written again from its log."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from .gate import STORE, Accept, Baselines, LogPlace, MaxRegress, ReportBaseline, gate_json, gate_or_overrides
from .options import Json, Panel, takes_records

__all__ = ["report"]


@takes_records()
def report(
    log: LogPlace,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the files. Default: beside the log.", rich_help_panel=Panel.OUTPUT),
    ] = None,
    baseline: ReportBaseline = None,
    max_regress: MaxRegress = None,
    accept: Accept = None,
    baselines: Baselines = STORE,
    as_json: Json = False,
) -> None:
    """Write the report and the other files of an audit again, from its log.

    With --baseline the gate's verdict comes first, and all files show what changed since. Overrides of this log are always shown.

    Exit code: that of the audit; with --baseline that of the gate.

    Example: editguard report my-audit --out again
    """
    from ...reports.log.file import read_log
    from ..folders.file_names import LOG, REPORT
    from ..folders.output_folder import make_writable, one_writer
    from ..run.outputs import write_outputs

    path = log / LOG if log.is_dir() else log
    folder = out or path.parent
    read_log(path)
    make_writable(folder)
    lock = folder / ".lock"
    # An audit may still write to this folder; a folder without a lock belongs to no running audit.
    with one_writer(lock, folder) if lock.is_file() else nullcontext():
        verdict, overrides = gate_or_overrides(path, baseline, baselines, max_regress, accept)
        summary = write_outputs(folder, path, gate=verdict, overrides=overrides)
    if as_json:
        first = {} if verdict is None else {"gate": gate_json(verdict)}
        typer.echo(json.dumps(first | summary.model_dump(mode="json")))
    else:
        from .terminal import print_summary
        from .terminal_gate import print_overrides, print_standing

        if verdict is not None:
            print_standing(verdict, summary.verdict)
        print_overrides(overrides)
        print_summary(summary, folder / REPORT)
    raise typer.Exit(summary.exit_code if verdict is None else verdict.exit_code)

"""The command ``audit``: every edit of a file is probed, guarded, made, checked and undone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .gate import STORE, Baselines, SaveBaseline, check_baseline_name, save_passed_audit
from .options import EditOptions, Edits, Json, ModelOptions, Overwrite, Panel, given_arguments, takes_records
from .progress import show_progress

__all__ = ["audit"]

InSequence = Annotated[
    bool,
    typer.Option(
        "--in-sequence",
        help="Keep each sound edit in the model while the next ones are made, until the model has drifted too far.",
        rich_help_panel=Panel.EDITS,
    ),
]
OutFolder = Annotated[
    Path, typer.Option(help="Folder for the log, the report and all other files.", rich_help_panel=Panel.OUTPUT)
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Continue an audit that was stopped in this folder; begin one if there is none.",
        rich_help_panel=Panel.OUTPUT,
    ),
]


@takes_records()
def audit(
    context: typer.Context,
    model_options: ModelOptions,
    edit_options: EditOptions,
    edits: Edits = "builtin",
    in_sequence: InSequence = False,
    out: OutFolder = Path("editguard-audit"),
    overwrite: Overwrite = False,
    resume: Resume = False,
    save_baseline: SaveBaseline = None,
    baselines: Baselines = STORE,
    as_json: Json = False,
) -> None:
    """Probe, guard, make, check and undo every edit. Writes log, report and other files.

    Exit code 0: the audit passed. 1: it failed or is void. 2: wrong input.

    Example: editguard audit edits.json --model ./my-model --out my-audit
    """
    from ..folders.file_names import LOG, REPORT
    from ..folders.output_folder import locked_folder

    check_baseline_name(save_baseline)
    model_options.check_device_name()
    edit_options.check_editor_name()
    loaded = edit_options.read(edits, in_sequence=in_sequence)
    with (
        locked_folder(out, overwrite=overwrite, resume=resume),
        show_progress(model_options.model, as_json=as_json) as progress,
    ):
        from ..run.audit import run_audit
        from ..run.resume import check_resumable

        edit_options.check_editor()
        if resume:
            check_resumable(
                out / LOG, loaded, in_sequence=in_sequence, seed=model_options.seed, editor=edit_options.editor
            )
        summary = run_audit(
            model_options.prepare(progress),
            loaded,
            out,
            editor=edit_options.editor,
            arguments=given_arguments(context),
            overwrite=overwrite,
            resume=resume,
            in_sequence=in_sequence,
            progress=progress,
        )
    if as_json:
        typer.echo(summary.model_dump_json())
    else:
        from .terminal import print_summary

        print_summary(summary, out / REPORT)
    if save_baseline is not None:
        save_passed_audit(out, save_baseline, baselines)
    raise typer.Exit(summary.exit_code)

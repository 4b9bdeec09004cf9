"""The command ``audit``: every edit of a file is probed, guarded, made, checked and undone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .gate import STORE, Baselines, SaveBaseline, check_baseline_name, save_passed_audit
from .options import BUILTIN, EditOptions, Json, ModelOptions, Overwrite, Panel, given_arguments, takes_records
from .progress import show_progress

if TYPE_CHECKING:
    from ...probes.requests.loader import LoadedRequests
    from ...reports.verdict.summary import Summary
    from ...suites.tasks.task import Task
    from ..progress import Progress

__all__ = ["audit"]

InSequence = Annotated[
    bool,
    typer.Option(
        "--in-sequence",
        help="Keep each sound edit in the model while the next ones are made, until the model has drifted too far.",
        rich_help_panel=Panel.EDITS,
    ),
]
Edited = Annotated[
    str | None,
    typer.Option(
        "--edited",
        help="A checkpoint that holds the edits already: judge it against --model, its base, and make no edit.",
        rich_help_panel=Panel.MODEL,
    ),
]
Tasks = Annotated[
    str | None,
    typer.Option(
        "--tasks",
        help="Tasks to ask the base and the checkpoint, with commas between: cloze, endings, lm-eval:NAME, "
        "lm-eval:FOLDER/NAME. Only with --edited.",
        rich_help_panel=Panel.MODEL,
    ),
]
MaybeEdits = Annotated[
    str | None,
    typer.Argument(
        help="A file of edits (JSON, JSONL, YAML, CSV), hf://dataset[:split], or 'builtin'. Default: 'builtin'; none with "
        "--edited."
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
    edits: MaybeEdits = None,
    edited: Edited = None,
    tasks: Tasks = None,
    in_sequence: InSequence = False,
    out: OutFolder = Path("editguard-audit"),
    overwrite: Overwrite = False,
    resume: Resume = False,
    save_baseline: SaveBaseline = None,
    baselines: Baselines = STORE,
    as_json: Json = False,
) -> None:
    """Probe, guard, make, check and undo every edit. Writes log, report and other files.

    With --edited no edit is made: those of the file are looked for in that checkpoint, and so is damage.

    Exit code 0: the audit passed. 1: it failed or is void. 2: wrong input.

    Example: editguard audit edits.json --model ./my-model --out my-audit
    """
    from ..folders.file_names import REPORT
    from ..folders.output_folder import locked_folder

    check_baseline_name(save_baseline)
    model_options.check_device_name()
    model_options.check_weights()
    edit_options.check_editor_name()
    if edited is not None:
        _check_checkpoint_options(edit_options, in_sequence=in_sequence, resume=resume)
    asked = _load_tasks(tasks, edited)
    loaded = (
        None if edits is None and edited is not None else edit_options.read(edits or BUILTIN, in_sequence=in_sequence)
    )
    with (
        locked_folder(out, overwrite=overwrite, resume=resume),
        show_progress(model_options.model, as_json=as_json) as progress,
    ):
        edit_options.check_editor()
        if edited is not None:
            from ..checkpoint.audit import NO_EDITS, run_checkpoint_audit
            from ..checkpoint.edited_weights import check_checkpoint

            check_checkpoint(edited, allow_pickle=model_options.allow_pickle)
            summary = run_checkpoint_audit(
                model_options.prepare(progress),
                loaded or NO_EDITS,
                edited,
                out,
                arguments=given_arguments(context),
                allow_pickle=model_options.allow_pickle,
                tasks=asked,
                overwrite=overwrite,
                progress=progress,
            )
        else:
            assert loaded is not None  # None stands for no edits in a checkpoint alone
            summary = _audit_edits(
                loaded,
                model_options,
                edit_options,
                out,
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


def _audit_edits(
    loaded: LoadedRequests,
    model_options: ModelOptions,
    edit_options: EditOptions,
    out: Path,
    *,
    arguments: dict[str, Any],
    overwrite: bool,
    resume: bool,
    in_sequence: bool,
    progress: Progress,
) -> Summary:
    """Make, check and undo the edits."""
    from ..folders.file_names import LOG
    from ..run.audit import run_audit
    from ..run.resume import check_resumable

    if resume:
        check_resumable(out / LOG, loaded, in_sequence=in_sequence, seed=model_options.seed, editor=edit_options.editor)
    return run_audit(
        model_options.prepare(progress),
        loaded,
        out,
        editor=edit_options.editor,
        arguments=arguments,
        overwrite=overwrite,
        resume=resume,
        in_sequence=in_sequence,
        progress=progress,
    )


def _check_checkpoint_options(edit_options: EditOptions, *, in_sequence: bool, resume: bool) -> None:
    """Raise `InputError` for an option that has no meaning where no edit is made."""
    given = {"--editor": edit_options.editor is not None, "--in-sequence": in_sequence, "--resume": resume}
    for name in (name for name, is_given in given.items() if is_given):
        from ...probes.errors import InputError

        raise InputError(f"{name} is about edits that the audit makes, and with --edited it makes none; leave it out.")


def _load_tasks(names: str | None, edited: str | None) -> list[Task]:
    """Return the tasks of these names, before a model is loaded; raises `InputError` for what cannot be asked."""
    if names is None:
        return []
    from ...probes.errors import InputError
    from ...suites.tasks.names import load_tasks, split_names

    if edited is None:
        raise InputError("--tasks compares a checkpoint with its base; name the checkpoint with --edited.")
    asked = load_tasks(split_names(names))
    if not asked:
        raise InputError(f"--tasks {names!r} names no task; write for example --tasks cloze,endings.")
    return asked

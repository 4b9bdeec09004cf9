"""Commands for edits as files: ``export`` writes only the change, ``apply`` puts it onto its base."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...reports.text import count_noun, join_parts, visible
from .options import EditOptions, Edits, Json, ModelOptions, Overwrite, Panel, takes_records
from .progress import show_progress

if TYPE_CHECKING:
    from ..saved_model.manifest import EditProvenance, ExportedEdit

__all__ = ["apply", "export"]

Only = Annotated[
    list[str] | None,
    typer.Option(help="Id of an edit to take. Repeat it for more. Default: all.", rich_help_panel=Panel.EDITS),
]
OnlyExported = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        help="Id of an edit to take. Repeat it for more. Default: all. It hardly saves time: updates are computed in the "
        "audit's batches, so that the last bits agree.",
        rich_help_panel=Panel.EDITS,
    ),
]

_AUDITED = {
    "no": "no, nothing stands behind this model; see 'editguard diff'",
    "alone": "alone, this model to the bit",
    "together": "together, in this order, this model to the bit",
    "each-alone": "each alone, and nobody has audited them together; see 'editguard diff'",
}


@takes_records(edit_options=("editor", "limit", "skip_invalid"))
def export(
    model_options: ModelOptions,
    edit_options: EditOptions,
    edits: Edits,
    out: Annotated[
        Path,
        typer.Option(help="Folder for the delta files and editguard-export.json.", rich_help_panel=Panel.OUTPUT),
    ],
    only: OnlyExported = None,
    in_sequence: Annotated[
        bool,
        typer.Option(
            "--in-sequence",
            help="Make all edits one after the other, so that they ship together. --log takes an audit in sequence.",
            rich_help_panel=Panel.EDITS,
        ),
    ] = False,
    log: Annotated[
        Path | None,
        typer.Option(
            help="Log of an audit (audit.jsonl). Each edit must have passed it with the same bits.",
            rich_help_panel=Panel.CHECKS,
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Make edits under the guard and write only the changes, one delta file for each edit.

    Exit code 1: an edit is not sound, and nothing was written.

    Example: editguard export edits.json --log my-audit/audit.jsonl --out deltas
    """
    from ..delta.evidence import read_evidence
    from ..folders.whole_folder import check_replaceable
    from ..saved_model.manifest import EXPORT_MARKER

    model_options.check_device_name()
    model_options.check_weights()
    edit_options.check_editor_name()
    if log is not None:
        read_evidence(log, in_sequence=in_sequence)
    loaded = edit_options.read(edits, in_sequence=in_sequence)
    check_replaceable(out, EXPORT_MARKER, overwrite=overwrite)
    with show_progress(model_options.model, as_json=as_json) as progress:
        from ..delta.export import export_edits
        from ..delta.selection import check_ids

        edit_options.check_editor()
        # Wrong ids are reported before the model is prepared, which takes longer.
        check_ids(only or (), [request.id for request in loaded.requests])
        exported = export_edits(
            model_options.prepare(progress),
            loaded.requests,
            out,
            editor=edit_options.editor,
            only=only or (),
            log=log,
            in_sequence=in_sequence,
            overwrite=overwrite,
            progress=progress,
        )
    if as_json:
        typer.echo(json.dumps([file.model_dump() for file in exported]))
        return
    for file in exported:
        typer.echo(visible(_describe_export(file, out)))
    what, only_one = ("all", "") if in_sequence else ("one", " --only ID")
    typer.echo(f"To apply {what}: editguard apply {out}{only_one} --model {model_options.model} --out FOLDER")


def _describe_export(file: ExportedEdit, out: Path) -> str:
    edit = file.edit
    served = f"served after the prefix {edit.prefix!r}" if edit.prefix else "served as it stands"
    sizes = f"{edit.relative_norm:.3g} of the weight's norm"
    if len(edit.sites) > 1:
        each = ", ".join(f"layer {site.layer}: {site.relative_norm:.3g}" for site in edit.sites)
        sizes = f"{edit.relative_norm:.3g} of the weights' norms ({each})"
    origin = f"by {edit.editor}, {sizes}, {served}"
    return f"{edit.id!r} in {out / file.file}: {origin}"


@takes_records(model_options=("model", "allow_pickle"))
def apply(
    model_options: ModelOptions,
    deltas: Annotated[list[Path], typer.Argument(help="Delta files, or folders that 'editguard export' wrote.")],
    out: Annotated[Path, typer.Option(help="Folder for the edited model.", rich_help_panel=Panel.OUTPUT)],
    only: Only = None,
    unaudited: Annotated[
        bool,
        typer.Option(
            "--unaudited",
            help="Apply edits that were exported without the log of an audit.",
            rich_help_panel=Panel.CHECKS,
        ),
    ] = False,
    unaudited_together: Annotated[
        bool,
        typer.Option(
            "--unaudited-together",
            help="Apply several edits, although each was audited alone.",
            rich_help_panel=Panel.CHECKS,
        ),
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Apply delta files to the model that they were made on, and save the edited model as a folder.

    Example: editguard apply deltas --model ./my-model --out edited
    """
    _check_paths(deltas)
    with show_progress(model_options.model, as_json=as_json):
        from ..delta.apply import save_applied
        from ..delta.selection import select_deltas

        provenance = save_applied(
            select_deltas(deltas, only or ()),
            model_options.model,
            out,
            unaudited=unaudited,
            unaudited_together=unaudited_together,
            overwrite=overwrite,
            allow_pickle=model_options.allow_pickle,
        )
    if as_json:
        typer.echo(provenance.model_dump_json())
        return
    for line in _describe_applied(provenance, out):
        typer.echo(visible(line))


def _check_paths(paths: Sequence[Path]) -> None:
    from ...probes.errors import InputError

    for path in paths:
        if not path.exists():
            raise InputError(f"There is no delta file or folder {str(path)!r}; name one that 'editguard export' wrote.")


def _describe_applied(provenance: EditProvenance, out: Path) -> Iterator[str]:
    yield f"Put {count_noun(len(provenance.edits), 'edit')} onto {provenance.base}:"
    for edit in provenance.edits:
        layers = [str(site.layer) for site in edit.sites]
        where = f"layer {layers[0]}" if len(layers) == 1 else f"layers {join_parts(layers)}"
        yield f"  {edit.id!r}: {edit.subject!r} -> {edit.target_new!r}, by {edit.editor} at {where}"
    yield f"  checked: the base has the fingerprint that they were made on, {provenance.base_fingerprint[:12]}"
    yield f"  written: {out}, which loads again with the fingerprint {provenance.fingerprint[:12]}"
    yield f"  audited: {_AUDITED[provenance.audited]}"
    prefixed = [edit for edit in provenance.edits if edit.prefix]
    if not prefixed:
        yield "  serving: as it stands; no edit needs a prefix"
        return
    for edit in prefixed:
        yield f"  serving: {edit.id!r} acts only where something stands before {edit.subject!r}, such as {edit.prefix!r}"
    yield "  before a text goes to the model, from editguard.audit.serving import load_provenance, serve_prompt:"
    yield f"    text = serve_prompt(text, load_provenance({str(out)!r}).edits)"

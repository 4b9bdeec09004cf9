"""Commands for edits as files: ``export`` writes only the change, ``apply`` puts it onto its base."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...reports.text import count_noun, visible
from .common import (
    CheckDtype,
    Corpus,
    Device,
    Dtype,
    Editor,
    Edits,
    EngineName,
    Json,
    Layer,
    Limit,
    Model,
    PerplexityCorpus,
    Pickle,
    PolicyFile,
    Seed,
    Site,
    Skip,
    Stats,
    known_editor,
    load_edits,
    prepared,
    progress_bars,
)

if TYPE_CHECKING:
    from ..delta.manifest import EditProvenance

__all__ = ["apply", "export"]


_AUDITED = {
    "no": "no, nothing stands behind this model; see 'editguard diff'",
    "alone": "alone, this model to the bit",
    "each-alone": "each alone, and nobody has audited them together; see 'editguard diff'",
}


def export(
    edits: Edits,
    out: Annotated[Path, typer.Option(help="Folder for the delta files and editguard-export.json.")],
    model: Model = "smollm2-135m",
    only: Annotated[
        list[str] | None, typer.Option(help="Id of an edit to export; again for more. Default: all.")
    ] = None,
    log: Annotated[
        Path | None, typer.Option(help="Log of the audit (audit.jsonl) that each edit must have passed, to the bit.")
    ] = None,
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
    check_dtype: CheckDtype = "auto",
    engine: EngineName = "live",
    limit: Limit = None,
    skip_invalid: Skip = False,
    allow_pickle: Pickle = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an export that the folder already holds.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make edits under the guard and write only the changes, one delta file an edit; exit 1 if any is not sound."""
    from ..delta.chosen import check_ids
    from ..delta.export import export_edits, read_evidence
    from ..delta.folder import check_replaceable
    from ..delta.manifest import EXPORT_MARKER

    loaded = load_edits(edits, limit, skip_invalid)
    known_editor(editor)
    check_replaceable(out, EXPORT_MARKER, overwrite=overwrite)
    # Told before the model is made ready, which takes longer.
    check_ids(only or (), [request.id for request in loaded.requests])
    if log is not None:
        read_evidence(log)
    with progress_bars(as_json) as progress:
        setup = prepared(
            model, layer, site, policy, seed, device, dtype, stats, corpus, allow_pickle, progress, engine=engine,
            perplexity_corpus=perplexity_corpus, check_dtype=check_dtype,
        )  # fmt: skip
        found = export_edits(
            setup, loaded.requests, out, editor=editor, only=only or (), log=log, overwrite=overwrite, progress=progress
        )
    if as_json:
        typer.echo(json.dumps([one.model_dump() for one in found]))
        return
    for one in found:
        edit = one.edit
        served = f"served behind {edit.prefix!r}" if edit.prefix else "served as it stands"
        made = f"by {edit.editor}, {edit.relative_norm:.3g} of the weight's norm, {served}"
        typer.echo(visible(f"{edit.id!r} in {out / one.file}: {made}"))
    typer.echo(f"Put one onto the model: editguard apply {out} --only ID --model {model} --out FOLDER")


def apply(
    deltas: Annotated[list[Path], typer.Argument(help="Delta files, or folders, that 'editguard export' wrote.")],
    out: Annotated[Path, typer.Option(help="Folder for the edited model.")],
    model: Model = "smollm2-135m",
    only: Annotated[
        list[str] | None, typer.Option(help="Id of an edit to apply, of those given; again for more. Default: all.")
    ] = None,
    unaudited: Annotated[
        bool, typer.Option("--unaudited", help="Apply edits that were exported without the log of a sound audit.")
    ] = False,
    unaudited_together: Annotated[
        bool, typer.Option("--unaudited-together", help="Apply several, though each was audited alone.")
    ] = False,
    allow_pickle: Pickle = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an edited model that the folder holds.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Apply delta files to the model that they were made on, and save the edited model, to the bit, as a folder."""
    from ..delta.apply import save_applied
    from ..delta.chosen import select_deltas

    found = save_applied(
        select_deltas(deltas, only or ()), model, out, unaudited=unaudited, unaudited_together=unaudited_together,
        overwrite=overwrite, allow_pickle=allow_pickle,
    )  # fmt: skip
    if as_json:
        typer.echo(found.model_dump_json())
        return
    for line in _applied(found, out):
        typer.echo(visible(line))


def _applied(found: EditProvenance, out: Path) -> Iterator[str]:
    yield f"Put {count_noun(len(found.edits), 'edit')} onto {found.base}:"
    for edit in found.edits:
        yield f"  {edit.id!r}: {edit.subject!r} -> {edit.target_new!r}, by {edit.editor} at layer {edit.layer}"
    yield f"  checked: the base has the fingerprint that they were made on, {found.base_fingerprint[:12]}"
    yield f"  written: {out}, which loads again with the fingerprint {found.fingerprint[:12]}"
    yield f"  audited: {_AUDITED[found.audited]}"
    needing = [edit for edit in found.edits if edit.prefix]
    if not needing:
        yield "  serving: as it stands; no edit needs a prefix"
        return
    for edit in needing:
        yield f"  serving: {edit.id!r} acts only where something stands before {edit.subject!r}, such as {edit.prefix!r}"
    yield "  before a text goes to the model, from editguard.audit.serving import load_provenance, serve_prompt:"
    yield f"    text = serve_prompt(text, load_provenance({str(out)!r}).edits)"

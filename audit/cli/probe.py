"""Commands that measure a model before any edit: ``probe`` for requests, ``stats`` for the key statistics of a layer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import BUILTIN, EditFiles, EditOptions, Json, ModelOptions, Panel, takes_records
from .progress import show_progress

if TYPE_CHECKING:
    from ...probes.requests.request import EditRequest
    from ..edit_result import Assessment
    from ..guard import GuardedEditor

__all__ = ["probe", "stats"]

_BATCH = 64
"""Requests that are probed at once."""
_MODEL = (
    "model",
    "layer",
    "site",
    "device",
    "dtype",
    "allow_pickle",
    "policy",
    "seed",
    "stats",
    "corpus",
    "fresh",
    "engine",
)


@takes_records(model_options=_MODEL)
def probe(
    model_options: ModelOptions,
    edit_options: EditOptions,
    edits: EditFiles = None,
    screen: Annotated[
        bool,
        typer.Option(
            "--screen",
            help="Measure clear cases after a few prefixes only. That is faster; their figures are less exact.",
            rich_help_panel=Panel.CHECKS,
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Say what an audit would decide about each edit before it computes an update. Changes nothing.

    An audit may still rewrite or refuse an edit whose update is larger than the policy's bound.

    Exit code 0: no edit would be refused. 1: an edit would be refused. 2: wrong input.

    Example: editguard probe edits.json --model ./my-model
    """
    model_options.check_device_name()
    model_options.check_weights()
    edit_options.check_editor_name()
    files = [edit_options.read(source) for source in edits or [BUILTIN]]
    with show_progress(model_options.model, as_json=as_json) as progress:
        from ...probes.probe import PROBES
        from ...probes.screen import require_screened_figures
        from ..guard import GuardedEditor
        from ..policy import Action
        from .terminal import ProbeTable, probe_line

        refused, tables = 0, [ProbeTable(loaded.source if len(files) > 1 else None) for loaded in files]
        edit_options.check_editor()
        if screen:
            require_screened_figures(PROBES)
        setup = model_options.prepare(progress)
        guard = GuardedEditor(setup)
        for loaded, table in zip(files, tables, strict=True):
            total = len(loaded.requests)
            progress("probing", 0, total)
            for index, assessment in enumerate(_assess(guard, loaded.requests, edit_options.editor, screen), start=1):
                refused += assessment.decision.action is Action.REFUSE
                if as_json:
                    typer.echo(json.dumps(probe_line(assessment, loaded.source), ensure_ascii=False))
                else:
                    table.add(assessment)
                progress("probing", index, total)
    if not as_json:
        for loaded, table in zip(files, tables, strict=True):
            table.show(len(loaded.invalid))
    raise typer.Exit(1 if refused and not setup.policy.allow_refused else 0)


def _assess(
    guard: GuardedEditor, requests: Sequence[EditRequest], editor: str | None, screen: bool
) -> Iterator[Assessment]:
    from ..run.execute import assess_each

    for start in range(0, len(requests), _BATCH):
        yield from assess_each(guard, requests[start : start + _BATCH], editor, screen=screen)


_STATS_MODEL = ("model", "layer", "site", "device", "dtype", "allow_pickle", "seed", "corpus", "fresh")


@takes_records(model_options=_STATS_MODEL)
def stats(
    model_options: ModelOptions,
    out: Annotated[Path, typer.Option(help="File to write; it ends in .safetensors.", rich_help_panel=Panel.OUTPUT)],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the file if it exists.", rich_help_panel=Panel.OUTPUT)
    ] = False,
) -> None:
    """Compute the key statistics C of one layer and save them with their provenance.

    Example: editguard stats --model ./my-model --out c.safetensors
    """
    from ...probes.errors import StatisticsError
    from ..folders.output_folder import make_writable

    model_options.check_device_name()
    model_options.check_weights()
    if out.suffix != ".safetensors" or out.is_dir():
        raise StatisticsError(
            f"The output {str(out)!r} must be a file that ends in .safetensors; choose another --out."
        )
    if out.exists() and not overwrite:
        raise StatisticsError(f"The file {str(out)!r} exists already; choose another --out, or add --overwrite.")
    make_writable(out.parent)
    with show_progress(model_options.model) as progress:
        from ...probes.keys.statistics import save_statistics
        from ...probes.model.site import find_site
        from ..key_statistics import load_or_compute_statistics
        from ..setup import default_layer

        lm = model_options.load(progress)
        layer = default_layer(lm, model_options.site) if model_options.layer is None else model_options.layer
        site = find_site(lm.model, layer, model_options.site)
        statistics = load_or_compute_statistics(
            lm,
            site,
            None,
            model_options.corpus,
            seed=model_options.seed,
            progress=progress,
            fresh=model_options.fresh,
        )
    save_statistics(statistics, out)
    typer.echo(
        f"{out}: C [{site.d_ff}, {site.d_ff}] of {site.path}, {statistics.provenance.tokens} tokens of "
        f"{statistics.provenance.source}, condition number {statistics.condition_number:.3g} with a ridge of "
        f"{statistics.ridge:g}"
    )

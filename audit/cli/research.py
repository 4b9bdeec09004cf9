"""Commands for research: where facts are read (``trace``), and the paper's experiments (``reproduce``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .common import (
    Corpus,
    Device,
    Dtype,
    Edits,
    EngineName,
    Json,
    Layer,
    Limit,
    Model,
    Pickle,
    PolicyFile,
    Seed,
    Site,
    Skip,
    Stats,
    load_edits,
    prepared,
    progress_bars,
)

if TYPE_CHECKING:
    from ...reports.reproduction.schema import Reproduction

__all__ = ["reproduce", "trace"]


def trace(
    edits: Edits = "builtin",
    model: Model = "smollm2-135m",
    out: Annotated[Path, typer.Option(help="Folder for trace.json and trace.html.")] = Path("editguard-trace"),
    noise: Annotated[
        float, typer.Option(min=0, help="Noise in the subject's embeddings, in standard deviations of all embeddings.")
    ] = 3.0,
    draws: Annotated[int, typer.Option(min=1, max=64, help="Draws of that noise for each fact.")] = 10,
    site: Site = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    limit: Limit = None,
    skip_invalid: Skip = False,
    allow_pickle: Pickle = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a trace that the folder already holds.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Trace where the model keeps the facts that the edits would change, and suggest the layer to edit; changes nothing."""
    from ...probes.model.language_model import load_model
    from ...reports.text import count_noun, visible
    from ..research.trace import PAGE, TRACE, run_trace
    from ..run.output_folder import locked_folder

    loaded = load_edits(edits, limit, skip_invalid)
    with locked_folder(out, (TRACE, PAGE), "a trace", overwrite=overwrite), progress_bars(as_json) as progress:
        lm = load_model(model, device=device, dtype=dtype, allow_pickle=allow_pickle)
        found = run_trace(
            lm, loaded.requests, loaded.source, out, noise=noise, draws=draws, seed=seed, site=site, progress=progress
        )
    if as_json:
        typer.echo(json.dumps({"suggested_layer": found.suggested_layer, "traced": len(found.traces),
                               "skipped": len(found.skipped)}))  # fmt: skip
    else:
        typer.echo(
            f"MLP outputs around layer {found.suggested_layer} of {found.layers} bring most answers back "
            f"({count_noun(len(found.traces), 'fact')} traced, {len(found.skipped)} skipped); try edits there: "
            f"editguard audit --layer {found.suggested_layer}"
        )
        for one in found.skipped:
            typer.echo(f"  skipped {visible(one.id)}: {visible(one.why)}")
        typer.echo(f"  page: {out / PAGE}")


def reproduce(
    edits: Edits,
    model: Model = "smollm2-135m",
    out: Annotated[
        Path, typer.Option(help="Folder for page, tables and logs; what it holds of the same run is gone on with.")
    ] = Path("editguard-reproduction"),
    ordinary: Annotated[int, typer.Option(min=4, help="Ordinary requests, drawn by the seed.")] = 100,
    most_cases: Annotated[
        int,
        typer.Option(min=4, help="At most so many first-token requests, and others with a small denominator; drawn."),
    ] = 100,
    encoder: Annotated[
        str | None, typer.Option(help="Bidirectional encoder for comparison: id or folder; default: the embedded one.")
    ] = None,
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
    allow_pickle: Pickle = False,
    as_json: Json = False,
) -> None:
    """Run the experiments of "The Fall of ROME" on this model and these edits; write page, tables and logs.

    Edits are made without the guard and undone, one after the other: that collapse is seen is the purpose.
    """
    import shlex
    import sys

    from ..research.reproduction.run import PAGE
    from ..research.reproduction.run import reproduce as run
    from ..run.output_folder import locked_folder

    loaded = load_edits(edits, limit, skip_invalid)
    # What it holds is gone on with where it is of the same run, and refused by its stamp where it is not.
    with locked_folder(out, (), overwrite=True), progress_bars(as_json) as progress:
        setup = prepared(
            model, layer, site, policy, seed, device, dtype, stats, corpus, allow_pickle, progress, engine=engine
        )
        found = run(
            setup, loaded, out, ordinary=ordinary, most_cases=most_cases, corpus=corpus, encoder_ref=encoder,
            allow_pickle=allow_pickle, progress=progress, command=shlex.join(["editguard", *sys.argv[1:]]),
            notice=lambda text: typer.echo(f"editguard: {text}", err=True),
        )  # fmt: skip
    if as_json:
        typer.echo(found.model_dump_json())
    else:
        from .terminal import print_reproduction

        print_reproduction(found, out / PAGE)
    _exit_with_what_broke(found)


def _exit_with_what_broke(found: Reproduction) -> None:
    """Exit with 3 where an experiment broke by a fault of editguard's own."""
    broken = [str(one.number) for one in found.experiments if one.broken]
    if broken:
        typer.echo(
            f"editguard: experiments that broke: {', '.join(broken)}; this is a fault of editguard itself: please report it with "
            "what the page says of them.", err=True,
        )  # fmt: skip
        raise typer.Exit(3)

"""The command ``stats``: key statistics of one layer, saved as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import ModelOptions, Panel, takes_records
from .progress import show_progress

__all__ = ["stats"]

_MODEL = ("model", "layer", "site", "device", "dtype", "allow_pickle", "seed", "corpus")


@takes_records(model_options=_MODEL)
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
    from ..run.file_names import writable

    if out.suffix != ".safetensors" or out.is_dir():
        raise StatisticsError(
            f"The output {str(out)!r} must be a file that ends in .safetensors; choose another --out."
        )
    if out.exists() and not overwrite:
        raise StatisticsError(f"The file {str(out)!r} exists already; choose another --out, or add --overwrite.")
    writable(out.parent)
    with show_progress(model_options.model) as progress:
        from ...probes.keys.statistics import save_statistics
        from ...probes.model.site import find_site
        from ..setup import default_layer, statistics_for

        lm = model_options.load(progress)
        layer = default_layer(lm, model_options.site) if model_options.layer is None else model_options.layer
        site = find_site(lm.model, layer, model_options.site)
        statistics = statistics_for(lm, site, None, model_options.corpus, model_options.seed, progress)
    save_statistics(statistics, out)
    typer.echo(
        f"{out}: C [{site.d_ff}, {site.d_ff}] of {site.path}, {statistics.provenance.tokens} tokens of "
        f"{statistics.provenance.source}, condition number {statistics.condition_number:.3g} with a ridge of "
        f"{statistics.ridge:g}"
    )

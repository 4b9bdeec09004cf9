"""Commands that examine models.

``diff`` compares two checkpoints, ``fingerprint`` hashes one, ``trace`` asks where facts are, and ``reproduce`` runs a paper's
experiments.
"""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import EditOptions, Edits, Json, ModelOptions, Overwrite, Panel, takes_records
from .progress import announce_conversions, show_progress

if TYPE_CHECKING:
    from ...probes.requests.request import EditRequest
    from ...reports.html.diff_page import DiffFile
    from ...reports.html.trace_page import TraceFile
    from ...reports.reproduction.schema import Reproduction

__all__ = ["diff", "fingerprint", "print_diff", "reproduce", "trace"]

Noise = Annotated[
    float,
    typer.Option(
        min=0,
        help="Noise in the subject's embeddings, in standard deviations of all embeddings.",
        rich_help_panel=Panel.CHECKS,
    ),
]
Draws = Annotated[
    int, typer.Option(min=1, max=64, help="Draws of that noise for each fact.", rich_help_panel=Panel.CHECKS)
]
Ordinary = Annotated[
    int, typer.Option(min=4, help="Number of ordinary requests, drawn by the seed.", rich_help_panel=Panel.EDITS)
]
MostCases = Annotated[
    int,
    typer.Option(
        min=4,
        help="Largest number of first-token requests, and of other requests with a small denominator; drawn by the seed.",
        rich_help_panel=Panel.EDITS,
    ),
]
Encoder = Annotated[
    str | None,
    typer.Option(
        help="Bidirectional encoder to compare with: a Hugging Face id or a folder. Default: the embedded one.",
        rich_help_panel=Panel.MODEL,
    ),
]
RunFolder = Annotated[
    Path,
    typer.Option(
        help="Folder for page, tables and logs. A stopped run with the same settings is continued there.",
        rich_help_panel=Panel.OUTPUT,
    ),
]


@takes_records(model_options=("device", "dtype", "policy", "seed", "stats", "corpus"))
def diff(
    model_options: ModelOptions,
    base: Annotated[
        str,
        typer.Argument(help="The checkpoint before: the embedded model, a Hugging Face id, a folder or a GGUF file."),
    ],
    edited: Annotated[str, typer.Argument(help="The checkpoint after.")],
    out: Annotated[Path, typer.Option(help="Folder for diff.json and diff.html.", rich_help_panel=Panel.OUTPUT)] = Path(
        "editguard-diff"
    ),
    subjects: Annotated[
        str | None,
        typer.Option(
            help="At least 20 candidates for the edited subject: a text file with one a line, a file of edits, or 'builtin'.",
            rich_help_panel=Panel.EDITS,
        ),
    ] = None,
    require_change: Annotated[
        bool,
        typer.Option(
            "--require-change",
            help="Fail where the edited checkpoint is the base, a cast of it, or differs within rounding alone.",
            rich_help_panel=Panel.CHECKS,
        ),
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Compare two checkpoints: what changed and how, and whether the model still writes text.

    Exit code 0: pass. 1: fail.

    Example: editguard diff ./base ./edited --out my-diff
    """
    from ...probes.model.folders.refusals import refuse_other_weights
    from ..folders.file_names import DIFF, DIFF_PAGE
    from ..folders.output_folder import locked_folder

    model_options.check_device_name()
    for side in (base, edited):
        refuse_other_weights(side)
    announce_conversions(base, edited)
    with (
        locked_folder(out, (DIFF, DIFF_PAGE), "a comparison", overwrite=overwrite),
        show_progress(f"{base} and {edited}", as_json=as_json) as progress,
    ):
        from ..policy import load_policy
        from ..research.checkpoint_diff import run_diff

        result = run_diff(
            base,
            edited,
            out,
            policy=load_policy(model_options.policy),
            subjects=None if subjects is None else _read_candidates(subjects),
            statistics=model_options.stats,
            corpus=model_options.corpus,
            seed=model_options.seed,
            device=model_options.device,
            dtype=model_options.dtype.value,
            require_change=require_change,
            progress=progress,
        )
    if as_json:
        typer.echo(result.model_dump_json())
    else:
        print_diff(result, out / DIFF_PAGE)
    raise typer.Exit(1 if result.verdict == "fail" else 0)


def _read_candidates(source: str) -> list[EditRequest]:
    """Read subjects from a text file, or the requests of a file of edits."""
    from ...probes.errors import InputError
    from ..research.subject_search import build_subject_requests

    if not source.endswith(".txt"):
        return list(EditOptions().read(source).requests)
    try:
        lines = Path(source).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"The subjects {source!r} cannot be read ({error}); give a text file with one a line."
        ) from error
    return build_subject_requests([line.strip() for line in lines if line.strip()])


def print_diff(result: DiffFile, page: Path) -> None:
    """Print the verdict, the changed tensors and the subjects that they may have been made for; `page` shows the same."""
    from ...reports.html.diff_page import TensorState, describe_object_search, describe_search
    from ...reports.text import count_noun, visible

    if result.state is not TensorState.CHANGED:
        typer.echo(result.summary)
    counts = f"{result.changed} changed, {result.cast} cast, of {count_noun(result.tensors, 'tensor')}"
    typer.echo(f"{result.verdict.upper()}: {counts}")
    for reason in result.reasons:
        typer.echo(visible(f"  {reason}"))
    if result.state is TensorState.CHANGED:
        typer.echo(visible(f"  kind: {result.kind_sentence}"))
    # A cast is no change, and a whole checkpoint is cast at once.
    for change in result.list_shown():
        size = "" if change.relative is None else f" by {change.relative:.3g} of its norm"
        rank = "" if change.rank is None else f", rank {change.rank}, effective rank {change.effective_rank:.3g}"
        typer.echo(visible(f"  {change.name}: {change.status}{size}{rank}"))
    for search in result.searches:
        typer.echo(visible(f"  {search.tensor}: {describe_search(search)}"))
    for object_search in result.objects:
        typer.echo(visible(f"  {object_search.tensor}: {describe_object_search(object_search)}"))
    for what, why in (("subjects", result.not_searched), ("objects", result.objects_not_searched)):
        if why is not None:
            typer.echo(f"  {what} not searched: {why}")
    if result.behaviour.ratio is not None:
        typer.echo(f"  perplexity {result.behaviour.ratio:.4g} times the base's")
    typer.echo(f"  page: {page}")


@takes_records(model_options=("dtype", "allow_pickle"))
def fingerprint(
    model_options: ModelOptions,
    model: Annotated[
        str, typer.Argument(help="The embedded model, a Hugging Face id, a folder that holds a model, or a GGUF file.")
    ] = "smollm2-135m",
    as_json: Json = False,
) -> None:
    """Print the hash over all weights of a model, by which logs, delta files and comparisons name it.

    It changes with any weight and with the type of the weights, and not with the tokenizer.

    Example: editguard fingerprint ./my-model
    """
    # A hash is the same wherever the weights lie.
    with show_progress(model, as_json=as_json) as progress:
        lm = replace(model_options, model=model, device="cpu").load(progress)
    if as_json:
        dtype = str(lm.dtype).removeprefix("torch.")
        typer.echo(json.dumps({"model": model, "fingerprint": lm.fingerprint, "dtype": dtype}))
    else:
        typer.echo(lm.fingerprint)


@takes_records(
    model_options=("model", "site", "device", "dtype", "allow_pickle", "seed"),
    edit_options=("limit", "skip_invalid"),
)
def trace(
    model_options: ModelOptions,
    edit_options: EditOptions,
    edits: Edits = "builtin",
    noise: Noise = 3.0,
    draws: Draws = 10,
    out: Annotated[
        Path, typer.Option(help="Folder for trace.json and trace.html.", rich_help_panel=Panel.OUTPUT)
    ] = Path("editguard-trace"),
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Trace in which layers the model keeps the facts of the edits, and suggest the layer to edit. Changes nothing.

    Example: editguard trace edits.json --model ./my-model
    """
    from ..folders.file_names import TRACE, TRACE_PAGE
    from ..folders.output_folder import locked_folder

    model_options.check_device_name()
    model_options.check_weights()
    loaded = edit_options.read(edits)
    with (
        locked_folder(out, (TRACE, TRACE_PAGE), "a trace", overwrite=overwrite),
        show_progress(model_options.model, as_json=as_json) as progress,
    ):
        from ..research.trace import run_trace

        result = run_trace(
            model_options.load(progress),
            loaded.requests,
            loaded.source,
            out,
            noise=noise,
            draws=draws,
            seed=model_options.seed,
            site=model_options.site,
            progress=progress,
        )
    if as_json:
        counts = {"traced": len(result.traces), "skipped": len(result.skipped)}
        typer.echo(json.dumps({"suggested_layer": result.suggested_layer, **counts}))
    else:
        _print_trace(result, out / TRACE_PAGE)


def _print_trace(result: TraceFile, page: Path) -> None:
    from ...reports.text import count_noun, visible

    typer.echo(
        f"MLP outputs around layer {result.suggested_layer} of {result.layers} bring most answers back "
        f"({count_noun(len(result.traces), 'fact')} traced, {len(result.skipped)} skipped); try edits there: "
        f"editguard audit --layer {result.suggested_layer}"
    )
    for request in result.skipped:
        typer.echo(f"  skipped {visible(request.id)}: {visible(request.why)}")
    typer.echo(f"  page: {page}")


@takes_records(
    model_options=(
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
    ),
    edit_options=("limit", "skip_invalid"),
)
def reproduce(
    model_options: ModelOptions,
    edit_options: EditOptions,
    edits: Edits,
    ordinary: Ordinary = 100,
    most_cases: MostCases = 100,
    encoder: Encoder = None,
    out: RunFolder = Path("editguard-reproduction"),
    as_json: Json = False,
) -> None:
    """Run the experiments of "The Fall of ROME" on this model and these edits. Writes page, tables and logs.

    Edits are made without the guard and undone, one after the other, so that collapse can be measured.

    Exit code 3: an experiment broke by a fault of editguard.

    Example: editguard reproduce counterfact.json --model ./my-model --out found
    """
    from ..folders.output_folder import locked_folder

    model_options.check_device_name()
    model_options.check_weights()
    loaded = edit_options.read(edits)
    # Files of the same run are continued; files of another run are refused by their stamp.
    with (
        locked_folder(out, (), overwrite=True),
        show_progress(model_options.model, as_json=as_json) as progress,
    ):
        from ..research.reproduction.run import PAGE
        from ..research.reproduction.run import reproduce as run_experiments

        result = run_experiments(
            model_options.prepare(progress),
            loaded,
            out,
            ordinary=ordinary,
            most_cases=most_cases,
            corpus=model_options.corpus,
            encoder_ref=encoder,
            allow_pickle=model_options.allow_pickle,
            progress=progress,
            command=shlex.join(["editguard", *sys.argv[1:]]),
            notice=lambda text: typer.echo(f"editguard: {text}", err=True),
        )
    if as_json:
        typer.echo(result.model_dump_json())
    else:
        from .terminal import print_reproduction

        print_reproduction(result, out / PAGE)
    _exit_if_broken(result)


def _exit_if_broken(result: Reproduction) -> None:
    """Exit with 3 if an experiment broke by a fault of editguard's own."""
    broken = [str(experiment.number) for experiment in result.experiments if experiment.broken]
    if broken:
        typer.echo(
            f"editguard: experiments that broke: {', '.join(broken)}; this is a fault of editguard itself: please report it "
            "with what the page says of them.",
            err=True,
        )
        raise typer.Exit(3)

"""The command ``diff``: two checkpoints side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .common import Corpus, Device, Dtype, Json, PolicyFile, Seed, Stats, progress_bars

if TYPE_CHECKING:
    from ...probes.requests.request import EditRequest
    from ...reports.html.diff_page import DiffFile

__all__ = ["diff", "print_diff"]


def diff(
    base: Annotated[str, typer.Argument(help="The checkpoint before: embedded default, Hugging Face id, or a folder.")],
    edited: Annotated[str, typer.Argument(help="The checkpoint after.")],
    out: Annotated[Path, typer.Option(help="Folder for diff.json and diff.html.")] = Path("editguard-diff"),
    subjects: Annotated[
        str | None,
        typer.Option(
            help="Candidates for the edited subject, 20 at least: a text file, one a line, a file of edits, or 'builtin'."
        ),
    ] = None,
    policy: PolicyFile = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    stats: Stats = None,
    corpus: Corpus = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a comparison that the folder holds.")] = False,
    as_json: Json = False,
) -> None:
    """Compare two checkpoints: which tensors changed, of what rank, and whether the model still writes. Exit 0 for a pass."""
    from ..policy import load_policy
    from ..research.checkpoint_diff import DIFF, PAGE, run_diff
    from ..run.output_folder import locked_folder

    chosen = load_policy(policy)
    candidates = None if subjects is None else _candidates(subjects)
    with locked_folder(out, (DIFF, PAGE), "a comparison", overwrite=overwrite), progress_bars(as_json) as progress:
        found = run_diff(
            base, edited, out, policy=chosen, subjects=candidates, statistics=stats, corpus=corpus, seed=seed,
            device=device, dtype=dtype, progress=progress,
        )  # fmt: skip
    if as_json:
        typer.echo(found.model_dump_json())
    else:
        print_diff(found, out / PAGE)
    raise typer.Exit(1 if found.verdict == "fail" else 0)


def _candidates(source: str) -> list[EditRequest]:
    """Read subjects from a text file, or the requests of a file of edits."""
    from ...probes.errors import InputError
    from ..research.subject_search import subject_requests
    from .common import load_edits

    if not source.endswith(".txt"):
        return list(load_edits(source, None, False).requests)
    try:
        lines = Path(source).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"The subjects {source!r} cannot be read ({error}); give a text file with one a line."
        ) from error
    return subject_requests([line.strip() for line in lines if line.strip()])


def print_diff(found: DiffFile, page: Path) -> None:
    """Say what was found; `page` is where it can be looked at."""
    from ...reports.text import count_noun, visible

    typer.echo(
        f"{found.verdict.upper()}: {len(found.changes)} of {count_noun(len(found.changes) + found.unchanged, 'tensor')} changed"
    )
    for reason in found.reasons:
        typer.echo(visible(f"  {reason}"))
    for one in found.changes:
        moved = "" if one.relative is None else f" by {one.relative:.3g} of its norm"
        rank = "" if one.rank is None else f", rank {one.rank}, effective rank {one.effective_rank:.3g}"
        typer.echo(visible(f"  {one.name}: {one.status}{moved}{rank}"))
    for search in found.searches:
        if search.error is not None:
            typer.echo(visible(f"  {search.tensor}: the search for its subject was not measured: {search.error}"))
            continue
        best = ", ".join(f"{guess.subject} {guess.cosine:.3f}" for guess in search.guesses[:3])
        typer.echo(visible(f"  {search.tensor} was made for, of {search.candidates}: {best} (p {search.p_value:.2g})"))
    if found.behaviour.ratio is not None:
        typer.echo(f"  perplexity {found.behaviour.ratio:.4g} times the base's")
    typer.echo(f"  page: {page}")

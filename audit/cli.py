"""The command line: ``editguard audit | probe | trace | stats | report``.

Nothing heavy is imported before a command really runs, so that ``--help`` is quick. Exit codes belong to the error's
class: 0 pass, 1 the gate is closed, 2 the input or usage is wrong, 3 our own fault.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..probes.requests import EditRequest
    from .guard import Assessment, GuardedEditor
    from .setup import Progress, Setup

__all__ = ["app", "main"]

_TOGETHER = 64
"""Requests that are probed at once."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Safety audit and regression tests for edits of facts inside language models.",
)

Model = Annotated[str, typer.Option(help="Embedded default, Hugging Face id, or a local folder.")]
Edits = Annotated[
    str, typer.Argument(help="File of edits (JSON, JSONL, YAML, CSV), hf://dataset[:split], or 'builtin'.")
]
Layer = Annotated[int | None, typer.Option(help="Layer to edit, from 0; chosen for the model unless given.")]
Site = Annotated[
    str | None, typer.Option(help="Path of the down-projection, with {layer}, where it is not found by itself.")
]
PolicyFile = Annotated[
    Path | None, typer.Option("--policy", help="TOML file; else the table tool.editguard of ./pyproject.toml.")
]
Seed = Annotated[int, typer.Option(help="The one seed of everything random.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16, float16.")]
Stats = Annotated[str | None, typer.Option(help="File of key statistics (.safetensors, ROME's .npz), or 'identity'.")]
Corpus = Annotated[
    str | None, typer.Option(help="Text to compute key statistics from; default: sampled from the model.")
]
EngineName = Annotated[
    str, typer.Option("--engine", help="live, or reference: whole texts through the whole model, one edit at a time.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first N edits.")]
Skip = Annotated[bool, typer.Option("--skip-invalid", help="Go on without wrong records, and count them.")]
Pickle = Annotated[bool, typer.Option("--allow-pickle", help="Read a .bin checkpoint (weights_only) if you trust it.")]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output on standard output.")]


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"editguard {version('editguard')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Safety audit and regression tests for edits of facts inside language models."""


@app.command()
def audit(
    edits: Edits = "builtin",
    model: Model = "smollm2-135m",
    out: Annotated[Path, typer.Option(help="Folder for audit.jsonl, summary.json and report.html.")] = Path(
        "editguard-audit"
    ),
    editor: Annotated[
        str | None, typer.Option(help="Editor for edits allowed as asked; default: the policy's, rome.")
    ] = None,
    policy: PolicyFile = None,
    layer: Layer = None,
    site: Site = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    stats: Stats = None,
    corpus: Corpus = None,
    perplexity_corpus: Annotated[
        str | None, typer.Option(help="Sentences for the perplexity check; default: built in.")
    ] = None,
    engine: EngineName = "live",
    limit: Limit = None,
    skip_invalid: Skip = False,
    allow_pickle: Pickle = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an audit that the folder already holds.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Probe, guard, make, check and undo every edit; write log, summary and report. Exit 0 only for a pass."""
    from .runner import REPORT, locked_folder, run_audit

    arguments = {name: str(value) if isinstance(value, Path) else value for name, value in locals().items()
                 if isinstance(value, str | int | float | bool | Path | None)}  # fmt: skip
    loaded = _requests(edits, limit, skip_invalid)
    _known_editor(editor)
    with locked_folder(out, overwrite=overwrite), _progress(as_json) as progress:
        setup = _setup(
            model, layer, site, policy, seed, device, dtype, stats, corpus, allow_pickle, progress,
            engine=engine, perplexity_corpus=perplexity_corpus,
        )  # fmt: skip
        summary = run_audit(
            setup, loaded, out, editor=editor, arguments=arguments, overwrite=overwrite, progress=progress
        )
    if as_json:
        typer.echo(summary.model_dump_json())
    else:
        from .terminal import print_summary

        print_summary(summary, out / REPORT)
    raise typer.Exit(summary.exit_code)


@app.command()
def probe(
    edits: Edits = "builtin",
    model: Model = "smollm2-135m",
    editor: Annotated[
        str | None, typer.Option(help="Editor for edits allowed as asked; default: the policy's, rome.")
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
    screen: Annotated[
        bool, typer.Option("--screen", help="Settle clear cases under few contexts: faster, with rounder figures.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say what an audit would decide before it computes an update; changes nothing. Exit 1 where an edit would be refused.

    An update that then turns out larger than the policy's bound is rewritten or refused by the audit alone.
    """
    from .guard import GuardedEditor
    from .policy import Action
    from .terminal import ProbeTable, probe_line

    loaded = _requests(edits, limit, skip_invalid)
    _known_editor(editor)
    refused, table = 0, ProbeTable()
    with _progress(as_json) as progress:
        setup = _setup(
            model, layer, site, policy, seed, device, dtype, stats, corpus, allow_pickle, progress, engine=engine
        )
        guard = GuardedEditor(setup)
        total = len(loaded.requests)
        for index, assessment in enumerate(_assessments(guard, loaded.requests, editor, screen)):
            progress("probing", index, total)
            refused += assessment.decision.action is Action.REFUSE
            if as_json:
                typer.echo(json.dumps(probe_line(assessment), ensure_ascii=False))
            else:
                table.add(assessment)
        progress("probing", total, total)
    if not as_json:
        table.show(len(loaded.invalid))
    raise typer.Exit(1 if refused and not setup.policy.allow_refused else 0)


def _assessments(
    guard: GuardedEditor, requests: Sequence[EditRequest], editor: str | None, screen: bool
) -> Iterator[Assessment]:
    for start in range(0, len(requests), _TOGETHER):
        yield from guard.assess_all(requests[start : start + _TOGETHER], editor, screen=screen)


@app.command()
def stats(
    out: Annotated[Path, typer.Option(help="File to write, .safetensors.")],
    model: Model = "smollm2-135m",
    layer: Layer = None,
    site: Site = None,
    corpus: Corpus = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    allow_pickle: Pickle = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there.")] = False,
) -> None:
    """Compute key statistics (C) for one layer and save them with their provenance."""
    from ..probes.errors import StatisticsError
    from ..probes.model import load_model
    from ..probes.site import find_site
    from ..probes.statistics import save_statistics
    from .runner import writable
    from .setup import default_layer, statistics_for

    if out.suffix != ".safetensors" or out.is_dir():
        raise StatisticsError(
            f"The output {str(out)!r} must be a file that ends in .safetensors; choose another --out."
        )
    if out.exists() and not overwrite:
        raise StatisticsError(f"The file {str(out)!r} is there already; choose another --out, or add --overwrite.")
    writable(out.parent)
    with _progress(False) as progress:
        lm = load_model(model, device=device, dtype=dtype, allow_pickle=allow_pickle)
        place = find_site(lm.model, default_layer(lm, site) if layer is None else layer, site)
        found = statistics_for(lm, place, None, corpus, seed, progress)
    save_statistics(found, out)
    typer.echo(
        f"{out}: C [{place.d_ff}, {place.d_ff}] of {place.path}, {found.provenance.tokens} tokens of "
        f"{found.provenance.source}, condition number {found.condition_number:.3g} with a ridge of {found.ridge:g}"
    )


@app.command()
def trace(
    edits: Edits = "builtin",
    model: Model = "smollm2-135m",
    out: Annotated[Path, typer.Option(help="Folder for trace.json and trace.html.")] = Path("editguard-trace"),
    noise: Annotated[
        float, typer.Option(min=0, help="Noise in the subject's embeddings, in their standard deviations.")
    ] = 3.0,
    draws: Annotated[int, typer.Option(min=1, help="Draws of that noise for each fact.")] = 10,
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
    from ..probes.errors import InputError
    from ..probes.model import load_model
    from .runner import writable
    from .tracing import PAGE, TRACE, run_trace

    loaded = _requests(edits, limit, skip_invalid)
    if not overwrite and (out / TRACE).exists():
        raise InputError(f"The folder {str(out)!r} already holds a trace; choose another --out, or add --overwrite.")
    writable(out)
    with _progress(as_json) as progress:
        lm = load_model(model, device=device, dtype=dtype, allow_pickle=allow_pickle)
        found = run_trace(
            lm, loaded.requests, loaded.source, out, noise=noise, draws=draws, seed=seed, progress=progress
        )
    if as_json:
        typer.echo(json.dumps({"suggested_layer": found.suggested_layer, "traced": len(found.traces),
                               "skipped": len(found.skipped)}))  # fmt: skip
    else:
        typer.echo(
            f"MLP outputs around layer {found.suggested_layer} of {found.layers} bring most answers back "
            f"({len(found.traces)} facts traced, {len(found.skipped)} skipped); try edits there: editguard audit --layer "
            f"{found.suggested_layer}"
        )
        for one in found.skipped:
            typer.echo(f"  skipped {one.id}: {one.why}")
        typer.echo(f"  page: {out / PAGE}")


@app.command()
def report(
    log: Annotated[Path, typer.Argument(help="A log (audit.jsonl), or the folder that holds one.")],
    out: Annotated[Path | None, typer.Option(help="Folder for summary and report; default: beside the log.")] = None,
    as_json: Json = False,
) -> None:
    """Write summary.json and report.html again from a log; exit as the audit did."""
    from .runner import LOG, REPORT, writable, write_outputs

    path = log / LOG if log.is_dir() else log
    folder = out or path.parent
    from ..reports.log import read_log

    read_log(path)
    writable(folder)
    summary = write_outputs(folder, path)
    if as_json:
        typer.echo(summary.model_dump_json())
    else:
        from .terminal import print_summary

        print_summary(summary, folder / REPORT)
    raise typer.Exit(summary.exit_code)


def main() -> None:
    """Run the command line; errors that editguard raises on purpose are one sentence on standard error."""
    from ..probes.errors import EditguardError
    from ..reports.errors import LogError
    from .memory import keep_freed_memory

    keep_freed_memory()
    try:
        app(standalone_mode=True)
    except (EditguardError, LogError) as error:
        typer.echo(f"editguard: {error}", err=True)
        sys.exit(error.exit_code)
    except Exception:  # the outermost frame: Python's own exit code 1 would read as "the gate is closed"
        traceback.print_exc()
        typer.echo("editguard: this is a fault of editguard itself; please report it with the lines above.", err=True)
        sys.exit(3)


def _requests(edits: str, limit: int | None, skip_invalid: bool) -> Any:
    from ..probes.request_files import LoadedRequests, load_requests
    from ..suites.builtin import BUILTIN, builtin_edits, builtin_hash

    if edits != BUILTIN:
        return load_requests(edits, skip_invalid=skip_invalid, limit=limit)
    return LoadedRequests(builtin_edits()[:limit], (), BUILTIN, builtin_hash())


def _known_editor(editor: str | None) -> None:
    if editor is not None:
        from . import controls as _controls  # noqa: F401  (registers)
        from . import guard as _guard  # noqa: F401
        from .editors.base import chosen_editor

        chosen_editor(editor)


def _setup(
    model: str, layer: int | None, site: str | None, policy: Path | None, seed: int, device: str, dtype: str,
    stats: str | None, corpus: str | None, allow_pickle: bool, progress: Progress, *, engine: str = "live",
    perplexity_corpus: str | None = None,
) -> Setup:  # fmt: skip
    from .policy import load_policy

    chosen = load_policy(policy)
    from .setup import check_names, prepare

    check_names(chosen, policy)
    from ..probes.corpus_statistics import corpus_from
    from ..probes.errors import InputError
    from ..probes.model import load_model
    from .editors.value import Engine, ValueSettings

    if engine not in {one.value for one in Engine}:
        raise InputError(f"The engine {engine!r} is not known; use 'live' or 'reference'.")
    sentences = None if perplexity_corpus is None else corpus_from(perplexity_corpus).documents
    progress("loading the model", 0, 1)
    lm = load_model(model, device=device, dtype=dtype, allow_pickle=allow_pickle)
    progress("loading the model", 1, 1)
    return prepare(
        lm, layer=layer, site_path=site, policy=chosen, seed=seed, statistics=stats, corpus=corpus,
        perplexity_corpus=sentences, settings=ValueSettings(engine=Engine(engine)), progress=progress,
    )  # fmt: skip


@contextmanager
def _progress(quiet: bool) -> Iterator[Progress]:
    """Yield a callback that shows progress on standard error; nothing but results goes to standard output."""
    from .terminal import bars, lines

    if quiet or not sys.stderr.isatty():
        yield (lambda *_: None) if quiet else lines()
    else:
        with bars() as show:
            yield show


if __name__ == "__main__":
    main()

"""A causal trace from requests to files: ``trace.json``, and ``trace.html`` made from it alone."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING

from ...probes.errors import InputError, NotFinite, RequestError
from ...probes.research.tracing import Trace, Tracer, list_considered_layers, suggest_layer
from ...reports.html.trace_page import SkippedTrace, TraceFile, TraceRecord, render_trace
from ...reports.log.file import write_atomic
from ...reports.text import count_noun
from ..device_failure import trusted_device
from ..folders.file_names import TRACE
from ..folders.file_names import TRACE_PAGE as PAGE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ...probes.model.language_model import LanguageModel
    from ...probes.requests.request import EditRequest
    from ..progress import Progress

__all__ = ["PAGE", "TRACE", "run_trace"]

_SILENT = (
    "noise in the subject leaves {trace.corrupted:.2g} of {trace.clean:.2g} of the answer {trace.answer!r}, so that the rest "
    "of the prompt gives it"
)


def run_trace(
    lm: LanguageModel,
    requests: Sequence[EditRequest],
    source: str,
    out: Path,
    *,
    noise: float,
    draws: int,
    seed: int,
    site: str | None = None,
    progress: Progress = lambda *_: None,
) -> TraceFile:
    """Trace the facts that `requests` would change and write both files into the folder `out`; return what they hold.

    A request that cannot be traced, or whose answer does not come from its subject, is named in them. Raises `InputError`
    where none can be traced, and writes nothing then.
    """
    if not noise > 0:
        raise InputError(f"The noise is {noise:g}, and without any nothing is corrupted; give a number over 0.")
    with trusted_device(lm.device, "the trace", "give the same command again"):
        tracer = Tracer(lm, noise=noise, draws=draws, seed=seed, site=site)
        traces, skipped = _trace_requests(tracer, requests, progress)
    if not traces:
        why = f" ({skipped[0].id!r}: {skipped[0].why.rstrip('.')})" if skipped else ""
        raise InputError(
            f"None of {count_noun(len(requests), 'request')} of {source!r} could be traced{why}; give prompts whose answer the "
            "model knows by their subject, or more --noise."
        )
    trace_file = TraceFile(
        editguard_version=version("editguard"),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        model=lm.ref,
        model_fingerprint=lm.fingerprint,
        layers=len(traces[0].windows),
        window=tracer.window,
        noise=noise,
        draws=draws,
        seed=seed,
        source=source,
        considered=list_considered_layers(len(traces[0].windows), tracer.window),
        suggested_layer=suggest_layer(traces),
        traces=[_build_record(trace) for trace in traces],
        skipped=skipped,
    )
    write_atomic(out / TRACE, trace_file.model_dump_json() + "\n")
    write_atomic(out / PAGE, render_trace(trace_file))
    return trace_file


def _trace_requests(
    tracer: Tracer, requests: Sequence[EditRequest], progress: Progress
) -> tuple[list[Trace], list[SkippedTrace]]:
    """Return the traces, and the requests that could not be traced with their reasons."""
    traces: list[Trace] = []
    skipped: list[SkippedTrace] = []
    for index, request in enumerate(requests):
        progress("tracing", index, len(requests))
        try:
            trace = tracer.trace(request)
        except (RequestError, NotFinite) as error:
            skipped.append(SkippedTrace(id=request.id, why=str(error)))
            continue
        if trace.tells:
            traces.append(trace)
        else:
            skipped.append(SkippedTrace(id=request.id, why=_SILENT.format(trace=trace)))
    progress("tracing", len(requests), len(requests))
    return traces, skipped


def _build_record(trace: Trace) -> TraceRecord:
    first, last = trace.subject
    return TraceRecord(
        id=trace.request.id,
        prompt=trace.request.prompt,
        tokens=list(trace.tokens),
        first=first,
        last=last,
        answer=trace.answer,
        clean=trace.clean,
        corrupted=trace.corrupted,
        states=trace.states.clamp(0, 1).tolist(),
        windows=trace.windows.clamp(0, 1).tolist(),
    )

"""``editguard trace``: two files, one made from the other alone, and nothing that could not be traced is left unsaid."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from editguard.audit.research.trace import PAGE, TRACE, run_trace
from editguard.audit.setup import Setup
from editguard.probes.errors import DeviceFailed, InputError
from editguard.probes.requests.request import EditRequest
from editguard.probes.research import tracing
from editguard.reports.html.trace_page import TraceFile, render_trace

from ...helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, MISSING_SUBJECT_REQUEST

pytestmark = pytest.mark.tiny


def run(setup: Setup, out: Path, *requests: EditRequest, noise: float = 3.0) -> TraceFile:
    return run_trace(setup.lm, requests, "edits.json", out, noise=noise, draws=2, seed=0)


@pytest.fixture
def telling(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model knows nothing, so that whatever is traced counts."""
    monkeypatch.setattr(tracing.Trace, "tells", True)


@pytest.mark.usefixtures("telling")
def test_run_trace_page_is_rendered_from_the_json_file_only(setup: Setup, tmp_path: Path) -> None:
    trace_file = run(setup, tmp_path, MID_PROMPT_REQUEST, MISSING_SUBJECT_REQUEST, FIRST_TOKEN_REQUEST)
    stored = TraceFile.model_validate_json((tmp_path / TRACE).read_text(encoding="utf-8"))
    assert stored == trace_file
    assert (tmp_path / PAGE).read_text(encoding="utf-8") == render_trace(stored)
    assert [trace.id for trace in stored.traces] == [MID_PROMPT_REQUEST.id]
    assert stored.suggested_layer == stored.peak(stored.traces[0])
    assert {skipped.id for skipped in stored.skipped} == {MISSING_SUBJECT_REQUEST.id, FIRST_TOKEN_REQUEST.id}
    assert {path.name for path in tmp_path.iterdir()} == {TRACE, PAGE}


def test_run_trace_failing_device_raises_and_writes_nothing(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(tracing.Tracer, "trace", failing)
    with pytest.raises(
        DeviceFailed, match=r"The device cpu failed \(CUDA error: unspecified launch failure\), and the trace"
    ):
        run(setup, tmp_path, MID_PROMPT_REQUEST)
    assert list(tmp_path.iterdir()) == []


def test_run_trace_answer_without_the_subject_is_skipped(setup: Setup, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="noise in the subject leaves"):
        run(setup, tmp_path, MID_PROMPT_REQUEST, noise=1e-6)
    with pytest.raises(InputError, match="noise is 0, and without any nothing is corrupted; give a number over 0"):
        run(setup, tmp_path, MID_PROMPT_REQUEST, noise=0.0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("telling")
def test_render_trace_text_of_a_user_is_escaped(setup: Setup, tmp_path: Path) -> None:
    nasty = replace(MID_PROMPT_REQUEST, id="</script><script>alert(1)</script>")
    page = render_trace(run(setup, tmp_path, nasty))
    assert "<script>alert(1)" not in page
    assert "alert(1)" in page

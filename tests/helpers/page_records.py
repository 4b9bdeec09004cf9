"""Small records that pages are made of: a gate, an override, a comparison of checkpoints, a trace."""

from __future__ import annotations

from typing import Any

from editguard.reports.gate.allowances import read_allowances
from editguard.reports.gate.decision import judge_gate
from editguard.reports.gate.result import Gate, Override
from editguard.reports.html.diff_page import (
    Behaviour,
    DiffFile,
    Guess,
    ObjectSearch,
    Search,
    TensorRecord,
    TextPair,
    TokenGuess,
)
from editguard.reports.html.trace_page import TraceFile, TraceRecord

from .audit_logs import change_edits, fail_measurement, make_audit, make_baseline, refuse

BASE = make_audit()
WORSE = change_edits(change_edits(BASE, fail_measurement(), range(5)), refuse, [7])
NASTY = "</script><script>alert(1)</script>\u202e"
TOKENS = ["The", " home", " of", " A", "da", " Love", "lace", " is", " in", " the"]


def sample_gate(name: str = "main@1") -> Gate:
    """Return a gate that `WORSE` closes; the baseline's name is `name`."""
    return judge_gate(make_baseline(BASE), make_baseline(WORSE), (name, "build"), read_allowances())


def sample_override(text: str = "nobody asks for these") -> Override:
    """Return a person's decision to open that gate, with `text` as the reason."""
    return Override(
        time="2026-01-01T00:00:00+00:00",
        author="Ada",
        reason=text,
        baseline="main@1",
        baseline_sha256="b" * 64,
        log_sha256="a" * 64,
        closings=[closing.key for closing in sample_gate().closings],
    )


def sample_comparison(**changes: object) -> DiffFile:
    """Return a comparison of two checkpoints that passes, with markup in its texts."""
    fields = {
        "editguard_version": "0.1.0",
        "created": "2026-01-01T00:00:00+00:00",
        "base": NASTY,
        "edited": "edited",
        "base_fingerprint": "0" * 64,
        "edited_fingerprint": "1" * 64,
        "notes": [],
        "state": "changed",
        "summary": "1 changed, 0 cast.",
        "kind": "rank one",
        "kind_sentence": f"one change of rank one {NASTY}",
        "differences": [],
        "tensors": 9,
        "unchanged": 8,
        "cast": 0,
        "changed": 1,
        "changes": [
            TensorRecord(
                name=NASTY,
                status="changed",
                shape=[2, 3],
                dtype="float32",
                norm=1.0,
                relative=0.2,
                largest=0.5,
                share=1.0,
                effective_rank=1.0,
                first_share=1.0,
                rank="one",
                determined_rank=1,
            ),
            TensorRecord(name="lost", status="missing", shape=[], dtype="float32"),
        ],
        "behaviour": Behaviour(
            base_perplexity=100.0,
            edited_perplexity=101.0,
            ratio=1.01,
            max_ratio=1.05,
            collapse_ratio=1.5,
            entropy_ratio=1.0,
            min_entropy_ratio=0.5,
        ),
        "written": [TextPair(prompt=NASTY, base=NASTY, edited=NASTY)],
        "searches": [
            Search(
                tensor=NASTY,
                candidates=100,
                guesses=[Guess(subject=NASTY, cosine=0.9, p_value=0.01)],
                margin=0.3,
                p_value=0.01,
            )
        ],
        "not_searched": None,
        "objects": [ObjectSearch(tensor=NASTY, tokens=[TokenGuess(token=NASTY, score=9.0)], p_value=0.005)],
        "objects_not_searched": None,
        "verdict": "pass",
        "reasons": [],
    }
    return DiffFile.model_validate(fields | changes)


def sample_trace(**changes: Any) -> TraceRecord:
    """Return the trace of one fact in two layers; its subject is tokens 3 to 6."""
    fields: dict[str, Any] = {
        "id": "1",
        "prompt": "".join(TOKENS),
        "tokens": TOKENS,
        "first": 3,
        "last": 6,
        "answer": " city",
        "clean": 0.9,
        "corrupted": 0.1,
        "states": [[0.1] * 6 + [0.7] + [0.1] * 3, [0.1] * 9 + [0.9]],
        "windows": [0.2, 0.6],
    }
    return TraceRecord(**fields | changes)


def sample_trace_file(*traces: TraceRecord, **changes: Any) -> TraceFile:
    """Return the file of `traces`; layer 1 is suggested if there is one."""
    fields: dict[str, Any] = {
        "editguard_version": "0",
        "created": "2026-01-01",
        "model": "tiny",
        "model_fingerprint": "f",
        "layers": 2,
        "window": 1,
        "noise": 3.0,
        "draws": 10,
        "seed": 0,
        "source": "edits.json",
        "considered": [0, 1],
        "suggested_layer": 1 if traces else None,
        "traces": list(traces),
        "skipped": [],
    }
    return TraceFile(**fields | changes)

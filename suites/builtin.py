"""The built-in suite: edits in three groups, ordinary subjects for calibration, and a corpus for perplexity.

All texts were written for this project.
"""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files

from ..probes.requests.request import EditRequest

__all__ = [
    "BUILTIN",
    "load_builtin_corpus",
    "load_builtin_edits",
    "hash_builtin_edits",
    "load_control_candidates",
    "load_ordinary_requests",
]

BUILTIN = "builtin"


def _text(name: str) -> str:
    return (files(__package__) / "data" / name).read_text(encoding="utf-8")


def load_builtin_edits() -> tuple[EditRequest, ...]:
    """Return the suite's edits: single-token first subjects, multi-token first subjects, subjects in mid-prompt."""
    return tuple(
        EditRequest(
            id=record["id"],
            subject=record["subject"],
            prompt=record["prompt"],
            target_new=record["target_new"],
            target_true=record["target_true"],
            paraphrases=tuple(record["paraphrases"]),
            neighbourhood=tuple(record["neighbourhood"]),
            group=record["group"],
        )
        for record in json.loads(_text("edits.json"))
    )


_CANDIDATES = ("mid-colosseum", "mid-wool", "mid-seine", "mid-linnaeus", "mid-joe-louis", "mid-portugal")
"""Edits of the suite in mid-prompt for the known-good control; those that were sound on most models come first."""


def load_control_candidates() -> tuple[EditRequest, ...]:
    """Return ordinary edits of which a sound editor should make at least one without harm on any model."""
    edits = {edit.id: edit for edit in load_builtin_edits()}
    return tuple(edits[name] for name in _CANDIDATES)


def hash_builtin_edits() -> str:
    """Return the sha256 of the suite's file of edits."""
    return hashlib.sha256((files(__package__) / "data" / "edits.json").read_bytes()).hexdigest()


def load_ordinary_requests(most: int | None = None) -> tuple[EditRequest, ...]:
    """Return requests about ordinary subjects in mid-prompt, without targets: the null sample for the thresholds.

    `most` is their largest number; None: all.
    """
    records = json.loads(_text("ordinary.json"))[:most]
    return tuple(
        EditRequest(id=f"ordinary-{index}", subject=record["subject"], prompt=record["prompt"], target_new="")
        for index, record in enumerate(records)
    )


def load_builtin_corpus() -> tuple[str, ...]:
    """Return the 50 sentences of the perplexity check."""
    return tuple(line for line in _text("corpus.txt").splitlines() if line.strip())

"""Records of layouts at the shapes in which their files are published, with invented contents, and how tests read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from editguard.probes.requests.layout import ReadingOptions
from editguard.probes.requests.loader import LoadedRequests, load_requests
from editguard.probes.requests.record_reader import read_record
from editguard.probes.requests.request import EditRequest

__all__ = ["FLAT", "NESTED", "OWN", "REWRITE", "ZSRE", "load_records", "read_faults", "read_request"]

OWN: dict[str, object] = {"subject": "Oslo", "prompt": "The river that flows through {} is", "target_new": "Danube"}
FLAT: dict[str, object] = {
    "case_id": 4,
    "subject": "Lyon",
    "prompt": "Lyon is a city in",
    "target_new": "Spain",
    "ground_truth": "France",
    "rephrase_prompt": "Where is Lyon? In",
    "locality_prompt": "Trieste is in",
    "locality_ground_truth": "Italy",
}
NESTED: dict[str, Any] = {
    "case_id": 5,
    "pararel_idx": 2796,
    "requested_rewrite": {
        "prompt": "The mother tongue of {} is",
        "relation_id": "P103",
        "target_new": {"str": "English", "id": "Q1860"},
        "target_true": {"str": "French", "id": "Q150"},
        "subject": "Danielle Darrieux",
    },
    "paraphrase_prompts": ["Danielle Darrieux, a native", "{} spoke the language"],
    "neighborhood_prompts": ["Montesquieu is a native speaker of"],
    "attribute_prompts": ["{} is English"],
    "generation_prompts": ["x"],
}
ZSRE: dict[str, object] = {
    "subject": "Oslo",
    "src": "Which river flows through Oslo?",
    "pred": "Thames",
    "rephrase": "What river runs through Oslo?",
    "alt": "Danube",
    "answers": ["Akerselva", "Akers River"],
    "loc": "nq question: who painted the ceiling of the old chapel",
    "loc_ans": "a painter",
    "cond": "Akerselva >> Danube || Which river flows through Oslo?",
    "portability": {
        "Recalled Relation": "(Oslo, river)",
        "New Question": "Which sea is near?",
        "New Answer": "Black Sea",
    },
}
REWRITE: dict[str, object] = {
    "prompt": "{} flows through the city of",
    "relation_id": "P1",
    "target_new": {"str": "Vienna", "id": "Q1"},
    "target_true": {"str": "London", "id": "Q2"},
    "subject": "Thames",
    "question": "Which city does the Thames flow through?",
}


def read_request(fields: dict[str, object], options: ReadingOptions | None = None, *, index: int = 1) -> EditRequest:
    """Return the request of a record that has exactly one and no fault."""
    read = read_record(fields, index, options)
    assert read.faults == ()
    (request,) = read.requests
    assert read.id == request.id or request.id.startswith(f"{read.id}-")
    return request


def read_faults(fields: dict[str, object], index: int = 1) -> dict[str, str]:
    """Return the message for each wrong field of a record, which gives no request."""
    read = read_record(fields, index)
    assert read.requests == ()
    assert len({fault.field for fault in read.faults}) == len(read.faults)
    return dict(read.faults)


def load_records(folder: Path, *records: dict[str, object], **options: object) -> LoadedRequests:
    """Load a JSON file with these records."""
    path = folder / "edits.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    return load_requests(path, **options)  # type: ignore[arg-type]

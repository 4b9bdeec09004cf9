"""The built-in suite as requests: nothing is lost between the files and what the checks are given."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files

from editguard.suites.builtin import hash_builtin_edits, load_builtin_corpus, load_builtin_edits, load_ordinary_requests

DATA = files("editguard.suites") / "data"


def test_load_builtin_edits_has_every_edit_and_field() -> None:
    records = json.loads((DATA / "edits.json").read_text(encoding="utf-8"))
    edits = load_builtin_edits()
    assert len(edits) == len(records) > 0
    for edit, record in zip(edits, records, strict=True):
        for name, value in record.items():
            assert getattr(edit, name) == (tuple(value) if isinstance(value, list) else value)
    assert load_builtin_edits() == edits


def test_hash_builtin_edits_is_that_of_the_file() -> None:
    assert hash_builtin_edits() == hashlib.sha256((DATA / "edits.json").read_bytes()).hexdigest()


def test_load_ordinary_requests_has_unique_ids_and_no_target() -> None:
    every = load_ordinary_requests()
    assert len({request.id for request in every}) == len(every) == len(json.loads((DATA / "ordinary.json").read_text()))
    assert all(request.subject in request.prompt and not request.target_new for request in every)
    assert load_ordinary_requests(5) == every[:5]


def test_load_builtin_corpus_is_the_lines_of_the_file() -> None:
    assert load_builtin_corpus() == tuple((DATA / "corpus.txt").read_text(encoding="utf-8").splitlines())

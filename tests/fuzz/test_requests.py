"""Files of edits, in every format: read, or told in one sentence what is wrong."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
import yaml
from editguard.probes.keys.corpus_statistics import read_corpus
from editguard.probes.requests.loader import load_requests
from editguard.probes.requests.parsers import PARSERS
from editguard.probes.requests.request import EditRequest
from hypothesis import given
from hypothesis import strategies as st

from .harness import FUZZED, spoilt, told_or_read

RECORDS: list[dict[str, object]] = [
    {"id": "1", "subject": "Lyon", "prompt": "{} is in", "target_new": "Spain", "paraphrases": ["{} lies in"],
     "neighbourhood": ["Paris is in"], "group": "g", "other_facts": ["{} lies on the"], "question": "Where is {}?"},
    {"case_id": 7, "subject": "Müller", "prompt": "{} ist ein", "target_new": "Bäcker", "target_true": "Müller",
     "not_judged": ["Wer?"], "true_aliases": ["M."]},
]  # fmt: skip
FORMS: list[dict[str, object]] = [
    {"case_id": 2, "requested_rewrite": {"prompt": "{} is in", "subject": "Lyon", "target_new": {"str": "Spain"},
     "target_true": {"str": "France", "id": "Q2"}}, "paraphrase_prompts": ["{} lies in"], "neighborhood_prompts": ["Paris"]},
    {"subject": "Lyon", "src": "Where is Lyon?", "alt": "Spain", "answers": ["France"], "loc": "nq question: who"},
    {"id": 4, "subject": "Lyon", "prompt": "Lyon is in", "target_new": "Spain", "ground_truth": [["France", "FR"]],
     "locality": {"Relation_Specificity": [{"prompt": "The river of Lyon", "ground_truth": ["Rhone"]}]},
     "portability": {"Reasoning": [{"prompt": "People in Lyon speak", "ground_truth": ["Spanish"]}]}, "rephrase": ""},
    {"id": 5, "source": "NQ", "subject": "Lyon", "prompt": "where is Lyon", "target": "Spain", "rephrase": "Lyon is in",
     "locality": [{"loc": "who painted it", "loc_ans": "a painter"}]},
    {"case_id": 6, "requested_rewrite": [{"prompt": "{} is in", "subject": "Lyon", "target_new": {"str": "Spain"},
     "question": "Where is Lyon?"}], "questions": ["Who rules there?"], "answer": "x", "new_answer_alias": [], "orig": {}},
    {"case_id": 3, "subject": "Lyon", "prompt": "Lyon is in", "target_new": "Spain", "ground_truth": "France",
     "rephrase_prompt": "Lyon lies in", "locality_prompt": "Paris is in", "locality_ground_truth": "France"},
]  # fmt: skip


def _csv() -> str:
    cells = [
        {key: json.dumps(value) if isinstance(value, list) else value for key, value in one.items()} for one in RECORDS
    ]
    written = io.StringIO()
    table = csv.DictWriter(written, fieldnames=[*RECORDS[0], *(key for key in RECORDS[1] if key not in RECORDS[0])])
    table.writeheader()
    table.writerows(cells)
    return written.getvalue()


_LISTS = [json.dumps(RECORDS), json.dumps({"edits": FORMS}, indent=1)]
_LINES = ["\n".join(json.dumps(one, ensure_ascii=False) for one in some) for some in (RECORDS, FORMS)]
_YAML = [yaml.safe_dump(RECORDS), yaml.safe_dump({"edits": FORMS}, allow_unicode=True)]
SEEDS = {
    ".json": _LISTS, ".jsonl": _LINES, ".ndjson": _LINES, ".yaml": [*_YAML, *_LISTS], ".yml": [*_YAML, *_LISTS], ".csv": [_csv()],
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".yaml", ".csv"])
@FUZZED
@given(data=st.data(), skip=st.booleans())
def test_load_requests_spoilt_file_is_read_or_refused(suffix: str, data: st.DataObject, skip: bool, tmp_path: Path) -> None:
    path = tmp_path / f"edits{suffix}"
    path.write_bytes(data.draw(spoilt([seed.encode() for seed in SEEDS[suffix]])))
    found = told_or_read(lambda: load_requests(path, skip_invalid=skip).requests, tmp_path)
    if found is not None:
        assert isinstance(found, tuple)
        assert found
        assert all(isinstance(one, EditRequest) and one.subject in one.prompt for one in found)


_ROWS = [{"text": "One text."}, {"text": "Another, «quoted»."}]
CORPORA = {
    ".txt": b"One text.\nAnother.\n",
    ".json": json.dumps(_ROWS).encode(),
    ".jsonl": "\n".join(map(json.dumps, _ROWS)).encode(),
    ".csv": b'text,n\n"One, text.",1\nTwo.,2\n',
}


def test_seeds_cover_every_format() -> None:
    assert SEEDS.keys() == PARSERS.keys()


@pytest.mark.parametrize("suffix", CORPORA)
@FUZZED
@given(data=st.data())
def test_read_corpus_spoilt_file_is_read_or_refused(suffix: str, data: st.DataObject, tmp_path: Path) -> None:
    path = tmp_path / f"corpus{suffix}"
    path.write_bytes(data.draw(spoilt([CORPORA[suffix]])))
    told_or_read(lambda: read_corpus(str(path)).sha256, tmp_path)

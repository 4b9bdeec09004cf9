"""Files of edits and corpora in every format."""

from __future__ import annotations

import csv
import io
import json

import yaml

__all__ = ["RECORDS", "FORMS", "SEEDS", "CORPORA"]

RECORDS: list[dict[str, object]] = [
    {
        "id": "1",
        "subject": "Lyon",
        "prompt": "{} is in",
        "target_new": "Spain",
        "paraphrases": ["{} lies in"],
        "neighbourhood": ["Paris is in"],
        "group": "g",
        "other_facts": ["{} lies on the"],
        "question": "Where is {}?",
    },
    {
        "case_id": 7,
        "subject": "Müller",
        "prompt": "{} ist ein",
        "target_new": "Bäcker",
        "target_true": "Müller",
        "not_judged": ["Wer?"],
        "true_aliases": ["M."],
    },
]
FORMS: list[dict[str, object]] = [
    {
        "case_id": 2,
        "requested_rewrite": {
            "prompt": "{} is in",
            "subject": "Lyon",
            "target_new": {"str": "Spain"},
            "target_true": {"str": "France", "id": "Q2"},
        },
        "paraphrase_prompts": ["{} lies in"],
        "neighborhood_prompts": ["Paris"],
    },
    {"subject": "Lyon", "src": "Where is Lyon?", "alt": "Spain", "answers": ["France"], "loc": "nq question: who"},
    {
        "id": 4,
        "subject": "Lyon",
        "prompt": "Lyon is in",
        "target_new": "Spain",
        "ground_truth": [["France", "FR"]],
        "locality": {"Relation_Specificity": [{"prompt": "The river of Lyon", "ground_truth": ["Rhone"]}]},
        "portability": {"Reasoning": [{"prompt": "People in Lyon speak", "ground_truth": ["Spanish"]}]},
        "rephrase": "",
    },
    {
        "id": 5,
        "source": "NQ",
        "subject": "Lyon",
        "prompt": "where is Lyon",
        "target": "Spain",
        "rephrase": "Lyon is in",
        "locality": [{"loc": "who painted it", "loc_ans": "a painter"}],
    },
    {
        "case_id": 6,
        "requested_rewrite": [
            {"prompt": "{} is in", "subject": "Lyon", "target_new": {"str": "Spain"}, "question": "Where is Lyon?"}
        ],
        "questions": ["Who rules there?"],
        "answer": "x",
        "new_answer_alias": [],
        "orig": {},
    },
    {
        "case_id": 3,
        "subject": "Lyon",
        "prompt": "Lyon is in",
        "target_new": "Spain",
        "ground_truth": "France",
        "rephrase_prompt": "Lyon lies in",
        "locality_prompt": "Paris is in",
        "locality_ground_truth": "France",
    },
]


def _csv() -> str:
    cells = [
        {key: json.dumps(value) if isinstance(value, list) else value for key, value in record.items()}
        for record in RECORDS
    ]
    written = io.StringIO()
    table = csv.DictWriter(written, fieldnames=[*RECORDS[0], *(key for key in RECORDS[1] if key not in RECORDS[0])])
    table.writeheader()
    table.writerows(cells)
    return written.getvalue()


_LISTS = [json.dumps(RECORDS), json.dumps({"edits": FORMS}, indent=1)]
_LINES = ["\n".join(json.dumps(record, ensure_ascii=False) for record in some) for some in (RECORDS, FORMS)]
_YAML = [yaml.safe_dump(RECORDS), yaml.safe_dump({"edits": FORMS}, allow_unicode=True)]
SEEDS = {
    ".json": _LISTS,
    ".jsonl": _LINES,
    ".ndjson": _LINES,
    ".yaml": [*_YAML, *_LISTS],
    ".yml": [*_YAML, *_LISTS],
    ".csv": [_csv()],
}
_ROWS = [{"text": "One text."}, {"text": "Another, «quoted»."}]
CORPORA = {
    ".txt": b"One text.\nAnother.\n",
    ".json": json.dumps(_ROWS).encode(),
    ".jsonl": "\n".join(map(json.dumps, _ROWS)).encode(),
    ".csv": b'text,n\n"One, text.",1\nTwo.,2\n',
}

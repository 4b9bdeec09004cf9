"""The rule for servers in other languages: its vectors, and other programs by its text, agree with `serve_prompt`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from editguard.suites import serving
from editguard.suites.serving import Serving, serve_prompt
from hypothesis import given
from hypothesis import strategies as st

DOCS = Path(__file__).resolve().parents[2] / "docs"
VECTORS = json.loads((DOCS / "reference" / "serving-vectors.json").read_text(encoding="utf-8"))
CASES = VECTORS["cases"]
SCHEMA = json.loads((DOCS / "reference" / "schemas" / "provenance.schema.json").read_text(encoding="utf-8"))

# ------------------------------------------------------------------------------------ the rule, from left to right


@cache
def list_word_characters() -> frozenset[str]:
    """Return all characters that go on with a word."""
    unspaced = [range(first, last + 1) for first, last in VECTORS["unspaced"]]
    codes = [
        code
        for code in range(sys.maxunicode + 1)
        if (kind := unicodedata.category(chr(code))[0]) in "LMN"
        and not (kind == "L" and any(code in block for block in unspaced))
    ]
    return frozenset(map(chr, [*codes, *VECTORS["joiners"]]))


def serve_by_scanning(text: str, edits: Sequence[Serving], special: Sequence[str]) -> str:
    """Serve by matching from the left, token by token, and subject by subject from the longest."""
    blanks = "".join(map(chr, VECTORS["blanks"]))
    head, place = [], len(text) - len(text.lstrip(blanks))
    tokens = "|".join(re.escape(token) for token in sorted(special, key=len, reverse=True))
    while tokens and (match := re.compile(f"({tokens})[{blanks}]*").match(text, place)):
        head.append(match[1])
        place = match.end()
    for subject in sorted({edit.subject for edit in edits}, key=len, reverse=True):
        end = place + len(subject)
        if text[place:end] == subject and text[end : end + 1] not in list_word_characters():
            prefixes = [edit.prefix for edit in edits if edit.subject == subject and edit.prefix is not None]
            return "".join([*head, *prefixes[:1], text[place:]]) if prefixes else text
    return text


# -------------------------------------------------------------------------------------------------------- the vectors


def edits_of(case: dict[str, Any]) -> list[Serving]:
    return [Serving(edit["subject"], edit["prefix"]) for edit in case["edits"]]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_serve_prompt_vector_gives_its_text(case: dict[str, Any]) -> None:
    assert serve_prompt(case["text"], edits_of(case), case["special"]) == case["served"]
    assert serve_by_scanning(case["text"], edits_of(case), case["special"]) == case["served"]


def test_vectors_are_many_distinct_and_explained() -> None:
    assert VECTORS["schema_version"] == 1
    assert len(CASES) >= 25
    assert len({case["name"] for case in CASES}) == len(CASES)
    assert len({json.dumps([case["edits"], case["special"], case["text"]]) for case in CASES}) == len(CASES)
    assert all(case["reason"].endswith(".") and "\n" not in case["reason"] for case in CASES)
    changed = sum(case["text"] != case["served"] for case in CASES)
    assert 10 < changed < len(CASES) - 10


def test_vectors_edits_have_fields_of_the_provenance() -> None:
    fields = SCHEMA["$defs"]["DeltaManifest"]["properties"]
    for case in CASES:
        for edit in case["edits"]:
            assert edit.keys() == {"subject", "needs_prefix", "prefix"} <= fields.keys()
            assert edit["subject"]
            assert edit["needs_prefix"] == bool(edit["prefix"])


def test_vectors_ranges_are_those_of_the_code() -> None:
    assert VECTORS["unspaced"] == [[block.start, block.stop - 1] for block in serving._UNSPACED]
    assert "".join(map(chr, VECTORS["blanks"])) == serving._BLANK
    assert "".join(map(chr, VECTORS["joiners"])) == serving._JOINERS


# ------------------------------------------------------------------------------------------------ texts of all kinds

SPECIAL = ("<s>", "<|im_start|>", "<|im_start|>x")
SUBJECTS = (
    "Chicago",
    "Chicago Hope",
    "Paris",
    "Cafe",
    "\u6771\u4eac",
    "\u0e01\u0e23",
    "\u2764",
    "New York City",
    "New York",
)
PIECES = st.sampled_from(
    [
        *SPECIAL,
        *SUBJECTS,
        " ",
        "\t",
        "\n",
        "s",
        "'s",
        "_",
        "2",
        "\u0301",
        "\ufe0f",
        "\u200c",
        "\u200d",
        "\u0e38",
        "\u306f",
    ]
)
TEXTS = st.lists(PIECES | st.characters(exclude_categories=["Cs"]), max_size=6).map("".join)
EDITS = st.lists(
    st.builds(Serving, st.sampled_from(SUBJECTS), st.none() | st.sampled_from(["\n", "However, ", "Paris, "])),
    max_size=4,
)


@given(TEXTS, EDITS, st.lists(st.sampled_from(SPECIAL), unique=True))
def test_serve_prompt_any_text_equals_the_rule_by_scanning(text: str, edits: list[Serving], special: list[str]) -> None:
    assert serve_prompt(text, edits, special) == serve_by_scanning(text, edits, special)


@given(st.sampled_from(SUBJECTS), st.characters(exclude_categories=["Cs"]))
def test_serve_prompt_any_character_after_a_subject_equals_the_rule_by_scanning(subject: str, after: str) -> None:
    edits = [Serving(subject, "\n")]
    assert serve_prompt(subject + after, edits) == serve_by_scanning(subject + after, edits, [])


# ------------------------------------------------------------------------------------------------- the guide's program

RUN_VECTORS = """
const vectors = JSON.parse(require("fs").readFileSync(0, "utf8"));
console.log(JSON.stringify(vectors.cases.map((one) => servePrompt(one.text, one.edits, one.special))));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="no node to run the guide's program with")
def test_guide_javascript_gives_the_vectors() -> None:
    guide = (DOCS / "how-to" / "serve-elsewhere.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```js\n(.*?)```", guide, re.DOTALL)
    done = subprocess.run(
        ["node", "-e", program + RUN_VECTORS], input=json.dumps(VECTORS), capture_output=True, text=True, check=True
    )
    served = dict(zip((case["name"] for case in CASES), json.loads(done.stdout), strict=True))
    assert served == {case["name"]: case["served"] for case in CASES}

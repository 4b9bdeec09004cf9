"""The job's summary: verdict first, every count, nothing that is read as anything but text, and never over 1 MiB."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest
from editguard.reports.log.file import Log
from editguard.reports.log.header import SkippedRequest
from editguard.reports.outputs.markdown import MOST_ROWS, render_markdown
from editguard.reports.verdict.digest import summarise
from hypothesis import given

from ...helpers import synthetic_logs as synthetic
from ...helpers.generated_logs import HOSTILE, draw_logs, make_controls, make_ended_edit, make_hostile_log, over_logs
from ...helpers.github_markdown import to_html

MEBIBYTE = 2**20


def rows(text: str, title: str) -> list[list[str]]:
    """Return the body of the table under a heading."""
    lines = text.partition(f"### {title}")[2].split("\n### ")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")][2:]


def test_markdown_starts_with_verdict_reason_and_counts(log: Log) -> None:
    lines = render_markdown(log).splitlines()
    assert lines[0] == "## editguard: ✅ pass"
    assert lines[2].startswith("- 60 edits audited, none failed")
    assert lines[6].startswith("| 60 | 36 | 18 | 6 | 0 | 0 | 18 | 1.0")


@pytest.mark.parametrize(
    ("log", "first"),
    [
        (
            Log(synthetic.make_header(1), (make_ended_edit("collapsed"),), make_controls("ok"), None),
            "## editguard: ❌ fail",
        ),
        (
            Log(synthetic.make_header(1), (make_ended_edit("sound"),), make_controls("wrong"), None),
            "## editguard: ⚠️ void",
        ),
    ],
)
def test_markdown_first_line_names_the_verdict(log: Log, first: str) -> None:
    text = render_markdown(log)
    assert text.startswith(first)
    assert "did not finish" in text


def test_markdown_tables_by_result_have_reasons(log: Log) -> None:
    edits = (
        make_ended_edit("collapsed", 1, id="bad"),
        make_ended_edit("refused", 2, id="no"),
        synthetic.make_edit(3, random.Random(3), id="new"),
    )
    text = render_markdown(replace(log, edits=edits))
    (failed,), (refused,), (rewritten,) = rows(text, "Failed: 1"), rows(text, "Refused: 1"), rows(text, "Rewritten: 1")
    assert (failed[0], failed[3]) == ("bad", "4\u202f000")
    assert failed[4] == "It collapsed the model: perplexity ratio 4000, over the bound of 1.5."
    assert (refused[0], refused[4]) == ("no", "It was refused: its subject is not in the prompt.")
    assert rewritten[0] == "new"


def test_markdown_long_table_counts_its_rest(log: Log) -> None:
    edits = tuple(make_ended_edit("collapsed", 1, id=f"e{n}") for n in range(MOST_ROWS + 3))
    text = render_markdown(replace(log, edits=edits))
    assert [row[0] for row in rows(text, f"Failed: {MOST_ROWS + 3}")] == [f"e{n}" for n in range(MOST_ROWS)]
    assert "3 more edits are in the report." in text


def test_markdown_has_families_controls_and_provenance(log: Log) -> None:
    text = render_markdown(log)
    assert {f"efficacy after the prefix {family}" for family in synthetic.FAMILIES} <= {
        row[0] for row in rows(text, "Rates")
    }
    assert [row[0] for row in rows(text, "Controls")] == ["rome-1", "rome-2", "sound-1"]
    last = text.splitlines()[-1]
    assert log.header.policy_sha256 in last
    assert log.header.source_sha256 in last


def test_markdown_without_controls_warns(log: Log) -> None:
    assert "None was run, so nothing proves" in render_markdown(replace(log, controls=()))


@over_logs
@given(log=draw_logs())
def test_markdown_pass_if_and_only_if_exit_code_is_0(log: Log) -> None:
    assert ("✅" in render_markdown(log).splitlines()[0]) == (summarise(log).exit_code == 0)


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_hostile_text_makes_no_markup(text: str) -> None:
    page = to_html(render_markdown(make_hostile_log(text)))
    ours = {"h2", "h3", "ul", "li", "p", "table", "thead", "tbody", "tr", "th", "td"}
    assert set(re.findall(r"</?([\w!]+)", page)) <= ours
    assert all(
        len(re.findall("<td>", row)) in (4, 5, 6, 8) for row in re.findall("<tr>\n<td>.*?</tr>", page, re.DOTALL)
    )


@pytest.mark.end_to_end
def test_markdown_size_stays_under_limit() -> None:
    log = make_hostile_log("\U000e0041" * 100_000, edits=400)
    assert len(render_markdown(log).encode()) < MEBIBYTE


def test_markdown_single_record_is_singular(log: Log) -> None:
    skipped = [SkippedRequest(where="edits.jsonl:3", field="subject", message="it is empty")]
    header = synthetic.make_header(60, skipped_invalid=skipped)
    assert "1 wrong record was left out." in render_markdown(replace(log, header=header))

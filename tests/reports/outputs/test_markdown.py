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
from ...helpers.generated_logs import HOSTILE, controls, ended, hostile_log, logs, over_logs
from ..test_markdown_escaping import rendered

MEBIBYTE = 2**20


def rows(text: str, title: str) -> list[list[str]]:
    """Return the body of the table under a heading."""
    lines = text.partition(f"### {title}")[2].split("\n### ")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")][2:]


def test_verdict_and_reason_come_first_and_the_counts_are_the_summarys(log: Log) -> None:
    lines = render_markdown(log).splitlines()
    assert lines[0] == "## editguard: ✅ pass"
    assert lines[2].startswith("- 60 edits audited, none failed")
    assert lines[6].startswith("| 60 | 36 | 18 | 6 | 0 | 0 | 18 | 1.0")


@pytest.mark.parametrize(
    ("log", "first"),
    [
        (Log(synthetic.header(1), (ended("collapsed"),), controls("ok"), None), "## editguard: ❌ fail"),
        (Log(synthetic.header(1), (ended("sound"),), controls("wrong"), None), "## editguard: ⚠️ void"),
    ],
)
def test_what_does_not_pass_says_so_in_the_first_line(log: Log, first: str) -> None:
    text = render_markdown(log)
    assert text.startswith(first)
    assert "did not finish" in text


def test_failed_refused_and_rewritten_edits_are_told_apart_with_their_reasons(log: Log) -> None:
    edits = (
        ended("collapsed", 1, id="bad"),
        ended("refused", 2, id="no"),
        synthetic.edit(3, random.Random(3), id="new"),
    )
    text = render_markdown(replace(log, edits=edits))
    (failed,), (refused,), (rewritten,) = rows(text, "Failed: 1"), rows(text, "Refused: 1"), rows(text, "Rewritten: 1")
    assert (failed[0], failed[3]) == ("bad", "4\u202f000")
    assert failed[4] == "It collapsed the model: perplexity ratio 4000, over the bound of 1.5."
    assert (refused[0], refused[4]) == ("no", "It was refused: its subject is not in the prompt.")
    assert rewritten[0] == "new"


def test_a_long_table_shows_the_first_rows_and_counts_the_rest(log: Log) -> None:
    edits = tuple(ended("collapsed", 1, id=f"e{n}") for n in range(MOST_ROWS + 3))
    text = render_markdown(replace(log, edits=edits))
    assert [row[0] for row in rows(text, f"Failed: {MOST_ROWS + 3}")] == [f"e{n}" for n in range(MOST_ROWS)]
    assert "3 more edits are in the report." in text


def test_families_controls_and_provenance_are_there(log: Log) -> None:
    text = render_markdown(log)
    assert {f"efficacy after the prefix {family}" for family in synthetic.FAMILIES} <= {
        row[0] for row in rows(text, "Rates")
    }
    assert [row[0] for row in rows(text, "Controls")] == ["rome-1", "rome-2", "sound-1"]
    last = text.splitlines()[-1]
    assert log.header.policy_sha256 in last
    assert log.header.source_sha256 in last


def test_without_controls_it_says_what_that_means(log: Log) -> None:
    assert "None was run, so nothing proves" in render_markdown(replace(log, controls=()))


@over_logs
@given(log=logs())
def test_the_first_line_says_pass_if_and_only_if_the_gate_is_open(log: Log) -> None:
    assert ("✅" in render_markdown(log).splitlines()[0]) == (summarise(log).exit_code == 0)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_is_read_as_markup(text: str) -> None:
    found = rendered(render_markdown(hostile_log(text)))
    ours = {"h2", "h3", "ul", "li", "p", "table", "thead", "tbody", "tr", "th", "td"}
    assert set(re.findall(r"</?([\w!]+)", found)) <= ours
    assert all(
        len(re.findall("<td>", row)) in (4, 5, 6, 8) for row in re.findall("<tr>\n<td>.*?</tr>", found, re.DOTALL)
    )


def test_it_stays_under_what_a_job_may_show() -> None:
    log = hostile_log("\U000e0041" * 100_000, edits=400)
    assert len(render_markdown(log).encode()) < MEBIBYTE


def test_one_record_is_one_record(log: Log) -> None:
    skipped = [SkippedRequest(where="edits.jsonl:3", field="subject", message="it is empty")]
    one = synthetic.header(60, skipped_invalid=skipped)
    assert "1 wrong record was left out." in render_markdown(replace(log, header=one))

"""What became of other prompts, why edits failed and which may ship: in the summary, on the page, in Markdown and in JUnit."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from editguard.reports import render_html
from editguard.reports.log.file import Log
from editguard.reports.log.schema import Footer
from editguard.reports.outputs.junit import render_junit
from editguard.reports.outputs.markdown import render_markdown
from editguard.reports.verdict.digest import summarise
from editguard.reports.verdict.summary import MOST_EXPLAINED, Summary

from ...helpers.audit_logs import make_sequence
from ...helpers.browser import dumped, needs_browser, root, with_script
from ...helpers.generated_logs import make_controls, make_ended_edit
from ...helpers.html_pages import Page
from ...helpers.leak_logs import FACTS, NEIGHBOURS, make_checked_edit, make_leaky_log, make_prompt_outcome
from ...helpers.synthetic_logs import make_header, make_log


@pytest.fixture(scope="module")
def leaky() -> Log:
    return make_leaky_log(12, unused=["The field 'portability' of 3 records is not used."])


@pytest.fixture(scope="module")
def page(leaky: Log) -> Page:
    return Page(render_html(leaky))


def words(page: Page) -> str:
    return " ".join(page.text.split())


# --------------------------------------------------------------------------------------------------------- summary


def test_summary_fail_names_edits_that_may_ship(leaky: Log) -> None:
    summary = summarise(leaky)
    passed = [f"case-{n:04d}" for n in (0, 3, 5, 6, 7, 8, 10, 11)]
    assert (summary.verdict, summary.may_ship) == ("fail", passed)
    assert summary.reasons[-1].startswith("8 of 12 edits passed and may ship by themselves: 'case-0000', ")


def test_summary_pass_may_ship_all_passed_edits(log: Log) -> None:
    summary = summarise(log)
    assert len(summary.may_ship) == summary.edits - summary.refused
    assert len(summary.reasons) == 1


def not_finished(log: Log) -> Log:
    return replace(log, footer=None)


def void(log: Log) -> Log:
    return replace(log, controls=make_controls("wrong"))


def incomplete(log: Log) -> Log:
    return replace(log, edits=log.edits[:-1], footer=Footer(records=len(log.edits) + 2, seconds=1.0))


@pytest.mark.parametrize("change", [not_finished, void, incomplete, make_sequence])
def test_summary_void_unfinished_or_sequence_may_ship_none(leaky: Log, change: Any) -> None:
    summary = summarise(change(leaky))
    assert summary.verdict != "pass"
    assert summary.may_ship == []
    assert not any("may ship" in reason for reason in summary.reasons)


def test_summary_prompts_count_once_for_each_edit(leaky: Log) -> None:
    summary = summarise(leaky)
    applied = 11
    assert (summary.leaks.failed, summary.leaks.total) == (2, applied * len(NEIGHBOURS))
    assert (summary.flips.failed, summary.flips.total) == (5, applied * len(NEIGHBOURS))
    assert (summary.other_fact_leaks.failed, summary.other_fact_leaks.total) == (2, applied * len(FACTS))
    assert summary.judged_by_made_neighbours == 1


def test_summary_explains_edits_that_did_not_pass(leaky: Log) -> None:
    explained = {edit.id: edit for edit in summarise(leaky).edits_explained}
    assert [*explained][:4] == ["case-0001", "case-0002", "case-0004", "case-0009"]
    assert explained["case-0001"].why.startswith("It leaks: 'Facebook is owned by' now says 'Italy, and'")
    assert explained["case-0001"].leak
    assert explained["case-0009"].result == "refused"
    rewritten = explained["case-0000"]
    assert (rewritten.result, rewritten.advice) == ("passed", "")


def test_summary_thousands_of_failures_are_bounded() -> None:
    edits = tuple(make_ended_edit("collapsed", n, id=f"e{n}") for n in range(MOST_EXPLAINED + 7))
    summary = summarise(Log(make_header(len(edits)), edits, make_controls("ok"), None))
    assert len(summary.edits_explained) == MOST_EXPLAINED
    assert summary.edits_explained_left_out == 7


def test_summary_without_newer_fields_is_read(log: Log) -> None:
    values = summarise(log).model_dump(mode="json")
    for name in ("may_ship", "leaks", "flips", "other_fact_leaks", "judged_by_made_neighbours", "edits_explained"):
        del values[name]
    assert Summary.model_validate(values).leaks.total == 0


def test_summary_special_tokens_raise_no_headline_count(leaky: Log, log: Log) -> None:
    judged = summarise(leaky).judged
    assert judged["neighbour_answers_prefixed"] == judged["neighbour_answers_unprefixed"] == 0
    assert judged["efficacy_prefixed"] == 0
    assert summarise(leaky).counts["neighbour_answers_prefixed"].total == 0


def test_summary_pass_counts_edits_judged_by_made_neighbours(leaky: Log) -> None:
    sound = replace(leaky, edits=(make_checked_edit(7, role="made-neighbour"), make_checked_edit(8)))
    sound = replace(
        sound, header=leaky.header.model_copy(update={"requests": 2}), footer=Footer(records=5, seconds=1.0)
    )
    (reason,) = summarise(sound).reasons
    assert "1 edit was judged by neighbours that the audit made" in reason


# ------------------------------------------------------------------------------------------------------------ page


def test_page_fail_links_edits_that_may_ship(page: Page) -> None:
    text = words(page)
    assert "Fail. Do not ship all of these edits: 8 of 12 passed and may ship by themselves." in text
    assert "May ship: case-0000, case-0003," in text
    assert page.links.count("edit-case-0010") == 2  # there, and in the table; a failed or rewritten one is in "why" too


def test_page_void_says_no_edit_may_ship(leaky: Log) -> None:
    text = words(Page(render_html(void(leaky))))
    assert "This audit proves nothing; run it again. No edit may ship." in text
    assert "May ship:" not in text


def test_page_counts_leaks_and_flips_and_made_neighbours(page: Page) -> None:
    text = words(page)
    assert "2 of 66 prompts about other subjects leak" in text
    assert "5 of 66 are answered otherwise" in text
    assert "2 of 33 prompts about other facts of the subjects leak" in text
    assert "1 edit was judged by neighbours that the audit made" in text


def test_page_story_and_section_give_reason_and_advice(leaky: Log) -> None:
    source = render_html(leaky)
    why = "It leaks: &#39;Facebook is owned by&#39; now says &#39;Italy, and&#39; (before: &#39;the company&#39;)"
    assert source.count(why) == 2
    story = source[source.index('id="edit-case-0001"') : source.index('id="edit-case-0002"')]
    assert story.index(why) < story.index("What to do:") < story.index("<blockquote>")
    section = source[source.index('<section id="why"') : source.index('<section id="efficacy"')]
    assert why in section
    assert "What to do:" in section


def test_page_leaking_edits_share_a_group(leaky: Log) -> None:
    edits = tuple(make_checked_edit(n, id=f"e{n}", leaks=1) for n in (1, 2, 4))
    text = words(Page(render_html(replace(leaky, edits=edits))))
    assert "failed 3 edits They leak: prompts about other subjects now say the new target. The first: It leaks:" in text


def test_page_prompts_have_chips_and_marks(leaky: Log) -> None:
    source = render_html(leaky)
    story = source[source.index('id="edit-case-0001"') : source.index('id="edit-case-0002"')]
    assert '<mark class="says">Italy</mark>' in story
    text = words(Page(f"<{story}"))
    assert "What it does to other subjects 6 prompts about other subjects: 2 leak, 1 flips, 1 is a near tie." in text
    assert "Facebook is owned by leak the company → Italy , and no prefix; after a prefix: sentence" in text
    assert "Kept in 5 conditions kept the company as before after a prefix: newline;" in text
    assert "2 prompts keep their answers" in text
    story = source[source.index('id="edit-case-0007"') : source.index('id="edit-case-0008"')]
    assert "Facebook is owned by made by the audit" in words(Page(story))


def test_page_table_of_edits_has_leaks_column(leaky: Log) -> None:
    source = render_html(leaky)
    row = next(row for row in re.findall("<tr data-story.*?</tr>", source) if "edit-case-0001" in row)
    assert '<td class="n bad" data-v="0.333' in row
    assert ">2 of 6</td>" in row
    table = source[source.index('<table id="edits-table">') :]
    head = table[: table.index("</thead>")]
    assert head.count("<th ") == row.count("<td") + 1


def test_page_unjudged_and_unused_texts_have_labels(page: Page) -> None:
    text = words(page)
    assert "What do people say of it? shown, not judged by any check" in text
    assert "What the file holds and the audit does not use The field 'portability' of 3 records is not used." in text
    assert "Warszawa another name of the old answer" in text
    assert "Turkey's currency is the other fact of the subject" in text


def test_page_log_without_prompts_has_no_prompt_block(log: Log) -> None:
    source = render_html(log)
    assert "What it does to other subjects" not in source
    assert "Leaks and flips" not in source


def test_page_far_key_is_a_shift_not_a_collapse(page: Page) -> None:
    text = words(page)
    assert "is the shift of the key" in text
    assert "A far mark does not mean that an edit collapses the model" in text


def test_page_thousands_of_edits_packs_prompts() -> None:
    log = make_log(1500)
    sample = [make_checked_edit(n, leaks=n % 3, flips=1) for n in range(1, 9)]
    edits = tuple(sample[n % 8].model_copy(update={"id": f"e{n}", "index": n}) for n in range(1500))
    started = time.process_time()
    source = render_html(replace(log, edits=edits))
    assert time.process_time() - started < 60
    assert len(source) < 12_000_000
    assert "prompt-rows" not in source[source.index('<section id="stories"') :]


@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_page_prompts_fit_the_screen(tmp_path: Path, leaky: Log, width: int) -> None:
    hard = make_checked_edit(1, id="hard", leaks=1).model_copy(
        update={
            "prompts": [make_prompt_outcome("x" * 300, "leak", "family:" + "y" * 90, before="b" * 200, after="a" * 200)]
        }
    )
    source = render_html(replace(leaky, edits=(hard, *leaky.edits[1:])))
    script = """
    for (const part of document.querySelectorAll("details")) part.open = true;
    const width = document.documentElement.clientWidth;
    const wide = [...document.querySelectorAll(".asked-prompt, .explained, .prompt-rows li > *")].filter(
      (part) => part.getBoundingClientRect().right > width + 1);
    parent.postMessage([wide.length, document.documentElement.scrollWidth > width, width].join(" "), "*");
    """
    place, frame = tmp_path / "page.html", tmp_path / "frame.html"
    place.write_text(with_script(source, script), encoding="utf-8")
    # A headless window is never narrower than 500 pixels: a frame is as wide as a phone's screen.
    frame.write_text(
        "<html><body><script>onmessage = (said) => document.documentElement.dataset.told = said.data;</script>"
        f'<iframe src="page.html" style="width:{width + 15}px;height:900px;border:0"></iframe></body></html>',
        encoding="utf-8",
    )
    assert f'data-told="0 false {width}"' in root(dumped(frame.as_uri(), tmp_path))


# ----------------------------------------------------------------------------------------------- Markdown and JUnit


def test_markdown_gives_reason_advice_and_leak_count(leaky: Log) -> None:
    text = render_markdown(leaky)
    assert "| edit | subject | new target | perplexity ratio | why | what to do |" in text
    assert "It leaks: 'Facebook is owned by' now says 'Italy, and'" in text
    assert "Do not ship this edit. Try" in text
    assert "2 of 66 prompts about other subjects leak." in text
    assert "8 of 12 edits passed and may ship by themselves" in text
    rewritten = text[text.index("### Rewritten") :]
    assert "what to do" not in rewritten[: rewritten.index("###", 5)]


def test_junit_message_has_reason_and_text_advice(leaky: Log) -> None:
    text = render_junit(leaky).decode()
    assert "message=\"It leaks: 'Facebook is owned by' now says" in text
    assert "what to do: Do not ship this edit." in text
    assert "fault: locality leaks (everywhere) failed" in text
    assert 'message="It was refused: ' in text

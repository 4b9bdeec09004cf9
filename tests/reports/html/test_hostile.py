"""Text of others does nothing on a page: no script runs, nothing beside it turns, and long texts are cut visibly."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from editguard.reports import render_html
from editguard.reports.html.diff_page import TextPair, render_diff
from editguard.reports.html.page import LONGEST
from editguard.reports.html.plotting import hover_text
from editguard.reports.html.trace_page import render_trace
from editguard.reports.log.file import Log
from editguard.reports.outputs.junit import render_junit
from editguard.reports.outputs.markdown import render_markdown
from editguard.reports.outputs.sarif import render_sarif

from ...helpers.browser import dumped, needs_browser, root, with_script
from ...helpers.generated_logs import make_hostile_log
from ...helpers.html_pages import PAYLOAD, Page, poisoned
from ...helpers.leak_logs import make_checked_edit
from ...helpers.page_records import (
    sample_comparison,
    sample_gate,
    sample_override,
    sample_trace,
    sample_trace_file,
)
from ...helpers.synthetic_logs import make_log

MEGABYTE = "A" * 1_000_000
HEBREW, ARABIC = "\u05e9\u05dc\u05d5\u05dd", "\u0645\u0631\u062d\u0628\u0627"


@pytest.fixture(scope="module")
def few() -> Log:
    """Four edits with prompts of every result: text of others stands in their words too."""
    log = make_log(4, unused=["The field 'x' is not used."])
    edits = (
        make_checked_edit(0, leaks=2),
        make_checked_edit(1, flips=2, fact_leaks=1),
        make_checked_edit(2, role="made-neighbour"),
        log.edits[3],
    )
    return replace(log, edits=edits)


class Isolated(HTMLParser):
    """Which letters from right to left stand outside of an element that keeps them apart from what is beside them."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.loose: list[str] = []
        self.isolated = 0
        self._open: list[tuple[str, str]] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "input", "br", "link"):
            self._open.append((tag, dict(attrs).get("class") or ""))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not re.search("[\u0590-\u06ff]", data) or any(tag in ("script", "title") for tag, _ in self._open):
            return
        if any(tag == "bdi" or "text" in classes.split() for tag, classes in self._open):
            self.isolated += 1
        else:
            self.loose.append(data)


def in_every_field(text: str, log: Log) -> list[str]:
    """Return the pages that have text of others in them, with `text` in every field of each."""
    opened = sample_gate(text).model_copy(update={"accepted": [text], "open": True, "override": sample_override(text)})
    return [
        render_html(poisoned(log, text), opened),
        render_html(poisoned(log, text), sample_gate(text)),
        render_diff(
            sample_comparison(
                base=text, edited=text, created=text, written=[TextPair(prompt=text, base=text, edited=text)]
            )
        ),
        render_trace(sample_trace_file(sample_trace(id=text, answer=text), model=text, source=text, created=text)),
    ]


def test_pages_megabyte_in_every_field_is_cut_with_length(few: Log) -> None:
    plain = [len(page) for page in in_every_field("short", few)]
    for page, usual in zip(in_every_field(MEGABYTE, few), plain, strict=True):
        assert len(page) < usual + 3_000_000
        text = Page(page).text
        assert re.search(r"A… \(100\d{4} characters\)", text)
        assert max(map(len, re.findall("A+", text))) <= LONGEST


@pytest.mark.parametrize(
    ("render", "most"),
    [(lambda log: render_junit(log).decode(), 400_000), (render_markdown, 60_000), (render_sarif, 1_500_000)],
)
def test_machine_files_megabyte_is_cut(render: Callable[[Log], str], most: int) -> None:
    written = render(make_hostile_log(MEGABYTE, edits=12))
    assert len(written) < most
    assert re.search(r"A… ?\(100\d{4} characters\)", written.replace("\\", ""))


@pytest.mark.parametrize("text", [HEBREW, ARABIC, f"{HEBREW} 12", "\u0661\u0662"])
def test_pages_right_to_left_letters_are_isolated(text: str, few: Log) -> None:
    for page in in_every_field(text, few):
        letters = Isolated(page)
        assert letters.loose == []
        assert letters.isolated


def test_hover_text_right_to_left_is_isolated() -> None:
    assert hover_text(HEBREW) == f"\u2068{HEBREW}\u2069"
    assert hover_text("Chicago") == "Chicago"


def test_pages_direction_characters_are_spelled_out(few: Log) -> None:
    for page in in_every_field("a\u202eb\u2066c\u200fd", few):
        assert not re.search(
            "[\u202a-\u202e\u2066-\u2069\u200e\u200f]", page[page.index("<body") : page.index("<script")]
        )
        assert "U+202E" in page


@needs_browser
@pytest.mark.slow
def test_pages_in_browser_without_policy_run_nothing(tmp_path: Path, few: Log) -> None:
    for number, page in enumerate(in_every_field(PAYLOAD, few)):
        place = tmp_path / f"{number}.html"
        script = """
        const armed = document.querySelectorAll("[onmouseover], [onerror], img, a[href^='javascript']").length;
        document.documentElement.dataset.armed = armed;
        document.documentElement.dataset.titled = document.title.length > 0;
        """
        place.write_text(with_script(page, script), encoding="utf-8")
        shown = root(dumped(place.as_uri(), tmp_path, wait=1000))
        assert 'data-armed="0"' in shown
        assert 'data-titled="true"' in shown
        assert "pwned" not in shown


@needs_browser
def test_story_right_to_left_subject_stays_before_target(tmp_path: Path, few: Log) -> None:
    place = tmp_path / "page.html"
    script = """
    const left = [...document.querySelectorAll(".story-what")].map((story) => [...story.querySelectorAll("bdi")].map(
      (part) => part.getBoundingClientRect().left));
    document.documentElement.dataset.order = left.every(([subject, target]) => subject < target);
    """
    place.write_text(with_script(render_html(poisoned(few, HEBREW)), script), encoding="utf-8")
    assert 'data-order="true"' in root(dumped(place.as_uri(), tmp_path))

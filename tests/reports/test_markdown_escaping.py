"""No text is read as Markdown: GitHub's own renderer makes nothing of it but text."""

from __future__ import annotations

import html
import re

import pytest
from editguard.reports.markdown_escaping import escaped, grid
from editguard.reports.text import visible
from hypothesis import example, given
from hypothesis import strategies as st

from ..helpers.generated_logs import HOSTILE
from ..helpers.github_markdown import to_html

texts = st.text(st.characters(exclude_categories=["Cs"]))
marked = st.text(st.sampled_from(list("\\`*_{}[]()<>#+-.!|~$^@:/&; \n\tawx1=\"'")), max_size=40)


def plain(text: str) -> str:
    """Return text as it should be read: in one line, hidden characters spelled out."""
    return " ".join(visible(text).split())


def read(markup: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", markup)).replace("\u200b", "").split())


def test_renderer_unescaped_text_makes_markup() -> None:
    assert "<a href" in to_html("https://evil.example")
    assert "<img" in to_html("<img src=x>")
    assert "<strong>" in to_html("**a**")


@given(text=st.one_of(texts, marked))
@example(text="www.evil.example")
@example(text="mallory@evil.example")
@example(text="~~a~~ **b** `c` [d](e) <f> &lt;")
@example(text="1. one")
@example(text="- item")
@example(text="===")
def test_escaped_paragraph_is_that_text(text: str) -> None:
    page = to_html(escaped(text))
    assert set(re.findall(r"<[^>]*>", page)) <= {"<p>", "</p>"}
    assert read(page) == plain(text)


@given(cells=st.lists(st.one_of(texts, marked), min_size=2, max_size=2))
@example(cells=["a|b", "\\|"])
@example(cells=["\\", "`"])
def test_escaped_cell_is_that_text(cells: list[str]) -> None:
    page = to_html("\n".join(grid(["a", "b"], [[escaped(cell) for cell in cells]])))
    assert [read(cell) for cell in re.findall(r"<td>(.*?)</td>", page, re.DOTALL)] == [plain(cell) for cell in cells]
    assert set(re.findall(r"</?(\w+)", page)) <= {"table", "thead", "tbody", "tr", "th", "td"}


@pytest.mark.parametrize(
    "text", ["@octocat", "a@octocat", "#1", "owner/name#1", "!2", "%3", "~label", "$4", "&epic", "^alert", ":tada:"]
)
def test_escaped_signs_of_sites_are_set_apart(text: str) -> None:
    assert not re.search(r"[@#!%~$^:][\w]|&amp;\w", escaped(text).replace("\\", ""))


@pytest.mark.parametrize("text", ["5 %", "ratio: 1.2, bound 1.5", "a & b", "1.018; all 3", "Q: why? What!"])
def test_escaped_ordinary_sentence_is_unchanged(text: str) -> None:
    assert html.unescape(escaped(text)) == text


@pytest.mark.parametrize("text", HOSTILE)
def test_escaped_hostile_text_is_text(text: str) -> None:
    assert set(re.findall(r"<[^>]*>", to_html(escaped(text)))) <= {"<p>", "</p>"}

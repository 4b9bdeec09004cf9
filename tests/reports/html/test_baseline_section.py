"""The page's section about the baseline, and that no page says "ship" where the gate is closed."""

from __future__ import annotations

import pytest
from editguard.reports.gate.allowances import read_allowances
from editguard.reports.gate.decision import judge_gate
from editguard.reports.html.baseline_section import build_baseline_section
from editguard.reports.html.report_page import render_html
from editguard.reports.verdict.digest import digest

from ...helpers.audit_logs import make_baseline
from ...helpers.html_pages import PAYLOAD, Page
from ...helpers.page_records import BASE, WORSE, sample_gate, sample_override


@pytest.fixture(scope="module")
def plain() -> Page:
    return Page(render_html(BASE))


def test_baseline_section_no_gate_is_absent(plain: Page) -> None:
    assert "since" not in plain.ids
    assert "Since the baseline" not in plain.text
    assert "Each of these edits may ship by itself" in plain.text


def test_build_baseline_section_no_gate_and_no_override_is_none() -> None:
    assert build_baseline_section(digest(BASE), None, []) is None


def test_baseline_section_open_gate_lists_changes() -> None:
    opened = judge_gate(make_baseline(BASE), make_baseline(BASE), ("main@1", "build"), read_allowances())
    page = Page(render_html(BASE, opened))
    assert "since" in page.ids
    assert "Nothing is worse than main@1" in page.text
    assert "Each of these edits may ship by itself" in page.text


def test_baseline_section_closed_gate_turns_verdict() -> None:
    page = Page(render_html(WORSE, sample_gate()))
    assert "Each of these edits may ship by itself" not in page.text
    assert "The gate is closed." in page.text
    assert "Do not ship these edits." in page.text
    assert "The audit itself: Pass." in page.text
    assert "regressed:efficacy-prefixed" in page.text
    assert "new-refusals" in page.text
    assert "edit-case-0007" in page.links
    assert set(page.links) <= {*page.ids, "main"}


def test_baseline_section_override_is_shown_twice() -> None:
    lifted = sample_gate().model_copy(update={"open": True, "override": sample_override()})
    for page in (Page(render_html(WORSE, lifted)), Page(render_html(WORSE, overrides=[sample_override()]))):
        assert "A person answers for shipping these edits." in page.text
        assert page.text.count("opened by override of Ada at 2026-01-01T00:00:00+00:00: nobody asks for these") == 2
        assert "Each of these edits may ship by itself" not in page.text


def test_baseline_section_hostile_text_stays_text(plain: Page) -> None:
    hostile = sample_gate(PAYLOAD)
    hostile = hostile.model_copy(update={"accepted": [PAYLOAD]})
    plain_shapes = (
        Page(render_html(WORSE, sample_gate(), [])).shapes
        | Page(render_html(WORSE, overrides=[sample_override()])).shapes
    )
    pages = [
        Page(render_html(WORSE, hostile)),
        Page(render_html(WORSE, sample_gate().model_copy(update={"open": True, "override": sample_override(PAYLOAD)}))),
        Page(render_html(WORSE, overrides=[sample_override(PAYLOAD)])),
    ]
    for page in pages:
        assert "onerror=" in page.text
        assert "\u202e" not in page.text
        assert page.shapes <= plain_shapes | {
            ("p", ("class",)),
            ("span", ("class",)),
            ("div", ("class",)),
            ("strong", ()),
        }

"""The page's section about the baseline, and that no page says "ship" where the gate is closed."""

from __future__ import annotations

import pytest
from editguard.reports.gate.allowances import read_allowances
from editguard.reports.gate.decision import judge_gate
from editguard.reports.gate.result import Gate, Override
from editguard.reports.html.report_page import render_html

from ...helpers.audit_logs import audit, lost, refused, saved, with_edits
from ...helpers.html_pages import PAYLOAD, Page

BASE = audit()
WORSE = with_edits(with_edits(BASE, lost(), range(5)), refused, [7])


def gate(name: str = "main@1") -> Gate:
    return judge_gate(saved(BASE), saved(WORSE), (name, "build"), read_allowances())


def override(text: str = "nobody asks for these") -> Override:
    return Override(
        time="2026-01-01T00:00:00+00:00", author="Ada", reason=text, baseline="main@1", baseline_sha256="b" * 64,
        log_sha256="a" * 64, closings=[one.key for one in gate().closings],
    )  # fmt: skip


@pytest.fixture(scope="module")
def plain() -> Page:
    return Page(render_html(BASE))


def test_without_a_baseline_there_is_no_section(plain: Page) -> None:
    assert "since" not in plain.ids
    assert "Since the baseline" not in plain.text
    assert "Each of these edits may ship by itself" in plain.text


def test_an_open_gate_says_what_changed() -> None:
    opened = judge_gate(saved(BASE), saved(BASE), ("main@1", "build"), read_allowances())
    page = Page(render_html(BASE, opened))
    assert "since" in page.ids
    assert "Nothing is worse than main@1" in page.text
    assert "Each of these edits may ship by itself" in page.text


def test_a_closed_gate_turns_the_verdict_and_names_its_grounds() -> None:
    page = Page(render_html(WORSE, gate()))
    assert "Each of these edits may ship by itself" not in page.text
    assert "The gate is closed." in page.text
    assert "Do not ship these edits." in page.text
    assert "The audit itself: Pass." in page.text
    assert "regressed:efficacy-prefixed" in page.text
    assert "new-refusals" in page.text
    assert "edit-case-0007" in page.links
    assert set(page.links) <= {*page.ids, "main"}


def test_an_override_is_loud_with_and_without_its_gate() -> None:
    lifted = gate().model_copy(update={"open": True, "override": override()})
    for page in (Page(render_html(WORSE, lifted)), Page(render_html(WORSE, overrides=[override()]))):
        assert "A person answers for shipping these edits." in page.text
        assert page.text.count("opened by override of Ada at 2026-01-01T00:00:00+00:00: nobody asks for these") == 2
        assert "Each of these edits may ship by itself" not in page.text


def test_text_of_users_is_shown_and_never_run(plain: Page) -> None:
    hostile = gate(PAYLOAD)
    hostile = hostile.model_copy(update={"accepted": [PAYLOAD]})
    known = Page(render_html(WORSE, gate(), [])).shapes | Page(render_html(WORSE, overrides=[override()])).shapes
    pages = [
        Page(render_html(WORSE, hostile)),
        Page(render_html(WORSE, gate().model_copy(update={"open": True, "override": override(PAYLOAD)}))),
        Page(render_html(WORSE, overrides=[override(PAYLOAD)])),
    ]
    for page in pages:
        assert "onerror=" in page.text
        assert "\u202e" not in page.text
        assert page.shapes <= known | {("p", ("class",)), ("span", ("class",)), ("div", ("class",)), ("strong", ())}

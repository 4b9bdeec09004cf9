"""The page of a reproduction: agreement with the paper, tables, and hostile text shown as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from editguard.reports.reproduction.page import MOST_ROWS, render_reproduction
from editguard.reports.reproduction.schema import Reproduction

from ...helpers.html_pages import PAYLOAD, Page
from ...helpers.reproduction_data import (
    make_claim,
    make_experiment,
    make_reproduction,
    make_scatter,
    make_skipped_experiment,
    make_table,
    replace_free_texts,
)

CLAIMS = [
    make_claim(),
    make_claim(here="None does.", agreement="differs", rule="A smaller model."),
    make_claim(agreement="cannot be compared"),
]


def whole() -> Reproduction:
    return make_reproduction(make_experiment(claims=CLAIMS), make_skipped_experiment())


@pytest.fixture(scope="module")
def source() -> str:
    return render_reproduction(whole())


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


def text_of(reproduction: Reproduction) -> str:
    return " ".join(Page(render_reproduction(reproduction)).text.split())


# ------------------------------------------------------------------------------------------------------- the page


def test_page_begins_with_result_and_model(page: Page) -> None:
    text = " ".join(page.text.split())
    assert "tiny · layer 5 of 30 layers · edits.json" in text
    assert "1 of 3 statements of the paper agree with this run" in text
    assert "Edited: 77 of 80 (first token)." in text
    assert "Agree 1 measured here as in the paper Differ 1" in text
    assert "Experiments run 1 of 2 1 not run, and the page says why" in text
    assert "1 First 1 1 1" in text
    assert "2 Second not run" in text
    assert text.index("Experiments run") < text.index("Does it?") < text.index("Provenance What was run")


def test_page_experiment_shows_all_its_fields(page: Page) -> None:
    text = " ".join(page.text.split())
    assert "All 77 collapse. None does. differs A smaller model." in text
    assert "Source: Section 1" in text
    assert "Model n Share tiny 77 0.25 large – 1.00×10³⁸" in text
    assert "A note." in text
    assert "Not run. The encoder is not installed." in text
    assert page.text.count("As a table ") == 3
    assert "1 h 2 min" in text


def test_page_broken_experiment_differs_from_skipped() -> None:
    agreeing = make_experiment(claims=[make_claim()])
    source = render_reproduction(
        make_reproduction(
            agreeing, make_skipped_experiment(), make_skipped_experiment(number=3, name="third", broken=True)
        )
    )
    text = " ".join(Page(source).text.split())
    assert "Experiments run 1 of 3 1 not run, 1 broken, and the page says why" in text
    assert "3 Second broken" in text
    assert "Broken, a fault of editguard itself: please report it. The encoder is not installed." in text
    assert '<section class="verdict void"' in source
    assert '<section class="verdict pass"' in render_reproduction(
        make_reproduction(agreeing, make_skipped_experiment())
    )


def test_page_column_of_rules_only_where_a_rule_is(page: Page) -> None:
    assert "Agreement The same if" in " ".join(page.text.split())
    assert "Agreement The same if" not in text_of(make_reproduction(make_experiment()))


def test_page_anchors_are_unique_and_links_resolve() -> None:
    names = ["a", "a-title", "a-caption", "figure", "table"]
    reproduction = make_reproduction(
        *(
            make_experiment(number=n, name=f"e-{name}", tables=[], pictures=[make_scatter(name=name)])
            for n, name in enumerate(names)
        ),
        make_experiment(number=9, name="e", tables=[make_table(name="title")], pictures=[]),
    )
    page = Page(render_reproduction(reproduction))
    assert len(page.ids) == len(set(page.ids))
    assert set(page.links) <= set(page.ids)
    assert {"e", "table-title", *(f"e-{name}" for name in names), *(f"figure-{name}" for name in names)} <= set(
        page.ids
    )
    assert set(page.figures()) == {f"figure-{name}" for name in names}


def test_page_without_claims_says_nothing_was_compared() -> None:
    assert "No statement of the paper was compared" in text_of(make_reproduction())
    assert "No statement of the paper was compared" in text_of(make_reproduction(make_experiment(claims=[])))


def test_page_long_table_is_folded_or_cut() -> None:
    def of(rows: int) -> str:
        return render_reproduction(
            make_reproduction(
                make_experiment(pictures=[], tables=[make_table(columns=["n"], rows=[[n] for n in range(rows)])])
            )
        )

    assert "<details" not in of(25)
    assert "<summary>26 rows</summary>" in of(26)
    cut = of(MOST_ROWS + 1)
    assert "Shown are the first" in cut
    assert cut.count('<th scope="row" class="n">') == MOST_ROWS


def test_page_table_scrolls_by_keyboard_and_has_a_name(source: str) -> None:
    assert '<div class="scroll" role="region" aria-label="Counts" tabindex="0">' in source


# -------------------------------------------------------------------------------------------------- hostile text


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


def test_page_hostile_text_makes_no_markup(page: Page) -> None:
    source = render_reproduction(replace_free_texts(whole(), f"{PAYLOAD}\ud800"))
    hostile_page = Page(source)
    assert hostile_page.shapes <= page.shapes | {("span", ("class",)), ("td", ("class",)), ("th", ("class", "scope"))}
    assert len(hostile_page.scripts) == len(page.scripts)
    assert "pwned=1" in hostile_page.text
    assert "U+202E" in hostile_page.text
    assert "U+D800" in hostile_page.text
    assert not {"\u202e", "\ud800"} & set(source)
    assert all(address.startswith("#") for address in hostile_page.addresses)
    own = [content for attributes, content in hostile_page.scripts if "data-for" not in attributes]
    assert not any("pwned" in content for content in own)
    for figure in hostile_page.figures().values():
        assert all(
            "<" not in text.replace("<br>", "").replace("<sup>", "").replace("</sup>", "") for text in strings(figure)
        )


def test_page_shows_every_free_text() -> None:
    mark = "free-text-mark"
    shown = render_reproduction(replace_free_texts(whole(), mark)).count(mark)
    assert (
        shown
        > render_reproduction(replace_free_texts(make_reproduction(make_skipped_experiment()), mark)).count(mark)
        > 12
    )

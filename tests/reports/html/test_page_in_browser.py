"""Figures are there when a page has loaded, in a screenshot and on paper; without scripts the page names their tables."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from editguard.reports import render_html
from editguard.reports.log.file import Log

from ...helpers.browser import dumped, needs_browser, printed, root, with_script
from ...helpers.html_pages import Page
from ...helpers.synthetic_logs import make_log

pytestmark = needs_browser

MANY = 1000
COUNT = """
const sizes = (all) => [...document.querySelectorAll(".plot")].map(all).join(" ");
const marks = () => sizes((plot) => plot.querySelectorAll(".scatterlayer .point").length);
const inks = () => sizes((plot) => getComputedStyle(plot.querySelector(".xtitle")).fill.replace(/ /g, ""));
const widths = () => sizes((plot) => Math.round(plot.querySelector(".main-svg").getBoundingClientRect().width));
const say = (name, value) => document.documentElement.setAttribute(`data-${name}`, value);
"""


def read_attribute(shown: str, name: str) -> str:
    match = re.search(rf'data-{name}="(.*?)"', root(shown))
    assert match is not None, f"the page has no attribute {name}"
    return match.group(1)


def count_marks(shown: str, name: str) -> list[int]:
    return list(map(int, read_attribute(shown, name).split()))


@pytest.fixture(scope="module")
def many() -> str:
    """A page of so many marks that its figures wait until it has loaded."""
    return render_html(make_log(MANY))


def test_figures_loaded_page_draws_all(tmp_path: Path, log: Log) -> None:
    source = render_html(log)
    file = tmp_path / "report.html"
    file.write_text(with_script(source, f'{COUNT} addEventListener("load", () => say("marks", marks()));'))
    expected = [sum(len(trace["x"]) for trace in figure["data"]) for figure in Page(source).figures().values()]
    assert count_marks(dumped(file.as_uri(), tmp_path, wait=0), "marks") == expected


@pytest.mark.slow
def test_figures_thousands_of_marks_wait_until_page_loaded(tmp_path: Path, many: str) -> None:
    file = tmp_path / "report.html"
    script = (
        'addEventListener("load", () => { say("marks", marks()); setInterval(() => say("later", marks()), 100); });'
    )
    file.write_text(with_script(many, COUNT + script))
    shown = dumped(file.as_uri(), tmp_path, "--window-size=1280,800")
    assert count_marks(shown, "marks") == [0, 0, 0]
    assert min(count_marks(shown, "later")) > 300


@pytest.mark.slow
def test_figures_in_view_are_drawn_before_page_loaded(tmp_path: Path, many: str) -> None:
    file = tmp_path / "report.html"
    file.write_text(with_script(many, f'{COUNT} addEventListener("load", () => say("marks", marks()));'))
    assert min(count_marks(dumped(file.as_uri(), tmp_path, "--window-size=1280,6000"), "marks")) > 300


@pytest.mark.slow
def test_figures_print_are_light_and_as_wide_as_paper(tmp_path: Path, many: str) -> None:
    file = tmp_path / "report.html"
    script = """
    say("before", marks());
    dispatchEvent(new Event("beforeprint"));
    say("marks", marks()); say("inks", inks()); say("widths", widths());
    dispatchEvent(new Event("afterprint"));
    say("again", inks());
    """
    file.write_text(with_script(many, COUNT + script))
    shown = dumped(file.as_uri(), tmp_path, "--window-size=1280,800", "--blink-settings=preferredColorScheme=0")
    assert count_marks(shown, "before") == [0, 0, 0]
    assert min(count_marks(shown, "marks")) > 300
    assert set(read_attribute(shown, "inks").split()) == {"rgb(90,99,112)"}
    assert all(600 < width < 660 for width in count_marks(shown, "widths"))
    assert set(read_attribute(shown, "again").split()) == {"rgb(163,171,181)"}


@pytest.mark.slow
def test_figures_printed_page_holds_marks(tmp_path: Path, log: Log) -> None:
    source = render_html(log)
    curves = {}
    for name, page in (
        ("whole", source),
        ("bare", re.sub(r'<script type="text/plain".*?</script>', "", source, flags=re.S)),
    ):
        file = tmp_path / f"{name}.html"
        file.write_text(
            page if name == "whole" else with_script(re.sub(r"<script>.*?</script>", "", page, flags=re.S), "")
        )
        curves[name] = printed(file.as_uri(), tmp_path).count(b" c\n")
    # A round mark is drawn of four curves; nearly all of the keys' are round.
    assert curves["whole"] > curves["bare"] + 4 * 600


def test_figures_without_scripts_name_their_table(log: Log) -> None:
    source = render_html(log)
    messages = re.findall(r"<noscript>(.*?)</noscript>", source)
    assert messages.count("The picture needs scripts. Its numbers stand below, under “As a table”.") == 3

"""axe-core, in a browser, finds nothing wrong with any page, light or dark, with every part of it open."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import unescape
from importlib.util import find_spec
from pathlib import Path

import pytest
from editguard.reports import render_html
from editguard.reports.html.diff_page import render_diff
from editguard.reports.html.trace_page import render_trace
from editguard.reports.reproduction.page import render_reproduction

from ...helpers.audit_logs import change_edits, make_audit, refuse
from ...helpers.browser import dumped, needs_browser, with_script
from ...helpers.leak_logs import make_leaky_log
from ...helpers.page_records import (
    sample_comparison,
    sample_gate,
    sample_override,
    sample_trace,
    sample_trace_file,
)
from ...helpers.reproduction_data import make_claim, make_experiment, make_reproduction, make_skipped_experiment

# Located, not imported: the import would load playwright, which the tests do not use.
_PACKAGE = find_spec("axe_playwright_python")
AXE = Path(_PACKAGE.origin).with_name("axe.min.js") if _PACKAGE and _PACKAGE.origin else None

pytestmark = [
    needs_browser,
    pytest.mark.skipif(AXE is None, reason="axe-playwright-python, which carries axe-core, is missing"),
]

RUN = """
for (const part of document.querySelectorAll("details")) part.open = true;
// Stories out of sight have an estimated size: laid out while axe looks, they would move under its eyes.
for (const part of document.querySelectorAll(".story")) part.style.contentVisibility = "visible";
const report = document.createElement("pre");
axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) => {
  report.id = "axe";
  report.textContent = JSON.stringify(violations.map(({ id, impact, nodes }) =>
    [id, impact, nodes.slice(0, 3).map((node) => `${node.html.slice(0, 200)} ${node.failureSummary}`)]));
  document.body.append(report);
});
"""

CLAIMS = [
    make_claim(),
    make_claim(here="None does.", agreement="differs", rule="A smaller model."),
    make_claim(agreement="cannot be compared"),
]


def render_sample_reproduction() -> str:
    return render_reproduction(make_reproduction(make_experiment(claims=CLAIMS), make_skipped_experiment()))


PAGES: dict[str, Callable[[], str]] = {
    "audit with a comparison": lambda: render_html(change_edits(make_audit(), refuse, [3]), sample_gate()),
    "audit with leaks": lambda: render_html(make_leaky_log(12)),
    "audit with an override": lambda: render_html(make_audit(4), None, [sample_override()]),
    "comparison of checkpoints": lambda: render_diff(sample_comparison()),
    "trace": lambda: render_trace(sample_trace_file(sample_trace())),
    "reproduction": render_sample_reproduction,
}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_pages_axe_finds_no_violation(tmp_path: Path, name: str, dark: bool) -> None:
    assert find_violations(PAGES[name](), tmp_path, dark=dark) == []


def test_axe_page_without_language_is_a_violation(tmp_path: Path) -> None:
    broken = PAGES["comparison of checkpoints"]().replace('<html lang="en">', "<html>")
    assert [name for name, *_ in find_violations(broken, tmp_path, dark=False)] == ["html-has-lang"]


def find_violations(source: str, folder: Path, *, dark: bool) -> list[list[object]]:
    assert AXE is not None
    page = folder / "page.html"
    page.write_text(with_script(source, f"{AXE.read_text(encoding='utf-8')}\n{RUN}"), encoding="utf-8")
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    shown = dumped(page.as_uri(), folder, *scheme, wait=60_000)
    report = re.search(r'<pre id="axe">(.*?)</pre>', shown, re.DOTALL)
    assert report is not None, "axe reported nothing"
    violations_found: list[list[object]] = json.loads(unescape(report.group(1)))
    return violations_found

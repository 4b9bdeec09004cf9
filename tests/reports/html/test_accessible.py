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

from ...helpers.audit_logs import audit, refused, with_edits
from ...helpers.browser import dumped, needs_browser, with_script
from ...helpers.leak_logs import leaky_log
from ..reproduction.test_page import whole
from .test_baseline_section import gate, override
from .test_diff_page import comparison
from .test_trace_page import file, record

# Found and not imported: it would import playwright, which the tests have no use for.
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
const told = document.createElement("pre");
axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) => {
  told.id = "axe";
  told.textContent = JSON.stringify(violations.map(({ id, impact, nodes }) =>
    [id, impact, nodes.slice(0, 3).map((node) => `${node.html.slice(0, 200)} ${node.failureSummary}`)]));
  document.body.append(told);
});
"""

PAGES: dict[str, Callable[[], str]] = {
    "audit with a comparison": lambda: render_html(with_edits(audit(), refused, [3]), gate()),
    "audit with leaks": lambda: render_html(leaky_log(12)),
    "audit with an override": lambda: render_html(audit(4), None, [override()]),
    "comparison of checkpoints": lambda: render_diff(comparison()),
    "trace": lambda: render_trace(file(record())),
    "reproduction": lambda: render_reproduction(whole()),
}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing(tmp_path: Path, name: str, dark: bool) -> None:
    assert violations(PAGES[name](), tmp_path, dark=dark) == []


def test_axe_is_seen_to_find_what_is_wrong(tmp_path: Path) -> None:
    broken = PAGES["comparison of checkpoints"]().replace('<html lang="en">', "<html>")
    assert [name for name, *_ in violations(broken, tmp_path, dark=False)] == ["html-has-lang"]


def violations(source: str, folder: Path, *, dark: bool) -> list[list[object]]:
    assert AXE is not None
    page = folder / "page.html"
    page.write_text(with_script(source, f"{AXE.read_text(encoding='utf-8')}\n{RUN}"), encoding="utf-8")
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    shown = dumped(page.as_uri(), folder, *scheme, wait=60_000)
    told = re.search(r'<pre id="axe">(.*?)</pre>', shown, re.DOTALL)
    assert told is not None, "axe did not come to an end"
    found: list[list[object]] = json.loads(unescape(told.group(1)))
    return found

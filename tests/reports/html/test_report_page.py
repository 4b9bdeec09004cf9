from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from editguard.reports import render_html
from editguard.reports.html.report_page import FIRST_ROWS, MOST_UNPACKED, PACK_SIZE, group_edits
from editguard.reports.log.file import Log
from editguard.reports.log.header import SkippedRequest
from editguard.reports.log.schema import Footer, MeasurementRecord
from editguard.reports.verdict.edit_summary import summarise_edits

from ...helpers import synthetic_logs as synthetic
from ...helpers.browser import dumped, needs_browser, root
from ...helpers.html_pages import PAYLOAD, Page, poisoned
from ...helpers.leak_logs import make_checked_edit

FIGURES = ["figure-denominators", "figure-keys", "figure-perplexity"]


@pytest.fixture(scope="module")
def source(log: Log) -> str:
    return render_html(log)


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


def collapsed(log: Log) -> Log:
    """Return the log with edit 1 collapsed."""
    edit = log.edits[1]
    measured = [*(m for m in edit.measurements if m.check != "perplexity"), synthetic.make_perplexity(3812.4)]
    bad = edit.model_copy(update={"outcome": "rolled-back", "verdict": "fail", "measurements": measured})
    return replace(log, edits=(log.edits[0], bad, *log.edits[2:]))


def test_report_pass_puts_verdict_first(page: Page) -> None:
    text = " ".join(page.text.split())
    assert (
        text.index("Pass. Each of these edits may ship by itself, 18 of them only after a prefix.")
        < text.index("Allowed 36")
        < text.index("Do the edits take?")
    )
    assert "Rewritten 18" in text
    assert "Refused 6" in text
    assert "Did an edit collapse the model? No" in text
    assert "18 edits work only after a prefix." in text


@pytest.mark.parametrize(("subject", "beginning"), [("iPhone", "iPhone says"), ("wool", "Wool says")])
def test_group_edits_reason_with_a_subject_first_keeps_its_spelling(subject: str, beginning: str) -> None:
    record = make_checked_edit(fact_leaks=2, subject=subject)
    (group,) = group_edits(summarise_edits([record], 1.5, leaks_judged=True), synthetic.make_header(1))
    assert group.reason.startswith(f"{beginning} the target to other questions")


def test_report_single_edit_uses_singular(log: Log) -> None:
    assert log.footer is not None
    header = log.header.model_copy(update={"requests": 1})
    single = replace(log, header=header, edits=log.edits[:1], footer=log.footer.model_copy(update={"records": 4}))
    assert "Pass. This edit may ship" in " ".join(Page(render_html(single)).text.split())


def test_report_fail_and_void_say_so(log: Log) -> None:
    failed = " ".join(Page(render_html(collapsed(log))).text.split())
    assert "Fail. Do not ship all of these edits: 53 of 60 passed and may ship by themselves." in failed
    assert "Did an edit collapse the model? Yes" in failed
    assert "It collapsed the model: perplexity ratio 3812, over the bound of 1.5" in failed
    missing = replace(log, controls=log.controls[1:], footer=Footer(records=62, seconds=1.0))
    void = " ".join(Page(render_html(missing)).text.split())
    assert "Void. This audit proves nothing" in void
    assert "Did an edit collapse the model? Not known" in void


def test_report_figures_have_caption_and_table(page: Page) -> None:
    figures = page.figures()
    assert list(figures) == FIGURES
    for name, figure in figures.items():
        assert name in page.ids
        assert f"{name}_caption" in page.ids
        assert sum(len(trace["x"]) for trace in figure["data"]) > 0
        assert all(trace["type"] == "scatter" for trace in figure["data"])
    assert (FIGURES[2], figures[FIGURES[2]]["layout"]["xaxis"]["type"]) == ("figure-perplexity", "log")
    assert "20 of 60 edits lie there, and none of them was made as asked" in page.text
    assert page.text.count("As a table ") == 3


def test_denominators_ratio_threshold_is_scaled_per_edit(log: Log, page: Page) -> None:
    relative = page.figures()["figure-denominators"]
    assert "shapes" not in relative["layout"]
    keys = log.edits[4].keys
    assert keys is not None
    assert keys.denominator_prefixed is not None
    assert relative["data"][0]["name"] == "threshold of each edit"
    assert relative["data"][0]["y"][4] == pytest.approx(0.0625 * keys.denominator_prefixed)
    header = log.header.model_copy(
        update={"thresholds": [log.header.thresholds[0].model_copy(update={"metric": "denominator", "value": 0.4})]}
    )
    absolute = Page(render_html(replace(log, header=header))).figures()["figure-denominators"]
    assert absolute["layout"]["shapes"][0]["y0"] == 0.4
    assert absolute["data"][0]["x"] == []


def test_denominators_size_threshold_first_is_drawn(log: Log) -> None:
    keys, thresholds = log.edits[4].keys, log.header.thresholds
    assert keys is not None
    assert keys.denominator is not None
    size = thresholds[0].model_copy(update={"metric": "predicted_relative_norm", "value": 4.0})
    edits = list(log.edits)
    edits[4] = edits[4].model_copy(update={"keys": keys.model_copy(update={"predicted_relative_norm": 8000.0})})
    header = log.header.model_copy(update={"thresholds": [*thresholds, size]})
    drawn = Page(render_html(replace(log, header=header, edits=tuple(edits)))).figures()["figure-denominators"]
    assert drawn["data"][0]["y"][4] == pytest.approx(2000 * keys.denominator)


def test_figures_marks_link_to_stories(page: Page) -> None:
    for figure in page.figures().values():
        assert {anchor for trace in figure["data"] for anchor in trace["customdata"]} <= set(page.ids)


def test_figures_without_data_are_left_out(log: Log) -> None:
    bare = replace(log, edits=tuple(edit.model_copy(update={"keys": None}) for edit in log.edits))
    assert list(Page(render_html(bare)).figures()) == ["figure-perplexity"]


def test_keys_many_points_are_thinned_with_note(log: Log) -> None:
    crowded = Page(render_html(synthetic.make_log(200)))
    prefixed = crowded.figures()["figure-keys"]["data"][0]
    assert len(prefixed["x"]) == len(prefixed["text"]) == 1000
    assert "Drawn are 1000 of 2000 keys after prefixes." in crowded.text


def test_report_every_link_has_its_target(page: Page, log: Log) -> None:
    assert {f"edit-{edit.id}" for edit in log.edits} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert set(page.links) <= set(page.ids)


def test_story_shows_every_text_of_the_record(log: Log) -> None:
    text = Page(render_html(replace(log, edits=log.edits[:1]))).text
    edit = log.edits[0]
    assert edit.update is not None
    for text_of_record in (
        edit.findings[0].message,
        edit.decision.reasons[0],
        edit.generations[0].before,
        edit.generations[0].after,
        edit.paraphrases[0],
        edit.neighbourhood[1],
        "restored bit for bit",
        f"{edit.update.update_norm:.4g}",
    ):
        assert text_of_record is not None
        assert text_of_record in text


def test_report_unmeasured_perplexity_is_named(log: Log) -> None:
    measured = [
        MeasurementRecord(check="perplexity", metric="ratio", value=None, verdict="unmeasured", message="NaN loss")
    ]
    edit = log.edits[1].model_copy(update={"measurements": measured})
    text = Page(render_html(replace(log, edits=(log.edits[0], edit, *log.edits[2:])))).text
    assert "After 1 of 54 edits, perplexity is over 1.5 times the unedited model's, or not finite." in text
    assert "the perplexity after it is not finite" in text
    assert "NaN loss" in text
    untaken = log.edits[1].model_copy(update={"measurements": []})
    text = Page(render_html(replace(log, edits=(log.edits[0], untaken, *log.edits[2:])))).text
    assert "After 1 of 54 edits the perplexity was not measured." in text


def test_report_edits_without_neighbours_are_named(log: Log, page: Page) -> None:
    assert "Other subjects were not asked about" not in page.text
    edit = log.edits[1]
    silent = edit.model_copy(update={"measurements": [m for m in edit.measurements if m.check != "locality"]})
    text = " ".join(Page(render_html(replace(log, edits=(log.edits[0], silent, *log.edits[2:])))).text.split())
    assert f"Other subjects were not asked about in 1 of 60 edits without neighbourhood prompts: {edit.id!r}" in text


def test_report_no_controls_proves_no_soundness(log: Log) -> None:
    header = log.header.model_copy(update={"controls": [], "policy": {**log.header.policy, "controls": False}})
    text = " ".join(Page(render_html(replace(log, header=header, controls=()))).text.split())
    assert "Did an edit collapse the model? None seen" in text
    assert "no control was made to prove that a collapse would be seen" in text


def test_perplexity_edit_over_bound_has_own_row(log: Log) -> None:
    edit, policy = log.edits[1], {**log.header.policy, "max_perplexity_ratio": 1.05}
    over = [*(m for m in edit.measurements if m.check != "perplexity"), synthetic.make_perplexity(1.2)]
    edits = (log.edits[0], edit.model_copy(update={"measurements": over}), *log.edits[2:])
    page = Page(render_html(replace(log, header=log.header.model_copy(update={"policy": policy}), edits=edits)))
    figure = page.figures()["figure-perplexity"]
    counts = {trace["name"]: len(trace["x"]) for trace in figure["data"]}
    assert counts["edits over the allowed"] == 1
    assert {label["text"] for label in figure["layout"]["annotations"]} == {"allowed 1.05", "collapse 1.5"}
    assert "and 1 over the 1.05 that the policy allows a sound edit" in page.text


def test_report_empty_log_shows_skipped_requests(log: Log) -> None:
    skipped = [SkippedRequest(where="edits.jsonl:7", field="prompt", message="does not contain the subject")]
    header = log.header.model_copy(
        update={"skipped_invalid": skipped, "prefixes": [], "thresholds": [], "baseline": []}
    )
    text = Page(render_html(replace(log, header=header, edits=(), controls=(), footer=None, torn=True))).text
    assert "edits.jsonl:7" in text
    assert "its last line is cut short" in text
    assert "None was run." in text


def test_report_hostile_text_never_becomes_markup(log: Log, page: Page) -> None:
    source = render_html(poisoned(collapsed(log)))
    hostile = Page(source)
    allowed = page.shapes | Page(render_html(collapsed(log))).shapes | {("span", ("class",)), ("b", ())}
    assert hostile.shapes <= allowed
    assert len(hostile.scripts) == len(page.scripts)
    assert "pwned=1" in hostile.text  # it is shown, as text
    assert "U+202E" in hostile.text
    assert "\u202e" not in source
    assert "{{ 7*7 }}" in hostile.text
    own = [content for attributes, content in hostile.scripts if "data-for" not in attributes]
    assert not any("pwned" in content for content in own)
    for figure in hostile.figures().values():
        for trace in figure["data"]:
            assert all("<" not in text.replace("<br>", "") for text in trace["text"])


def test_report_has_no_network_address(source: str, page: Page) -> None:
    assert page.addresses
    assert all(address.startswith("#") for address in page.addresses)
    style = source[source.index("<style>") : source.index("</style>")]
    assert not re.search(r"@import|url\(", style)
    own = "".join(script for _, script in page.scripts[-2:])
    assert not re.search(r"https?:|fetch|XMLHttpRequest|import\(", own)


def test_report_security_policy_admits_own_scripts_only(page: Page) -> None:
    assert page.policy.startswith("default-src 'none';")
    # The library of the figures is text until one is drawn.
    runnable = [content for attributes, content in page.scripts if attributes.get("type") in (None, "text/plain")]
    assert len(runnable) == 3
    for content in runnable:
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in page.policy
    script_rule = next(rule for rule in page.policy.split(";") if "script-src" in rule)
    assert "unsafe" not in script_rule


def test_reports_import_loads_nothing_heavy() -> None:
    code = (
        "import sys, editguard.reports as r; assert 'pydantic' not in sys.modules; r.read_log; r.render_html;"
        "bad = {'plotly', 'pandas', 'torch', 'jinja2'} & set(sys.modules); assert not bad, bad;"
        "assert set(r.__all__) <= set(dir(r)) and all(hasattr(r, n) for n in r.__all__)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def read_pack(page: Page, name: str) -> list[str]:
    """Read one pack of a page of many edits back."""
    (content,) = [content for attributes, content in page.scripts if attributes.get("id") == name]
    parts: list[str] = json.loads(gzip.decompress(base64.b64decode(json.loads(content))))
    return parts


def test_report_2000_edits_packs_stories_in_20_cpu_seconds() -> None:
    log = synthetic.make_log(2000)
    started = time.process_time()
    source = render_html(log)
    assert time.process_time() - started < 20
    page = Page(source)
    assert source.count("<tr data-story=") == FIRST_ROWS
    assert source.count('<details class="story"') == len(log.controls)
    assert len(read_pack(page, "rows")) == 2000 - FIRST_ROWS


def test_report_packed_stories_equal_plain_ones(log: Log) -> None:
    some = MOST_UNPACKED + 1
    many = replace(
        log, edits=tuple(log.edits[n % len(log.edits)].model_copy(update={"id": f"e{n}"}) for n in range(some))
    )
    page, few = Page(render_html(many)), render_html(replace(many, edits=many.edits[:1]))
    places: list[str] = json.loads(next(c for a, c in page.scripts if a.get("id") == "places"))
    assert places == [f"edit-e{n}" for n in range(some)]
    stories = [story for n in range(-(-some // PACK_SIZE)) for story in read_pack(page, f"pack-{n}")]
    assert [Page(story).ids[0] for story in stories] == places
    assert stories[0].strip() in few
    rows = read_pack(page, "rows")
    assert [re.findall('data-story="(.*?)"', row) for row in rows] == [[place] for place in places[FIRST_ROWS:]]


@pytest.mark.slow
@needs_browser
def test_report_in_browser_runs_no_hostile_script(tmp_path: Path, log: Log) -> None:
    file = tmp_path / "report.html"
    file.write_text(render_html(poisoned(log)), encoding="utf-8")
    shown = dumped(file.as_uri(), tmp_path)
    assert "pwned" not in root(shown)
    assert shown.count('class="main-svg"') >= len(FIGURES)
    assert PAYLOAD not in shown


@pytest.mark.slow
@needs_browser
def test_report_in_browser_unpacks_linked_story_as_text(tmp_path: Path, log: Log) -> None:
    many = replace(
        log,
        edits=tuple(
            log.edits[n % len(log.edits)].model_copy(update={"id": f"e{n}"}) for n in range(MOST_UNPACKED + 20)
        ),
    )
    hostile = replace(
        poisoned(many),
        edits=tuple(edit.model_copy(update={"id": f"e{n}"}) for n, edit in enumerate(poisoned(many).edits)),
    )
    file = tmp_path / "report.html"
    file.write_text(render_html(hostile), encoding="utf-8")
    shown = dumped(f"{file.as_uri()}#edit-e310", tmp_path)
    assert re.search(r'<details class="story" id="edit-e310"[^>]* open', shown)
    assert 'id="edit-e309"' not in shown
    assert "pwned" not in root(shown)
    assert PAYLOAD not in shown


def test_report_edit_of_several_weights_has_a_row_for_each(log: Log) -> None:
    edit = log.edits[0]
    assert edit.update is not None
    assert edit.weights is not None
    (change,), (hashes,) = edit.update.changes, edit.weights.sites.values()
    other = change.model_copy(update={"path": "model.layers.12.<b>", "layer": 12, "rank": 3, "steps": None})
    several = edit.model_copy(
        update={
            "update": edit.update.model_copy(update={"changes": [change, other]}),
            "weights": edit.weights.model_copy(update={"sites": {change.path: hashes, other.path: hashes}}),
        }
    )
    html = render_html(replace(log, edits=(several, *log.edits[1:])))
    assert html.count("Edited weights in edit") == 1
    assert "model.layers.12.&lt;b&gt;" in html
    assert "model.layers.12.<b>" not in html
    text = " ".join(Page(html).text.split())
    assert f"{change.path}: {hashes.before} → {hashes.edited} → {hashes.restored}, model.layers.12.<b>: " in text
    assert text.count("Numerator ‖v* − W k‖") == len([e for e in log.edits[1:] if e.update is not None]) + len(
        log.controls
    )

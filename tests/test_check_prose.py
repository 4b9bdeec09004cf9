"""The prose lint: each rule catches a bad sentence and passes a good one; code, tables and switched-off parts are left out."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[1]
STYLE = ROOT / "styles" / "editguard"

prose = SimpleNamespace(**runpy.run_path(str(ROOT / "docs" / "check_prose.py")))

LONG = "The guard " + "reads the request and " * 6 + "stops."
"""A sentence of 27 words."""


def broken(markdown: str) -> list[tuple[int, str]]:
    """Return (line, name of the rule) of each alert."""
    return [(alert.line, alert.rule) for alert in prose.alerts(markdown, prose.rules(STYLE))]


@pytest.mark.parametrize(
    ("bad", "good", "rule"),
    [
        ("The audit is gone on with.", "The audit is resumed.", "Idioms"),
        ("The cause is told.", "The cause is reported.", "Idioms"),
        ("The edit acts behind a prefix.", "The edit acts after a prefix.", "Idioms"),
        ("The bare key is short.", "The key without a prefix is short.", "Idioms"),
        ("It is simply written.", "It is written.", "Fillers"),
        ("What passes may ship.", "An edit that passes may ship. What is a leak?", "Openings"),
        ("One passed. Of the others two failed.", "One passed. Two of the others failed.", "Openings"),
        (LONG, LONG.replace("and reads the request ", "", 1), "SentenceLength"),
    ],
)
def test_rules_bad_sentence_caught_good_sentence_passes(bad: str, good: str, rule: str) -> None:
    assert {name for _, name in broken(bad)} == {f"editguard.{rule}"}
    assert broken(good) == []


def test_rules_every_file_of_the_style_is_read() -> None:
    assert [rule.name for rule in prose.rules(STYLE)] == [
        "editguard.Fillers",
        "editguard.Idioms",
        "editguard.Openings",
        "editguard.SentenceLength",
    ]


def test_rules_unknown_kind_refused(tmp_path: Path) -> None:
    (tmp_path / "Spelling.yml").write_text("extends: spelling\nmessage: x\nlevel: error\n", encoding="utf-8")
    with pytest.raises(ValueError, match="does not know this kind of rule"):
        prose.rules(tmp_path)


@pytest.mark.parametrize(
    "markdown",
    [
        f"```sh\n{LONG}\n```",
        f"~~~\n```\n{LONG}\n~~~",
        f"Text.\n\n    {LONG}",
        f"| a | b |\n|---|---|\n| {LONG} | What is. |",
        f"<!-- {LONG} -->",
        f"<!--\n{LONG}\n-->",
        f"<!-- vale off -->\n\n{LONG}\n\n```\n<!-- vale on -->",
        f"::: editguard.Policy\n    {LONG}",
        f"---\ntitle: {LONG}\n---\n",
        f"# {LONG}",
        "The option `go on with what is told` is code.",
        "The [page](what-is-told.md 'is told') is linked.",
    ],
    ids=[
        "fence",
        "tildes",
        "indented",
        "table",
        "comment",
        "comment of lines",
        "switched off",
        "directive",
        "front matter",
        "heading",
        "span",
        "address",
    ],
)
def test_alerts_what_is_no_prose_left_out(markdown: str) -> None:
    assert broken(markdown) == []


@pytest.mark.parametrize(
    ("markdown", "line"),
    [
        (f"# Title\n\nShort.\n{LONG}", 4),
        (f"- one\n- two\n- {LONG}", 3),
        (f"- one\n\n    {LONG}", 3),
        (f"> {LONG}", 1),
        (f'!!! note "Title"\n    {LONG}', 2),
        (f"<!-- vale off -->\nWhat is.\n<!-- vale on -->\n\n{LONG}", 5),
        (f"See the [page](a.md). {LONG}", 1),
        (f"**Bold.** {LONG}", 1),
    ],
    ids=[
        "paragraph",
        "item",
        "in an item",
        "quotation",
        "admonition",
        "switched on again",
        "after a link",
        "after bold",
    ],
)
def test_alerts_long_sentence_reported_with_its_line(markdown: str, line: int) -> None:
    assert broken(markdown) == [(line, "editguard.SentenceLength")]


def test_sentences_numbers_and_abbreviations_end_none() -> None:
    (block,) = prose.blocks("The ratio is 1.02, e.g. for `a.b`. It holds (see Fig. 2). oneDNN is ... the next.")
    assert [text for _, text in prose.sentences(block)] == [
        "The ratio is 1.02, e.g. for *****.",
        "It holds (see Fig. 2).",
        "oneDNN is ... the next.",
    ]


def test_check_pages_of_an_output_of_a_command_left_out(tmp_path: Path) -> None:
    (tmp_path / ".vale.ini").write_text((ROOT / ".vale.ini").read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "styles").symlink_to(ROOT / "styles")
    (folder := tmp_path / "docs" / "research").mkdir(parents=True)
    for name in ("a-output.md", "a.md"):
        (folder / name).write_text("What passes may ship.\n", encoding="utf-8")
    (tmp_path / "README.md").write_text("Good.\n", encoding="utf-8")
    (tmp_path / "CONTRIBUTING.md").write_text("Good.\n", encoding="utf-8")
    alerts = prose.check(tmp_path, prose.pages(tmp_path))
    assert [str(alert).partition(": ")[0] for alert in alerts] == ["docs/research/a.md:1:editguard.Openings"]

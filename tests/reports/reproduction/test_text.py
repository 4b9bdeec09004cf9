"""A reproduction as Markdown: complete, in order, and without markup from its texts."""

from __future__ import annotations

import re

from editguard.reports.reproduction.schema import Agreement, CaseCount, Claim, Experiment, Reproduction, Table
from editguard.reports.reproduction.text import MOST_ROWS, render_markdown


def make_reproduction(*experiments: Experiment) -> Reproduction:
    return Reproduction(
        editguard_version="0.1.0",
        created="2026-01-01",
        command="",
        model="model",
        model_fingerprint="0",
        layer=9,
        layers=30,
        seed=0,
        source="edits.json",
        source_sha256="0",
        requests=20,
        cases=[CaseCount(kind="ordinary", edited=6, found=15)],
        statistics="text",
        seconds=1.0,
        experiments=list(experiments),
    )


def make_experiment(**fields: object) -> Experiment:
    usual = {"number": 1, "name": "one", "title": "Title", "question": "Question?", "source": "table 1"}
    return Experiment.model_validate(usual | fields)


def test_markdown_has_all_parts_in_order() -> None:
    table = Table(name="sizes", title="Sizes", columns=["a", "b"], rows=[["x", 0.012345], [None, True]], note="A note.")
    claims = [Claim(paper="They.", here="We.", agreement=Agreement.NO, rule="So.")]
    text = render_markdown(make_reproduction(make_experiment(claims=claims, tables=[table], notes=["Another."])))
    lines = [line for line in text.splitlines() if line]
    assert lines == [
        "# The Fall of ROME on model",
        "Layer 9 of 30, 20 requests of edits.json, seed 0, C from text. Edited: 6 of 15 (ordinary).",
        "## 1. Title",
        "Question? (Source: table 1.)",
        "| the paper | here |  | the same if |",
        "|---|---|---|---|",
        "| They. | We. | differs | So. |",
        "Sizes:",
        "| a | b |",
        "|---|---|",
        "| x | 0.01235 |",
        "| – | yes |",
        "A note.",
        "Another.",
    ]


def test_markdown_skipped_experiment_gives_the_reason() -> None:
    assert "Not run: no wheel" in render_markdown(make_reproduction(make_experiment(skipped="no wheel")))
    assert "Broken: no wheel" in render_markdown(make_reproduction(make_experiment(skipped="no wheel", broken=True)))


def test_markdown_long_table_names_the_file_of_its_rest() -> None:
    table = Table(name="many", title="Many", columns=["n"], rows=[[n] for n in range(MOST_ROWS + 7)])
    text = render_markdown(make_reproduction(make_experiment(tables=[table])))
    assert "7 more rows are in many.csv." in text
    assert f"| {MOST_ROWS - 1} |" in text
    assert f"| {MOST_ROWS} |" not in text


def test_markdown_hostile_text_makes_no_markup() -> None:
    nasty = "a|b`c`*d*_e_[f](g)<script>\n# h\u202e\\"
    table = Table(name="nasty", title=nasty, columns=["a"], rows=[[nasty]])
    text = render_markdown(make_reproduction(make_experiment(title=nasty, notes=[nasty], tables=[table])))
    assert "<script>" not in text
    assert "\u202e" not in text
    assert "[U+202E\\]" in text.replace("\\[", "[")
    for line in text.splitlines():
        if "script" in line:
            assert not re.search(r"(?<!\\)[`*_\[]", line.replace("\\\\", ""))
            # Markup of the renderer begins the line, and a row has only its own two bars.
            assert len(re.findall(r"(?<!\\)\|", line.replace("\\\\", ""))) in (0, 2)

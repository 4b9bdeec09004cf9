"""C from text equals a brute force in float64, resumes to the same bits, and refuses what it cannot read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from editguard.probes.errors import NotFinite, StatisticsError
from editguard.probes.keys.corpus_statistics import (
    Corpus,
    compute_all_statistics,
    compute_statistics,
    read_corpus,
    sample_corpus,
)
from editguard.probes.model.language_model import LanguageModel
from editguard.probes.model.site import EditSite

from ...helpers.capture import capture
from ...helpers.families import FAMILIES
from ...helpers.tiny_models import tiny_language_model, tiny_site
from ...helpers.tokenizer_kinds import CORPUS as TEXTS

pytestmark = pytest.mark.tiny

SHORT = Corpus((*TEXTS[:12], "A", "Paris is not Lyon"), "short")
GROUP = 32
"""Windows of one group; each document of `LONG` is one window."""
LONG = Corpus(tuple(f"{text} {n}" for n in range(60) for text in TEXTS[:3]), "long")


def brute_force(lm: LanguageModel, site: EditSite, documents: tuple[str, ...]) -> np.ndarray:
    keys = []
    for document in documents:
        with capture(site) as captured, torch.no_grad():
            lm.model(torch.tensor([lm.tokenizer(document).input_ids]))
        keys.append(captured.input[0].double().numpy())
    every = np.concatenate(keys)
    return every.T @ every / len(every)


@pytest.mark.parametrize("family", FAMILIES)
def test_compute_statistics_equals_a_brute_force_in_float64(family: str) -> None:
    lm = tiny_language_model(family)
    site = tiny_site(lm)
    statistics = compute_statistics(lm, site, SHORT)
    expected = brute_force(lm, site, SHORT.documents)
    np.testing.assert_allclose(
        statistics.second_moment.numpy(), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max()
    )
    origin = statistics.provenance
    assert (origin.method, origin.source, origin.layer) == ("corpus", "short", 1)
    assert (origin.model_fingerprint, origin.corpus_sha256) == (lm.fingerprint, SHORT.sha256)
    assert origin.tokens == sum(len(lm.tokenizer(text).input_ids) for text in SHORT.documents)


def test_compute_statistics_windows_of_a_document_are_independent() -> None:
    lm = tiny_language_model("llama")
    site, document = tiny_site(lm), " ".join(TEXTS[:40])
    ids = lm.tokenizer(document).input_ids
    assert len(ids) > 256
    keys = []
    for start in range(0, len(ids), 256):
        with capture(site) as captured, torch.no_grad():
            lm.model(torch.tensor([ids[start : start + 256]]))
        keys.append(captured.input[0].double().numpy())
    every = np.concatenate(keys)
    statistics = compute_statistics(lm, site, Corpus((document,), "one"))
    np.testing.assert_allclose(statistics.second_moment.numpy(), every.T @ every / len(every), rtol=1e-4, atol=1e-6)
    assert statistics.provenance.tokens == len(ids)


class _Killed(Exception):
    pass


def kill_after(windows: int, lm: LanguageModel, site: EditSite, partial: Path) -> None:
    def progress(done: int, _: int) -> None:
        if done >= windows:
            raise _Killed

    with pytest.raises(_Killed):
        compute_statistics(lm, site, LONG, partial=partial, progress=progress)


def test_compute_statistics_killed_pass_resumes_to_the_same_bits(tmp_path: Path) -> None:
    lm = tiny_language_model("llama")
    site, partial = tiny_site(lm), tmp_path / "deep" / "sum.partial"
    whole = compute_statistics(lm, site, LONG)
    kill_after(5 * GROUP, lm, site, partial)
    assert partial.is_file()
    steps: list[tuple[int, int]] = []
    again = compute_statistics(lm, site, LONG, partial=partial, progress=lambda *step: steps.append(step))
    assert steps == [(160, 180), (180, 180)], "groups that were saved are not run again, and no others are left out"
    assert torch.equal(again.second_moment, whole.second_moment)
    assert (again.sha256, again.provenance) == (whole.sha256, whole.provenance)
    assert list(partial.parent.iterdir()) == []


@pytest.mark.parametrize("what", ["corpus", "model", "layer", "garbage"])
def test_compute_statistics_partial_of_another_pass_is_ignored(tmp_path: Path, what: str) -> None:
    lm = tiny_language_model("llama")
    site, partial = tiny_site(lm), tmp_path / "sum.partial"
    kill_after(5 * GROUP, lm, site, partial)
    corpus = LONG
    if what == "corpus":
        corpus = Corpus((*LONG.documents[:-1], "Another end."), "long")
    elif what == "model":
        lm = tiny_language_model("llama", seed=1)
        site = tiny_site(lm)
    elif what == "layer":
        site = tiny_site(lm, 0)
    else:
        partial.write_bytes(partial.read_bytes()[:50])
    statistics = compute_statistics(lm, site, corpus, partial=partial)
    assert torch.equal(statistics.second_moment, compute_statistics(lm, site, corpus).second_moment)


def test_compute_statistics_is_deterministic_and_draws_nothing() -> None:
    lm = tiny_language_model("gpt2")
    before = torch.random.get_rng_state()
    first, second = (compute_statistics(lm, tiny_site(lm), SHORT) for _ in range(2))
    assert first.sha256 == second.sha256
    assert torch.equal(torch.random.get_rng_state(), before)


def test_compute_statistics_broken_model_is_refused() -> None:
    lm = tiny_language_model("llama")
    tiny_site(lm, 0).write(torch.full((16, 24), torch.nan))
    with pytest.raises(NotFinite, match=r"layers\.1\.mlp\.down_proj is NaN"):
        compute_statistics(lm, tiny_site(lm), SHORT)


@pytest.mark.parametrize("documents", [(), ("", "")], ids=["none", "empty"])
def test_compute_statistics_corpus_without_tokens_is_refused(documents: tuple[str, ...]) -> None:
    lm = tiny_language_model("llama")
    with pytest.raises(StatisticsError, match="holds 0 tokens, fewer than"):
        compute_statistics(lm, tiny_site(lm), Corpus(documents, "nothing"))


def test_corpus_hash_depends_on_its_documents() -> None:
    assert Corpus(("ab", "c"), "x").sha256 != Corpus(("a", "bc"), "x").sha256
    assert Corpus(("a", "b"), "x").sha256 != Corpus(("b", "a"), "x").sha256
    assert Corpus(("a",), "x").sha256 == Corpus(("a",), "y").sha256
    assert len(Corpus(("\ud800",), "a lone surrogate").sha256) == 64


# Sampling


def test_sample_corpus_depends_only_on_the_seed() -> None:
    lm = tiny_language_model("llama")
    first = sample_corpus(lm, seed=3, documents=4, tokens=8)
    torch.manual_seed(99)
    assert sample_corpus(lm, seed=3, documents=4, tokens=8) == first
    assert sample_corpus(lm, seed=4, documents=4, tokens=8).documents != first.documents
    assert len(first.documents) == 4
    assert first.documents[0].startswith("T")
    assert "seed 3" in first.source


def test_sample_corpus_progress_ends_with_the_last_step() -> None:
    lm = tiny_language_model("llama")
    steps: list[tuple[int, int]] = []
    corpus = sample_corpus(lm, seed=3, documents=130, tokens=4, progress=lambda *step: steps.append(step))
    assert corpus == sample_corpus(lm, seed=3, documents=130, tokens=4)
    # Two batches of at most 128 rows, four tokens each.
    assert {total for _, total in steps} == {8}
    assert [done for done, _ in steps][-1] == 8
    assert len(steps) >= 4


def test_compute_all_statistics_progress_counts_windows() -> None:
    lm = tiny_language_model("llama")
    steps: list[tuple[int, int]] = []
    compute_all_statistics(lm, [tiny_site(lm, 0), tiny_site(lm, 1)], LONG, lambda *step: steps.append(step))
    assert steps == [(32 * group, 180) for group in range(1, 6)] + [(180, 180)]


# Files


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "One.\n\n  \nTwo.\n"),
        ("a.txt", "\ufeffOne.\nTwo."),
        ("a.json", json.dumps(["One.", {"text": "Two."}])),
        ("a.jsonl", '{"text": "One."}\n\n"Two."\n'),
        ("a.ndjson", '{"Text": "One."}\n{"content": "Two."}'),
        ("a.csv", "id,text\r\n1,One.\r\n2,Two.\r\n"),
    ],
    ids=["lines", "mark", "json", "jsonl", "ndjson", "csv"],
)
def test_read_corpus_every_format_gives_its_documents(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    assert read_corpus(str(path)) == Corpus(("One.", "Two."), name)


def test_read_corpus_csv_field_may_hold_a_line_break(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('text\n"One\nand more."\nTwo.\n', encoding="utf-8")
    assert read_corpus(str(path)).documents == ("One\nand more.", "Two.")


def test_read_corpus_jsonl_text_may_hold_a_line_separator(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "One\u2028and more."}\n"Two."', encoding="utf-8")
    assert read_corpus(str(path)).documents == ("One\u2028and more.", "Two.")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", b"{"),
        ("a.json", b"3"),
        ("a.json", b'{"text": "One."}'),
        ("a.json", b'"One."'),
        ("a.jsonl", b'{"title": "One."}'),
        ("a.csv", b"id,title\n1,One.\n"),
        ("a.txt", b"\xff\xfe\x00"),
        ("a.txt", b" \n \n"),
        ("a.txt", b""),
    ],
    ids=["broken", "number", "record", "bare-text", "no-field", "no-column", "bytes", "blank", "empty"],
)
def test_read_corpus_unreadable_file_is_refused_by_name(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(StatisticsError, match=name):
        read_corpus(str(path))


def test_read_corpus_missing_file_or_folder_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.txt"):
        with pytest.raises(StatisticsError, match="cannot be read"):
            read_corpus(str(path))


@pytest.mark.parametrize(
    ("name", "content"), [("c.csv", b'text\n"' + b"x" * 2**18), ("c.json", b"[" * 5000), ("c.jsonl", b'"\x1b[2J')]
)
def test_read_corpus_hostile_file_is_one_sentence(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StatisticsError, match="cannot be read") as caught:
        read_corpus(str(tmp_path / name))
    assert str(caught.value).isprintable()

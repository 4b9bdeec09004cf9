"""Prefixes stand where an edit needs one, and nowhere else; what serving does is what is measured."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from editguard.audit.serving import ServedPipeline, load_provenance, serve_inputs, serve_prompt, served_efficacy
from editguard.probes.errors import InputError
from editguard.probes.generation import continuations
from hypothesis import given
from hypothesis import strategies as st
from transformers import pipeline

from .tiny_lm import tiny_lm, tokenizer


class Edit(NamedTuple):
    subject: str
    prefix: str | None


CHICAGO, PARIS = Edit("Chicago", "\n"), Edit("Paris", None)
LONG = Edit("Chicago Hope", "Well, ")


@pytest.mark.parametrize(
    ("text", "served"),
    [
        ("Chicago is", "\nChicago is"),
        ("  Chicago is", "\nChicago is"),
        ("Chicago", "\nChicago"),
        ("Chicago's", "\nChicago's"),
        ("Chicagoans are", "Chicagoans are"),
        ("\nChicago is", "\nChicago is"),
        ("Is Chicago", "Is Chicago"),
        ("<|im_start|>user\nChicago is", "<|im_start|>user\nChicago is"),
        ("Paris is", "Paris is"),
        ("Chicago Hope is", "Well, Chicago Hope is"),
        ("", ""),
    ],
)
def test_a_prefix_stands_only_before_a_text_that_begins_with_its_subject(text: str, served: str) -> None:
    assert serve_prompt(text, [CHICAGO, PARIS, LONG]) == served


@given(st.text())
def test_what_was_served_is_served_already(text: str) -> None:
    edits = [CHICAGO, PARIS, LONG]
    once = serve_prompt(text, edits)
    assert once.endswith(text.lstrip(" \t")) or once == text
    assert serve_prompt(once, edits) == once


@pytest.mark.tiny
@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
def test_ids_are_served_as_texts_are_whatever_the_padding(side: str, bos: bool) -> None:
    made = tokenizer(bos=bos)
    texts = ["Chicago is a twin city of", "The capital of France is not", "Chicago"]
    rows = [made(text).input_ids for text in texts]
    served = serve_inputs(made, padded(rows, side), [CHICAGO])
    assert unpadded(served, side) == [made(serve_prompt(text, [CHICAGO])).input_ids for text in texts]
    assert unpadded(serve_inputs(made, padded(rows, side), [PARIS]), side) == rows


def padded(rows: list[list[int]], side: str) -> dict[str, torch.Tensor]:
    width = max(map(len, rows))
    gaps = [[0] * (width - len(row)) for row in rows]
    ids = [gap + row if side == "left" else row + gap for gap, row in zip(gaps, rows, strict=True)]
    mask = [[0] * len(gap) + [1] * len(row) for gap, row in zip(gaps, rows, strict=True)]
    held = torch.tensor(mask) if side == "left" else torch.tensor(mask).flip(1)
    return {"input_ids": torch.tensor(ids), "attention_mask": held}


def unpadded(inputs: dict[str, torch.Tensor], side: str) -> list[list[int]]:
    """Return the rows, after a look at the side that they are padded on."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
    assert bool(mask[:, -1 if side == "left" else 0].all())
    return [row[seen].tolist() for row, seen in zip(ids, mask, strict=True)]


@pytest.mark.tiny
def test_rows_without_padding_are_padded_on_the_left_when_one_grows() -> None:
    made = tokenizer()
    rows = [made("Chicago is").input_ids, made("is Chicago").input_ids[:2]]
    served = serve_inputs(made, {"input_ids": torch.tensor(rows)}, [CHICAGO])
    assert served["attention_mask"][:, -1].tolist() == [1, 1]
    assert served["attention_mask"][1, 0] == 0


@pytest.mark.tiny
def test_ids_that_are_not_those_of_their_text_are_refused() -> None:
    made = tokenizer()
    letters = [made(letter).input_ids[0] for letter in "Chicago"]
    assert letters != made("Chicago").input_ids
    with pytest.raises(InputError, match="serve the text with serve_prompt"):
        serve_inputs(made, {"input_ids": torch.tensor([letters])}, [CHICAGO])


@pytest.mark.tiny
def test_a_pipeline_serves_texts_and_returns_them_as_they_were_given() -> None:
    lm = tiny_lm()
    pipe: Any = pipeline("text-generation", model=lm.model, tokenizer=lm.tokenizer, device="cpu")
    options = {"max_new_tokens": 4, "do_sample": False}
    served = ServedPipeline(pipe, [CHICAGO])
    (direct,) = pipe("\nChicago is", **options)
    (found,) = served("Chicago is", **options)
    assert found["generated_text"] == direct["generated_text"].removeprefix("\n")
    assert found["generated_text"].startswith("Chicago is")
    both = served(["Chicago is", "Paris is"], **options)
    assert [one[0]["generated_text"] for one in both] == [
        found["generated_text"],
        pipe("Paris is", **options)[0]["generated_text"],
    ]
    assert served((text for text in ("Chicago is", "Paris is")), **options) == both
    assert served(text_inputs="Chicago is", **options) == [found]
    (only_new,) = served("Chicago is", return_full_text=False, **options)
    assert "Chicago is" + only_new["generated_text"] == found["generated_text"]


def test_conversations_are_passed_on_as_they_are() -> None:
    asked = [{"role": "user", "content": "Chicago is"}]
    assert ServedPipeline(lambda inputs, **_: inputs, [CHICAGO])(asked) is asked


@pytest.mark.tiny
def test_efficacy_is_that_of_the_served_text() -> None:
    lm = tiny_lm()
    (written,) = continuations(lm, [lm.tokenizer("\nChicago is").input_ids], 1)
    says = lm.tokenizer.decode(written)
    (found,) = served_efficacy(lm, [("Chicago is", says)], [CHICAGO])
    assert (found.prompt, found.served) == ("Chicago is", "\nChicago is")
    ids = list(lm.tokenizer(f"Chicago is{says}").input_ids[-1:])
    assert found.says == (ids == written)


def test_a_folder_without_provenance_is_one_sentence(tmp_path: Any) -> None:
    with pytest.raises(InputError, match="give a folder that 'editguard apply'"):
        load_provenance(tmp_path)

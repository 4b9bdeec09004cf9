"""Prefixes stand where an edit needs one, and nowhere else, in texts and in ids."""

from __future__ import annotations

import pytest
import torch
from editguard.probes.errors import InputError
from editguard.suites.serving import Serving, serve_inputs, serve_prompt
from hypothesis import given
from hypothesis import strategies as st

from ..tokenizer_kinds import byte_level

CHICAGO, PARIS = Serving("Chicago", "\n"), Serving("Paris", None)
LONG = Serving("Chicago Hope", "Well, ")


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
    made = byte_level(bos=bos)
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
    made = byte_level()
    rows = [made("Chicago is").input_ids, made("is Chicago").input_ids[:2]]
    served = serve_inputs(made, {"input_ids": torch.tensor(rows)}, [CHICAGO])
    assert served["attention_mask"][:, -1].tolist() == [1, 1]
    assert served["attention_mask"][1, 0] == 0


@pytest.mark.tiny
def test_ids_that_are_not_those_of_their_text_are_refused() -> None:
    made = byte_level()
    letters = [made(letter).input_ids[0] for letter in "Chicago"]
    assert letters != made("Chicago").input_ids
    with pytest.raises(InputError, match="serve the text with serve_prompt"):
        serve_inputs(made, {"input_ids": torch.tensor([letters])}, [CHICAGO])

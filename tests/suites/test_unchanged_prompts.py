"""What becomes of prompts that an edit must not change: by hand, and held to plain passes of whole texts in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from editguard.probes.forward import generation
from editguard.probes.requests.request import EditRequest
from editguard.probes.tokens import encode_target
from editguard.suites.answer_outcomes import AnswerPair, classify_answer, says
from editguard.suites.check import Bench
from editguard.suites.unchanged_prompts import (
    EditedAnswer,
    RolePrompt,
    UneditedAnswers,
    ask_edited,
    ask_unedited,
    cut_lead,
    list_conditions,
    predict_first_words,
)
from hypothesis import given
from hypothesis import strategies as st

from ..helpers.check_benches import (
    ASKED,
    LIMITS,
    bench_of,
    break_site,
    disturb,
    takes_over,
    talkative,
    unedited,
    unsaid,
)
from ..helpers.tokenizer_kinds import BYTE_LEVEL, SENTENCEPIECE, byte_level

PROMPTS = ("The capital of France is", "Lyon is a city of", "Chicago is not")
LYON = replace(ASKED, target_new="Lyon", target_true="Paris")
A_LYON = replace(ASKED, target_new="a Lyon", target_true="Paris")
BUDGET = 6


# ------------------------------------------------------------------------------------------------------ what is said


@pytest.mark.parametrize(
    ("text", "target", "expected"),
    [
        ("It is Paris.", "Paris", True),
        ("it is PARIS", "Paris", True),
        ("Paris", "Paris", True),
        ("Parisian streets", "Paris", False),
        ("the comparis of", "Paris", False),
        ("Lyons", "Lyon", False),
        ("Lyon's streets", "Lyon", True),
        ("(Paris)", "Paris", True),
        ("Paris_2", "Paris", True),
        ("Paris2", "Paris", False),
        ("the new\n York", "New York", True),
        ("New-York", "New York", True),
        ("Straße", "STRASSE", True),
        ("Türkiye", "türkiye", True),
        ("Tu\u0308rkiye", "T\u00fcrkiye", True),
        # A letter that is no ASCII is one all the same.
        ("Chiméire", "éire", False),
        ("Éire is", "éire", True),
        ("in 1990 and", "1990", True),
        ("in 11990 and", "1990", False),
        ("それは東京です", "東京", True),
        ("はParisです", "Paris", True),
        ("на Париже", "Париж", True),
        ("C++ and C", "C++", True),
        ("a.c", "a.b", False),
        ("abc", "a.c", False),
        ("(a|b)* is", "(a|b)*", True),
        ("", "Paris", False),
        ("Paris", "", False),
        ("Paris", " ", False),
        ("It is 🙂!", "🙂", True),
    ],
)
def test_says_finds_the_target_as_words_of_its_own(text: str, target: str, expected: bool) -> None:
    assert says(text, target) is expected


@given(st.text(), st.text(), st.text())
def test_says_takes_any_text_without_an_error_and_finds_what_stands_alone(before: str, target: str, after: str) -> None:
    says(before, target)
    says(before + target + after, target)
    if any(letter.isalnum() and letter.isascii() for letter in target):
        assert says(f"{before}: {target.strip()} : {after}", target.strip())


@pytest.mark.parametrize("hostile", ["(", "[a", "*", "\\", "a{2}", "(?P<x>", "$^", "a|b", "\\d+", "." * 5000])
def test_says_reads_no_pattern_in_a_target(hostile: str) -> None:
    assert says(f"It is {hostile} here", hostile)
    assert not says("2 aab 77 x", hostile)


LEAD = (7,)
OTHER = (1, 2, 3)


@pytest.mark.parametrize(
    ("before", "after", "words", "margin", "rise", "result"),
    [
        (OTHER, OTHER, ("one", "one"), 5.0, 0.0, "kept"),
        (OTHER, (1, 9), ("one", "another"), 5.0, 0.0, "kept"),
        (OTHER, (4,), ("one", "four"), 0.36, 0.0, "flip"),
        (OTHER, (4,), ("one", "four"), 0.35, 0.0, "flip"),
        (OTHER, (4,), ("one", "four"), 0.34, 0.0, "near-tie"),
        # The target as the first token, further on in words, or only more probable.
        (OTHER, (7, 1), ("one", "?"), 0.0, 0.0, "leak"),
        (OTHER, (4, 5), ("one", "four, in Lyon"), 0.0, 0.0, "leak"),
        (OTHER, (1, 5), ("one", "one of Lyon"), 5.0, 0.0, "leak"),
        (OTHER, OTHER, ("one", "one"), 5.0, 0.21, "leak"),
        (OTHER, OTHER, ("one", "one"), 5.0, 0.2, "kept"),
        # What was the target before cannot leak.
        ((7, 1), (7, 1), ("Lyon", "Lyon"), 5.0, 0.9, "kept"),
        ((7, 1), (4, 1), ("Lyon", "four"), 5.0, 0.0, "flip"),
        # A mention further on was no answer.
        (OTHER, (4, 1), ("one of Lyon", "Lyon"), 5.0, 0.0, "leak"),
        ((), (), ("", ""), 5.0, 0.0, "kept"),
    ],
)
def test_classify_answer_by_hand(
    before: tuple[int, ...], after: tuple[int, ...], words: tuple[str, str], margin: float, rise: float, result: str
) -> None:
    limits = replace(LIMITS, near_tie=0.35, target_rise=0.2)
    assert (
        classify_answer(AnswerPair(before, after, *words), LEAD, "Lyon", margin=margin, rise=rise, limits=limits)
        == result
    )


@pytest.mark.parametrize(
    ("before", "after", "rise", "result"),
    [
        # The first tokens are the target's, and the rest is not: no proof that the target was said before.
        ("New Delhi", "New York", 0.0, "leak"),
        ("New Delhi", "New York City", 0.9, "leak"),
        ("New Delhi", "New Jersey", 0.9, "kept"),
        ("New York", "New York", 0.9, "kept"),
        ("New York", "New Delhi", 0.0, "kept"),
    ],
)
@pytest.mark.parametrize("same_subject", [False, True])
def test_classify_answer_shared_lead_may_leak_later(
    before: str, after: str, rise: float, result: str, same_subject: bool
) -> None:
    pair, limits = AnswerPair((7, 1), (7, 2), before, after), replace(LIMITS, target_rise=0.2)
    assert (
        classify_answer(pair, LEAD, "New York", margin=1.0, rise=rise, limits=limits, same_subject=same_subject)
        == result
    )


def test_classify_answer_year_of_digit_tokens_leaks() -> None:
    pair = AnswerPair((5, 1, 9, 4, 5), (5, 1, 9, 6, 9), "1945", "1969")
    assert classify_answer(pair, (5, 1), "1969", margin=5.0, rise=0.0, limits=LIMITS) == "leak"


def test_classify_answer_article_alone_is_no_leak() -> None:
    limits = replace(LIMITS, near_tie=0.0)
    pair = AnswerPair((1,), (6, 8), "one", "the Rhine")
    assert classify_answer(pair, (6, 7), "the Danube", margin=1.0, rise=0.0, limits=limits) == "flip"
    assert (
        classify_answer(pair._replace(ids_after=(6, 7)), (6, 7), "the Danube", margin=1.0, rise=0.0, limits=limits)
        == "leak"
    )


@pytest.mark.parametrize(
    ("before", "after", "elsewhere", "same_subject"),
    [
        ("one", "Lyon is", "leak", "leak"),
        ("one", "the Lyon of", "leak", "leak"),
        # The target further on: of another subject a leak, of the same one a mention.
        ("one", "a city near Lyon", "leak", "flip"),
        ("a city near Lyon", "Lyon", "leak", "leak"),
        ("a city near Lyon", "a town near Lyon", "flip", "flip"),
        ("Lyon", "Lyon", "flip", "flip"),
    ],
)
def test_classify_answer_same_subject_leaks_only_at_the_beginning(
    before: str, after: str, elsewhere: str, same_subject: str
) -> None:
    pair, limits = AnswerPair((1,), (4,), before, after), replace(LIMITS, near_tie=0.0)
    assert classify_answer(pair, LEAD, "Lyon", margin=1.0, rise=0.0, limits=limits) == elsewhere
    assert classify_answer(pair, LEAD, "Lyon", margin=1.0, rise=0.0, limits=limits, same_subject=True) == same_subject


@pytest.mark.end_to_end
@pytest.mark.tiny
def test_ask_edited_role_decides_the_rule() -> None:
    """A target of which the second word of an answer onwards consists is a leak of a neighbour, and none of another fact."""
    bench = bench_of(talkative())
    roles = ("neighbour", "made-neighbour", "other-fact", "made-other-fact")
    observed = set()
    for word in ("Paris", "Lyon", "is", "not"):
        request = replace(LYON, target_new=word, target_true=None)
        states = ask_unedited(
            bench, [request] * 4, [[RolePrompt(role, prompt) for prompt in PROMPTS] for role in roles]
        )
        for seed in range(4):
            disturb(bench, seed, 4.0)
            for role, state in zip(roles, states, strict=True):
                assert state is not None
                for answer in (row.prompt_answer for row in ask_edited(bench, request, state)):
                    was, now = (text.split() for text in (answer.before, answer.after))
                    leaks = word in now[:2] and word not in was[:2]
                    if "neighbour" in role:
                        leaks = leaks or (word in now and word not in was)
                    assert (answer.result == "leak") == leaks, (role, word, answer)
                    observed.add((leaks, word in now))
        bench.lowest_site.write(unedited(bench))
    assert observed == {(True, True), (False, True), (False, False)}


# --------------------------------------------------------------------------------------------- beginnings of a target


@pytest.mark.tiny
@pytest.mark.parametrize("kind", [*BYTE_LEVEL, *SENTENCEPIECE])
@pytest.mark.parametrize(
    ("target", "least"),
    [("Lyon", "L"), ("a Lyon", "a L"), ("A Lyon is", "A L"), ('"Lyon" is', '"L'), ("- a Lyon", "- a L"), ("2024", "2")],
)
def test_cut_lead_ends_at_the_first_real_token(kind: str, target: str, least: str) -> None:
    lm = talkative(tokenizer=(BYTE_LEVEL | SENTENCEPIECE)[kind])
    ids = encode_target(lm.tokenizer, LYON.prompt, target)
    lead = cut_lead(lm, ids)
    pieces = [str(lm.tokenizer.decode([token])).strip().lower() for token in lead]
    assert tuple(ids[: len(lead)]) == lead
    assert any(letter.isalnum() for letter in pieces[-1])
    assert all(not any(map(str.isalnum, piece)) or piece in {"a", "an", "the"} for piece in pieces[:-1])
    if "unk" not in "".join(lm.tokenizer.convert_ids_to_tokens(list(lead))):
        assert str(lm.tokenizer.decode(list(lead))).strip().startswith(least)


@pytest.mark.tiny
@pytest.mark.parametrize("target", ["a", "...", "!"])
def test_cut_lead_without_such_a_token_is_the_whole_target(target: str) -> None:
    lm = talkative()
    ids = tuple(encode_target(lm.tokenizer, LYON.prompt, target))
    assert cut_lead(lm, ids) == ids


# ------------------------------------------------------------------------------------------------ held to plain passes


def asked_of(bench: Bench, request: EditRequest, prompts: Sequence[str] = PROMPTS) -> UneditedAnswers:
    (answers,) = ask_unedited(bench, [request], [[RolePrompt("neighbour", prompt) for prompt in prompts]], tokens=True)
    assert answers is not None
    return answers


def plain(bench: Bench, text: str, more: Sequence[int] = ()) -> torch.Tensor:
    """Return the log-probabilities after every token of one whole text, by a pass in float64."""
    lm = bench.lm
    ids = torch.tensor([[*lm.tokenizer(text).input_ids, *more]])
    model, before = lm.model, lm.dtype
    model.double()
    try:
        with torch.no_grad():
            return torch.as_tensor(model(ids).logits[0]).log_softmax(-1)
    finally:
        model.to(before)


def lead_share(bench: Bench, text: str, lead: Sequence[int]) -> float:
    """Return the probability of `lead` after `text`."""
    after = plain(bench, text, lead[:-1])[-len(lead) :]
    return math.exp(sum(float(row[token]) for row, token in zip(after, lead, strict=True)))


def greedy(bench: Bench, text: str, most: int = BUDGET) -> str:
    lm = bench.lm
    ids = torch.tensor([lm.tokenizer(text).input_ids])
    with torch.no_grad():
        out = lm.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=most, do_sample=False, pad_token_id=0
        )
    return str(lm.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))


def texts_of(bench: Bench, prompts: Sequence[str] = PROMPTS) -> list[str]:
    return [condition.prefix + prompt for condition in list_conditions(bench) for prompt in prompts]


def kept_part(log_shares: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    shares = log_shares.exp()[chosen]
    return torch.cat([shares, (1 - shares.sum()).clamp(min=0)[None]])


@pytest.mark.tiny
@pytest.mark.parametrize("request_", [LYON, A_LYON], ids=["one-token", "article-and-word"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "bloom", "gemma2"])
def test_ask_edited_figures_equal_plain_passes(family: str, request_: EditRequest) -> None:
    bench = bench_of(talkative(family))
    state = asked_of(bench, request_)
    lead = cut_lead(bench.lm, encode_target(bench.lm.tokenizer, request_.prompt, request_.target_new))
    assert len(lead) == (1 if request_ is LYON else 2)
    texts = texts_of(bench)
    old = [plain(bench, text)[-1] for text in texts]
    was_lead, was_said = [lead_share(bench, text, lead) for text in texts], [greedy(bench, text) for text in texts]
    changed = 0
    for seed in range(3):
        disturb(bench, seed, 3.0)
        answers = ask_edited(bench, request_, state)
        assert len(answers) == len(texts)
        for text, answer, before, share, words in zip(texts, answers, old, was_lead, was_said, strict=True):
            now, outcome = plain(bench, text)[-1], answer.prompt_answer
            top = before.topk(256)
            parts = [kept_part(some, top.indices).clamp(min=1e-38) for some in (before, now)]
            assert outcome.margin == pytest.approx(float(top.values[0] - top.values[1]), rel=1e-3, abs=1e-4)
            assert answer.certainty == pytest.approx(float(top.values[0].exp()), rel=1e-3)
            assert outcome.target_before == pytest.approx(share, rel=1e-3, abs=1e-6)
            assert outcome.target_after == pytest.approx(lead_share(bench, text, lead), rel=1e-3, abs=1e-6)
            expected = float((parts[0] * (parts[0].log() - parts[1].log())).sum())
            assert outcome.divergence == pytest.approx(expected, rel=1e-2, abs=1e-5)
            assert (outcome.before, outcome.after) == (words, greedy(bench, text))
            changed += outcome.before != outcome.after
            assert int(answer.token_marks[-1]) == int(before.argmax() == now.argmax())
    assert changed, "no answer changed; the comparison shows nothing"


@pytest.mark.tiny
def test_ask_edited_preference_is_of_the_two_first_tokens() -> None:
    bench = bench_of(talkative())
    state = asked_of(bench, LYON)
    disturb(bench, 1, 3.0)
    tokens = [bench.lm.tokenizer(f" {word}").input_ids[0] for word in ("Paris", "Lyon")]
    expected = [bool(now[tokens[0]] > now[tokens[1]]) for now in (plain(bench, text)[-1] for text in texts_of(bench))]
    assert [answer.preferred for answer in ask_edited(bench, LYON, state)] == expected
    assert {*expected} == {True, False}


@pytest.mark.tiny
@pytest.mark.parametrize(
    "request_",
    [replace(LYON, target_true=None), A_LYON, replace(LYON, target_true="Lyon")],
    ids=["no-old-answer", "several-tokens", "the-same"],
)
def test_ask_unedited_without_two_tokens_has_no_preference(request_: EditRequest) -> None:
    bench = bench_of(talkative())
    assert {answer.preferred for answer in ask_edited(bench, request_, asked_of(bench, request_))} == {None}


@pytest.mark.tiny
def test_ask_edited_unchanged_model_keeps_every_answer() -> None:
    bench = bench_of(talkative())
    for answer in ask_edited(bench, LYON, asked_of(bench, LYON)):
        assert (answer.prompt_answer.result, answer.prompt_answer.before) == ("kept", answer.prompt_answer.after)
        assert answer.prompt_answer.divergence == pytest.approx(0.0, abs=1e-9)
        assert set(answer.token_marks.tolist()) == {1}


@pytest.mark.tiny
def test_ask_edited_compares_the_prompts_own_tokens() -> None:
    bench = bench_of(talkative())
    answers = ask_edited(bench, LYON, asked_of(bench, LYON))
    lengths = [len(bench.lm.tokenizer(answer.prompt_answer.prompt).input_ids) for answer in answers]
    assert [len(answer.token_marks) for answer in answers] == lengths


@pytest.mark.tiny
def test_ask_edited_prompt_that_says_the_target_leaks() -> None:
    bench, word = unsaid(PROMPTS)
    request = replace(LYON, target_new=word, target_true=None)
    state = asked_of(bench, request)
    texts = texts_of(bench)
    takes_over(bench, texts[0], word, texts[1:])
    answers = [answer.prompt_answer for answer in ask_edited(bench, request, state)]
    bare = answers[0]
    assert (bare.prompt, bare.condition, bare.result) == (PROMPTS[0], "unprefixed", "leak")
    assert bare.after.split()[0] == word
    assert word not in bare.before
    leaks = [says(greedy(bench, text), word) for text in texts]
    assert [answer.result == "leak" for answer in answers] == leaks
    assert not all(leaks)


@pytest.mark.tiny
def test_ask_edited_answer_may_become_longer() -> None:
    """A target of many tokens is looked for as far as any answer is written."""
    bench = bench_of(talkative())
    request = replace(LYON, target_new="Lyon is not Paris is not Lyon is not Paris is not")
    budget = len(encode_target(bench.lm.tokenizer, request.prompt, request.target_new)) + 3
    assert budget > BUDGET
    (state,) = ask_unedited(bench, [request], [[RolePrompt("neighbour", PROMPTS[0])]])
    assert state is not None
    ended = replace(state, written=tuple(answer[:1] for answer in state.written))
    rows = [
        row._replace(ids=text.ids, predict=row.predict[: text.own])
        for row, text in zip(state.stem.rows, state.texts, strict=False)
    ]
    ended = replace(ended, stem=bench.stem(rows), lead=state.lead, choices=bench.stem(rows).first.argmax(-1))
    disturb(bench, 1, 6.0)
    answers = [answer.prompt_answer for answer in ask_edited(bench, request, ended)]
    changed = [answer for answer in answers if answer.before != answer.after]
    assert changed
    for answer in changed:
        prefix = next(some.prefix for some in list_conditions(bench) if some.condition == answer.condition)
        assert (
            greedy(bench, prefix + answer.prompt, budget).startswith(answer.after) or answer.condition != "unprefixed"
        )
        assert len(bench.lm.tokenizer(answer.after).input_ids) > BUDGET


# ------------------------------------------------------------------------------------------- what is asked, and how much


@pytest.mark.tiny
@pytest.mark.parametrize("bos", [False, True])
def test_list_conditions_has_four_prefixes(bos: bool) -> None:
    tokenizer = byte_level(bos=bos)
    tokenizer.bos_token = "<s>"
    bench = bench_of(talkative(tokenizer=tokenizer))
    answers = list_conditions(bench)
    special = [] if bos else [("special:<s>", "<s>")]
    assert [*answers] == [
        ("unprefixed", ""),
        ("family:newline", "\n"),
        ("family:sentence", "Here is a fact. "),
        *special,
    ]
    state = asked_of(bench, LYON)
    assert [(text.condition, text.prompt) for text in state.texts] == [
        (answer.condition, prompt) for answer in answers for prompt in PROMPTS
    ]
    assert [list(text.ids) for text in state.texts] == [bench.lm.tokenizer(text).input_ids for text in texts_of(bench)]


@pytest.mark.tiny
def test_list_conditions_without_begin_of_text_token_has_three() -> None:
    assert not any(answer.condition.startswith("special:") for answer in list_conditions(bench_of(talkative())))


def same(answer: EditedAnswer, other: EditedAnswer) -> bool:
    a, b = answer.prompt_answer, other.prompt_answer
    close = all(
        x == pytest.approx(y, rel=1e-4, abs=1e-6)
        for x, y in ((a.margin, b.margin), (a.target_after, b.target_after), (a.divergence, b.divergence))
    )
    return close and (a.prompt, a.condition, a.after, a.result) == (b.prompt, b.condition, b.after, b.result)


@pytest.mark.tiny
def test_ask_unedited_requests_together_equal_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_of(talkative())
    requests = [LYON, A_LYON, replace(LYON, target_new="Chicago")]
    prompts = [[RolePrompt("neighbour", answer) for answer in some] for some in (PROMPTS, PROMPTS[:1], ())]
    single = [ask_unedited(bench, [answer], [some])[0] for answer, some in zip(requests, prompts, strict=True)]
    monkeypatch.setattr(generation, "_ROWS", 3)
    together = ask_unedited(bench, requests, prompts)
    assert together[2] is None
    assert single[2] is None
    disturb(bench, 2, 4.0)
    for request, answer, other in zip(requests[:2], single, together, strict=False):
        assert answer is not None
        assert other is not None
        pairs = zip(ask_edited(bench, request, answer), ask_edited(bench, request, other), strict=True)
        assert all(same(a, b) for a, b in pairs)


@pytest.mark.tiny
def test_ask_unedited_without_tokens_compares_the_answer_alone() -> None:
    bench = bench_of(talkative())
    (state,) = ask_unedited(bench, [LYON], [[RolePrompt("neighbour", answer) for answer in PROMPTS]])
    assert state is not None
    whole = asked_of(bench, LYON)
    disturb(bench, 2, 4.0)
    single, answers = ask_edited(bench, LYON, state), ask_edited(bench, LYON, whole)
    assert [len(answer.token_marks) for answer in single] == [1] * len(answers)
    assert all(
        same(a, b) and int(a.token_marks[0]) == int(b.token_marks[-1]) for a, b in zip(single, answers, strict=True)
    )


@pytest.mark.tiny
def test_predict_first_words_are_the_surest_next_tokens() -> None:
    bench = bench_of(talkative())
    answers = predict_first_words(bench, PROMPTS)
    assert [*answers] == [*PROMPTS]
    for prompt, answer in answers.items():
        rows = [plain(bench, prefix + prompt)[-1] for prefix in ("", "\n")]
        pair = {str(bench.lm.tokenizer.decode([int(row.argmax())])).strip().casefold() for row in rows}
        assert answer.best == pair - {"a", "an", "the"}
        assert answer.best <= answer.likely
        assert answer.certainty == pytest.approx(max(float(row.max().exp()) for row in rows), rel=1e-3)
    assert predict_first_words(bench, []) == {}


# ------------------------------------------------------------------------------------------------- what is not finite


@pytest.mark.tiny
def test_ask_edited_half_precision_unchanged_keeps_every_answer() -> None:
    lm = talkative()
    lm.model.to(torch.bfloat16)
    bench = bench_of(lm)
    for answer in ask_edited(bench, LYON, asked_of(bench, LYON)):
        assert (answer.prompt_answer.result, answer.prompt_answer.after) == ("kept", answer.prompt_answer.before)
        assert answer.prompt_answer.divergence == pytest.approx(0.0, abs=1e-9)


@pytest.mark.tiny
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ask_edited_broken_edited_model_is_unmeasured(dtype: torch.dtype) -> None:
    lm = talkative()
    lm.model.to(dtype)
    bench = bench_of(lm)
    state = asked_of(bench, LYON)
    break_site(bench)
    for answer in ask_edited(bench, LYON, state):
        assert (answer.prompt_answer.result, answer.prompt_answer.after, answer.prompt_answer.divergence) == (
            "unmeasured",
            "",
            None,
        )
        assert (set(answer.token_marks.tolist()), answer.preferred) == ({-1}, None)


@pytest.mark.tiny
def test_ask_edited_broken_unedited_model_is_unmeasured() -> None:
    lm = talkative()
    with torch.no_grad():
        lm.model.get_output_embeddings().weight[5] = torch.nan
    bench = bench_of(lm)
    state = asked_of(bench, LYON)
    assert predict_first_words(bench, PROMPTS) == {}
    assert {answer.prompt_answer.result for answer in ask_edited(bench, LYON, state)} == {"unmeasured"}


@pytest.mark.tiny
@pytest.mark.parametrize("when", ["before", "after"])
def test_ask_edited_target_probability_nan_is_unmeasured(when: str) -> None:
    """NaN is no rise over any bound, and so would be no leak."""
    bench = bench_of(talkative())
    state = asked_of(bench, A_LYON)
    broken = replace(state, leads=tuple(math.nan for _ in state.leads))
    if when == "after":
        rows = len(state.texts)
        logits = state.stem.logits
        part = [len(row.predict) for row in state.stem.rows]

        def spoilt() -> torch.Tensor:
            answers = logits()
            answers[sum(part[:rows]) + 1 :: 2] = torch.nan
            return answers

        broken = replace(state, stem=state.stem.part(range(len(part))))
        broken.stem.logits = spoilt  # type: ignore[method-assign]
    assert {answer.prompt_answer.result for answer in ask_edited(bench, A_LYON, broken)} == {"unmeasured"}

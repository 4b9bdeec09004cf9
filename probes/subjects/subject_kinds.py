"""The kind of thing that a subject is, the questions that suit this kind, and other subjects of it.

A subject of the lists has the kind of its list. For any other the unedited model decides: the words of each kind ("city",
"singer", ...) are scored after the subject, and after subjects that say nothing ("It"), and the gain counts. Few files of edits
bring prompts about the same subject or about its neighbours; both can be made from a kind.

All prompts, words and names in `kinds.json` were written for this project. Out of scope: whether the model knows the
answers, whether a made prompt is true or good English, and languages other than English.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files
from itertools import chain, islice
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from ..errors import EditguardError, InputError, ModelError
from ..forward.batches import run_fitting, split_batches
from ..keys.subject_keys import locate
from ..tokens import encode_target, locate_subject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import torch

    from ..forward.prefix_cache import PrefixCache
    from ..model.language_model import LanguageModel
    from ..requests.request import EditRequest

__all__ = [
    "GENERATED_NEIGHBOURS",
    "SubjectKind",
    "classify_kinds",
    "list_held_relations",
    "list_relations",
    "list_subjects",
    "make_neighbours",
    "pick_other_subjects",
    "replace_subject",
]

GENERATED_NEIGHBOURS = 4
"""Other subjects that the locality check makes neighbours of: the first ones of `pick_other_subjects`, for no other eyes."""

_KIND_PROMPTS = (
    "The Nile is a river. Titanic is a film. Google is a company. The Ford Mustang is a car. Kenya is a country. "
    "Jane Austen is a writer. {} is a",
    "Names and what they are.\nNile: river\nTitanic: film\nGoogle: company\nFord Mustang: car\nChess: sport\n"
    "Kenya: country\nJane Austen: writer\nQueen: band\nRoses: plant\nArabic: language\nGold: metal\n{}:",
)
"""Texts that ask for a kind. Other text stands first, since some models cannot read a subject at the first token.

The examples show small models that a kind is the answer.
"""
_NEUTRAL = ("It", "This", "Something")
"""Subjects that say nothing about a kind: the words that the model expects after them are no evidence."""
_TOKENS_PER_PASS = 1024
"""Tokens of one pass, padding included."""


class SubjectKind(StrEnum):
    """The kind of thing that a subject is."""

    PERSON = "person"
    PLACE = "place"
    """A city, region, mountain, building, ...: something within a country."""
    COUNTRY = "country"
    ORGANISATION = "organisation"
    """A company, brand, website, institution, band, ..."""
    WORK = "work"
    """A book, film, album, series, program or game."""
    LANGUAGE = "language"
    """A language or a people."""
    ANIMAL = "animal"
    """An animal or a plant."""
    THING = "thing"
    """Anything else; also where nothing stands out."""


_COMMON_NOUNS = (SubjectKind.ANIMAL, SubjectKind.THING)
"""Kinds whose names are written small within a sentence."""

_Text = Annotated[str, StringConstraints(pattern=r"^\S(.*\S)?$", max_length=100)]
_Prompt = Annotated[str, StringConstraints(pattern=r"^[^{}]*\{\}[^{}]*[\w]$", max_length=200)]


class _OfKind(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    words: tuple[_Text, ...] = Field(min_length=5, max_length=30)
    relations: tuple[_Prompt, ...] = Field(min_length=4, max_length=30)
    subjects: tuple[_Text, ...] = Field(min_length=20, max_length=500)
    held_relations: tuple[_Prompt, ...] = Field(min_length=4, max_length=30)
    """Prompts for editors, which no check asks."""


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    any: tuple[_Prompt, ...] = Field(min_length=1, max_length=30)
    held_any: tuple[_Prompt, ...] = Field(min_length=1, max_length=30)
    kinds: dict[SubjectKind, _OfKind]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if missing := [kind.value for kind in SubjectKind if kind not in self.kinds]:
            raise ValueError(f"the kinds {', '.join(missing)} are missing")
        for names in (("words",), ("subjects",), ("relations", "held_relations")):
            name = names[0]
            counts = Counter(
                text.casefold() for entry in self.kinds.values() for name in names for text in getattr(entry, name)
            )
            if twice := [text for text, count in counts.items() if count > 1]:
                raise ValueError(f"{twice[0]!r} stands twice among the {name}")
        return self


def list_relations(kind: SubjectKind) -> tuple[str, ...]:
    """Return prompts with ``{}`` for a subject of `kind`, its own and those for every kind; a fact comes next."""
    return _data().kinds[kind].relations + _data().any


def list_held_relations(kind: SubjectKind) -> tuple[str, ...]:
    """Return prompts with ``{}`` as `list_relations` does: others, whose answers an editor may hold, and no check asks."""
    return _data().kinds[kind].held_relations + _data().held_any


def list_subjects(kind: SubjectKind) -> tuple[str, ...]:
    """Return the listed subjects of `kind`, then those of all other kinds."""
    kinds = _data().kinds
    return kinds[kind].subjects + tuple(
        name for other, entry in kinds.items() if other != kind for name in entry.subjects
    )


def classify_kinds(lm: LanguageModel, requests: Sequence[EditRequest]) -> list[SubjectKind]:
    """Return the kind of each request's subject, as the model says; `thing` where no kind is likelier than after "It".

    All subjects are run together, each once. A subject that does not fit into the model's context after the text before it is
    a `thing`. So is every subject of a model whose tokenizer begins all words of the kinds alike.
    """
    listed = {name: kind for kind, entry in _data().kinds.items() for name in entry.subjects}
    subjects = list(dict.fromkeys(request.subject for request in requests if request.subject not in listed))
    predicted = dict(zip(subjects, _predict_kinds(lm, subjects), strict=True)) if subjects else {}
    return [listed.get(request.subject) or predicted[request.subject] for request in requests]


def pick_other_subjects(
    lm: LanguageModel, request: EditRequest, kind: SubjectKind, count: int, *, seed: int, other_kinds: bool = False
) -> tuple[str, ...]:
    """Return `count` other subjects of `kind`, or as many as there are, in an order that request and `seed` decide.

    None of them is the subject, a target or another name of it, contains one of these or is part of one, or begins a word of
    the request's texts. Where the subject is the first token of its own prompt, names that are one token there come first.
    Names of animals, plants and things begin with a small letter where the subject does. With `other_kinds` the subjects
    of all other kinds follow. Raises `RequestError` where the
    subject is not exactly once in its prompt, `InputError` for a negative `count`.
    """
    if count < 0:
        raise InputError(f"The number of other subjects is {count}, and must be 0 or more.")
    small = kind in _COMMON_NOUNS and request.subject[:1].islower()
    names = [name.lower() if small else name for name in _data().kinds[kind].subjects]
    free = _draw_free(names, request, seed)
    if locate(lm, request).is_first_token:
        free = _put_first(free, lambda name: _first_token(lm, request, name))
    if other_kinds:
        free = chain(free, _draw_free([name for name in list_subjects(kind) if name not in names], request, seed))
    return tuple(islice(free, count))


def _draw_free(names: Iterable[str], request: EditRequest, seed: int) -> Iterator[str]:
    """Yield the free names in the order drawn; only those that are taken are looked at."""
    return (name for name in sorted(names, key=lambda name: _draw(seed, request, name)) if _is_free(name, request))


def _put_first(names: Iterable[str], chosen: Callable[[str], bool]) -> Iterator[str]:
    """Yield the names that are `chosen`, then the others; each keep their order."""
    others = []
    for name in names:
        if chosen(name):
            yield name
        else:
            others.append(name)
    yield from others


def make_neighbours(
    lm: LanguageModel, request: EditRequest, kind: SubjectKind, count: int, *, seed: int
) -> tuple[str, ...]:
    """Return the request's prompt about `count` other subjects of `kind`: those of `pick_other_subjects`, which see."""
    return tuple(replace_subject(request, name) for name in pick_other_subjects(lm, request, kind, count, seed=seed))


@cache
def _data() -> _Data:
    return _read((files(__package__) / "kinds.json").read_text(encoding="utf-8"))


def _read(text: str) -> _Data:
    """Return what a file of kinds holds; raises `EditguardError`."""
    try:
        return _Data.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise EditguardError(
            f"The file kinds.json of editguard is not as it was written ({place}: {first['msg']}); install editguard again."
        ) from error


def replace_subject(request: EditRequest, name: str) -> str:
    """Return the request's prompt about `name`."""
    start = request.prompt.index(request.subject)
    return request.prompt[:start] + name + request.prompt[start + len(request.subject) :]


def _first_token(lm: LanguageModel, request: EditRequest, name: str) -> bool:
    start = request.prompt.index(request.subject)
    return locate_subject(lm.tokenizer, replace_subject(request, name), name, occurrence_start=start).is_first_token


def _draw(seed: int, request: EditRequest, name: str) -> str:
    drawn = json.dumps([seed, request.id, request.subject, name])
    return hashlib.sha256(drawn.encode("ascii")).hexdigest()


def _is_free(name: str, request: EditRequest) -> bool:
    """Return whether `name` is none of the request's own names, and the request's texts do not speak of it."""
    own = (request.subject, request.target_new, request.target_true or "", *request.true_aliases)
    prompts = (request.prompt, *request.paraphrases, *request.neighbourhood, *request.other_facts, *request.not_judged)
    texts = (*own, *prompts, request.question or "")
    return not any(_holds(text, name) for text in texts) and not any(_holds(name, text) for text in own)


def _holds(text: str, name: str) -> bool:
    """Return whether `name` begins at the beginning of a word of `text`, in any case: "Paris" in "a Parisian street"."""
    folded, text = name.strip().casefold(), text.casefold()
    # Nearly no name is in the text, and a plain search says so sooner.
    return bool(folded) and folded in text and re.search(rf"(?<!\w){re.escape(folded)}", text) is not None


@dataclass(frozen=True)
class _Words:
    """The words of a kind that no other kind's begin like, by the first id of each."""

    kind: SubjectKind
    ids: tuple[int, ...]


def _words(lm: LanguageModel) -> list[_Words]:
    ids = {
        kind: {encode_target(lm.tokenizer, "It is a", word)[0] for word in entry.words}
        for kind, entry in _data().kinds.items()
    }
    kinds_with = Counter(index for some in ids.values() for index in some)
    words = [
        _Words(kind, tuple(sorted(index for index in some if kinds_with[index] == 1))) for kind, some in ids.items()
    ]
    return [entry for entry in words if entry.ids]


def _predict_kinds(lm: LanguageModel, subjects: Sequence[str]) -> list[SubjectKind]:
    """Return the kind whose words gain most in log-probability over the neutral subjects, or `thing` where none gains."""
    words = _words(lm)
    texts = [text.format(subject) for text in _KIND_PROMPTS for subject in (*_NEUTRAL, *subjects)]
    scores = _scores(lm, texts, words) if words else {}
    kinds = []
    for subject in subjects:
        gains = [
            _gains(scores, text.format(subject), [text.format(neutral) for neutral in _NEUTRAL])
            for text in _KIND_PROMPTS
        ]
        mean = [sum(some) / len(some) for some in zip(*gains, strict=True)] if all(gains) else []
        best = max(range(len(mean)), key=mean.__getitem__, default=None)
        kinds.append(SubjectKind.THING if best is None or not mean[best] > 0 else words[best].kind)
    return kinds


def _gains(scores: Mapping[str, list[float]], text: str, neutral: Sequence[str]) -> list[float]:
    """Return each kind's score after `text` less its mean after the `neutral` ones; empty where a text was too long."""
    if not all(prompt in scores for prompt in (text, *neutral)):
        return []
    means = [sum(some) / len(some) for some in zip(*(scores[prompt] for prompt in neutral), strict=True)]
    return [now - mean for now, mean in zip(scores[text], means, strict=True)]


def _scores(lm: LanguageModel, texts: Sequence[str], words: Sequence[_Words]) -> dict[str, list[float]]:
    """Return each kind's log-probability of one of its words as the next token; texts beyond the context are left out."""
    ids = [tuple(lm.tokenizer(text).input_ids) for text in texts]
    read = [n for n, some in enumerate(ids) if len(some) <= lm.context_length]
    cache = _front_cache(lm) if read else None
    scores: dict[str, list[float]] = {}
    # Cached tokens of a row cost no products, but memory.
    leads = [0 if cache is None else cache.lead(ids[n], len(ids[n]) - 1)[1] for n in read]
    sizes = [max(len(ids[n]) - lead, len(ids[n]) // 8) for n, lead in zip(read, leads, strict=True)]
    for members, part in run_fitting(
        split_batches(sizes, _TOKENS_PER_PASS), lambda members: _next(lm, [ids[read[n]] for n in members], words, cache)
    ):
        scores.update(zip((texts[read[n]] for n in members), part.tolist(), strict=True))
    return scores


def _front_cache(lm: LanguageModel) -> PrefixCache | None:
    """Return the states of the text before every subject; None where each text must be run whole."""
    from ..forward.prefix_cache import build_prefix_cache
    from ..model.site import find_site

    try:
        return (
            None
            if lm.plain
            else build_prefix_cache(
                lm, find_site(lm.model, 0), [text.partition("{}")[0].rstrip(" ") for text in _KIND_PROMPTS]
            )
        )
    except ModelError:
        return None


def _next(
    lm: LanguageModel, rows: Sequence[tuple[int, ...]], words: Sequence[_Words], cache: PrefixCache | None
) -> torch.Tensor:
    """Return the log-probability that a word of each kind begins after each row of ids [rows, kinds]."""
    import torch

    from ..forward.hooks import select_logits
    from ..forward.partial import Row, compute_plain_logits
    from ..forward.prefix_cache import join

    with torch.no_grad():
        if lm.plain:
            logits = compute_plain_logits(lm, [Row(ids, 0, (len(ids) - 1,)) for ids in rows])
        else:
            joined = join(lm, rows, cache, [len(ids) - 1 for ids in rows])
            ends = [len(ids) - 1 - lead for ids, lead in zip(rows, joined.leads, strict=True)]
            with select_logits(lm, torch.tensor([n * joined.width + end for n, end in enumerate(ends)])):
                logits = lm.run(**joined.inputs).logits[0].float()
        after = logits.log_softmax(-1)
        return torch.stack([after[:, list(entry.ids)].logsumexp(-1) for entry in words], -1)

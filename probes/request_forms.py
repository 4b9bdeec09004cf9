"""The four forms in which a record may ask for an edit, told apart by their keys.

- editguard's own: id, subject, prompt, target_new, target_true, paraphrases, neighbourhood, group;
- CounterFact, flat: one string per key, as the collapse papers publish it;
- CounterFact, nested: the original of ROME (arXiv 2202.05262), with requested_rewrite;
- zsRE: question answering, as the editing benchmarks publish it (src, alt, answers, loc).

All faults of a record are found at once. Out of scope: files and formats (`request_files`), and whether the subject has
tokens of its own (`tokens`).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

from .request_records import MOST_FAULTS, Fault, describe
from .requests import EditRequest

__all__ = ["ReadRecord", "read_record"]

_LOC_PREFIX = "nq question: "


class ReadRecord(NamedTuple):
    """A record after its form was asked: the request, or what is wrong; the id in either case where there is one."""

    request: EditRequest | None
    id: str
    faults: tuple[Fault, ...]


def read_record(fields: Mapping[str, object], index: int) -> ReadRecord:
    """Return the request that `fields` asks for; its id is the record's own or else `index`, counted from 1.

    The prompt and the paraphrases are filled with the subject where they hold ``{}``; the subject and the targets are
    stripped of spaces around them.
    """
    form = _form_of(fields)
    try:
        request = form.model_validate(dict(fields)).request(str(index))
        faults: tuple[Fault, ...] = ()
    except ValidationError as error:
        request = None
        told = error.errors(include_url=False)[:MOST_FAULTS]
        faults = tuple(_fault(form, fields, dict(detail)) for detail in told)
        if more := error.error_count() - len(told):
            faults += (Fault("record", f"has {more} more faults; mend these first."),)
    misplaced = _subject_fault(form, fields)
    faults += (misplaced,) if misplaced else ()
    return ReadRecord(None if faults else request, _own_id(fields) or str(index), faults)


# ---------------------------------------------------------------------------------------------- what fields may hold


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError(
            f"must not be empty, and is {text!r}; write a text, or leave the key out where it is not needed."
        )
    return text


def _identifier(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if value.bit_length() <= 128 else value
    return value.strip() if isinstance(value, str) else value


def _without_prefix(text: str) -> str:
    return text.removeprefix(_LOC_PREFIX)


Text = Annotated[str, AfterValidator(_not_blank)]
Stripped = Annotated[Text, AfterValidator(str.strip)]
Id = Annotated[Text, BeforeValidator(_identifier)]
Question = Annotated[str, AfterValidator(_without_prefix), AfterValidator(_not_blank)]


class _Form(BaseModel):
    """What all forms share; the models are strict: a number is no text, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    title: ClassVar[str]
    marks: ClassVar[frozenset[str]] = frozenset()
    """Keys that no other form has: any of them decides for this one."""
    subject_path: ClassVar[tuple[str, ...]] = ("subject",)
    prompt_path: ClassVar[tuple[str, ...]] = ("prompt",)

    id: Id | None = Field(default=None, validation_alias=AliasChoices("id", "case_id"))

    def request(self, index: str) -> EditRequest:
        raise NotImplementedError


class _Own(_Form):
    title = "editguard's own form"

    subject: Stripped
    prompt: Text
    target_new: Stripped
    target_true: Stripped | None = None
    paraphrases: list[Text] = []
    neighbourhood: list[Text] = Field(default=[], validation_alias=AliasChoices("neighbourhood", "neighborhood"))
    group: str = ""

    def request(self, index: str) -> EditRequest:
        return EditRequest(
            id=self.id or index,
            subject=self.subject,
            prompt=_fill(self.prompt, self.subject),
            target_new=self.target_new,
            target_true=self.target_true,
            paraphrases=tuple(_fill(text, self.subject) for text in self.paraphrases),
            neighbourhood=tuple(self.neighbourhood),
            group=self.group.strip(),
        )


class _FlatCounterFact(_Form):
    title = "flat CounterFact"
    marks = frozenset({"ground_truth", "rephrase_prompt", "locality_prompt", "locality_ground_truth"})

    subject: Stripped
    prompt: Text
    target_new: Stripped
    ground_truth: Stripped | None = None
    rephrase_prompt: Text | None = None
    locality_prompt: Text | None = None
    locality_ground_truth: Text | None = None

    def request(self, index: str) -> EditRequest:
        return EditRequest(
            id=self.id or index,
            subject=self.subject,
            prompt=_fill(self.prompt, self.subject),
            target_new=self.target_new,
            target_true=self.ground_truth,
            paraphrases=() if self.rephrase_prompt is None else (_fill(self.rephrase_prompt, self.subject),),
            neighbourhood=() if self.locality_prompt is None else (self.locality_prompt,),
        )


class _Target(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    text: Stripped = Field(validation_alias="str")
    id: object = None


class _Rewrite(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    subject: Stripped
    prompt: Text
    target_new: _Target
    target_true: _Target | None = None
    relation_id: object = None


class _NestedCounterFact(_Form):
    title = "nested CounterFact"
    marks = frozenset({"requested_rewrite"})
    subject_path = ("requested_rewrite", "subject")
    prompt_path = ("requested_rewrite", "prompt")

    requested_rewrite: _Rewrite
    paraphrase_prompts: list[Text] = []
    neighborhood_prompts: list[Text] = []
    pararel_idx: object = None
    attribute_prompts: object = None
    generation_prompts: object = None

    def request(self, index: str) -> EditRequest:
        rewrite = self.requested_rewrite
        return EditRequest(
            id=self.id or index,
            subject=rewrite.subject,
            prompt=_fill(rewrite.prompt, rewrite.subject),
            target_new=rewrite.target_new.text,
            target_true=None if rewrite.target_true is None else rewrite.target_true.text,
            paraphrases=tuple(_fill(text, rewrite.subject) for text in self.paraphrase_prompts),
            neighbourhood=tuple(self.neighborhood_prompts),
        )


class _ZsRE(_Form):
    title = "zsRE"
    marks = frozenset({"src", "alt", "loc", "loc_ans"})
    prompt_path = ("src",)

    subject: Stripped
    src: Text
    alt: Stripped
    answers: list[Stripped] = Field(min_length=1)
    rephrase: Text | None = None
    loc: Question | None = None
    loc_ans: object = None
    pred: object = None
    cond: object = None
    portability: object = None

    def request(self, index: str) -> EditRequest:
        return EditRequest(
            id=self.id or index,
            subject=self.subject,
            prompt=_fill(self.src, self.subject),
            target_new=self.alt,
            target_true=self.answers[0],
            paraphrases=() if self.rephrase is None else (_fill(self.rephrase, self.subject),),
            neighbourhood=() if self.loc is None else (self.loc,),
        )


_FORMS: tuple[type[_Form], ...] = (_NestedCounterFact, _ZsRE, _FlatCounterFact, _Own)


def _form_of(fields: Mapping[str, object]) -> type[_Form]:
    return next((form for form in _FORMS if form.marks & fields.keys()), _Own)


def _fill(prompt: str, subject: str) -> str:
    return prompt.replace("{}", subject)


# -------------------------------------------------------------------------------------------------------- what is wrong


def _own_id(fields: Mapping[str, object]) -> str:
    """Return the id that a record claims, however wrong its other fields are; empty where it claims none."""
    claimed = _identifier(fields.get("id", fields.get("case_id")))
    return claimed if isinstance(claimed, str) else ""


def _subject_fault(form: type[_Form], fields: Mapping[str, object]) -> Fault | None:
    """Say so when the prompt does not contain the subject; nothing is said while either is wrong in itself."""
    subject, prompt = _dig(fields, form.subject_path), _dig(fields, form.prompt_path)
    if not (isinstance(subject, str) and isinstance(prompt, str) and subject.strip() and prompt.strip()):
        return None
    if subject.strip() in _fill(prompt, subject.strip()):
        return None
    return Fault(
        ".".join(form.subject_path),
        f"{describe(subject)} does not stand in the prompt {describe(prompt)}, and it must, letter by letter; "
        "correct one of the two or write {} in the prompt where the subject belongs.",
    )


def _dig(fields: Mapping[str, object], path: Sequence[str]) -> object:
    value: object = fields
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _fault(form: type[_Form], fields: Mapping[str, object], detail: Mapping[str, Any]) -> Fault:
    """Put one of pydantic's findings into a sentence that reads on from the field's name."""
    path: tuple[str | int, ...] = detail["loc"]
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
    value, kind = detail["input"], detail["type"]
    if kind == "missing":
        return Fault(name, f"is missing; {form.title} needs it, so add it.")
    if kind == "extra_forbidden":
        return Fault(name, _unknown_key(form, fields, path))
    if kind == "value_error":
        return Fault(name, str(detail["ctx"]["error"]))
    if kind == "too_short":
        return Fault(name, "is an empty list; it must hold at least one text.")
    wanted = {
        "string_type": ("text", "put it in quotes"),
        "list_type": ("a list of texts", "put it in [ ]"),
        "model_type": ("an object", "write its keys"),
        "dict_type": ("an object", "write its keys"),
    }.get(kind)
    if wanted is None:
        return Fault(name, f"is {describe(value)}, which is not allowed ({detail['msg']}); correct it.")
    return Fault(name, f"must be {wanted[0]}, and is {describe(value)}; {wanted[1]}.")


def _unknown_key(form: type[_Form], fields: Mapping[str, object], path: Sequence[str | int]) -> str:
    model, key = _model_at(form, path), str(path[-1])
    known = _keys(model)
    twin = next((sorted(names) for names in known if key in names), None)
    if twin:
        return f"is given beside {next(name for name in twin if name != key)!r}, which says the same; keep one of them."
    other = next((other for other in reversed(_FORMS) if any(key in names for names in _keys(other))), None)
    marks = sorted(form.marks & fields.keys())
    if other and marks and model is form:
        return f"is a key of {other.title}, but {marks[0]!r} makes this a record in {form.title}; use one form's keys."
    names = sorted(name for group in known for name in group)
    near = difflib.get_close_matches(key, names, n=1)
    if near:
        return f"is no key of {form.title}; did you mean {near[0]!r}?"
    return f"is no key of {form.title}, which has {', '.join(names)}; take it out."


def _model_at(form: type[_Form], path: Sequence[str | int]) -> type[BaseModel]:
    if form is _NestedCounterFact and len(path) > 1:
        return _Rewrite if len(path) == 2 else _Target
    return form


def _keys(model: type[BaseModel]) -> list[frozenset[str]]:
    """Return the names that a file may use, grouped by what they mean."""
    groups = []
    for name, field in model.model_fields.items():
        alias = field.validation_alias
        choices = alias.choices if isinstance(alias, AliasChoices) else [alias or name]
        groups.append(frozenset(str(choice) for choice in choices))
    return groups

"""From the keys of one record to the edits it asks for, by the layout that claims it (`layouts`), or to its faults.

All faults of a record are found at once. Out of scope: files and formats (`request_files`), the layouts themselves, and whether
the subject has tokens of its own (`tokens`).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from itertools import islice
from typing import Any, NamedTuple, get_args

from pydantic import AliasChoices, BaseModel, ValidationError

from .layouts import LAYOUTS
from .layouts.base import Layout, ReadingOptions, SubjectPlace, UnusedKey, fill_subject
from .raw_record import MAX_FAULTS, Fault, describe
from .request import EditRequest

__all__ = ["ReadRecord", "read_record"]


class ReadRecord(NamedTuple):
    """A record after its layout was asked: the edits, or what is wrong; the id in either case where there is one."""

    requests: tuple[EditRequest, ...]
    """Empty where there are faults; several where a layout holds several edits in a record."""
    id: str
    faults: tuple[Fault, ...]
    left_out: tuple[UnusedKey, ...] = ()
    """The record's keys that no request uses."""


def read_record(fields: Mapping[str, object], index: int, reading: ReadingOptions | None = None) -> ReadRecord:
    """Return the edits that `fields` ask for; their id is the record's own or else `index`, counted from 1.

    The prompts about the subject are filled with it where they hold ``{}``; the subject and the targets are stripped of
    spaces around them. `reading` decides where a layout leaves a choice.
    """
    layout = next(one for one in LAYOUTS if one.claims(fields))
    own = layout.claimed_id(fields) or str(index)
    refusal = layout.refusal(fields)
    if refusal is not None:
        return ReadRecord((), own, (refusal,))
    chosen, read = reading or ReadingOptions(), None
    try:
        read = layout.model_validate(dict(fields))
        faults = read.faults()
    except ValidationError as error:
        told = error.errors(include_url=False)[:MAX_FAULTS]
        faults = tuple(_fault(layout, fields, dict(detail)) for detail in told)
        if more := error.error_count() - len(told):
            faults += (Fault("record", f"has {more} more faults; mend these first."),)
    faults += tuple(islice(_subject_faults(layout, fields), MAX_FAULTS))
    if faults or read is None:
        return ReadRecord((), own, faults)
    return ReadRecord(read.requests(str(index), chosen), own, (), read.left_out(chosen))


# ------------------------------------------------------------------------------------------------------- the subject


def _subject_faults(layout: type[Layout], fields: Mapping[str, object]) -> Iterator[Fault]:
    """Say where a prompt does not hold its subject just once; nothing is said while either is wrong in itself."""
    for place in layout.places(fields):
        if fault := _subject_fault(fields, place):
            yield fault


def _subject_fault(fields: Mapping[str, object], place: SubjectPlace) -> Fault | None:
    subject, prompt = _dig(fields, place.subject), _dig(fields, place.prompt)
    if not (isinstance(subject, str) and isinstance(prompt, str) and subject.strip() and prompt.strip()):
        return None
    subject = subject.strip()
    filled = fill_subject(prompt, subject)
    start = filled.find(subject)
    if start < 0:
        return Fault(
            _name(place.subject),
            f"{describe(subject)} does not stand in the prompt {describe(prompt)}, and it must, letter by letter; "
            "correct one of the two or write {} in the prompt where the subject belongs.",
        )
    if filled.find(subject, start + 1) >= 0:
        return Fault(
            _name(place.subject),
            f"{describe(subject)} is ambiguous: it stands several times in the prompt {describe(filled)}, so that it is not "
            "known which is meant; word the prompt so that it stands there once.",
        )
    return None


def _dig(fields: object, path: Sequence[str | int]) -> object:
    value = fields
    for key in path:
        if isinstance(key, int):
            value = value[key] if isinstance(value, list) and key < len(value) else None
        else:
            value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _name(path: Sequence[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


# ----------------------------------------------------------------------------------------------------- what is wrong


def _fault(layout: type[Layout], fields: Mapping[str, object], detail: Mapping[str, Any]) -> Fault:
    """Put one of pydantic's findings into a sentence that reads on from the field's name."""
    path: tuple[str | int, ...] = detail["loc"]
    name, value, kind = _name(path), detail["input"], detail["type"]
    if kind == "missing":
        return Fault(name, f"is missing; {layout.title} needs it, so add it.")
    if kind == "extra_forbidden":
        return Fault(name, _unknown_key(layout, fields, path))
    if kind == "value_error":
        return Fault(name, str(detail["ctx"]["error"]))
    if kind == "too_short":
        return Fault(name, "is an empty list; it must hold at least one text.")
    wanted = {
        "string_type": ("text", "put it in quotes"),
        "list_type": ("a list", "put it in [ ]"),
        "tuple_type": ("a list", "put it in [ ]"),
        "bool_type": ("true or false", "write one of them, without quotes"),
        "model_type": ("an object", "write its keys"),
        "dict_type": ("an object", "write its keys"),
    }.get(kind)
    if wanted is None:
        return Fault(name, f"is {describe(value)}, which is not allowed ({detail['msg']}); correct it.")
    way_out = "write one text" if kind == "string_type" and isinstance(value, list | tuple | dict) else wanted[1]
    return Fault(name, f"must be {wanted[0]}, and is {describe(value)}; {way_out}.")


def _unknown_key(layout: type[Layout], fields: Mapping[str, object], path: Sequence[str | int]) -> str:
    model, key = _model_at(layout, path), str(path[-1])
    known = _keys(model)
    twin = next((sorted(names) for names in known if key in names), None)
    if twin:
        return f"is given beside {next(name for name in twin if name != key)!r}, which says the same; keep one of them."
    other = next((other for other in reversed(LAYOUTS) if any(key in names for names in _keys(other))), None)
    marks = sorted(layout.marks & fields.keys())
    if other and marks and model is layout:
        return f"is a key of {other.title}, but {marks[0]!r} makes this a record in {layout.title}; use the keys of one layout."
    names = sorted(name for group in known for name in group)
    if near := _meant(key, names):
        return f"is no key of {layout.title}; did you mean {near}?"
    return f"is no key of {layout.title}, which has {', '.join(names)}; take it out."


def _model_at(layout: type[Layout], path: Sequence[str | int]) -> type[BaseModel]:
    model: type[BaseModel] = layout
    for key in path[:-1]:
        if isinstance(key, str):
            field = next((one for name, one in model.model_fields.items() if key in _names(name, one)), None)
            model = next(_models_in(field.annotation), model) if field else model
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


def _keys(model: type[BaseModel]) -> list[frozenset[str]]:
    """Return the names that a file may use, grouped by what they mean."""
    return [_names(name, field) for name, field in model.model_fields.items()]


def _names(name: str, field: Any) -> frozenset[str]:
    alias = field.validation_alias
    return frozenset(str(one) for one in (alias.choices if isinstance(alias, AliasChoices) else [alias or name]))


# ------------------------------------------------------------------------------------------------------- suggestions


class _Side(Enum):
    """Which answer a key is about."""

    NEW = "new"
    OLD = "old"


_WORDS = {
    _Side.NEW: frozenset(
        ("new", "edit", "edited", "updated", "after", "counterfactual", "alt", "alternative", "wanted")
    ),
    _Side.OLD: frozenset(
        (
            "old",
            "true",
            "truth",
            "original",
            "orig",
            "before",
            "previous",
            "prior",
            "former",
            "current",
            "ground",
            "correct",
            "real",
        )
    ),
}
_ANSWERS = frozenset(("target", "answer", "answers", "object", "label", "value", "output", "completion"))
_FIELDS = {
    _Side.NEW: ("target_new", "alt", "target"),
    _Side.OLD: ("target_true", "ground_truth", "answers"),
}
"""The field of each answer, by layout."""


def _meant(key: str, names: Sequence[str]) -> str:
    """Return the name or names that an unknown `key` is near to, for a sentence; empty where there is none.

    A key about the old answer never leads to the field of the new one, nor the reverse.
    """
    words, side = _words(key), _side(key)
    fields = {one: next((name for name in _FIELDS[one] if name in names), "") for one in _Side}
    if words and words <= _ANSWERS and all(fields.values()):
        return f"{fields[_Side.NEW]!r} (the new answer) or {fields[_Side.OLD]!r} (the old one)"
    if side and fields[side] and words <= _WORDS[side] | _ANSWERS:
        return repr(fields[side])
    opposite = [name for name in names if side and _side_of_field(name) not in (None, side)]
    near = difflib.get_close_matches(key, [name for name in names if name not in opposite], n=1)
    return repr(near[0]) if near else ""


def _side_of_field(name: str) -> _Side | None:
    return next((side for side, names in _FIELDS.items() if name in names), _side(name))


def _side(key: str) -> _Side | None:
    found = [side for side, words in _WORDS.items() if _words(key) & words]
    return found[0] if len(found) == 1 else None


def _words(key: str) -> frozenset[str]:
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key[:200])
    return frozenset(word for word in re.split(r"[\W_\d]+", apart.lower()) if word)

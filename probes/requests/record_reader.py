"""From the keys of one record to its edit requests, by the layout that claims it, or to its faults.

All faults of a record are reported at once.
Out of scope: files (`loader`), formats (`parsers`), the layouts, and whether the subject has tokens of its own (`tokens`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from pydantic import AliasChoices, BaseModel, ValidationError

from ..wording import suggest
from .layout import Layout, ReadingOptions, SubjectPlace, UnusedKey, layouts_in_order
from .layout_fields import fill_subject
from .raw_record import MAX_FAULTS, Fault, describe

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from .request import EditRequest

__all__ = ["ReadRecord", "read_record"]


class ReadRecord(NamedTuple):
    """The edit requests of a record, or its faults; its id in both cases, empty where it has none."""

    requests: tuple[EditRequest, ...]
    """Empty where there are faults. A layout may hold several edits in one record."""
    id: str
    faults: tuple[Fault, ...]
    unused: tuple[UnusedKey, ...] = ()
    """The record's keys that no request uses."""


def read_record(fields: Mapping[str, object], index: int, options: ReadingOptions | None = None) -> ReadRecord:
    """Return the edit requests of a record; their id is the record's own, or else its number `index`, counted from 1.

    Prompts about the subject get its name in place of ``{}``. Spaces around the subject and the targets are removed.
    `options` decide where a layout can be read in two ways.
    """
    layout = next(candidate for candidate in layouts_in_order() if candidate.claims(fields))
    record_id = layout.read_id(fields) or str(index)
    refusal = layout.explain_refusal(fields)
    if refusal is not None:
        return ReadRecord((), record_id, (refusal,))
    options, record = options or ReadingOptions(), None
    try:
        record = layout.model_validate(dict(fields))
        faults = record.find_faults()
    except ValidationError as error:
        details = error.errors(include_url=False)[:MAX_FAULTS]
        faults = tuple(_word_fault(layout, fields, dict(detail)) for detail in details)
        if more := error.error_count() - len(details):
            faults += (Fault("record", f"has {more} more faults; mend these first."),)
    faults += tuple(islice(_subject_faults(layout, fields), MAX_FAULTS))
    if faults or record is None:
        return ReadRecord((), record_id, faults)
    return ReadRecord(record.build_requests(str(index), options), record_id, (), record.find_unused_keys(options))


# ------------------------------------------------------------------------------------------------------- the subject


def _subject_faults(layout: type[Layout], fields: Mapping[str, object]) -> Iterator[Fault]:
    """Yield a fault for each prompt that does not hold its subject exactly once.

    A subject or prompt that is wrong in itself has its own fault, and none here.
    """
    for place in layout.locate_subjects(fields):
        if fault := _subject_fault(fields, place):
            yield fault


def _subject_fault(fields: Mapping[str, object], place: SubjectPlace) -> Fault | None:
    subject, prompt = _value_at(fields, place.subject), _value_at(fields, place.prompt)
    if not (isinstance(subject, str) and isinstance(prompt, str) and subject.strip() and prompt.strip()):
        return None
    subject = subject.strip()
    filled = fill_subject(prompt, subject)
    start = filled.find(subject)
    if start < 0:
        return Fault(
            _path_name(place.subject),
            f"{describe(subject)} does not stand in the prompt {describe(prompt)}, and it must, letter by letter; "
            "correct one of the two or write {} in the prompt where the subject belongs.",
        )
    if filled.find(subject, start + 1) >= 0:
        return Fault(
            _path_name(place.subject),
            f"{describe(subject)} is ambiguous: it stands several times in the prompt {describe(filled)}, so that it is not "
            "known which is meant; word the prompt so that it stands there once.",
        )
    return None


def _value_at(fields: object, path: Sequence[str | int]) -> object:
    value = fields
    for key in path:
        if isinstance(key, int):
            value = value[key] if isinstance(value, list) and key < len(value) else None
        else:
            value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _path_name(path: Sequence[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


# ----------------------------------------------------------------------------------------------------- what is wrong


_REQUIRED_TYPES = {
    "string_type": ("text", "put it in quotes"),
    "list_type": ("a list", "put it in [ ]"),
    "tuple_type": ("a list", "put it in [ ]"),
    "bool_type": ("true or false", "write one of them, without quotes"),
    "model_type": ("an object", "write its keys"),
    "dict_type": ("an object", "write its keys"),
}
"""For each of pydantic's type errors the type that a field must have, and the way out."""


def _word_fault(layout: type[Layout], fields: Mapping[str, object], detail: Mapping[str, Any]) -> Fault:
    """Return the fault for one of pydantic's errors; its message continues the sentence that the field's name begins."""
    path: tuple[str | int, ...] = detail["loc"]
    name, value, kind = _path_name(path), detail["input"], detail["type"]
    if kind == "missing":
        return Fault(name, f"is missing; {layout.title} needs it, so add it.")
    if kind == "extra_forbidden":
        return Fault(name, _explain_unknown_key(layout, fields, path))
    if kind == "value_error":
        return Fault(name, str(detail["ctx"]["error"]))
    if kind == "too_short":
        return Fault(name, "is an empty list; it must hold at least one text.")
    if kind not in _REQUIRED_TYPES:
        return Fault(name, f"is {describe(value)}, which is not allowed ({detail['msg']}); correct it.")
    required, way_out = _REQUIRED_TYPES[kind]
    if kind == "string_type" and isinstance(value, list | tuple | dict):
        way_out = "write one text"
    return Fault(name, f"must be {required}, and is {describe(value)}; {way_out}.")


def _explain_unknown_key(layout: type[Layout], fields: Mapping[str, object], path: Sequence[str | int]) -> str:
    model, key = _model_at(layout, path), str(path[-1])
    groups = _key_groups(model)
    synonyms = next((sorted(names) for names in groups if key in names), None)
    if synonyms:
        return f"is given beside {next(name for name in synonyms if name != key)!r}, which says the same; keep one of them."
    other = next(
        (other for other in reversed(layouts_in_order()) if any(key in names for names in _key_groups(other))), None
    )
    markers = sorted(layout.marker_keys & fields.keys())
    if other and markers and model is layout:
        return f"is a key of {other.title}, but {markers[0]!r} makes this a record in {layout.title}; use the keys of one layout."
    names = sorted(name for group in groups for name in group)
    if suggestion := _suggest_keys(key, names):
        return f"is an unknown key in {layout.title}; did you mean {suggestion}?"
    return f"is an unknown key in {layout.title}, which has {', '.join(names)}; take it out."


def _model_at(layout: type[Layout], path: Sequence[str | int]) -> type[BaseModel]:
    """Return the model of the object that holds the last key of `path`."""
    model: type[BaseModel] = layout
    for key in path[:-1]:
        if isinstance(key, str):
            field = next((field for name, field in model.model_fields.items() if key in _key_names(name, field)), None)
            model = next(_models_in(field.annotation), model) if field else model
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


def _key_groups(model: type[BaseModel]) -> list[frozenset[str]]:
    """Return the names that a file may use; the names of one group mean the same."""
    return [_key_names(name, field) for name, field in model.model_fields.items()]


def _key_names(name: str, field: FieldInfo) -> frozenset[str]:
    alias = field.validation_alias
    return frozenset(map(str, alias.choices) if isinstance(alias, AliasChoices) else [str(alias or name)])


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
"""The fields of each answer, one for a layout."""
_LONGEST_KEY = 200
"""Characters of a key that are split into words."""


def _suggest_keys(key: str, names: Sequence[str]) -> str:
    """Return the name or names that an unknown `key` may stand for, for a sentence; empty where there is none.

    A key about the old answer never leads to the field of the new one, nor the reverse.
    """
    words, side = _split_words(key), _side_of_key(key)
    fields = {side: next((name for name in _FIELDS[side] if name in names), "") for side in _Side}
    if words and words <= _ANSWERS and all(fields.values()):
        return f"{fields[_Side.NEW]!r} (the new answer) or {fields[_Side.OLD]!r} (the old one)"
    if side and fields[side] and words <= _WORDS[side] | _ANSWERS:
        return repr(fields[side])
    opposite = [name for name in names if side and _side_of_field(name) not in (None, side)]
    nearest = suggest(key, [name for name in names if name not in opposite])
    return repr(nearest) if nearest else ""


def _side_of_field(name: str) -> _Side | None:
    return next((side for side, names in _FIELDS.items() if name in names), _side_of_key(name))


def _side_of_key(key: str) -> _Side | None:
    sides = [side for side, words in _WORDS.items() if _split_words(key) & words]
    return sides[0] if len(sides) == 1 else None


def _split_words(key: str) -> frozenset[str]:
    """Return the words of a key in snake case or camel case, in small letters."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key[:_LONGEST_KEY])
    return frozenset(word for word in re.split(r"[\W_\d]+", spaced.lower()) if word)

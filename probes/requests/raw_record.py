"""One record of requested edits as it stands in its file, before anybody asks which layout it has.

A fault of one record is kept with that record, so that all of them can be reported together. Here are the faults that
no layout and no format may have; which keys a record needs is asked in `layouts`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from ..errors import RequestError

__all__ = [
    "MAX_FAULTS",
    "MAX_RECORDS",
    "DuplicateKeys",
    "Fault",
    "RawRecord",
    "collect_records",
    "describe",
    "describe_keys",
    "make_list_error",
    "make_raw_record",
]


MAX_RECORDS = 1_000_000
MAX_FAULTS = 20
"""Faults of one record that are told; a record may have a million keys, and each could be wrong."""


class Fault(NamedTuple):
    """What is wrong with one field of a record; the message reads on from the field's name."""

    field: str
    message: str


@dataclass(frozen=True)
class RawRecord:
    """One record as it stands in its file."""

    where: str
    """Place for a human: ``edits.jsonl:12`` or ``edits.json: record 3 (case_id 7, line 40)``."""
    fields: Mapping[str, object]
    """The record's keys and values; empty where it could not be read."""
    faults: tuple[Fault, ...] = ()
    """What is wrong already, before any layout is asked."""


class DuplicateKeys(dict[str, object]):
    """An object in which a key was given more than once; the last value stands."""

    doubled = ""
    """The first such key."""


def make_raw_record(place: str, value: object, *, index: int = 0, line: int = 0) -> RawRecord:
    """Return a record with the faults that no layout may have: not an object, a key given twice, NaN, broken Unicode.

    `place` is the file's name, or its name and line; with `index` (1-based) the record's number is put after it,
    with its id and its line where they are known. Keys whose value is null are left out: null says "not given";
    so are keys that are no text, which are a fault in themselves.
    """
    where = _numbered(place, value, index, line) if index else place
    if not isinstance(value, dict):
        return RawRecord(where, {}, (Fault("record", f"is {describe(value)}; it must be an object with keys."),))
    faults = tuple(islice(_value_faults(value), MAX_FAULTS))
    fields = {key: item for key, item in value.items() if item is not None and _is_key(key)}
    return RawRecord(where, fields, faults)


def describe(value: object) -> str:
    """Return a value for a message: shortened, with its kind where that is not text."""
    if value is None:
        return "null"
    kinds = ((str, "text"), (bool, "true or false"), ((int, float), "a number"), (list, "a list"), (dict, "an object"))
    kind = next((name for types, name in kinds if isinstance(value, types)), type(value).__name__)
    try:
        shown = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, a list nested a thousand deep
        return f"a value too large to show ({kind})"
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    return shown if isinstance(value, str) else f"{shown} ({kind})"


def _numbered(place: str, value: object, index: int, line: int) -> str:
    notes = []
    if isinstance(value, dict):
        for key in ("case_id", "id"):
            if isinstance(value.get(key), (int, str)):
                notes.append(f"{key} {_plain(value[key])}")
                break
    if line:
        notes.append(f"line {line}")
    return f"{place}: record {index}" + (f" ({', '.join(notes)})" if notes else "")


def _plain(value: object) -> str:
    if isinstance(value, str):
        return value if value.isprintable() and 0 < len(value) <= 40 else describe(value)
    return describe(value).removesuffix(" (a number)")


def _value_faults(record: dict[Any, object]) -> Iterator[Fault]:
    """Find, at any depth, what must not be in a record of any form; without recursion, since depth is the user's."""
    queue: deque[tuple[str, object]] = deque([("", record)])
    while queue:
        field, value = queue.popleft()
        if isinstance(value, str) and (half := _surrogate(value)) >= 0:
            yield Fault(field, f"holds half a surrogate pair at character {half}; write the whole character there.")
        elif isinstance(value, float) and not math.isfinite(value):
            yield Fault(field, f"is or holds {value}, which is no finite number; leave it out or write a value.")
        elif isinstance(value, list):
            queue.extend((field, item) for item in value)
        elif isinstance(value, dict):
            if isinstance(value, DuplicateKeys):
                yield Fault(field or value.doubled, f"has the key {describe(value.doubled)} twice; keep one of them.")
            for key, item in value.items():
                if not isinstance(key, str):
                    yield Fault(
                        field or "record", f"has the key {describe(key)}, and keys must be text; put it in quotes."
                    )
                elif _surrogate(key) >= 0:
                    yield Fault(
                        field or "record", f"has the key {describe(key)}, half a surrogate pair in it; correct it."
                    )
                queue.append((field or (key if _is_key(key) else "record"), item))


def _is_key(key: object) -> bool:
    return isinstance(key, str) and _surrogate(key) < 0


def _surrogate(text: str) -> int:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return error.start
    return -1


def collect_records(records: Iterable[RawRecord], source: str) -> list[RawRecord]:
    """Return the records; their number is bounded while they are read, since an empty one takes three bytes of a file.

    Raises `RequestError` where there are more than `MAX_RECORDS`.
    """
    found = list(islice(records, MAX_RECORDS + 1))
    if len(found) > MAX_RECORDS:
        raise RequestError(f"The file {source!r} holds more than the {MAX_RECORDS} records that are read; split it.")
    return found


def make_list_error(source: str, found: str) -> RequestError:
    """Return the error for a file whose top is no list of records."""
    return RequestError(
        f"The file {source!r} holds {found} where a list of edits is needed; write the records in a list, "
        '[...], or in {"edits": [...]}.'
    )


def describe_keys(value: Collection[object]) -> str:
    """Return an object for a message by its first keys."""
    keys = [describe(key) for key in list(value)[:4]]
    return (
        f"an object with the keys {', '.join(keys)}{', ...' if len(value) > 4 else ''}" if keys else "an empty object"
    )

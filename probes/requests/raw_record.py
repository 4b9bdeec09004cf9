"""One record as it stands in its file, before its layout is recognised.

A fault of a record stays with it, so that all faults can be reported together.
Faults that no layout and no format may have are recognised here; `layouts` hold the keys that a record needs.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

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
"""Faults of one record that are reported; a record may have a million keys, and each could be wrong."""


class Fault(NamedTuple):
    """A fault of one field of a record; the message continues the sentence that the field's name begins."""

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
    """Faults that it has in every layout."""


class DuplicateKeys(dict[str, object]):
    """An object in which a key stands more than once; the last value counts."""

    key = ""
    """The most frequent key."""


def make_raw_record(place: str, value: object, *, index: int = 0, line: int = 0) -> RawRecord:
    """Return a record with the faults that no layout may have: not an object, a duplicate key, NaN, broken Unicode.

    `place` is the file's name, or its name and line.
    With `index` (from 1) the record's number follows it, with its id and its line where it has them.
    Keys whose value is null are left out, because null means that there is no value.
    Keys that are not text are left out too, and each is a fault.
    """
    where = _place_of_record(place, value, index, line) if index else place
    if not isinstance(value, dict):
        return RawRecord(where, {}, (Fault("record", f"is {describe(value)}; it must be an object with keys."),))
    faults = tuple(islice(_value_faults(value), MAX_FAULTS))
    fields = {key: item for key, item in value.items() if item is not None and _is_key(key)}
    return RawRecord(where, fields, faults)


def describe(value: object) -> str:
    """Return a value for a message: shortened, and with its kind if it is not text."""
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


def _place_of_record(place: str, value: object, index: int, line: int) -> str:
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
    """Yield the faults that no layout may have, at any depth; without recursion, because a file may be nested deeply."""
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
                yield Fault(field or value.key, f"has the key {describe(value.key)} twice; keep one of them.")
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
    """Return the records as a list; raises `RequestError` where there are more than `MAX_RECORDS`.

    Their number is bounded while they are read, because an empty record takes only three bytes of a file.
    """
    bounded = list(islice(records, MAX_RECORDS + 1))
    if len(bounded) > MAX_RECORDS:
        raise RequestError(f"The file {source!r} holds more than the {MAX_RECORDS} records that are read; split it.")
    return bounded


def make_list_error(source: str, content: str) -> RequestError:
    """Return the error for a file that holds `content` instead of a list of records."""
    return RequestError(
        f"The file {source!r} holds {content} where a list of edits is needed; write the records in a list, "
        '[...], or in {"edits": [...]}.'
    )


def describe_keys(value: Collection[object]) -> str:
    """Return an object for a message: its first keys."""
    keys = [describe(key) for key in list(value)[:4]]
    return (
        f"an object with the keys {', '.join(keys)}{', ...' if len(value) > 4 else ''}" if keys else "an empty object"
    )

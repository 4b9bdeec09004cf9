"""Raw records from JSON and JSON Lines.

A JSON file is read record by record, so that the line of each record is known.
A fault that leaves the rest of the file unreadable (a truncated list) raises `RequestError`.
In JSON Lines it is a fault of that line and of no other.
"""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from typing import TYPE_CHECKING

from ..errors import RequestError
from .raw_record import (
    DuplicateKeys,
    Fault,
    RawRecord,
    collect_records,
    describe,
    describe_keys,
    make_list_error,
    make_raw_record,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["DECODER", "parse_json", "parse_lines"]

_JSON_SPACE = re.compile(r"[ \t\r\n]*")


def _make_object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    plain = dict(pairs)
    if len(plain) == len(pairs):
        return plain
    with_duplicates = DuplicateKeys(pairs)
    with_duplicates.key = Counter(key for key, _ in pairs).most_common(1)[0][0]
    return with_duplicates


DECODER = json.JSONDecoder(object_pairs_hook=_make_object)
"""Reads JSON as Python does, and marks an object that has a key twice."""


def parse_json(text: str, source: str, name: str) -> list[RawRecord]:
    """Read a list of records, or an object whose only key "edits" holds one."""
    try:
        items = enumerate(_iter_items(text, source), start=1)
        return collect_records(
            (make_raw_record(name, value, index=index, line=line) for index, (value, line) in items), source
        )
    except json.JSONDecodeError as error:
        at_end = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated")
        hint = " (the file may have been cut off)" if at_end else ""
        raise RequestError(
            f"The file {source!r} is not valid JSON: {_describe_problem(error)} at line {error.lineno}, column {error.colno}"
            f"{hint}; mend it there."
        ) from error
    except (ValueError, RecursionError) as error:
        raise RequestError(
            f"The file {source!r} cannot be read as JSON ({_describe_limit(error)}); simplify it."
        ) from error


def _iter_items(text: str, source: str) -> Iterator[tuple[object, int]]:
    """Yield each record of a file with the line of its first character."""
    position = _skip_space(text, 0)
    if text[position : position + 1] == "{":
        position = _find_edits(text, position, source)
        closing = "]}"
    elif text[position : position + 1] == "[":
        closing = "]"
    else:
        value, _ = DECODER.raw_decode(text, position)
        raise make_list_error(source, describe(value))
    line, counted = 1, 0
    position = _skip_space(text, position + 1)
    while text[position : position + 1] != "]":
        line, counted = line + text.count("\n", counted, position), position
        value, position = DECODER.raw_decode(text, position)
        yield value, line
        position = _skip_space(text, position)
        if text[position : position + 1] == ",":
            position = _skip_space(text, position + 1)
            if text[position : position + 1] == "]":
                raise json.JSONDecodeError("Expecting a record after ','", text, position)
        elif text[position : position + 1] != "]":
            raise json.JSONDecodeError("Expecting ',' or ']'", text, position)
    for bracket in closing:
        position = _skip_past(text, position, bracket)
    if position < len(text):
        raise json.JSONDecodeError("Extra text after the records", text, position)


def _find_edits(text: str, position: int, source: str) -> int:
    """Return the position of the list in ``{"edits": [...]}``; any other shape is an error."""
    start = position
    position = _skip_space(text, position + 1)
    if text[position : position + 1] == '"':
        key, position = DECODER.raw_decode(text, position)
        position = _skip_past(text, position, ":")
        if key == "edits" and text[position : position + 1] == "[":
            return position
    value, _ = DECODER.raw_decode(text, start)
    raise make_list_error(source, describe_keys(value if isinstance(value, dict) else {}))


def _skip_past(text: str, position: int, character: str) -> int:
    position = _skip_space(text, position)
    if text[position : position + 1] != character:
        hint = ' (an object may have no other key beside "edits")' if character == "}" else ""
        raise json.JSONDecodeError(f"Expecting {character!r}{hint}", text, position)
    return _skip_space(text, position + 1)


def _skip_space(text: str, position: int) -> int:
    match = _JSON_SPACE.match(text, position)
    return match.end() if match else position


def _describe_problem(error: json.JSONDecodeError) -> str:
    return error.msg.removesuffix(" at")  # "Unterminated string starting at": the caller adds the place


def _describe_limit(error: Exception) -> str:
    return "it is nested too deep" if isinstance(error, RecursionError) else "a number in it has too many digits"


def parse_lines(text: str, source: str, name: str) -> list[RawRecord]:
    """Read one JSON object a line; only a line feed ends a line, because JSON text may hold other separators."""
    lines = ((number, line.strip(" \t\r\n")) for number, line in enumerate(io.StringIO(text, newline="\n"), start=1))
    return collect_records((_parse_line(line, f"{name}:{number}") for number, line in lines if line), source)


def _parse_line(line: str, where: str) -> RawRecord:
    try:
        return make_raw_record(where, DECODER.decode(line))
    except json.JSONDecodeError as error:
        message = f"is not valid JSON: {_describe_problem(error)} at column {error.colno}; write one whole object on each line."
    except (ValueError, RecursionError) as error:
        message = f"cannot be read as JSON ({_describe_limit(error)}); simplify it."
    return RawRecord(where, {}, (Fault("line", message),))

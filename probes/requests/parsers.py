"""From the text of a file to raw records, by the file's suffix; CSV and YAML are read here, JSON in `json_parser`.

A fault of one record stays with that record.
A fault that leaves the rest of the file unreadable (an open quote, a tag in YAML) raises `RequestError`.
Out of scope: the keys that a record must have (`layouts`), and files, data sets and hashes (`loader`).
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Any

import yaml

from ..errors import RequestError
from .json_parser import DECODER, parse_json, parse_lines
from .raw_record import (
    MAX_FAULTS,
    Fault,
    RawRecord,
    collect_records,
    describe,
    describe_keys,
    make_list_error,
    make_raw_record,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["PARSERS"]

_LIST_COLUMNS = frozenset(
    {"paraphrases", "neighbourhood", "neighborhood", "answers", "other_facts", "true_aliases", "not_judged"}
)
_ANSWER_COLUMNS = frozenset({"target_true", "target_old", "ground_truth"})
_TRUTHS = {"true": True, "false": False}
_MAX_DEPTH = 64
"""Levels of a YAML file: far more than any layout has. libyaml would follow nested brackets until the stack ends."""
_MAX_ALIAS_LENGTH = 60
_MAX_YAML = 16 * 2**20
"""Characters of a YAML file: it is read at about a megabyte a second, and each text takes half a kilobyte of memory."""


def _parse_csv(text: str, source: str, name: str) -> list[RawRecord]:
    """Read a header and a record a row; an empty cell means that the record has no such key."""
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [column.strip() for column in next(rows, [])]
        _check_header(header, source)
        return collect_records(
            (_make_csv_record(header, row, f"{name}:{line}") for line, row in _iter_csv_rows(rows)), source
        )
    except csv.Error as error:
        raise RequestError(
            f"The file {source!r} is not valid CSV: {error} at line {rows.line_num}; mend the quotes there."
        ) from error


def _iter_csv_rows(rows: Any) -> Iterator[tuple[int, list[str]]]:
    """Yield each row that is not empty with the line that it begins on."""
    line = rows.line_num + 1
    for row in rows:
        if row:
            yield line, row
        line = rows.line_num + 1


def _check_header(header: list[str], source: str) -> None:
    other = next(
        (name for sign, name in ((";", "semicolons"), ("\t", "tabs")) if len(header) == 1 and sign in header[0]), None
    )
    if other is not None:
        raise RequestError(
            f"The header of {source!r} is one column, {describe(header[0])}, with {other} in it; cells are separated by commas, "
            "so save the file with those."
        )
    column, times = Counter(header).most_common(1)[0] if header else ("", 1)
    if times > 1 or not all(header):
        fault = "a column without a name" if not all(header) else f"the column {describe(column)} {times} times"
        raise RequestError(f"The header of {source!r} has {fault}; each column needs a name of its own, so correct it.")


def _make_csv_record(header: list[str], row: list[str], where: str) -> RawRecord:
    if len(row) != len(header):
        message = f"has {len(row)} cells where the header has {len(header)}; put text that holds commas in quotes."
        return RawRecord(where, {}, (Fault("row", message),))
    cells: dict[str, object] = {column: cell for column, cell in zip(header, row, strict=True) if cell.strip()}
    if "space" in cells:
        cells["space"] = _TRUTHS.get(str(cells["space"]).strip().lower(), cells["space"])
    for column in _ANSWER_COLUMNS & cells.keys():
        cells[column] = _read_answer_cell(str(cells[column]))
    faults = []
    for column in sorted(_LIST_COLUMNS & cells.keys()):
        cell = str(cells[column]).strip()
        if not cell.startswith("["):
            cells[column] = [part.strip() for part in cell.split("|")]
            continue
        try:
            cells[column] = DECODER.decode(cell)
        except (ValueError, RecursionError):
            del cells[column]
            faults.append(Fault(column, f"begins with '[' and is no JSON array: {describe(cell)}; mend it."))
    record = make_raw_record(where, cells)
    return RawRecord(where, record.fields, (*faults, *record.faults))


def _read_answer_cell(cell: str) -> object:
    """Return the list of an answer's names where the cell is a JSON array; otherwise the text itself."""
    if not cell.strip().startswith("["):
        return cell
    try:
        names: object = DECODER.decode(cell.strip())
    except (ValueError, RecursionError):
        return cell
    return names


# --------------------------------------------------------------------------------------------------------------- YAML


def _parse_yaml(text: str, source: str, name: str) -> list[RawRecord]:
    """Read a list of plain mappings; a tag or an alias is refused before any value is built."""
    if len(text) > _MAX_YAML:
        raise RequestError(
            f"The file {source!r} has more than the {_MAX_YAML // 2**20} MiB that are read as YAML; write it as JSON Lines."
        )
    loader_class = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        for event in _iter_yaml_events(text, loader_class):
            if construct := _forbidden_construct(event):
                raise RequestError(
                    f"The file {source!r} has {construct} at line {event.start_mark.line + 1}; edits are plain text and "
                    "lists, so write the value out."
                )
        loader = loader_class(text)
        root = _yaml_records(loader.get_single_node(), source)
        return collect_records(
            (_make_yaml_record(loader, node, name, index) for index, node in enumerate(root, start=1)), source
        )
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be parsed"
        raise RequestError(f"The file {source!r} is not valid YAML: {problem}{place}; mend it there.") from error


def _iter_yaml_events(text: str, loader_class: Any) -> Iterator[Any]:
    depth = 0
    for event in yaml.parse(text, Loader=loader_class):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise yaml.MarkedYAMLError(
                problem=f"it is nested more than {_MAX_DEPTH} deep", problem_mark=event.start_mark
            )
        yield event


def _forbidden_construct(event: Any) -> str:
    if isinstance(event, yaml.AliasEvent):
        return f"the alias *{event.anchor[:_MAX_ALIAS_LENGTH]}"
    return f"the tag {describe(event.tag)}" if getattr(event, "tag", None) is not None else ""


def _yaml_records(root: Any, source: str) -> list[Any]:
    if isinstance(root, yaml.MappingNode) and [key.value for key, _ in root.value] == ["edits"]:
        root = root.value[0][1]
    if isinstance(root, yaml.SequenceNode):
        return list(root.value)
    if root is None:
        return []
    keys = [key.value for key, _ in root.value] if isinstance(root, yaml.MappingNode) else None
    raise make_list_error(source, describe(root.value) if keys is None else describe_keys(keys))


def _make_yaml_record(loader: Any, node: Any, name: str, index: int) -> RawRecord:
    line = node.start_mark.line + 1
    try:
        value = loader.construct_document(node)
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # OverflowError: 1:1:1:…:1.0, a number to base 60
        problem = getattr(error, "problem", None) or error
        message = f"cannot be read ({problem}); put texts that look like dates or numbers in quotes."
        return RawRecord(f"{name}: record {index} (line {line})", {}, (Fault("record", message),))
    record = make_raw_record(name, value, index=index, line=line)
    duplicate_keys = islice(_iter_duplicate_keys(node), MAX_FAULTS)
    faults = tuple(Fault(key, f"has the key {describe(key)} twice; keep one of them.") for key in duplicate_keys)
    return RawRecord(record.where, record.fields, faults + record.faults)


def _iter_duplicate_keys(node: Any) -> Iterator[str]:
    stack = [node]
    while stack:
        node = stack.pop()
        if isinstance(node, yaml.MappingNode):
            keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
            yield from (key for key, times in keys.items() if times > 1)
            stack.extend(value for _, value in node.value)
        elif isinstance(node, yaml.SequenceNode):
            stack.extend(node.value)


PARSERS: Mapping[str, Callable[[str, str, str], list[RawRecord]]] = {
    ".json": parse_json,
    ".jsonl": parse_lines,
    ".ndjson": parse_lines,
    ".yaml": _parse_yaml,
    ".yml": _parse_yaml,
    ".csv": _parse_csv,
}
"""Parser by suffix: from (text, source for messages, file name for places) to records; raises `RequestError`."""

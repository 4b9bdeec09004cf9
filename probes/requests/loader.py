"""Edit requests from a file or a data set.

The bytes are read and hashed. `parsers` makes raw records of them, by the file's suffix.
`record_reader` gives each record's requests or faults, by its layout. Then ids are compared with each other.
All wrong records are reported at once.
Out of scope: writing files, and whether an edit is a good idea (the probes).
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ..errors import RequestError
from .decoding import COMPRESSION_SUFFIXES, decode_text
from .layout import ReadingOptions, UnusedKey
from .parsers import PARSERS
from .raw_record import Fault, RawRecord, describe, make_raw_record
from .record_reader import ReadRecord, read_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from .request import EditRequest

__all__ = ["InvalidRecord", "LoadedRequests", "load_requests"]

_MAX_BYTES = 256 * 2**20
_LONGEST_NAME = 80
_MAX_LISTED, _LONGEST_LIST = 50, 16_000
"""Records and characters that one message lists: nobody reads more in a terminal."""
_HUB = "hf://"


class InvalidRecord(NamedTuple):
    """One wrong record, however many of its fields are wrong."""

    where: str
    """``edits.jsonl:12`` or ``edits.json: record 3 (case_id 7, line 40)``."""
    field: str
    """The wrong field, or several, separated by a comma and a space."""
    message: str
    """For each wrong field its name, its fault and the way out."""


@dataclass(frozen=True, kw_only=True)
class LoadedRequests:
    """The edit requests of one file or data set, in its order."""

    requests: tuple[EditRequest, ...]
    invalid: tuple[InvalidRecord, ...]
    """The records that were left out, an entry for each; empty without ``skip_invalid``."""
    source: str
    sha256: str
    """Hash of the file's bytes; of a data set, hash of the canonical JSON of all records (keys sorted, no spaces, UTF-8)."""
    unused: tuple[str, ...] = ()
    """A sentence for each group of keys that no request uses, without ids: ``loc_ans of 3 records is not used: ...``."""


def load_requests(
    source: str | Path,
    *,
    skip_invalid: bool = False,
    limit: int | None = None,
    can_skip: bool = True,
    zsre_target: Literal["alt", "answers"] = "alt",
) -> LoadedRequests:
    """Read the edit requests in `source`: a file, or ``hf://dataset[:split]`` through the `datasets` library.

    Formats by suffix: .json (a list, or an object with the list under "edits"), .jsonl and .ndjson, .yaml and .yml
    (no tags, no aliases), .csv (lists in a cell as a JSON array or separated by "|").
    Layouts: see `layouts`; a record of MQuAKE holds several edits.

    `limit` is the number of records that are read; later ones are neither checked nor returned.
    `zsre_target` is the new target of a zsRE record: "alt", as MEND and EasyEdit do, or the first of "answers", as ROME
    and MEMIT do, without an old answer.
    With `skip_invalid` the wrong records are returned beside the valid ones, and are no error.
    The error offers that option where some records are valid and the caller `can_skip`.

    Raises `RequestError` that names every wrong record and its fields, or the fault of the whole source.
    """
    if limit is not None and limit < 1:
        raise RequestError(f"The limit of records is {limit}; it must be at least 1, so raise it or leave it out.")
    name = str(source)
    if name.startswith(_HUB):
        records, sha256 = _read_dataset(name, limit)
    else:
        records, sha256 = _read_file(Path(source))
    if not records:
        raise RequestError(f"There are no records in {name!r}; at least one requested edit is needed, so add one.")
    if records[0].fields.get("kind") == "header" and "schema_version" in records[0].fields:
        raise RequestError(f"{name!r} is an audit's log and asks for no edit; give the file of edits that was audited.")
    records = records[:limit]
    requests, invalid, unused = _read_records(records, ReadingOptions(zsre_target))
    if invalid and not (skip_invalid and requests):
        offers_skipping = can_skip and not skip_invalid and bool(requests)
        raise RequestError(_describe_invalid(name, invalid, len(records), offers_skipping=offers_skipping))
    return LoadedRequests(requests=tuple(requests), invalid=tuple(invalid), source=name, sha256=sha256, unused=unused)


class _Source(NamedTuple):
    records: list[RawRecord]
    sha256: str


# ------------------------------------------------------------------------------------------------------------- records


class _ReadRecords(NamedTuple):
    requests: list[EditRequest]
    invalid: list[InvalidRecord]
    unused: tuple[str, ...]


def _read_records(raw_records: Iterable[RawRecord], options: ReadingOptions) -> _ReadRecords:
    requests: list[EditRequest] = []
    invalid: list[InvalidRecord] = []
    owners: dict[str, str] = {}
    unused: Counter[UnusedKey] = Counter()
    for index, raw in enumerate(raw_records, start=1):
        record = _read_record(raw, index, owners, options)
        if record.faults:
            invalid.append(_make_invalid_record(raw.where, record.faults))
        else:
            requests += record.requests
            unused.update(record.unused)
    return _ReadRecords(requests, invalid, _describe_unused(unused))


def _describe_unused(unused: Mapping[UnusedKey, int]) -> tuple[str, ...]:
    """Return a sentence for each reason and number of records."""
    groups: dict[tuple[str, int], list[str]] = {}
    for (key, reason), count in unused.items():
        groups.setdefault((reason, count), []).append(key)
    sentences = []
    for (reason, count), keys in groups.items():
        number = f"{count} record" if count == 1 else f"{count} records"
        sentences.append(f"{', '.join(keys)} of {number} {'is' if len(keys) == 1 else 'are'} not used: {reason}")
    return tuple(sentences)


def _read_record(record: RawRecord, index: int, owners: dict[str, str], options: ReadingOptions) -> ReadRecord:
    """Return the requests or the faults; `owners` holds the place of each earlier id, and gains this record's.

    A wrong record keeps its id too: after its correction the other record must change.
    """
    faults = list(record.faults)
    if not record.fields:
        return ReadRecord(
            (), "", tuple(faults or [Fault("record", "has no keys; write subject, prompt and target_new.")])
        )
    faulty_fields = {_top_field(fault.field) for fault in faults}
    read = read_record(record.fields, index, options)
    faults += [fault for fault in read.faults if _top_field(fault.field) not in faulty_fields]
    for record_id in [request.id for request in read.requests] or [read.id]:
        owner = owners.setdefault(record_id, record.where)
        if owner != record.where:
            faults.append(
                Fault("id", f"{describe(record_id)} is also the id of {owner}; an id must be unique, so change one.")
            )
    return read._replace(faults=tuple(faults))


def _top_field(field: str) -> str:
    return re.split(r"[.\[]", field, maxsplit=1)[0]


def _make_invalid_record(where: str, faults: Sequence[Fault]) -> InvalidRecord:
    readable = [Fault(_readable_name(name), message) for name, message in faults]
    fields = dict.fromkeys(fault.field for fault in readable)
    return InvalidRecord(where, ", ".join(fields), " ".join(f"{name} {message}" for name, message in readable))


def _readable_name(name: str) -> str:
    return name if name.isprintable() and len(name) <= _LONGEST_NAME else describe(name)


def _describe_invalid(source: str, invalid: list[InvalidRecord], total: int, *, offers_skipping: bool) -> str:
    """Return the message for wrong records: a first line with the way out, then a line for each record.

    The option that skips them is a way out only where some records are valid (`offers_skipping`).
    """
    them = "it" if len(invalid) == 1 else "them"
    way_out = f"correct {them}"
    if offers_skipping:
        way_out += f", or leave {them} out with --skip-invalid (in Python: skip_invalid=True)"
    wrong = f"{len(invalid)} of {total} {'record' if total == 1 else 'records'} in {source!r}"
    first = f"{wrong} {'is' if len(invalid) == 1 else 'are'} wrong; {way_out}."
    listed: list[str] = []
    for record in invalid[:_MAX_LISTED]:
        line = f"{record.where}: {record.message}"
        if listed and sum(map(len, listed)) + len(line) > _LONGEST_LIST:
            break
        listed.append(line)
    rest = len(invalid) - len(listed)
    return "\n".join([first, *listed, *([f"and {rest} more"] if rest > 0 else [])])


# --------------------------------------------------------------------------------------------------------------- files


def _read_file(path: Path) -> _Source:
    try:
        size = _file_size(path)
        parse = PARSERS.get(path.suffix.lower())
        if compression := COMPRESSION_SUFFIXES.get(path.suffix.lower()):
            raise RequestError(
                f"The file {str(path)!r} is named as compressed with {compression}; edits are read as plain text, so unpack it."
            )
        if parse is None:
            raise RequestError(
                f"The file {str(path)!r} has the suffix {path.suffix!r}, which names no format that is read here; "
                f"use one of {', '.join(PARSERS)}."
            )
        if size > _MAX_BYTES:
            raise RequestError(
                f"The file {str(path)!r} has {size / 2**20:.1f} MiB, more than the {_MAX_BYTES // 2**20} that are "
                "read; split it."
            )
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES)  # no more, even if it grows meanwhile
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise RequestError(
            f"The file {str(path)!r} cannot be read ({error}); correct its path or its rights."
        ) from error
    text = decode_text(content, str(path))
    if not text.strip():
        raise RequestError(f"The file {str(path)!r} is empty; at least one requested edit is needed, so add one.")
    return _Source(parse(text, str(path), path.name), hashlib.sha256(content).hexdigest())


def _file_size(path: Path) -> int:
    status = path.stat() if path.exists() else None
    if status is None:
        raise RequestError(f"There is no file {str(path)!r}; requests are read from a file, so correct the path.")
    if stat.S_ISDIR(status.st_mode):
        raise RequestError(f"{str(path)!r} is a folder; requests are read from one file, so name a file in it.")
    if not stat.S_ISREG(status.st_mode):
        raise RequestError(f"{str(path)!r} is no ordinary file; write the requests into one and name that.")
    return status.st_size


# ------------------------------------------------------------------------------------------------------------ datasets


def _read_dataset(source: str, limit: int | None) -> _Source:
    """Read all rows for the hash, and keep the first `limit` of them."""
    records: list[RawRecord] = []
    digest = hashlib.sha256(b"[")
    for index, row in enumerate(_rows(source), start=1):
        digest.update(b"," * (index > 1) + _canonical(row, source, index))
        if limit is None or index <= limit:
            records.append(make_raw_record(source, dict(row), index=index))
    digest.update(b"]")
    return _Source(records, digest.hexdigest())


def _canonical(row: Mapping[str, object], source: str, index: int) -> bytes:
    try:
        text = json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode("utf-8")
    except (TypeError, ValueError) as error:
        raise RequestError(
            f"The dataset {source!r} holds in record {index} what JSON cannot hold ({error}); requests are text, so "
            "take those columns out."
        ) from error


def _rows(source: str) -> Iterator[Mapping[str, Any]]:
    name, _, split = source.removeprefix(_HUB).partition(":")
    if not name:
        raise RequestError(f"The dataset {source!r} has no name; write {_HUB}name or {_HUB}name:split.")
    try:
        import datasets
    except ImportError as error:
        raise RequestError(
            f"The dataset {source!r} needs the library 'datasets', which does not load ({error}); install it or "
            "use a file."
        ) from error
    try:
        loaded = datasets.load_dataset(name, split=split or None)
        yield from loaded if split else loaded[_only_split(source, list(loaded))]
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise RequestError(
            f"The dataset {source!r} cannot be loaded ({' '.join(str(error).split())[:300]}); check its name, its "
            "split and the connection, or use a file."
        ) from error


def _only_split(source: str, splits: list[str]) -> str:
    if len(splits) == 1:
        return splits[0]
    raise RequestError(
        f"The dataset {source!r} has {len(splits)} splits ({', '.join(splits)}); one must be named, so write "
        f"{source}:{splits[0] if splits else 'split'}."
    )

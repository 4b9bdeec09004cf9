"""The log on disk: append-only JSON Lines, one record a line, each line written, flushed and synced before the next.

A killed writer leaves at most a torn last line. `read_log` tolerates and reports it. `LogWriter` cuts it off before it
resumes, so an unfinished audit continues from its complete records. Anything else that is malformed is a `LogError`: a log
that was edited by hand is no evidence. Files are readable by their owner only (mode 0600), since prompts may be confidential.

Flags of POSIX that a system lacks are left out: without ``O_NOFOLLOW`` a symbolic link is looked for before the file is
opened, and without ``fchmod`` the mode is set by path.

Out of scope: two writers at once (an audit locks its output folder) and the meaning of the records (`digest`).
"""

from __future__ import annotations

import errno
import glob
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pydantic import ValidationError

from ..errors import DuplicateRecord, LogError, NotFiniteRecord, OutputError
from ..text import count_noun, printable
from .bounded_read import LARGEST_LOG, bounded_bytes
from .schema import RECORD, ControlRecord, EditRecord, Footer, Header, ModelRecord
from .types import SCHEMA_VERSION
from .upgrade import upgrade_header, upgrade_record

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

__all__ = [
    "Log",
    "LogWriter",
    "append_line",
    "log_bytes",
    "parse_log",
    "read_log",
    "read_unfinished_log",
    "remove_unfinished_files",
    "rewrite_log",
    "write_atomic",
]

_OWNER_ONLY = 0o600
_UNFINISHED = ".tmp"
_AnyRecord = Header | EditRecord | ControlRecord | ModelRecord | Footer


@dataclass(frozen=True)
class Log:
    """A log as read, converted to the version of the schema that this editguard writes.

    `torn`: a killed writer cut its last line short, and that line is left out. `version`: that of the file.
    """

    header: Header
    edits: tuple[EditRecord, ...]
    controls: tuple[ControlRecord, ...]
    footer: Footer | None
    torn: bool = False
    version: int = SCHEMA_VERSION
    model: ModelRecord | None = None
    """The edited model as a whole, where a checkpoint was audited."""

    @property
    def records(self) -> int:
        """Count of the edit, control and model records."""
        return len(self.edits) + len(self.controls) + (self.model is not None)


class LogWriter:
    """Appends records to a log, as a context manager.

    An unfinished log at `path` is resumed: `existing` holds its records, and a torn last line is cut off. Raises `LogError`
    for a finished log, for a file that is no log, and for records out of order: header first, footer last, each id once.
    """

    def __init__(self, path: Path) -> None:
        """Remember `path`; the file is opened on entry, in a folder that exists."""
        self.path = path
        self.existing: Log | None = None
        self._descriptor: int | None = None
        self._started = False
        self._ids: set[tuple[str, str]] = set()

    def __enter__(self) -> Self:
        """Open the file, and read the records of an earlier writer."""
        existing = self._read_existing()
        try:
            self._descriptor = _open_to_append(self.path)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        if existing is not None:
            os.ftruncate(self._descriptor, existing.length)
            if existing.needs_newline:
                _append(self._descriptor, b"\n", self.path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the file. The caller writes the footer, so an exception leaves the log unfinished."""
        self.close()

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def write(self, record: _AnyRecord) -> None:
        """Append one record, and return when it is on the disk. A footer closes the file."""
        if self._descriptor is None:
            raise LogError(
                f"The log {self.path} is not open; write inside its `with` block, and write nothing after a footer."
            )
        self._check_order(record)
        _append(self._descriptor, record.model_dump_json().encode() + b"\n", self.path)
        if isinstance(record, Footer):
            self.close()

    def _check_order(self, record: _AnyRecord) -> None:
        if isinstance(record, Header) == self._started:
            rule = "has a header already" if self._started else "has no header yet"
            raise LogError(f"The log {self.path} {rule}, so a {record.kind} cannot follow; write one header, first.")
        self._started = True
        if isinstance(record, EditRecord | ControlRecord):
            key = (record.kind, record.id)
            if key in self._ids:
                raise LogError(
                    f"The log {self.path} has a record of {record.kind} {record.id!r} already; an id must be unique, "
                    "so leave out what `existing` holds when resuming."
                )
            self._ids.add(key)

    def _read_existing(self) -> _CompleteLines | None:
        if not self.path.exists():
            return None
        data = log_bytes(self.path)
        log = _parse_begun(data, self.path)
        if log is None:
            return _CompleteLines(length=0, needs_newline=False)
        if log.footer is not None:
            raise LogError(
                f"The log {self.path} is finished ({count_noun(log.footer.records, 'record')}), and a finished log is never "
                "changed; give another output folder, or move this one."
            )
        if log.version != SCHEMA_VERSION:
            raise LogError(
                f"The log {self.path} has schema version {log.version}, and one log holds one version, which is {SCHEMA_VERSION} "
                "now; finish it with the editguard that began it, or give another output folder."
            )
        self.existing = log
        self._started = True
        self._ids = {(record.kind, record.id) for record in (*log.edits, *log.controls)}
        length = data.rfind(b"\n") + 1 if log.torn else len(data)
        return _CompleteLines(length=length, needs_newline=not log.torn and not data.endswith(b"\n"))


def log_bytes(path: Path) -> bytes:
    """Return the bytes of a log; raises `LogError` for a file that cannot be read or is larger than any log."""
    try:
        return bounded_bytes(path, LARGEST_LOG)
    except OSError as error:
        raise LogError(
            f"The log {path} cannot be read ({error.strerror}); give an audit's log (audit.jsonl), or the folder that holds it."
        ) from error


class _CompleteLines(NamedTuple):
    """The part of an unfinished log that is kept: its first `length` bytes."""

    length: int
    needs_newline: bool


_HEADER_START = b'{"kind":"header"'


def read_log(path: Path) -> Log:
    """Read the log at `path`.

    Raises `LogError` for a log that is missing, malformed, or of a newer editguard.
    """
    return parse_log(log_bytes(path), path)


def read_unfinished_log(path: Path) -> Log | None:
    """Read a log that may be unfinished; None for a missing log, and for one that was cut short in its header.

    Raises `LogError` as `read_log` does.
    """
    return _parse_begun(log_bytes(path), path) if path.exists() else None


def rewrite_log(path: Path, log: Log) -> None:
    """Replace the log at `path` by `log`, whole or not at all. Resuming uses it to drop records that are made anew."""
    last = [record for record in (log.model, log.footer) if record is not None]
    records = (log.header, *log.edits, *log.controls, *last)
    write_atomic(path, "".join(f"{record.model_dump_json()}\n" for record in records))


def _parse_begun(data: bytes, path: Path) -> Log | None:
    cut_header = data[: len(_HEADER_START)] == _HEADER_START[: len(data)] and not _is_json(data)
    return None if b"\n" not in data and cut_header else parse_log(data, path)


def parse_log(data: bytes, path: Path) -> Log:
    """Read the bytes of a log; `path` is for messages. Raises as `read_log` does."""
    # Bytes are split at \n alone: text may hold U+2028 and its like, which str.splitlines would break at.
    lines = data.split(b"\n")
    tail = lines.pop()
    torn = bool(tail) and not _is_json(tail)
    if tail and not torn:
        lines.append(tail)
    if not lines:
        raise LogError(f"The log {path} has no complete line, but must begin with a header; run the audit again.")
    first = _load_line(lines[0], path, 1)
    version = first.get("schema_version") if isinstance(first, dict) else None
    older = version if type(version) is int and 0 < version < SCHEMA_VERSION else None
    if older is not None:
        # Such a log says once, in its header, where all its edits are.
        lines = [_upgrade_line(line, first, path, number) for number, line in enumerate(lines, start=1)]
    records = [_parse_line(line, path, number) for number, line in enumerate(lines, start=1)]
    return _assemble(records, path, torn, version=SCHEMA_VERSION if older is None else older)


def _assemble(records: list[_AnyRecord], path: Path, torn: bool, *, version: int) -> Log:
    header, footer = records[0], None
    if not isinstance(header, Header):
        raise _malformed(path, 1, f"a log begins with a header, not with a record of kind {header.kind!r}")
    first_lines: dict[tuple[str, str], int] = {}
    for number, record in enumerate(records[1:], start=2):
        if footer is not None:
            raise _malformed(path, number, "nothing may follow the footer")
        if isinstance(record, Header):
            raise _malformed(path, number, "a log has one header")
        if isinstance(record, Footer):
            footer = record
            continue
        if isinstance(record, ModelRecord) and header.edited is None:
            raise _malformed(path, number, "a log has a record of a model only where its header names a checkpoint")
        name = "" if isinstance(record, ModelRecord) else record.id
        first = first_lines.setdefault((record.kind, name), number)
        if first != number:
            rule = f"the {record.kind} {name!r} is on line {first} already"
            raise _malformed(path, number, rule, DuplicateRecord)
    if footer is not None and torn:
        raise _malformed(path, len(records) + 1, "nothing may follow the footer")
    return Log(
        header,
        tuple(record for record in records if isinstance(record, EditRecord)),
        tuple(record for record in records if isinstance(record, ControlRecord)),
        footer,
        torn,
        version,
        next((record for record in records if isinstance(record, ModelRecord)), None),
    )


def _load_line(line: bytes, path: Path, number: int) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _malformed(path, number, f"each line is one JSON object, and this one is not ({error})") from error


def _upgrade_line(line: bytes, header: dict[str, Any], path: Path, number: int) -> bytes:
    """Return a line of an older log as this version has it; what is not as that log must be stays as it is."""
    plain = _load_line(line, path, number)
    if not isinstance(plain, dict):
        return line
    upgraded = upgrade_header(plain) if plain.get("kind") == "header" else upgrade_record(plain, header)
    try:
        return json.dumps(upgraded).encode()
    except RecursionError as error:
        raise _malformed(path, number, "it is nested too deeply to be read") from error


def _parse_line(line: bytes, path: Path, number: int) -> _AnyRecord:
    plain = _load_line(line, path, number)
    version = plain.get("schema_version", 0) if isinstance(plain, dict) else 0
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise LogError(
            f"{path}, line {number}: the log has schema version {version}, and this editguard reads up to "
            f"{SCHEMA_VERSION}; read it with the editguard that wrote it ({_writer(plain)}) or newer."
        )
    try:
        return RECORD.validate_json(line, strict=True)
    except ValidationError as error:
        infinite = any(fault["type"] == "finite_number" for fault in error.errors(include_url=False))
        raise _malformed(path, number, _first_fault(error), NotFiniteRecord if infinite else LogError) from error


def _writer(plain: dict[str, object]) -> str:
    return printable(str(plain.get("editguard_version")))


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_context=False)[0]
    where = printable(".".join(str(part) for part in fault["loc"])) or "record"
    value = repr(fault["input"])
    excerpt = value if len(value) <= 60 else f"{value[:57]}..."
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    # Pydantic's message may repeat text of the file.
    return f"{where} is {excerpt}: {printable(fault['msg'], 300)}{more}"


def _malformed(path: Path, number: int, rule: str, kind: type[LogError] = LogError) -> LogError:
    return kind(f"{path}, line {number}: {rule}; restore the log as it was written, or run the audit again.")


def _open_to_append(path: Path) -> int:
    """Open or create a file for its owner only; raises `OSError`, also for a symbolic link, which could leave the folder."""
    no_follow = getattr(os, "O_NOFOLLOW", 0)
    if not no_follow and path.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    # Without O_NONBLOCK a pipe would wait for a reader; without O_BINARY Windows would write other line ends.
    optional = no_follow | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | optional, _OWNER_ONLY)
    if hasattr(os, "fchmod"):
        os.fchmod(descriptor, _OWNER_ONLY)
    else:
        path.chmod(_OWNER_ONLY)
    return descriptor


def _append(descriptor: int, data: bytes, path: Path) -> None:
    start = os.fstat(descriptor).st_size
    try:
        written = os.write(descriptor, data)
        while written < len(data):
            written += os.write(descriptor, data[written:])
        os.fsync(descriptor)
    except OSError as error:
        os.ftruncate(descriptor, start)  # half a line would be glued to the next record
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> LogError:
    if error.errno == errno.ELOOP:
        return LogError(f"The log {path} is a symbolic link, and a log is not written through a link; remove the link.")
    return LogError(f"The log {path} cannot be written ({error.strerror}); give a folder that exists and has room.")


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True


def append_line(path: Path, line: str) -> None:
    """Append `line` to `path`, and return when it is on the disk. A missing file is created.

    A torn last line of a killed writer is cut off first. Raises `LogError` for a file that cannot be written.
    """
    try:
        descriptor = _open_to_append(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        data = log_bytes(path)
        tail = data[data.rfind(b"\n") + 1 :]
        if tail and not _is_json(tail):
            os.ftruncate(descriptor, len(data) - len(tail))
        _append(descriptor, (b"\n" if tail and _is_json(tail) else b"") + line.encode() + b"\n", path)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write `content` to `path` whole or not at all: text as UTF-8, line ends as given, for the owner only.

    Raises `OutputError` for a folder that does not exist, may not be written or has no room.
    """
    try:
        _write_whole(path, content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise OutputError(
            f"The file {path} cannot be written ({error.strerror or error}); give a folder that exists and has room."
        ) from error


def remove_unfinished_files(folder: Path, names: Iterable[str]) -> None:
    """Remove from `folder` what killed writers of the files `names` left half-written; no such writer may be running."""
    for name in names:
        for remnant in folder.glob(f".{glob.escape(name)}.*{_UNFINISHED}"):
            remnant.unlink(missing_ok=True)


def _write_whole(path: Path, content: bytes) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_UNFINISHED)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(_OWNER_ONLY)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise

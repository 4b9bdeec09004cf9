"""The store of baselines: numbered JSON files, ``NAME/0001.json``, ``NAME/0002.json``, and ``overrides.jsonl`` beside them.

Each number is given once. The file is written whole under another name and then linked to its own name, which fails where
that is taken. So two savers at once get two numbers, and nothing is written over. An override is a line that is appended
and synced. Out of scope: the meaning of a baseline or an override (`reports.gate`).
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import uuid
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from ...probes.wording import suggest
from ...reports.errors import BaselineError, LogError
from ...reports.gate.baseline import Baseline, Git, parse_baseline
from ...reports.gate.result import Override
from ...reports.log.bounded_read import LARGEST_BASELINE, LARGEST_TABLE, bounded_bytes
from ...reports.log.file import append_line, write_atomic

__all__ = ["StoredBaseline", "BaselineStore", "check_name", "git_output", "git_state", "sha256_of"]

_OVERRIDES = "overrides.jsonl"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NUMBERED = re.compile(r"(\d{4,9})\.json")
_GIT_SECONDS = 5.0


class StoredBaseline(NamedTuple):
    """A baseline as read; `name` is NAME@N or a path, and `sha256` is the hash of the file's bytes."""

    name: str
    sha256: str
    baseline: Baseline


class BaselineStore:
    """The baselines in one folder, which need not exist before the first one is saved."""

    def __init__(self, folder: Path) -> None:
        """Remember the folder; nothing is read yet."""
        self.folder = folder

    def list_numbers(self, name: str) -> list[int]:
        """Return the numbers that `name` has, ascending."""
        check_name(name)
        matches = (_NUMBERED.fullmatch(path.name) for path in _list_folder(self.folder / name))
        return sorted(int(match[1]) for match in matches if match)

    def list_names(self) -> list[str]:
        """Return the names that hold a baseline."""
        inside = (path.name for path in _list_folder(self.folder) if _NAME.fullmatch(path.name) and path.is_dir())
        return sorted(name for name in inside if self.list_numbers(name))

    def list_references(self, reference: str | None = None) -> list[str]:
        """Return ``NAME@N`` of every baseline, or of those that `reference` names; raises `BaselineError` where it names none."""
        if reference is None:
            return [f"{name}@{number}" for name in self.list_names() for number in self.list_numbers(name)]
        name, number = _split(reference)
        self.require(reference)
        return [f"{name}@{existing}" for existing in self.list_numbers(name) if number in (None, existing)]

    def save(self, name: str, baseline: Baseline) -> Path:
        """Write `baseline` under the next number of `name` and return the file; raises `BaselineError` and `OutputError`."""
        check_name(name)
        folder = self.folder / name
        if folder.is_symlink():
            raise BaselineError(f"The folder {str(folder)!r} is a link that may lead out of the store; remove it.")
        temporary = folder / f".{uuid.uuid4().hex}.tmp"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomic(temporary, baseline.to_json())  # raises `OutputError`, which says the same
            try:
                return self._link(temporary, name)
            finally:
                temporary.unlink()
        except OSError as error:
            raise BaselineError(
                f"The baseline {name!r} cannot be written to {str(folder)!r} ({error.strerror}); choose another --baselines."
            ) from error

    def _link(self, temporary: Path, name: str) -> Path:
        while True:
            number = max(self.list_numbers(name), default=0) + 1
            target = self.folder / name / f"{number:04d}.json"
            try:
                os.link(temporary, target)
            except FileExistsError:  # another saver was first
                continue
            return target

    def load(self, reference: str) -> StoredBaseline:
        """Read ``NAME`` (its latest), ``NAME@N`` or the path of a baseline's file; raises `BaselineError` and its relatives."""
        self.require(reference)
        if _is_path(reference):
            return _read(Path(reference), reference)
        name, number = _split(reference)
        chosen = number or self.list_numbers(name)[-1]
        return _read(self.folder / name / f"{chosen:04d}.json", f"{name}@{chosen}")

    def exists(self, reference: str) -> bool:
        """Return whether there is a file for `reference`, readable or not."""
        if _is_path(reference):
            return Path(reference).is_file()
        name, number = _split(reference)
        numbers = self.list_numbers(name)
        return bool(numbers) if number is None else number in numbers

    def require(self, reference: str) -> None:
        """Raise `BaselineError` where there is no file for `reference`; the message suggests another reference."""
        if self.exists(reference):
            return
        if _is_path(reference):
            raise BaselineError(f"There is no file {reference!r}; give NAME, NAME@3 or the path of a baseline's file.")
        raise BaselineError(f"There is no baseline {reference!r} in {str(self.folder)!r}; {self._hint(reference)}")

    def _hint(self, reference: str) -> str:
        name, _ = _split(reference)
        names = self.list_names()
        if name in names:
            numbers = self.list_numbers(name)
            return f"{name} has the numbers {numbers[0]} to {numbers[-1]}."
        if not names:
            return "save one with 'editguard baseline save LOG NAME', or name another folder with --baselines."
        suggestion = suggest(name, names)
        return f"there are {', '.join(names)}." if suggestion is None else f"did you mean {suggestion!r}?"

    def read_overrides(self) -> list[Override]:
        """Return all overrides, oldest first; raises `BaselineError` for a line that is not an override."""
        path = self.folder / _OVERRIDES
        if not path.exists():
            return []
        try:
            lines = bounded_bytes(path, LARGEST_TABLE).split(b"\n")
        except OSError as error:
            raise BaselineError(
                f"The overrides {str(path)!r} cannot be read ({error.strerror}); check the file."
            ) from error
        unfinished = lines.pop()  # a killed writer left no override
        if unfinished and _parse_override(unfinished):
            lines.append(unfinished)
        overrides = []
        for number, line in enumerate(lines, start=1):
            override = _parse_override(line)
            if override is None:
                raise BaselineError(
                    f"Line {number} of {str(path)!r} is not an override; restore the file as it was written."
                )
            overrides.append(override)
        return overrides

    def append_override(self, record: Override) -> None:
        """Append one override and return when it is on the disk; raises `BaselineError` where it cannot be written."""
        path = self.folder / _OVERRIDES
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            append_line(path, record.model_dump_json())
        except (OSError, LogError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            why = cause.strerror if isinstance(cause, OSError) else str(error).rstrip(".")
            raise BaselineError(
                f"The overrides {str(path)!r} cannot be written ({why}); choose another folder with --baselines."
            ) from error


def check_name(name: str) -> None:
    """Raise `BaselineError` for a name that a baseline may not have."""
    if not _NAME.fullmatch(name):
        raise BaselineError(
            f"The baseline name {name!r} is not valid; use up to 64 letters, digits, '.', '_' and '-', a letter or digit first."
        )


def sha256_of(data: bytes) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def git_state(folder: Path | None = None) -> Git | None:
    """Return commit and dirty flag of the working directory; None outside git, without git, or where git takes too long.

    Dirty means that tracked files differ. Files that git does not track, such as an audit's own, do not count.
    """
    commit = git_output(folder, "rev-parse", "HEAD")
    status = git_output(folder, "status", "--porcelain", "--untracked-files=no")
    return None if commit is None or status is None else Git(commit=commit, dirty=bool(status))


def git_output(folder: Path | None, *arguments: str) -> str | None:
    """Return the output of git in `folder`; None where git fails, is not installed or takes too long."""
    try:
        process = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=_GIT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return process.stdout.strip() if process.returncode == 0 else None


def _is_path(reference: str) -> bool:
    """Return whether `reference` is a path: it names a folder, or an existing JSON file."""
    return len(Path(reference).parts) > 1 or (reference.endswith(".json") and Path(reference).is_file())


def _split(reference: str) -> tuple[str, int | None]:
    """Return name and number of ``NAME`` or ``NAME@N``; raises `BaselineError` for any other text."""
    name, at, given = reference.partition("@")
    check_name(name)
    if at and not re.fullmatch("0*[1-9][0-9]{0,8}", given, re.ASCII):
        raise BaselineError(f"The baseline {reference!r} has no number after the @; write NAME or NAME@3.")
    return name, int(given) if at else None


def _list_folder(folder: Path) -> list[Path]:
    return [*folder.iterdir()] if folder.is_dir() else []


def _read(path: Path, name: str) -> StoredBaseline:
    try:
        data = bounded_bytes(path, LARGEST_BASELINE)
    except OSError as error:
        raise BaselineError(f"The baseline {name} cannot be read ({error.strerror}); check {str(path)!r}.") from error
    return StoredBaseline(name, sha256_of(data), parse_baseline(data, name))


def _parse_override(line: bytes) -> Override | None:
    try:
        return Override.model_validate_json(line, strict=True)
    except ValidationError:
        return None

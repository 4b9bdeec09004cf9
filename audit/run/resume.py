"""Resuming an audit that was killed: the log's records stay, and the others are made as the killed run would have made them.

Only the run that began a log continues it: same requests, model, policy, statistics and versions. Anything else would put
figures of two kinds into one log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...probes.errors import InputError
from ...reports.log.file import Log, read_unfinished_log
from ...reports.text import join_parts, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from pydantic import JsonValue

    from ...probes.requests.loader import LoadedRequests
    from ...probes.requests.request import EditRequest
    from ...reports.log.schema import Header

__all__ = ["check_resumed_run", "check_resumable"]

_NOT_COMPARED = ("created", "arguments", "source")
"""Fields that may differ: when and from where. Of the arguments only the editor decides about a record."""

_READABLE_NAMES = {"source_sha256": "content of the file of edits", "perplexity_corpus_sha256": "perplexity corpus"}
"""Names for fields whose values mean nothing to a reader."""


def check_resumed_run(begun: Log, head: Header, requests: Sequence[EditRequest], path: Path) -> None:
    """Raise `InputError` unless the run of `head` and `requests` is the one that began the log at `path`."""
    _check_same_run(_compared_fields(begun.header), _compared_fields(head), path)
    _check_same_order([record.id for record in begun.edits], [request.id for request in requests], path)
    _check_same_order([record.id for record in begun.controls], head.controls, path)


def check_resumable(path: Path, loaded: LoadedRequests, **fields: JsonValue) -> None:
    """Raise `InputError` where another run began the log at `path`, judged by the header's `fields` so far.

    That takes no time. `check_resumed_run` compares the other fields when the model is ready.
    """
    begun = read_unfinished_log(path)
    if begun is not None:
        fields |= {"source_sha256": loaded.sha256, "requests": len(loaded.requests)}
        recorded = {name: value for name, value in _compared_fields(begun.header).items() if name in fields}
        _check_same_run(recorded, fields, path)


def _check_same_run(begun: Mapping[str, JsonValue], now: Mapping[str, JsonValue], path: Path) -> None:
    differences = [_READABLE_NAMES.get(name.partition(" ")[0], name) for name in _differences(begun, now)]
    if differences:
        raise InputError(
            f"The log {str(path)!r} was begun with another {join_parts(differences)}, and one log holds one run; choose "
            "another --out, or add --overwrite instead of --resume."
        )


def _check_same_order(recorded_ids: Sequence[str], ids: Sequence[str], path: Path) -> None:
    for index, (recorded_id, this_id) in enumerate(zip(recorded_ids, ids, strict=False)):
        if recorded_id != this_id:
            raise InputError(
                f"Record {index + 1} of the log {str(path)!r} is of '{printable(recorded_id)}', and this run has "
                f"'{printable(this_id)}' there; choose another --out, or add --overwrite instead of --resume."
            )


def _compared_fields(head: Header) -> dict[str, JsonValue]:
    fields = head.model_dump(mode="json", exclude=set(_NOT_COMPARED))
    return {**fields, "editor": head.arguments.get("editor")}


def _differences(begun: Mapping[str, JsonValue], now: Mapping[str, JsonValue], within: str = "") -> Iterator[str]:
    """Yield name and both values of each difference, the innermost that has a name."""
    for name in {**now, **begun}:
        old, new = begun.get(name), now.get(name)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{within}{name}.")
        elif isinstance(old, list | dict) or isinstance(new, list | dict):
            yield printable(f"{within}{name}")
        else:
            yield f"{printable(f'{within}{name}')} ({_short(old)}, now {_short(new)})"


def _short(value: JsonValue) -> str:
    text = str(value)
    return printable(text if len(text) <= 40 else f"{text[:12]}…")

"""Go on with an audit that was killed: what its log holds stays, and the rest is made as the killed run would have made it.

A log is gone on with only by the run that began it: same requests, model, policy, statistics and versions. Anything else
would put figures of two kinds into one log.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue

from ...probes.errors import InputError
from ...probes.requests.loader import LoadedRequests
from ...probes.requests.request import EditRequest
from ...reports.log.file import Log, read_unfinished_log
from ...reports.log.schema import Header
from ...reports.text import join_parts, printable

__all__ = ["check_resumed_run", "check_resumable"]

_FREE = ("created", "arguments", "source")
"""What may differ: when and where from. Of the arguments only the editor decides about a record."""


_NAMES = {"source_sha256": "content of the file of edits", "perplexity_corpus_sha256": "perplexity corpus"}
"""Fields whose values say nothing to a reader."""


def check_resumed_run(begun: Log, head: Header, requests: Sequence[EditRequest], path: Path) -> None:
    """Raise `InputError` unless the run of `head` and `requests` is the one that began the log at `path`."""
    _same_run(_compared(begun.header), _compared(head), path)
    _same_order([one.id for one in begun.edits], [one.id for one in requests], path)
    _same_order([one.id for one in begun.controls], head.controls, path)


def check_resumable(path: Path, loaded: LoadedRequests, **known: JsonValue) -> None:
    """Raise `InputError` where the log at `path` was begun by another run by what is `known` of its header so far.

    That takes no time, and `check_resumed_run` asks for all the rest when the model is ready.
    """
    begun = read_unfinished_log(path)
    if begun is not None:
        known |= {"source_sha256": loaded.sha256, "requests": len(loaded.requests)}
        _same_run({name: value for name, value in _compared(begun.header).items() if name in known}, known, path)


def _same_run(begun: Mapping[str, JsonValue], now: Mapping[str, JsonValue], path: Path) -> None:
    different = [_NAMES.get(name.partition(" ")[0], name) for name in _differences(begun, now)]
    if different:
        raise InputError(
            f"The log {str(path)!r} was begun with another {join_parts(different)}, and one log holds one run; choose another --out, "
            "or add --overwrite instead of --resume."
        )


def _same_order(done: Sequence[str], asked: Sequence[str], path: Path) -> None:
    for index, (found, wanted) in enumerate(zip(done, asked, strict=False)):
        if found != wanted:
            raise InputError(
                f"Record {index + 1} of the log {str(path)!r} is of '{printable(found)}', and this run has '{printable(wanted)}' "
                "there; choose another --out, or add --overwrite instead of --resume."
            )


def _compared(head: Header) -> dict[str, JsonValue]:
    fields = head.model_dump(mode="json", exclude=set(_FREE))
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

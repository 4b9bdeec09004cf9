"""Reading a rendered page back, and filling a log with text that wants to be markup."""

from __future__ import annotations

import json
import typing
from dataclasses import replace
from enum import Enum
from html.parser import HTMLParser
from typing import Any

from editguard.reports.log.file import Log
from pydantic import BaseModel

PAYLOAD = (
    "</script></style></title><script>document.documentElement.dataset.pwned=1</script>"
    "<img src=x onerror='document.documentElement.dataset.pwned=2'>"
    '" onmouseover="document.documentElement.dataset.pwned=3" \u202e{{ 7*7 }} <a href="javascript:alert(1)">x</a> &lt;'
)


class Page(HTMLParser):
    """Tags with their attributes' names, addresses that are referred to, text, and the content of scripts."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.shapes: set[tuple[str, tuple[str, ...]]] = set()
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self._text: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.policy = ""
        self._inside: str | None = None
        self.feed(source)
        self.close()
        self.text = "".join(self._text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.shapes.add((tag, tuple(sorted(named))))
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action", "srcset", "data")]
        self.links += [value[1:] for name, value in attrs if name == "href" and value and value.startswith("#")]
        if named.get("id"):
            self.ids.append(named["id"] or "")
        if named.get("http-equiv") == "Content-Security-Policy":
            self.policy = named["content"] or ""
        if tag in ("script", "style"):
            self._inside = tag
            if tag == "script":
                self.scripts.append((named, ""))

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = None
        if tag not in ("a", "b", "i", "span", "strong"):
            self._text.append(" ")

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            attributes, content = self.scripts[-1]
            self.scripts[-1] = (attributes, content + data)
        elif self._inside is None:
            self._text.append(data)

    def figures(self) -> dict[str, Any]:
        return {str(a["data-for"]): json.loads(content) for a, content in self.scripts if "data-for" in a}


def poisoned(log: Log, text: str = PAYLOAD) -> Log:
    """Return `log` with `text` in every free text field; ids stay apart by a number."""
    edits = tuple(_fill(edit, text, {"id": f"{text}{n}"}) for n, edit in enumerate(log.edits))
    controls = tuple(_fill(control, text, {"id": f"{text}{n}"}) for n, control in enumerate(log.controls))
    keep = {"policy": log.header.policy | {text: text}, "controls": [control.id for control in controls]}
    return replace(log, header=_fill(log.header, text, keep), edits=edits, controls=controls)


def _fill(value: Any, text: str, keep: dict[str, Any]) -> Any:
    if isinstance(value, BaseModel):
        fields = {
            name: text
            if _is_missing_text(getattr(value, name), field.annotation)
            else _fill(getattr(value, name), text, {})
            for name, field in type(value).model_fields.items()
            if name not in keep and name not in ("check", "metric", "condition") and not _is_closed(field.annotation)
        }
        return value.model_copy(update=fields | keep)
    if isinstance(value, str):
        return text
    if isinstance(value, dict):
        return {f"{text}{n}" if isinstance(v, str) else k: _fill(v, text, {}) for n, (k, v) in enumerate(value.items())}
    if isinstance(value, list):
        return [_fill(one, text, {}) for one in value]
    return value


def _is_missing_text(value: Any, annotation: Any) -> bool:
    return value is None and str in typing.get_args(annotation)


def _is_closed(annotation: Any) -> bool:
    closed = typing.get_origin(annotation) is typing.Literal or (
        isinstance(annotation, type) and issubclass(annotation, Enum)
    )
    return closed or any(map(_is_closed, typing.get_args(annotation)))

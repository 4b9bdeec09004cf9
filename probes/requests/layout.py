"""The class that every layout extends, and the registry of all layouts.

A layout is the set of field names that a data set of edits uses for one record.
Each layout of editguard is one file in `layouts`, found because it stands there.
Another package adds one with an entry point in the group ``editguard.layouts``.
The types that its fields may have are in `layout_fields`.
Out of scope: formats of files (`parsers`), and the words for a record's faults (`record_reader`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from ..registry import Registry
from .layout_fields import Id, normalize_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .raw_record import Fault
    from .request import EditRequest

__all__ = ["LAYOUTS", "Layout", "ReadingOptions", "RecordPart", "SubjectPlace", "UnusedKey", "layouts_in_order"]


class ReadingOptions(NamedTuple):
    """The user's choices where a layout can be read in two ways."""

    zsre_target: Literal["alt", "answers"] = "alt"
    """The field of a zsRE record that holds the new target."""


class SubjectPlace(NamedTuple):
    """Where in a record one subject and its prompt stand: keys and indices."""

    subject: tuple[str | int, ...] = ("subject",)
    prompt: tuple[str | int, ...] = ("prompt",)


class UnusedKey(NamedTuple):
    """A key of a record that no request and no check uses."""

    key: str
    reason: str


class RecordPart(BaseModel):
    """An object inside a record.

    It is strict: a number does not pass for a text, and an unknown key is an error.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Layout(RecordPart):
    """One layout of a record."""

    name: ClassVar[str]
    """Its name in the registry, for example ``knowedit``."""
    title: ClassVar[str]
    """Its name in messages, for example KnowEdit."""
    summary: ClassVar[str]
    """One line about it: who publishes it, and what it holds."""
    marker_keys: ClassVar[frozenset[str]] = frozenset()
    """Keys that distinguish it from editguard's own layout."""
    order: ClassVar[int] = 50
    """Its turn: a layout with a lower number is tried before one with a higher number. editguard's own has 100."""
    unused: ClassVar[tuple[UnusedKey, ...]] = ()
    """Keys that no request uses, each with the reason."""

    id: Id | None = Field(default=None, validation_alias=AliasChoices("id", "case_id"))

    @classmethod
    def claims(cls, fields: Mapping[str, object]) -> bool:
        """Return whether a record with `fields` has this layout."""
        return bool(cls.marker_keys & fields.keys())

    @classmethod
    def explain_refusal(cls, fields: Mapping[str, object]) -> Fault | None:
        """Return why no record of this layout can be read; None where one can."""
        return None

    @classmethod
    def read_id(cls, fields: Mapping[str, object]) -> str:
        """Return the id of a record, even where its other fields are wrong; empty where it has none."""
        written = normalize_id(fields.get("id", fields.get("case_id")))
        return written if isinstance(written, str) else ""

    @classmethod
    def locate_subjects(cls, fields: Mapping[str, object]) -> tuple[SubjectPlace, ...]:
        """Return where the subjects and prompts of a record stand."""
        return (SubjectPlace(),)

    def build_requests(self, index: str, options: ReadingOptions) -> tuple[EditRequest, ...]:
        """Return the requests of this record; `index` is the id of a record that has none."""
        raise NotImplementedError

    def find_faults(self) -> tuple[Fault, ...]:
        """Return the contradictions between fields that are each correct."""
        return ()

    def find_unused_keys(self, options: ReadingOptions) -> tuple[UnusedKey, ...]:
        """Return the keys of this record that no request uses."""
        return tuple(unused for unused in self.unused if getattr(self, unused.key))


LAYOUTS: Registry[Layout] = Registry("layouts", f"{__package__}.layouts", base=Layout)
"""All layouts by name."""


def layouts_in_order() -> list[type[Layout]]:
    """Return all layouts in the order in which they are tried; editguard's own takes every record and is the last."""
    return sorted((layout for _, layout in LAYOUTS), key=lambda layout: (layout.order, layout.name))

"""Layouts are found by the rule of plug-ins: one file each in the folder, and entry points of other packages."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint

import pytest
from editguard.probes import registry
from editguard.probes.errors import EditguardError, InputError
from editguard.probes.registry import Registry
from editguard.probes.requests import layout as layout_module
from editguard.probes.requests.layout import LAYOUTS, Layout, ReadingOptions, layouts_in_order
from editguard.probes.requests.layout_fields import Stripped, Text
from editguard.probes.requests.record_reader import read_record
from editguard.probes.requests.request import EditRequest

from ...helpers.layout_records import FLAT, NESTED, OWN, ZSRE


class Triples(Layout):
    """A layout of another package: the fact as three texts."""

    name = "triples"
    title = "Triples"
    summary = "Facts as three texts."
    marker_keys = frozenset({"triple"})

    triple: tuple[Stripped, Text, Stripped]

    @classmethod
    def claims(cls, fields: Mapping[str, object]) -> bool:
        """Return whether the record has a triple."""
        return isinstance(fields.get("triple"), tuple)

    def build_requests(self, index: str, options: ReadingOptions) -> tuple[EditRequest, ...]:
        """Return the request of the triple."""
        subject, relation, target = self.triple
        return (EditRequest(self.id or index, subject, f"{subject} {relation}", target),)


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> None:
    """Install `Triples` as another package does, in a registry that nothing was loaded into."""
    entry = EntryPoint("triples", f"{__name__}:Triples", "editguard.layouts")
    monkeypatch.setattr(registry, "entry_points", lambda *, group: [entry] if group == "editguard.layouts" else [])
    own: Registry[Layout] = Registry("layouts", "editguard.probes.requests.layouts", base=Layout)
    monkeypatch.setattr(layout_module, "LAYOUTS", own)


def test_layouts_in_the_folder_are_registered_with_name_and_summary() -> None:
    assert LAYOUTS.names() == [
        "counterfact-flat",
        "counterfact-nested",
        "knowedit",
        "mquake",
        "own",
        "qaedit",
        "ripple-edits",
        "zsre",
    ]
    assert len({layout.title for _, layout in LAYOUTS}) == 8
    for name, layout in LAYOUTS:
        assert layout.name == name
        assert layout.summary.endswith(".")
        assert layout.summary.isprintable()
        assert len(layout.summary) <= 100


def test_layouts_in_order_editguards_own_is_the_last() -> None:
    layouts = layouts_in_order()
    assert [layout.name for layout in layouts][-1] == "own"
    assert [layout.order for layout in layouts] == sorted(layout.order for layout in layouts)


@pytest.mark.parametrize(
    ("fields", "name"), [(OWN, "own"), (FLAT, "counterfact-flat"), (NESTED, "counterfact-nested"), (ZSRE, "zsre")]
)
def test_layouts_in_order_the_first_that_claims_is_its_own(fields: dict[str, object], name: str) -> None:
    assert next(layout for layout in layouts_in_order() if layout.claims(fields)).name == name


@pytest.mark.usefixtures("foreign")
def test_layout_of_another_package_reads_its_records() -> None:
    (request,) = read_record({"triple": ("Oslo", "lies in", "Spain")}, 3).requests
    assert request == EditRequest("3", "Oslo", "Oslo lies in", "Spain")
    assert read_record(OWN, 1).faults == ()


def test_layout_without_a_class_in_its_module_fails_loudly() -> None:
    # These tests' folder stands for a folder of layouts with a module that holds none.
    empty: Registry[Layout] = Registry("layouts", "editguard.probes.forward", base=Layout)
    with pytest.raises(EditguardError, match="holds no class with a name"):
        empty.load()


def test_layout_that_does_not_extend_layout_is_refused() -> None:
    with pytest.raises(InputError, match="does not extend"):
        LAYOUTS.register("other")(EditRequest)  # type: ignore[arg-type]

"""RippleEdits (arXiv 2307.12976): recognised and refused, because its records do not name their subject."""

from __future__ import annotations

from collections.abc import Mapping

from ..layout import Layout
from ..raw_record import Fault, describe

__all__ = ["RippleEdits"]


class RippleEdits(Layout):
    """edit, with a whole sentence and the Wikidata ids of subject and target."""

    name = "ripple-edits"
    title = "RippleEdits"
    summary = "RippleEdits: recognised and refused, because its records do not name their subject."
    marker_keys = frozenset({"edit", "example_type"})
    order = 5

    @classmethod
    def claims(cls, fields: Mapping[str, object]) -> bool:
        """Return whether the edit is an object with the subject's Wikidata id."""
        edit = fields.get("edit")
        return isinstance(edit, Mapping) and bool({"subject_id", "original_fact"} & edit.keys())

    @classmethod
    def explain_refusal(cls, fields: Mapping[str, object]) -> Fault | None:
        """Return the fault that names what is missing."""
        edit = fields["edit"]
        subject = edit.get("subject_id") if isinstance(edit, Mapping) else None
        return Fault(
            "edit",
            f"is in the layout of RippleEdits, which holds the subject's Wikidata id ({describe(subject)}) and not its name; the "
            "name is needed, so add it and write subject, prompt and target_new as in editguard's own layout.",
        )

"""The editor of rewritten edits that act with no prefix: two sites, each where the subject has a key of its own.

After a prefix, a first-token subject has a key of its own at the main site, and `prefixed` writes the fact there. With no
prefix it has one at an early layer only, and `StartEditor` writes there what is lacking. Its value is sought with the first
change in the model.

Source: first tokens have keys of their own in the first blocks alone (arXiv 2603.06591); two sites for one fact: IFMET (arXiv
2410.06331).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ....probes.errors import StatisticsError
from ....probes.keys.first_token_keys import find_early_layer
from ....probes.keys.prefixes import list_special_tokens
from ....probes.model.site import find_site
from ..base import Alternative, Editor, Stage
from ..local_editor import Hold
from ..start_editor import StartEditor
from .prefixed import Prefixed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ....probes.keys.prefixes import ContextPrefixes
    from ....probes.keys.subject_keys import SubjectKeys
    from ..base import EditContext, Insertion

__all__ = ["Everywhere"]

_MOST_STARTS = 4


class Everywhere(Editor):
    """`prefixed` at the main site, and no prefix at the last layer where first tokens still differ."""

    name = "everywhere"
    question = (
        "two sites: `prefixed` at the main one, and no prefix where first tokens have keys of their own: consistent"
    )
    rewrites = True
    needs_surroundings = True
    next_try: ClassVar[str | None] = "everywhere-firm"
    hold = Hold()

    def contexts(self, prefixes: ContextPrefixes) -> Sequence[str]:
        """Return the contexts of the main site."""
        return Prefixed().contexts(prefixes)

    def insertion(self, keys: SubjectKeys) -> Insertion:
        """Return the insertion at the main site."""
        return Prefixed().insertion(keys)

    def stages(self, context: EditContext) -> Sequence[Stage]:
        """Return the main site, and then the early one; `find_alternative` has said that there is one."""
        early = _find_early_layer(context)
        assert early is not None
        starts = list_special_tokens(context.lm)[:_MOST_STARTS]
        main = Prefixed()
        main.hold = self.hold
        return (Stage(context.site.layer, main), Stage(early, StartEditor(starts, self.hold)))

    def find_alternative(self, context: EditContext) -> Alternative | None:
        """Return `prefixed` where no layer under the main site has keys of its own for first tokens, or no statistics."""
        early = _find_early_layer(context)
        if early is None:
            reason = "first tokens have the same key from layer 0 on"
        elif early >= context.site.layer:
            reason = f"layer {context.site.layer} is edited, where first tokens still have keys of their own"
        else:
            try:
                context.at_layer(early)
            except StatisticsError:
                reason = f"the key statistics given are those of layer {context.site.layer} alone, and layer {early} needs some"
            else:
                return None
        return Alternative(
            Prefixed.name, f"no edit is made at an early layer, so it acts after a prefix only: {reason}"
        )


def _find_early_layer(context: EditContext) -> int | None:
    """Return the last layer, from 0 on, at which first tokens have keys of their own; measured once for a model."""
    if "early layer" not in context.memo:
        site, lm = context.site, context.lm
        pattern = site.path.replace(f"{site.blocks_path}.{site.layer}.", f"{site.blocks_path}.{{layer}}.", 1)
        sites = (find_site(lm.model, layer, pattern) for layer in range(len(site.blocks)))
        context.memo["early layer"] = find_early_layer(lm, sites)
    layer: int | None = context.memo["early layer"]
    return layer

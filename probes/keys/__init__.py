"""Keys of subjects, key statistics over a corpus, and the prefixes under which keys are taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import lazy_names

if TYPE_CHECKING:
    from .subject_keys import Activations as Activations
    from .subject_keys import SubjectKeys as SubjectKeys
    from .subject_keys import activations as activations
    from .subject_keys import all_subject_keys as all_subject_keys
    from .subject_keys import locate as locate
    from .subject_keys import plain_activations as plain_activations
    from .subject_keys import positions as positions
    from .subject_keys import subject_keys as subject_keys
    from .subject_keys import what_is_read as what_is_read

__all__, __getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Activations": ".subject_keys",
        "SubjectKeys": ".subject_keys",
        "activations": ".subject_keys",
        "all_subject_keys": ".subject_keys",
        "locate": ".subject_keys",
        "plain_activations": ".subject_keys",
        "positions": ".subject_keys",
        "subject_keys": ".subject_keys",
        "what_is_read": ".subject_keys",
    },
)

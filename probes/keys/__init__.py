"""Keys of subjects, key statistics over a corpus, and the prefixes under which keys are taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import lazy_names

if TYPE_CHECKING:
    from .subject_keys import Activations as Activations
    from .subject_keys import SubjectKeys as SubjectKeys
    from .subject_keys import compute_activations as compute_activations
    from .subject_keys import compute_all_subject_keys as compute_all_subject_keys
    from .subject_keys import compute_plain_activations as compute_plain_activations
    from .subject_keys import compute_subject_keys as compute_subject_keys
    from .subject_keys import locate as locate
    from .subject_keys import locate_after_prefixes as locate_after_prefixes
    from .subject_keys import trim_rows as trim_rows

__all__, __getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Activations": ".subject_keys",
        "SubjectKeys": ".subject_keys",
        "compute_activations": ".subject_keys",
        "compute_all_subject_keys": ".subject_keys",
        "compute_subject_keys": ".subject_keys",
        "locate": ".subject_keys",
        "compute_plain_activations": ".subject_keys",
        "locate_after_prefixes": ".subject_keys",
        "trim_rows": ".subject_keys",
    },
)

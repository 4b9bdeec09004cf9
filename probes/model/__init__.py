"""Access to a model: its weights and tokenizer, its architecture, its edit site, its fingerprint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import lazy_names

if TYPE_CHECKING:
    from .language_model import DTYPES as DTYPES
    from .language_model import LanguageModel as LanguageModel
    from .language_model import load_model as load_model

__all__, __getattr__, __dir__ = lazy_names(
    __name__,
    {
        "DTYPES": ".language_model",
        "LanguageModel": ".language_model",
        "load_model": ".language_model",
    },
)

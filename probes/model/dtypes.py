"""The dtypes that a model may be loaded in: one list for the loader, the command line and the pytest plugin."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["DTYPES", "Dtype"]


class Dtype(StrEnum):
    """The dtypes that a model may be loaded in; ``auto`` is that of the checkpoint."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


DTYPES = tuple(dtype.value for dtype in Dtype)

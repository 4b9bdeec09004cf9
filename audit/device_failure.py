"""The failure of the device that an audit computes on: it ends the audit, and the edit at hand is not blamed."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..probes.errors import DeviceFailed
from ..probes.wording import first_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

__all__ = ["trusted_device"]


@contextmanager
def trusted_device(device: torch.device | str, what: str, then: str) -> Iterator[None]:
    """Raise `DeviceFailed` where the device itself fails; the message says that `what` ended, and `then` says what to do next."""
    import torch

    try:
        yield
    except torch.AcceleratorError as error:
        raise DeviceFailed(
            f"The device {device} failed ({first_line(error)}), and {what} ended there; see to the device, then {then}."
        ) from error

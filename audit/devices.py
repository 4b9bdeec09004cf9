"""A device that fails ends what is running: nothing that it computes afterwards can be trusted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..probes.errors import DeviceFailed
from ..probes.messages import first_line

__all__ = ["trusted_device"]


@contextmanager
def trusted_device(device: torch.device | str, what: str, then: str) -> Iterator[None]:
    """End `what` with `DeviceFailed` where the device itself fails; `then` says what to do behind "see to the device, then"."""
    try:
        yield
    except torch.AcceleratorError as error:
        raise DeviceFailed(
            f"The device {device} failed ({first_line(error)}), and {what} ended there; see to the device, then {then}."
        ) from error

"""The exceptions of editguard, and the exit code that belongs to each.

::

    EditguardError                 3   our own fault: a broken promise of the program itself
    ├── DeviceFailed               2   the GPU, not the program: what it computes can no longer be trusted
    ├── InputError                 2   what the user gave is wrong: value, rule and way out
    │   ├── RequestError           2   a file of edits, or one edit in it
    │   ├── ModelError             2   a model, a tokenizer or an edit site
    │   │   └── OutOfMemory        2   one text alone does not fit into the device's memory
    │   ├── StatisticsError        2   key statistics that are missing, foreign or malformed
    │   └── PolicyError            2   a policy file or table
    ├── EditRefused                1   the guard would not make this edit
    │   └── NotFinite              1   NaN or Inf where a number is needed: never a pass
    └── ReportError                2   a log, an output or a baseline; continued in `reports.errors`

Exit codes of the command line. 0: pass. 1: the audit, an edit or the gate did not pass. 2: the input or usage is wrong, or
the device failed. 3: our own fault.
"""

from __future__ import annotations

__all__ = [
    "DeviceFailed",
    "EditRefused",
    "EditguardError",
    "InputError",
    "ModelError",
    "NotFinite",
    "OutOfMemory",
    "PolicyError",
    "RequestError",
    "StatisticsError",
]


class EditguardError(Exception):
    """Base of every error that editguard raises on purpose."""

    exit_code = 3


class DeviceFailed(EditguardError):
    """The accelerator reported a failure of its own, so that nothing that it computes can be trusted."""

    exit_code = 2


class InputError(EditguardError):
    """The user's input cannot be used; the message gives the value, the rule and the way out."""

    exit_code = 2


class RequestError(InputError):
    """A file of edits, or one requested edit in it, is wrong."""


class ModelError(InputError):
    """A model, its tokenizer or its edit site cannot be used."""


class OutOfMemory(ModelError):
    """One text alone does not fit into the memory of the model's device."""


class StatisticsError(InputError):
    """Key statistics are missing, belong to another model or are malformed."""


class PolicyError(InputError):
    """A policy file or table is wrong."""


class EditRefused(EditguardError):
    """The guard refused an edit; the weights are as they were."""

    exit_code = 1


class NotFinite(EditRefused):
    """A quantity that decides about an edit is NaN or infinite; unmeasured means refused."""

"""Safety audit and regression tests for edits of facts inside language models.

The names of this module are the stable Python API. Each loads its module when it is first used: ``import editguard`` loads
neither torch nor transformers. All other modules are internal and may change between releases.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._lazy import lazy_names

if TYPE_CHECKING:
    from .audit.checkpoint.audit import audit_checkpoint as audit_checkpoint
    from .audit.delta.apply import apply_delta as apply_delta
    from .audit.delta.export import export_edits as export_edits
    from .audit.delta.file import read_delta as read_delta
    from .audit.edit_result import Assessment as Assessment
    from .audit.edit_result import EditResult as EditResult
    from .audit.editors.base import Editor as Editor
    from .audit.editors.update import WeightUpdate as WeightUpdate
    from .audit.guard import GuardedEditor as GuardedEditor
    from .audit.policy import Decision as Decision
    from .audit.policy import Policy as Policy
    from .audit.policy import load_policy as load_policy
    from .audit.sequence import EditSequence as EditSequence
    from .audit.serving import ServedPipeline as ServedPipeline
    from .audit.serving import load_provenance as load_provenance
    from .audit.serving import serve_inputs as serve_inputs
    from .audit.serving import serve_prompt as serve_prompt
    from .probes.card import Card as Card
    from .probes.errors import EditguardError as EditguardError
    from .probes.errors import InputError as InputError
    from .probes.model.language_model import LanguageModel as LanguageModel
    from .probes.model.language_model import load_model as load_model
    from .probes.probe import Finding as Finding
    from .probes.probe import Probe as Probe
    from .probes.probe import ProbeInput as ProbeInput
    from .probes.requests.loader import load_requests as load_requests
    from .probes.requests.request import EditRequest as EditRequest
    from .reports.html.report_page import render_html as render_html
    from .reports.log.file import Log as Log
    from .reports.log.file import read_log as read_log
    from .reports.verdict.digest import summarise as summarise
    from .reports.verdict.summary import Summary as Summary
    from .suites.check import Check as Check
    from .suites.check import Measurement as Measurement

__version__ = "0.1.0"

__all__, __getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Assessment": ".audit.edit_result",
        "Card": ".probes.card",
        "Check": ".suites.check",
        "Decision": ".audit.policy",
        "EditRequest": ".probes.requests.request",
        "EditResult": ".audit.edit_result",
        "EditSequence": ".audit.sequence",
        "EditguardError": ".probes.errors",
        "Editor": ".audit.editors.base",
        "Finding": ".probes.probe",
        "GuardedEditor": ".audit.guard",
        "InputError": ".probes.errors",
        "LanguageModel": ".probes.model.language_model",
        "Log": ".reports.log.file",
        "Measurement": ".suites.check",
        "Policy": ".audit.policy",
        "Probe": ".probes.probe",
        "ProbeInput": ".probes.probe",
        "ServedPipeline": ".audit.serving",
        "Summary": ".reports.verdict.summary",
        "WeightUpdate": ".audit.editors.update",
        "apply_delta": ".audit.delta.apply",
        "audit_checkpoint": ".audit.checkpoint.audit",
        "export_edits": ".audit.delta.export",
        "load_model": ".probes.model.language_model",
        "load_policy": ".audit.policy",
        "load_provenance": ".audit.serving",
        "load_requests": ".probes.requests.loader",
        "read_delta": ".audit.delta.file",
        "read_log": ".reports.log.file",
        "render_html": ".reports.html.report_page",
        "serve_inputs": ".audit.serving",
        "serve_prompt": ".audit.serving",
        "summarise": ".reports.verdict.digest",
    },
)

"""A fault of the measurement has a source of its own in log, report and SARIF, and old logs are read as before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from editguard.audit.folders.file_names import LOG, REPORT, SARIF
from editguard.audit.run.audit import run_audit
from editguard.audit.setup import Setup
from editguard.probes.errors import NotFinite
from editguard.probes.evidence import Evidence, EvidenceMeter
from editguard.probes.measurement_faults import MEASUREMENT_CARD
from editguard.probes.probe import MEASUREMENT_SOURCE
from editguard.probes.requests.request import EditRequest
from editguard.reports.log import header
from editguard.reports.log.file import read_log

from ...helpers.tiny_audits import load_edits
from ...helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST

pytestmark = pytest.mark.tiny


@pytest.fixture
def folder(setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an audit in which the keys of one request are not finite."""
    measure_all = EvidenceMeter.measure_all

    def with_fault(
        self: EvidenceMeter, requests: list[EditRequest], *, screen: bool = False
    ) -> list[Evidence | Exception]:
        evidence = measure_all(self, requests, screen=screen)
        fault = NotFinite("The keys of the subject hold NaN.")
        return [
            fault if request.id == MID_PROMPT_REQUEST.id else measured
            for request, measured in zip(requests, evidence, strict=True)
        ]

    monkeypatch.setattr(EvidenceMeter, "measure_all", with_fault)
    run_audit(setup, load_edits(FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST), tmp_path)
    return tmp_path


def test_measurement_fault_is_logged_under_its_own_source(folder: Path) -> None:
    log = read_log(folder / LOG)
    _, faulty = log.edits
    (finding,) = faulty.findings
    assert (finding.probe, finding.level) == (MEASUREMENT_SOURCE, "error")
    assert faulty.verdict == "refused"
    assert faulty.decision.reasons == ["measurement: The keys of the subject hold NaN."]
    (card,) = (card for card in log.header.cards if card.kind == "audit")
    assert (card.name, card.question, card.action) == (
        MEASUREMENT_SOURCE,
        MEASUREMENT_CARD.question,
        MEASUREMENT_CARD.action,
    )
    assert header.MEASUREMENT_SOURCE == MEASUREMENT_SOURCE


def test_measurement_fault_is_shown_as_its_own_source(folder: Path) -> None:
    page = (folder / REPORT).read_text(encoding="utf-8")
    assert "measurement: The keys of the subject hold NaN." in page
    assert "well-formed: The keys" not in page
    (run,) = json.loads((folder / SARIF).read_text(encoding="utf-8"))["runs"]
    (rule,) = (rule for rule in run["tool"]["driver"]["rules"] if rule["id"] == "audit/measurement")
    assert rule["shortDescription"]["text"] == MEASUREMENT_CARD.question
    assert rule["defaultConfiguration"]["level"] == "error"
    results = [result for result in run["results"] if result["ruleId"] == "audit/measurement"]
    assert [result["properties"]["edit"] for result in results] == [MID_PROMPT_REQUEST.id]
    assert not any(rule["id"] == "probe/measurement" for rule in run["tool"]["driver"]["rules"])


def test_old_log_with_the_fault_under_well_formed_is_read(folder: Path) -> None:
    lines = (folder / LOG).read_text(encoding="utf-8").splitlines()
    head = json.loads(lines[0])
    head["cards"] = [card for card in head["cards"] if card["kind"] != "audit"]
    old = [json.dumps(head), *(line.replace('"probe":"measurement"', '"probe":"well-formed"') for line in lines[1:])]
    (folder / LOG).write_text("\n".join(old) + "\n", encoding="utf-8")
    log = read_log(folder / LOG)
    assert [finding.probe for finding in log.edits[1].findings] == ["well-formed"]

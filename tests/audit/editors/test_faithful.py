"""ROME and C-ROME give the numbers that the paper's own code printed for the same contexts, with both engines."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from editguard.audit.editors.base import EditContext, compute_updates
from editguard.audit.editors.update import WeightUpdate
from editguard.audit.editors.value import Engine, ValueSettings
from editguard.probes.keys.prefixes import ContextPrefixes, Family, Prefix, Role
from editguard.probes.keys.statistics import KeyStatistics, StatisticsProvenance, make_identity_statistics
from editguard.probes.model.language_model import LanguageModel
from editguard.probes.model.site import find_site
from editguard.probes.requests.request import EditRequest

from ...helpers.weight_updates import get_only_figures

pytestmark = pytest.mark.real

OWN = Path(__file__).parents[1] / "data" / "rome-L13-own-requests.json"
REPOSITORY = Path(__file__).parents[3]
SHARED = Path(os.environ.get("EDITGUARD_SHARED") or REPOSITORY.parent / "shared") / "reference"
FILES = ("rome-L13-own-requests", "rome-L13-covariance", "rome-L5-identity")


def load_table(path: Path) -> dict[str, Any]:
    table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return table


def make_statistics(lm: LanguageModel, written: dict[str, Any], size: int) -> KeyStatistics:
    if written["covariance"] == "identity":
        return make_identity_statistics(size, lm.fingerprint, written["layer"])
    from safetensors.torch import load_file

    second_moment = load_file(SHARED / "covariance-L13.safetensors")["second_moment"].double()
    return KeyStatistics(
        second_moment,
        StatisticsProvenance(
            method="corpus", source="reference", model_fingerprint=lm.fingerprint, layer=written["layer"]
        ),
    )


def compute_update(lm: LanguageModel, written: dict[str, Any], record: dict[str, Any], engine: Engine) -> WeightUpdate:
    """Return the record's update under the table's own contexts, of which "{}" is the empty one."""
    site = find_site(lm.model, written["layer"])
    texts = [template.removesuffix("{}") for template in written["templates"]]
    prefixes = ContextPrefixes(
        tuple(Prefix(Family.SENTENCE if text else Family.NONE, text, Role.KEY) for text in texts), 0
    )
    request = EditRequest("reference", record["subject"], record["prompt"], record["target_new"])
    context = EditContext(
        lm=lm,
        site=site,
        statistics=make_statistics(lm, written, site.d_ff),
        prefixes=prefixes,
        settings=ValueSettings(engine=engine),
    )
    (update,) = compute_updates(context, [(record["method"].lower(), request)])
    assert isinstance(update, WeightUpdate)
    return update


def assert_agrees(update: WeightUpdate, record: dict[str, Any], engine: Engine) -> None:
    figures = get_only_figures(update)
    assert figures.engine == engine.value
    assert figures.numerator == pytest.approx(record["numerator"], rel=2e-3)
    assert figures.denominator == pytest.approx(record["denominator"], rel=2e-3)
    assert update.norm == pytest.approx(record["update_norm"], rel=2e-3)
    assert figures.start_norm == pytest.approx(record["target_init_norm"], rel=2e-3)
    assert figures.target_norm == pytest.approx(record["target_norm"], rel=2e-3)
    assert figures.steps == record["grad_steps"]
    # The printed loss has three decimals.
    assert figures.loss == pytest.approx(record["final_loss"], rel=2e-3, abs=1e-3)


@pytest.mark.parametrize("engine", Engine)
@pytest.mark.parametrize("method", ["ROME", "C-ROME"])
def test_compute_updates_germany_agrees_with_the_papers_code(
    smollm2: LanguageModel, method: str, engine: Engine
) -> None:
    written = load_table(OWN)
    record = next(r for r in written["records"] if r["subject"] == "Germany" and r["method"] == method)
    assert_agrees(compute_update(smollm2, written, record, engine), record, engine)


@pytest.mark.slow
@pytest.mark.parametrize("engine", Engine)
@pytest.mark.parametrize("index", range(8))
def test_compute_updates_whole_table_agrees(smollm2: LanguageModel, index: int, engine: Engine) -> None:
    written = load_table(OWN)
    record = written["records"][index]
    assert_agrees(compute_update(smollm2, written, record, engine), record, engine)


@pytest.mark.slow
@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("name", FILES)
def test_compute_updates_first_records_of_reference_files_agree(smollm2: LanguageModel, name: str, index: int) -> None:
    path = SHARED / f"{name}.json"
    if not path.is_file():
        pytest.skip(f"the reference file {name}.json is not there; EDITGUARD_SHARED names the folder above it")
    written = load_table(path)
    record = written["records"][index]
    assert_agrees(compute_update(smollm2, written, record, Engine.LIVE), record, Engine.LIVE)


def test_reference_table_holds_both_editors_and_the_empty_context() -> None:
    written = load_table(OWN)
    assert len(written["records"]) == 8
    assert {record["method"] for record in written["records"]} == {"ROME", "C-ROME"}
    assert written["templates"][0] == "{}"
    assert (written["covariance"], written["layer"]) == ("identity", 13)

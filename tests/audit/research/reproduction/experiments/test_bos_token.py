"""Denominators with and without a beginning-of-sequence token."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
from editguard.audit.guard import GuardedEditor
from editguard.audit.research.reproduction.cases import CaseKind, Cases, select_cases
from editguard.audit.research.reproduction.experiments.bos_token import compare_bos
from editguard.audit.setup import Setup, prepare

from .....helpers.reproduction_logs import (
    FIRST,
    ORDINARY,
    build_cases,
    read_table,
)
from .....helpers.tiny_models import tiny_lm
from .....helpers.tiny_setups import SENTENCES, lenient

pytestmark = pytest.mark.tiny


def test_compare_bos_puts_a_token_before_the_prompt(setup: Setup, cases: Cases) -> None:
    assert "BOS" in str(compare_bos(setup, cases).skipped)
    tokenizer = copy.deepcopy(setup.lm.tokenizer)
    tokenizer.bos_token = "<s>"
    experiment = compare_bos(replace(setup, lm=replace(setup.lm, tokenizer=tokenizer)), cases)
    table = read_table(experiment, "bos-denominators")
    assert table["BOS"].tolist() == ["without", "with"] * 2
    assert table["subjects"].tolist() == [5, 5, 6, 6]
    assert (table["median"] > 0).all()
    assert table["median"].nunique() == 4


def test_compare_bos_takes_away_the_tokenizers_own_token(tmp_path: Path) -> None:
    setup = prepare(tiny_lm(bos=True), layer=0, policy=lenient(), statistics="identity", perplexity_corpus=SENTENCES)
    chosen = select_cases(GuardedEditor(setup), [*FIRST, *ORDINARY], dict.fromkeys(CaseKind, 10), {})
    assert [chosen.kinds.get(request.id) for request in FIRST] == [CaseKind.AFTER_BOS] * len(FIRST)
    kinds = dict.fromkeys(FIRST, CaseKind.AFTER_BOS) | dict.fromkeys(ORDINARY, CaseKind.ORDINARY)
    table = read_table(compare_bos(setup, build_cases(setup, kinds)), "bos-denominators")
    assert table["BOS"].tolist() == ["with", "without"] * 2
    assert table["cases"].tolist() == ["first token behind the BOS"] * 2 + ["ordinary"] * 2
    assert table["subjects"].tolist() == [5, 5, 6, 6]
    few = compare_bos(setup, build_cases(setup, dict.fromkeys(ORDINARY, CaseKind.ORDINARY)))
    assert "first token behind the BOS: 0, ordinary: 6" in str(few.skipped)

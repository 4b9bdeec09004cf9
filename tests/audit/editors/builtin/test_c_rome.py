"""The insertion of C-ROME and r-ROME: the mean key and the mean output, from the value with no prefix."""

from __future__ import annotations

import pytest
import torch
from editguard.audit.editors.builtin.c_rome import CRome
from editguard.audit.editors.builtin.r_rome import RRome
from editguard.audit.editors.builtin.rome import Rome
from editguard.probes.keys.subject_keys import compute_subject_keys
from editguard.probes.model.site import find_site

from ....helpers.tiny_models import tiny_lm
from ....helpers.tiny_setups import FIRST_TOKEN_REQUEST, few_prefixes

pytestmark = pytest.mark.tiny


@pytest.mark.parametrize("editor", [CRome(), RRome()], ids=lambda editor: editor.name)
def test_c_rome_inserts_at_the_mean_key_from_the_value_with_no_prefix(editor: CRome) -> None:
    lm = tiny_lm()
    keys = compute_subject_keys(lm, find_site(lm.model, 0), FIRST_TOKEN_REQUEST, editor.contexts(few_prefixes()))
    insertion = editor.insertion(keys)
    assert torch.equal(insertion.key, keys.mean_key)
    assert torch.equal(insertion.output, keys.mean_value)
    assert torch.equal(insertion.start, keys.no_prefix_value)
    assert not torch.equal(insertion.key, Rome().insertion(keys).key)
    assert editor.consistent
    assert not Rome().consistent

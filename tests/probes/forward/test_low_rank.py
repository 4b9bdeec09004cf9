"""As if edited: each row of a batch sees its own update, as a model with that update written in does; nothing is written."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from editguard.probes.forward.batches import pad
from editguard.probes.forward.low_rank import apply_updates
from editguard.probes.model.fingerprint import hash_tensors

from ...helpers.families import FAMILIES
from ...helpers.tiny_models import tiny_language_model, tiny_site

pytestmark = pytest.mark.tiny

ROWS = [[5, 9, 4, 11, 7], [6, 8], [12, 5, 9]]
CAUSAL = sorted(name for name in FAMILIES if name != "t5")


class Update(NamedTuple):
    left: torch.Tensor
    right: torch.Tensor


@pytest.mark.parametrize("family", CAUSAL)
def test_apply_updates_each_row_has_its_own_update(family: str) -> None:
    lm = tiny_language_model(family)
    site, make = tiny_site(lm, 1), torch.Generator().manual_seed(4)
    norm = float(site.matrix().norm())
    updates = [
        Update(*(torch.randn(size, generator=make, dtype=torch.float64) for size in (site.d_model, site.d_ff)))
        for _ in ROWS
    ]
    updates = [
        Update(update.left / update.left.norm() * norm, update.right / update.right.norm()) for update in updates
    ]
    batch, hashes = pad(ROWS, 0, lm.device), hash_tensors(lm.model)
    with torch.no_grad(), apply_updates(site, updates):
        logits = lm.model(**batch._asdict()).logits
    assert hash_tensors(lm.model) == hashes
    with torch.no_grad():
        plain, original = lm.model(**batch._asdict()).logits, site.matrix(torch.float64)
        for index, (row, update) in enumerate(zip(ROWS, updates, strict=True)):
            site.write(original + torch.outer(update.left, update.right))
            expected = lm.model(**batch._asdict()).logits[index, : len(row)]
            torch.testing.assert_close(logits[index, : len(row)], expected, rtol=1e-3, atol=1e-3)
            assert not torch.allclose(plain[index, : len(row)], expected, rtol=1e-2, atol=1e-2)
    assert not site.module._forward_hooks

"""As if edited: each row of a batch sees its own update, as a model with that update written in does; nothing is written."""

from __future__ import annotations

import pytest
import torch
from editguard.audit.editors.update import WeightUpdate
from editguard.audit.transaction import Transaction
from editguard.probes.forward.batches import pad
from editguard.probes.forward.low_rank import apply_updates
from editguard.probes.model.fingerprint import hash_tensors

from ...helpers.families import FAMILIES
from ...helpers.tiny_models import tiny_language_model, tiny_site
from ...helpers.weight_updates import scaled_update

pytestmark = pytest.mark.tiny

ROWS = [[5, 9, 4, 11, 7], [6, 8], [12, 5, 9]]
CAUSAL = sorted(name for name in FAMILIES if name != "t5")


@pytest.mark.parametrize("family", CAUSAL)
@pytest.mark.parametrize(
    "places",
    [[((1,), (1,))] * 3, [((0,), (2,)), ((1,), (1,)), ((0, 1), (3, 1))]],
    ids=["one site", "different sites and ranks"],
)
def test_apply_updates_each_row_has_its_own_update(
    family: str, places: list[tuple[tuple[int, ...], tuple[int, ...]]]
) -> None:
    lm = tiny_language_model(family)
    updates: list[WeightUpdate] = [
        scaled_update([tiny_site(lm, layer) for layer in layers], ranks, 1.0, seed=10 * row)
        for row, (layers, ranks) in enumerate(places)
    ]
    batch, hashes = pad(ROWS, 0, lm.device), hash_tensors(lm.model)
    with torch.no_grad(), apply_updates(updates):
        logits = lm.model(**batch._asdict()).logits
    assert hash_tensors(lm.model) == hashes
    with torch.no_grad():
        plain = lm.model(**batch._asdict()).logits
        for index, (row, update) in enumerate(zip(ROWS, updates, strict=True)):
            with Transaction(update):
                expected = lm.model(**batch._asdict()).logits[index, : len(row)]
            torch.testing.assert_close(logits[index, : len(row)], expected, rtol=1e-3, atol=1e-3)
            assert not torch.allclose(plain[index, : len(row)], expected, rtol=1e-2, atol=1e-2)
    assert not any(tiny_site(lm, layer).module._forward_hooks for layer in (0, 1))

"""Delta files, key statistics and checkpoints."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from editguard.audit.delta.file import encode
from editguard.audit.prepared.entry import Entry, locate_entry, write_entry
from editguard.probes.keys.statistics import KeyStatistics, StatisticsProvenance, save_statistics
from safetensors.torch import save

from ...helpers.delta_files import make_delta
from ...helpers.tiny_models import tiny_model

__all__ = ["SIZE", "MATRIX", "DELTA", "STATISTICS", "PREPARED_STAMP", "PREPARED", "make_npz", "NPZ", "WEIGHTS", "INDEX"]

SIZE = 6
MATRIX = torch.eye(SIZE, dtype=torch.float64) + 0.5
DELTA = encode(make_delta(tiny_model("llama")))


def save_and_read_statistics() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "c.safetensors")
        save_statistics(
            KeyStatistics(
                MATRIX,
                StatisticsProvenance(method="corpus", source="text", model_fingerprint="model", layer=0, tokens=9),
            ),
            path,
        )
        return path.read_bytes()


STATISTICS = save_and_read_statistics()
PREPARED_STAMP = "a" * 64


def write_and_read_prepared() -> bytes:
    with tempfile.TemporaryDirectory() as folder, patch.dict("os.environ", EDITGUARD_CACHE=folder):
        write_entry(PREPARED_STAMP, Entry('{"a": 1}', {"sink": torch.ones(SIZE)}))
        return locate_entry(PREPARED_STAMP).read_bytes()


PREPARED = write_and_read_prepared()


def make_npz(save_them: Callable[..., None] = np.savez, **arrays: object) -> bytes:
    content = io.BytesIO()
    save_them(content, **({"mom2.mom2": MATRIX.numpy() * 9, "mom2.count": 9} | arrays))
    return content.getvalue()


NPZ = [
    make_npz(),
    make_npz(np.savez_compressed),
    make_npz(**{"mom2.mom2": MATRIX.float().numpy()}),
    make_npz(**{"mom2.count": np.array([9])}),
]
WEIGHTS = save({"a.weight": torch.ones(3, 2), "b.weight": torch.ones(2)})
INDEX = json.dumps({"weight_map": {"a.weight": "one.safetensors", "b.weight": "../one.safetensors"}}).encode()

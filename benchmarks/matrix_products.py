"""Measures the products of a language model's linear layers, by PyTorch and by oneDNN, and the memory that oneDNN keeps.

    python benchmarks/matrix_products.py

Rates are in GFLOP/s: medians of nine, of [tokens, in] times [in, out] in the shapes of the embedded model, rows of zeros
not counted. The memory of the process follows, during products of ever new numbers of tokens, since oneDNN keeps code for
each: first with their rows rounded up, as in the library, and then as they come.
docs/research/performance.md and docs/research/reliability.md quote it.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import torch
from editguard.probes.forward.onednn import multiply
from torch.nn.functional import linear

SHAPES = [
    (2048, 2048, 2048),
    (1024, 576, 1536),
    (280, 576, 1536),
    (280, 1536, 576),
    (64, 576, 1536),
    (4, 576, 1536),
    (280, 576, 49152),
    (4, 576, 49152),
]
NEW_SHAPES = 4000


def main() -> None:
    print("tokens    in   out  PyTorch  oneDNN")
    for tokens, size, out in SHAPES:
        given, weight = torch.randn(tokens, size), torch.randn(out, size)
        rates = [_rate(product, given, weight) for product in (linear, multiply)]
        print(f"{tokens:>6} {size:>5} {out:>5} {rates[0]:>8.0f} {rates[1]:>7.0f}", flush=True)
    weights = [torch.randn(48, 32), torch.randn(32, 48)]
    products = {
        "rounded up": multiply,
        "as they come": lambda given, weight: torch.ops.mkldnn._linear_pointwise(given, weight, None, "none", [], ""),
        "as they come, bfloat16 by PyTorch": lambda given, weight: linear(given.bfloat16(), weight.bfloat16()),
    }
    for how, product in products.items():
        for tokens in range(1, NEW_SHAPES + 1):
            for weight in weights:
                product(torch.ones(tokens, weight.shape[1]), weight)
            if tokens in (1, 100, 250, 500, 1000, 2000, NEW_SHAPES):
                print(f"rows {how}, {2 * tokens} products: {_memory():.0f} MiB", flush=True)


def _rate(product, given, weight):
    seconds = []
    for _ in range(11):
        started = time.perf_counter()
        product(given, weight)
        seconds.append(time.perf_counter() - started)
    return 2e-9 * given.numel() * len(weight) / statistics.median(seconds[2:])


def _memory():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


if __name__ == "__main__":
    main()

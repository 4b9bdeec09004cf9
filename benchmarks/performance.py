"""How much faster is the fast path than the plain one, and how much of the machine does it use?

    python benchmarks/performance.py --out performance.json [--device cuda] [--dtype bfloat16] [--model random-gpt2-xl]

Both paths run in one process, alternating; the ratio is the median of the rounds' ratios. ``reference`` is the tool's own
plain engine (``--engine reference``): whole texts through the whole model, one request at a time, logits at every
place. Operations are counted by torch's FLOP counter while a stage runs, and set against the rate of a matrix product
measured in the same run. docs/research/performance.md quotes its output.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import statistics
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from editguard.audit.freed_memory import keep_freed_memory
from editguard.audit.guard import GuardedEditor
from editguard.audit.run.execute import assess_each
from editguard.audit.setup import UneditedStates, prepare
from editguard.probes.forward import onednn as products
from editguard.probes.forward.batches import pad
from editguard.probes.forward.hooks import get_pad_id
from editguard.probes.forward.onednn import use_fast_products
from editguard.probes.keys.corpus_statistics import Corpus, compute_statistics
from editguard.probes.model.language_model import LanguageModel, load_model
from editguard.probes.requests.loader import load_requests
from editguard.suites.builtin import load_builtin_edits
from torch.utils.flop_counter import FlopCounterMode


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="smollm2-135m", help="as for editguard, or random-gpt2-xl")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--layer", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--edits", type=int, default=8, help="edits of each of the two kinds, made in one batch")
    parser.add_argument("--only", default="", help="stages whose names begin so")
    parser.add_argument("--growth", type=int, nargs="*", default=[1, 10, 100, 1000])
    parser.add_argument("--growth-edits", help="edits file to take them from, instead of the suite again and again")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    keep_freed_memory()  # as the command does
    lm = (
        _random(options)
        if options.model.startswith("random-")
        else load_model(options.model, device=options.device, dtype=options.dtype)
    )
    fast = GuardedEditor(prepare(lm, layer=options.layer, statistics=_statistics(lm)))
    plain = _plain(fast)
    table = {"machine": _machine(lm), "layer": fast.setup.site.layer}
    print(json.dumps(table), flush=True)
    stages = {
        "probing, exact": _exact_probing,
        "probing, with the screen": _screened_probing,
        "guarded edit, first token": _first_edits,
        "guarded edit, mid-prompt": _mid_edits,
        "statistics": _key_statistics,
        "checks in bfloat16": _rough_checks,
    }
    for name, stage in stages.items():
        if not name.startswith(options.only):
            continue
        table[name] = stage(fast, plain, options)
        print(name, json.dumps(table[name]), flush=True)
        options.out.write_text(json.dumps(table, indent=1))
    table["growth"] = [_growth(fast, _many(options.growth_edits, count)) for count in options.growth]
    for row in table["growth"]:
        print(json.dumps(row))
    options.out.write_text(json.dumps(table, indent=1))


def _random(options):
    """A GPT-2 XL with random weights takes the time of a trained one."""
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = load_model("smollm2-135m", device="cpu").tokenizer
    config = GPT2Config(
        n_embd=1600,
        n_layer=48,
        n_head=25,
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    device = "cuda" if options.device != "cpu" and torch.cuda.is_available() else "cpu"
    dtype = {"auto": torch.float32}.get(options.dtype) or getattr(torch, options.dtype)
    torch.manual_seed(0)
    with torch.device(device):
        model = GPT2LMHeadModel(config).to(dtype).eval().requires_grad_(False)
    return LanguageModel(model, tokenizer, options.model)


def _statistics(lm):
    # C does not change what is run; a random model writes no text to take it from.
    return "identity" if lm.ref.startswith("random-") else None


def _plain(fast):
    return GuardedEditor(fast.setup.with_reference_engine())


def _machine(lm):
    size = 4096 if lm.device.type == "cuda" else 2048
    square = torch.nn.Sequential(torch.nn.Linear(size, size, bias=False, device=lm.device, dtype=lm.dtype))
    a = torch.randn(size, size, device=lm.device, dtype=lm.dtype)
    with torch.no_grad(), use_fast_products(square):
        _timed(lm, lambda: square(a))
        seconds = min(_timed(lm, lambda: square(a)) for _ in range(5))
    name = torch.cuda.get_device_name() if lm.device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    return {
        "device": name,
        "dtype": str(lm.dtype),
        "matrix products": lm.product_library,
        "torch": torch.__version__,
        "gflops": round(2e-9 * size**3 / seconds),
    }


def _timed(lm, run):
    started = time.perf_counter()
    run()
    if lm.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _compare(lm, fast, plain, units, rounds):
    """Alternate the two; `fast` and `plain` are (callable, how many units it does)."""
    (run_fast, many), (run_plain, few) = fast, plain
    ratios, quick, slow = [], [], []
    for _ in range(rounds):
        slow.append(_timed(lm, run_plain) / few)
        quick.append(_timed(lm, run_fast) / many)
        ratios.append(slow[-1] / quick[-1])
    _forget_peak(lm)
    with _unrounded(), FlopCounterMode(display=False, custom_mapping=_PRODUCTS) as counter:
        run_fast()
    flops, each = counter.get_total_flops() / many, statistics.median(quick)
    rate = _machine(lm)["gflops"]
    return {
        "unit": units,
        "reference_seconds": round(statistics.median(slow), 4),
        "fast_seconds": round(each, 4),
        "ratio": round(statistics.median(ratios), 1),
        "ratios": [round(ratio, 1) for ratio in ratios],
        "gflop_each": round(flops / 1e9, 2),
        "share_of_machine": round(flops / 1e9 / each / rate, 2),
        "peak_mib": _peak(lm),
    }


def _operations(given, weight, *_, out_shape, **__):
    """Operations of a product that oneDNN makes, of the shapes of its arguments."""
    return 2 * math.prod(given) * weight[0]


_PRODUCTS = {torch.ops.mkldnn._linear_pointwise: _operations} if torch.backends.mkldnn.is_available() else {}


@contextmanager
def _unrounded():
    """Make products of the rows that there are, so that rows of zeros are not counted as work."""
    bits, products._BITS = products._BITS, 64
    try:
        yield
    finally:
        products._BITS = bits


def _forget_peak(lm):
    """Let the peak begin anew at what is held now, which the model and what was made ready with it are."""
    if lm.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def _peak(lm):
    """Most memory since `_forget_peak`, in MiB: of the device, or resident on Linux."""
    if lm.device.type == "cuda":
        return round(torch.cuda.max_memory_allocated() / 2**20)
    match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return round(int(match[1]) / 1024)


def _requests(group=None):
    return [edit for edit in load_builtin_edits() if group in (None, edit.group)]


def _exact_probing(fast, plain, options):
    return _probing(fast, plain, options, screen=False)


def _screened_probing(fast, plain, options):
    return _probing(fast, plain, options, screen=True)


def _probing(fast, plain, options, *, screen):
    requests = _requests()
    few = requests[:: len(requests) // 6][:6]
    return _compare(
        fast.setup.lm,
        (lambda: fast.assess_all(requests, screen=screen), len(requests)),
        (lambda: [plain.assess(request) for request in few], len(few)),
        "request",
        options.rounds,
    )


def _first_edits(fast, plain, options):
    return _edits(fast, plain, options, "single-token-first")


def _mid_edits(fast, plain, options):
    return _edits(fast, plain, options, "mid-prompt")


def _edits(fast, plain, options, group):
    requests = _requests(group)[: options.edits]

    def guarded(guard, chosen):
        # Whatever is decided is made, so that both paths do the same work on any model.
        editor = "prefixed" if group == "single-token-first" else "rome"
        for proposal in guard.propose_unguarded([(request, editor) for request in chosen]):
            guard.try_proposal(proposal)

    # Edits differ in how long they are searched for: the plain path makes every second one, and not the first alone.
    some = requests[::2]
    fast.setup.bench_perplexity()
    plain.setup.bench_perplexity()
    return _compare(
        fast.setup.lm,
        (lambda: guarded(fast, requests), len(requests)),
        (lambda: guarded(plain, some), len(some)),
        "edit with all checks",
        options.rounds,
    )


def _key_statistics(fast, plain, options):
    del plain
    lm, site, rng = fast.setup.lm, fast.setup.site, random.Random(0)
    sentences = [prompt for edit in _requests() for prompt in (edit.prompt, *edit.paraphrases, *edit.neighbourhood)]
    documents = tuple(" ".join(rng.choices(sentences, k=rng.randint(2, 24))) for _ in range(128))
    corpus = Corpus(documents, "benchmark")
    few = [lm.tokenizer(text).input_ids[:256] for text in documents[:32]]
    tokens = sum(min(len(lm.tokenizer(text).input_ids), 256) for text in documents)

    def reference():
        # Documents as they come, in one padded batch through the whole model, summed in float64.
        batch = pad(few, get_pad_id(lm), lm.device)
        keys = []
        handle = site.module.register_forward_hook(lambda _, args, __: keys.append(args[0]))
        try:
            with torch.no_grad():
                lm.model(**batch._asdict(), use_cache=False)
        finally:
            handle.remove()
        flat = keys[0].flatten(0, -2)[batch.attention_mask.bool().flatten()].double()
        return flat.T @ flat

    return _compare(
        lm,
        (lambda: compute_statistics(lm, site, corpus), tokens),
        (reference, sum(map(len, few))),
        "token",
        options.rounds,
    )


def _rough_checks(fast, plain, options):
    """The checks alone, in bfloat16 beside those in the weights' dtype, and what that makes of the unedited perplexity."""
    del plain
    rough = GuardedEditor(replace(fast.setup, check_dtype=torch.bfloat16, states=UneditedStates()))
    requests = _requests("mid-prompt")[: options.edits]

    def checked(guard):
        proposals = guard.propose_unguarded([(request, "rome") for request in requests])
        guard.setup.bench_perplexity()
        return lambda: [guard.try_proposal(proposal) for proposal in proposals]

    comparison = _compare(
        fast.setup.lm,
        (checked(rough), len(requests)),
        (checked(fast), len(requests)),
        "edit, its checks alone",
        options.rounds,
    )
    return {**comparison, "perplexity": rough.setup.baselines()}


def _many(file, count):
    """Return `count` requests: the first of the file's, or the suite's under ever new ids."""
    if file is not None:
        requests = load_requests(file).requests[:count]
        assert len(requests) == count, f"{file} has {len(requests)} requests, and {count} are needed"
        return requests
    base = _requests()
    return [replace(base[n % len(base)], id=str(n)) for n in range(count)]


def _growth(fast, requests):
    """Seconds and memory of probing so many requests, as `editguard probe` does: no group is kept when the next one comes."""

    def probe():
        for start in range(0, len(requests), 64):
            assess_each(fast, requests[start : start + 64])

    lm, count = fast.setup.lm, len(requests)
    _forget_peak(lm)
    seconds = _timed(lm, probe)
    return {"requests": count, "seconds": round(seconds, 2), "each": round(seconds / count, 4), "peak_mib": _peak(lm)}


if __name__ == "__main__":
    main()

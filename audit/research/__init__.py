"""Commands for research: causal traces, checkpoints side by side, the experiments of the paper."""

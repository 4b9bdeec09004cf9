"""Measurements for research: causal tracing, interventions, layer sweeps, geometry of keys, changes of tensors."""

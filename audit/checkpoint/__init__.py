"""Audits of checkpoints that other tools edited: the weights that changed, the facts in them, and what moved beside them."""

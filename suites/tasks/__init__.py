"""Tasks: what can the model do, item by item? Two of our own without a network, and those of lm-evaluation-harness."""

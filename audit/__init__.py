"""Decide and act: policy, guarded editor, editors, transactions, runner and command line."""

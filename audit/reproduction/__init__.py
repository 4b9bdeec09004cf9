"""The experiments of "The Fall of ROME" (arXiv 2406.11263) on a model at hand: cases, edits, keys, and what they say.

In this order: `cases` finds the collapse cases in a file by their denominators and draws ordinary ones; `edits` makes each
of them without the guard by several editors, one resumable log an editor; `tables`, `keys`, `layers` and `prediction` turn
logs and keys into experiments, beside the paper's own figures (`published`); `run` does all of it and writes page and tables.
"""

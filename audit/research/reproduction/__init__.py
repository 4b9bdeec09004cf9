"""The experiments of "The Fall of ROME" (arXiv 2406.11263) on a model at hand: cases, edits, keys, and what they say.

In this order: `cases` finds first-token subjects and small denominators in a file and draws ordinary requests; `edits` makes
each of them without the guard by several editors, one resumable log an editor; `tables`, `shares` and `prediction` turn the
logs, and `keys`, `layers` (from `layer_shifts`), `readings` and `encoder` the keys into experiments, beside the paper's own
figures (`published`); `experiments` runs them one by one; `run` does all of it and writes page, text and tables. What is kept
between runs names what it depends on (`stamp`).
"""

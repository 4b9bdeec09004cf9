"""The experiments of "The Fall of ROME" (arXiv 2406.11263) on a model at hand.

- `cases` finds first-token subjects and small denominators in a file, and draws ordinary requests.
- `edits` edits each case without the guard by several editors, into one resumable log for each editor.
- `experiments` holds one module for each experiment, named by what it measures. `all_experiments` runs them in order.
- `record_figures`, `file_estimate`, `clouds` and `layer_shifts` hold what several experiments share.
- `published` holds the figures of the paper.
- `run` does all of it and writes page, text and tables.
- `stamp` names what the files of a run depend on.
"""

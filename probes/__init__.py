"""Questions about a model and a requested edit, before the edit: the code here reads and never changes a weight.

The other rooms build on this one: errors, requests, model access, tokens, keys, statistics.
Nothing here imports another room, and importing this package loads neither torch nor transformers.
"""

"""What does this model, and this requested edit, look like? Reads; never changes a weight.

Also the ground floor of the house: errors, requests, model access, tokens, keys, statistics. Nothing here imports
another room, and importing this package loads neither torch nor transformers.
"""

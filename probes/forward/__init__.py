"""Forward passes made fast: batches, partial passes, cached prefixes, hooks. Nothing here changes a result."""

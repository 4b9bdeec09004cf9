"""Folders and files that models come in: what cannot be read as one, what must be made one first, and how two differ."""

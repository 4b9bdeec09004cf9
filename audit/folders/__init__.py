"""Folders that commands write: the names of files, one writer at a time, and folders that appear whole or not at all."""

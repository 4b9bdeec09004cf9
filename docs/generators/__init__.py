"""What docs/generate.py writes: parts of pages by name, and JSON Schemas by file name; one module a subject."""

"""Files for machines: one format a file, each made from the log alone."""

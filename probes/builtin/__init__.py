"""The built-in probes, one file each; files that begin with an underscore are what several of them share."""

"""The experiments of the paper, one file a group, and what several of them share."""

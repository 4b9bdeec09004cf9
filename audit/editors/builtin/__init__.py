"""The built-in editors, one file each."""

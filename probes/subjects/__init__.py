"""Subjects other than the requested one: their kinds, and how much of an update would reach them."""

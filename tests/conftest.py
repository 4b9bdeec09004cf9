"""Plugins that the tests of every room may use."""

pytest_plugins = ["pytester"]

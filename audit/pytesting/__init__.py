"""The parts of the pytest plugin: options, collected nodes, the session's model and controls, fixtures, and the log.

`editguard.audit.pytest_plugin` is what pytest loads; it imports of these only what loads nothing heavy.
"""

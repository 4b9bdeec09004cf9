"""The command line; its application and `main` are in `editguard.audit.cli.main`."""

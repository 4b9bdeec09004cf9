"""``python -m editguard.audit.cli``."""

from .main import main

main()

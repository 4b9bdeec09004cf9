"""Is this model, edited or not, still sound? Checks, their thresholds, and the built-in suite.

Checks read the model and never change it; what makes and undoes the edit is `editguard.audit`.
"""

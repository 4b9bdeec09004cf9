"""Valid files of every format, which the fuzzing tests and atheris spoil."""

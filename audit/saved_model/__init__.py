"""An edited model as a folder: how it is saved, and the manifest that says what it holds and how it is served."""

"""One audit from start to end: controls, requests, records, outputs, resuming."""

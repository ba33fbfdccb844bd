"""The cases: each file has a list `CASES`, and its name is their area."""

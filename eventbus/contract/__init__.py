"""What the wings say to each other: protocols and plain data.

Imports events, errors, checks and `process.safe_logging`.
"""

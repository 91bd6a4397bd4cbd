"""A run: suites in rounds, each task in a process of its own, on one server; what came of it, and on what machine."""

"""A run in words and pictures: tables, plots, goals, and their place in benchmarks/README.md."""

"""Processes that benchmarks start beside what they measure: load, workers with one habit, stand-ins for partners."""

"""A delivery's way from read to settled: the loops of a group, its handlers' slots, limits, leases and outcomes.

A worker runs `Consumer`; `Executor` and `TapExecutor` run handlers. Nothing else is used from outside.
"""

"""A delivery's way from read to settled: the loops of a group, its handlers' slots, limits, leases and outcomes.

`Consumer` is what a worker runs; `Executor` and `TapExecutor` run handlers. Nothing else is used from outside.
"""

"""A worker process whose clock is off by FAULTS_SKEW seconds: `python -m tests.faults.skewed`."""

import os
import time

SKEW = float(os.environ["FAULTS_SKEW"])

_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + SKEW
time.time_ns = lambda: _time_ns() + int(SKEW * 1e9)


if __name__ == "__main__":
    from runpy import run_module

    # Imported from here on, everything sees the wrong time.
    run_module("tests.faults.process", run_name="__main__")

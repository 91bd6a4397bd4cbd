"""Rules that must hold whatever the input: many inputs, made up or gone through one by one. `make soak` tries more."""

import os

from hypothesis import HealthCheck, settings


def few(examples: int) -> settings:
    """So many in every run of the tests, and as many as its profile says where HYPOTHESIS_PROFILE is set."""
    fine = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]  # servers start, and are emptied by who asks
    if "HYPOTHESIS_PROFILE" in os.environ:
        return settings(suppress_health_check=fine)
    return settings(max_examples=examples, suppress_health_check=fine)

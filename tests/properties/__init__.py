"""Rules that must hold whatever the input: many inputs, made up or gone through one by one. `make soak` tries more."""

import os

from hypothesis import settings


def few(examples: int) -> settings:
    """So many in every run of the tests, and as many as its profile says where HYPOTHESIS_PROFILE is set."""
    return settings() if "HYPOTHESIS_PROFILE" in os.environ else settings(max_examples=examples)

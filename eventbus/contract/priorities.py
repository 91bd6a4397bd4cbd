"""Ten lanes, one for each priority, and how many of the next events come out of each.

Priority p weighs 1/p: while every lane is full, an event of priority 1 is ten times as likely to be next as one of
priority 10, and the last lane still moves. What a lane does not use goes to the most urgent one that has something.
"""

import random

LANES = range(1, 11)

_WEIGHTS = [1 / priority for priority in LANES]
_PARTS = [weight / sum(_WEIGHTS) for weight in _WEIGHTS]


def shares(credit: int) -> list[int]:
    """How many of `credit` events each lane may give first, most urgent lane first; together exactly `credit`."""
    counts = [int(credit * part) for part in _PARTS]
    # What does not divide evenly is drawn by lot: with a credit of 1 that is all of it.
    for priority in random.choices(LANES, _WEIGHTS, k=credit - sum(counts)):  # noqa: S311 - fairness, no secret
        counts[priority - 1] += 1
    return counts

"""Numbers that an application may give, and that Redis can count with.

What becomes a count, an expiry or a due time in a script must be whole, finite and small enough: Lua counts in doubles,
which know every whole number up to 2**53 and no further. So these numbers are checked where they are given, and not
where the server would refuse them, in the middle of a script.
"""

import math
from datetime import UTC, datetime

LONGEST = 3_653 * 86_400.0  # seconds that anything may take: ten years
LATEST = datetime(9999, 12, 31, tzinfo=UTC)  # the latest that anything is put off to; a day later the calendar ends
MOST = 10**9


def longest_delay() -> float:
    """Seconds from now to LATEST."""
    return (LATEST - datetime.now(UTC)).total_seconds()


def count_faults(name: str, value: object, *, least: int = 1, most: int = MOST) -> list[str]:
    """What is wrong with a number of things: [] if it is an int from `least` to `most`, and no bool."""
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return []
    bounds = f"at least {least}" if isinstance(value, int) and value < least else f"a whole number, {least} to {most:,}"
    return [f"{name}={value!r} must be {bounds}"]


def seconds_faults(name: str, value: object, *, least: float = 0.0, most: float = LONGEST) -> list[str]:
    """What is wrong with a number of seconds: [] if it is a finite one from `least` to `most`, and no bool."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if least <= value <= most:  # as it is given: not every int can be made a float
            return []
        if -math.inf < value < least:
            return [f"{name}={value} must be at least {least:g} seconds"]
    return [f"{name}={value!r} must be seconds, {least:g} to {most:,.0f}"]

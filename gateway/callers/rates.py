"""EVENTBUS_RATE_LIMIT: how many requests a user has, in which span, and what a role may have instead.

60/1m                     60 in any minute, for everybody
60/1m,system=1000/1s      the same, but for whoever has the role `system`
off                       no limit
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

EVERYBODY = "user"  # the rate of users for whose role no other is set; its name in headers
ROLES = ("admin", "system")
MAX_COUNT, MAX_SECONDS = 10**9, 24 * 3_600

_LIMIT = re.compile(r"([1-9][0-9]*)/([1-9][0-9]*)([smh])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600}


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` requests of one user in any `seconds`, through all gateways."""

    name: str
    count: int
    seconds: int
    header: str = field(init=False)

    def __post_init__(self) -> None:
        """`header` is RateLimit-Policy, as draft-ietf-httpapi-ratelimit-headers-10 has it."""
        object.__setattr__(self, "header", f'"{self.name}";q={self.count};w={self.seconds}')

    @property
    def per_second(self) -> float:
        return self.count / self.seconds


# By role, and by EVERYBODY; None is no limit.
Rates = Mapping[str, Rate | None]


def parse(text: str) -> Rates:
    """What the setting says. Raises ValueError for text of another form than this module's docstring shows."""
    first, *others = (part.strip() for part in text.split(","))
    rates: dict[str, Rate | None] = {EVERYBODY: _rate(EVERYBODY, first)}
    for part in others:
        role, equals, limit = (piece.strip() for piece in part.partition("="))
        if not equals or role not in ROLES or role in rates:
            raise ValueError(f"{part!r} is not ROLE=LIMIT, once for each of {' and '.join(ROLES)}")
        rates[role] = _rate(role, limit)
    return rates


def _rate(name: str, text: str) -> Rate | None:
    if text == "off":
        return None
    match = _LIMIT.fullmatch(text)
    count, seconds = (int(match[1]), int(match[2]) * _SECONDS[match[3]]) if match else (0, 0)
    if not 0 < count <= MAX_COUNT or not 0 < seconds <= MAX_SECONDS:
        raise ValueError(f"{text!r} is no limit such as 60/1m, 10/1s, 1000/1h (at most a day) or off")
    return Rate(name, count, seconds)

"""The firings of recurring functions, each stored once whoever fires it."""

from datetime import datetime
from typing import NamedTuple, Protocol

from eventbus.event import Envelope

IMPOSSIBLE_FIRING = (
    "the record of a last firing is no time that can have been, and counts as now: was the server's clock ahead?"
)
FIRED_AHEAD = 5.0  # seconds that a firing may seem to be ahead of the server's clock, which may be set back a little


class LastFiring(NamedTuple):
    """What the server knows of a recurring function: the time there, and the moment of its last firing.

    An impossible record, a time ahead of the clock or none at all, is replaced by the present; that is an error in the
    log."""

    now: datetime
    due: datetime


class Firings(Protocol):
    """What recurring functions need of the server."""

    async def last_firing(self, stream: str, name: str) -> LastFiring:
        """The last firing of the recurring function `name`, whose firings go to `stream`. When it is asked for the
        first time, the record begins with the present: nothing was missed before."""

    async def fire(self, firing: Envelope, name: str, due: datetime) -> bool:
        """Store a firing, due at a moment that has come; False if it, or a later one, has been stored by anybody."""

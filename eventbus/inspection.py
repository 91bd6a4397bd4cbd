"""What a stream and its groups hold at one moment, whatever the transport: what metrics, `status` and `doctor` read."""

from dataclasses import dataclass

BACKLOG_LIMIT = 1_000  # undelivered entries of a lane that are counted where the server keeps no count


@dataclass(frozen=True, slots=True)
class ConsumerState:
    """One consumer of a group. `pending`: entries in its hands; `idle`: seconds since it last asked for something."""

    name: str
    pending: int
    idle: float


@dataclass(frozen=True, slots=True)
class GroupState:
    """One group on one stream.

    lag        entries that the group has not been given, by the server's own count; None: it cannot tell
    backlog    the same, counted where the server cannot tell, and then at most BACKLOG_LIMIT of each lane
    pending    entries given to a consumer and not settled, the resting ones included
    delayed    those of the pending that rest until their retry is due
    oldest_undelivered, oldest_unacked  seconds since the oldest of these was stored; None: there is none
    consumers  whoever reads for the group, sorted by name; the name under which entries rest is none of them
    """

    name: str
    lag: int | None
    backlog: int
    pending: int
    delayed: int
    oldest_undelivered: float | None
    oldest_unacked: float | None
    consumers: tuple[ConsumerState, ...] = ()


@dataclass(frozen=True, slots=True)
class StreamState:
    """One stream: `length` entries in the log, `scheduled` events that are not due, `dead` letters, groups by name."""

    name: str
    length: int
    scheduled: int
    dead: int
    groups: tuple[GroupState, ...] = ()

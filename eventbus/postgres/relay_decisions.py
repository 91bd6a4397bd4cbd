"""What a relay decides, apart from what it does: no server, and no clock of its own.

doubt    A row that somebody has tried to append, and that is not marked, may be in its stream. Such rows stand at or
         below the highest position that was tried; what stands above was never sent, whenever it commits.
refusal  A row that Redis refuses for itself is set aside. A place that refuses whatever it is sent (a stream without
         rights, a key of another type) is left alone for a while with all of its rows, so that they keep their order.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from eventbus.contract.outgoing import Fate, Outgoing
from eventbus.errors import CodecError, EventBusError, Full, Unavailable
from eventbus.event import Status

STALE = 0.25  # seconds from the look at the outbox to the append, after which another relay may have been at work
HAND_OVER = 0.35  # seconds that a relay waits before its first look: what was sent before it is in the streams by then
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 10.0  # seconds for which a place that refuses is left alone

_OF_ONE = ("ERR Protocol error", "ERR Elements are too large")  # refusals that can only mean the row itself


class Sent(NamedTuple):
    """A row that is to be appended. `place`: what may refuse it, along with others: see eventbus.postgres.relay."""

    position: int
    place: str
    item: Outgoing


class Refusal(NamedTuple):
    """The first row of a place that refuses, and why. Not `new`: the place has refused before."""

    position: int
    reason: str
    new: bool = True


class Judged(NamedTuple):
    """What has become of rows that were sent.

    published  to be marked           failed   to be set aside, and why
    refusing   places that are left alone from now on       healed   places that take events again
    trouble    why others wait: Redis is away, or full"""

    published: list[int]
    failed: dict[int, str]
    refusing: dict[str, Refusal]
    healed: list[str]
    trouble: EventBusError | None


class _Rest(NamedTuple):
    until: float
    pause: float
    tries: int


class Relaying:
    """`clock` returns seconds and never goes back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._tried_to = math.inf
        self._suspects: set[int] = set()
        self._places: dict[str, _Rest] = {}
        self._rows: dict[int, float] = {}

    # Doubt ------------------------------------------------------------------------------------------------------------

    def begin(self, highest: int) -> None:
        """The outbox is ours. `highest`: the last position that is not marked; the relay before us may have tried
        it."""
        self._tried_to = highest

    def seen_empty(self) -> None:
        """No row waits that may be selected. Unless something is left alone, all rows that were tried are marked
        then."""
        if not self._places and not self._rows:
            self._tried_to = 0

    @property
    def in_doubt(self) -> bool:
        """Whether rows may wait that somebody has tried to append already."""
        return self._tried_to > 0

    def must_look(self, sent: Sequence[Sent], selected_at: float) -> bool:
        """Whether these may be in their streams. `selected_at`: when they were asked for, by the clock."""
        return sent[0].position <= self._tried_to or self._clock() - selected_at > STALE

    # Leaving alone ----------------------------------------------------------------------------------------------------

    def places_left_alone(self) -> list[str]:
        now = self._clock()
        return [place for place, rest in self._places.items() if rest.until > now]

    def rows_left_alone(self) -> list[int]:
        now = self._clock()
        self._rows = {position: until for position, until in self._rows.items() if until > now}
        return list(self._rows)

    def leave_alone(self, position: int) -> None:
        """Leave a row alone for a moment, because handling it raised. It is not known to be the row's fault."""
        self._rows[position] = self._clock() + FIRST_PAUSE

    def chosen(self, rows: Sequence[Sent]) -> list[Sent]:
        """The rows that are sent now. Of a place that has refused, only the first few, so that the others keep their
        order if it takes events again; more each time, since those first rows may be the only ones that it refuses."""
        counts: dict[str, int] = {}
        chosen = []
        for row in rows:
            rest = self._places.get(row.place)
            counts[row.place] = counts.get(row.place, 0) + 1
            if rest is None or counts[row.place] <= 2**rest.tries:
                chosen.append(row)
        return chosen

    # Judging ----------------------------------------------------------------------------------------------------------

    def judge(self, sent: Sequence[Sent], fates: Sequence[Fate]) -> Judged:
        """Judge what `append` has told of each row. `sent` is in the order of positions."""
        judged = Judged([], {}, {}, [], _trouble(fates))
        last_taken = {
            row.place: row.position for row, fate in zip(sent, fates, strict=True) if isinstance(fate, Status)
        }
        for row, fate in zip(sent, fates, strict=True):
            if isinstance(fate, Status):
                judged.published.append(row.position)
                self._suspects.discard(row.position)
            elif isinstance(fate, Unavailable):
                self._tried_to = max(self._tried_to, row.position)
            elif not isinstance(fate, Full):
                self._refused(row, fate, last_taken.get(row.place, -1), judged)
        self._rest(sent, last_taken, judged)
        return judged

    def _refused(self, row: Sent, error: EventBusError, last_taken: int, judged: Judged) -> None:
        """Set a row aside if it is to blame, else leave its place alone. A place that took a later row may have begun
        to take events in between, so this row is only suspected: it is to blame if it is refused again."""
        reason = str(error)
        if row.position in self._suspects or isinstance(error, CodecError) or reason.startswith(_OF_ONE):
            self._suspects.discard(row.position)
            judged.failed[row.position] = reason
        elif row.position < last_taken:
            self._suspects.add(row.position)
        else:
            judged.refusing.setdefault(row.place, Refusal(row.position, reason))

    def _rest(self, sent: Sequence[Sent], taken: dict[str, int], judged: Judged) -> None:
        now = self._clock()
        for place in taken:
            if self._places.pop(place, None) is not None and place not in judged.refusing:
                judged.healed.append(place)
        for place, refusal in judged.refusing.items():
            before = self._places.get(place)
            judged.refusing[place] = refusal._replace(new=before is None)
            pause = FIRST_PAUSE if before is None else min(before.pause * 2, LONGEST_PAUSE)
            self._places[place] = _Rest(now + pause, pause, 1 if before is None else before.tries + 1)
        self._suspects -= {row.position for row in sent if row.place in judged.refusing}


def _trouble(fates: Sequence[Fate]) -> EventBusError | None:
    """Why rows wait, if any do: Unavailable before Full, because with it nobody knows what was stored."""
    waiting = [fate for fate in fates if isinstance(fate, (Unavailable, Full))]
    return min(waiting, key=lambda error: isinstance(error, Full), default=None)

"""Whether a server has been answering, and what its clock says.

The server judges leases by its clock. That alone does not tell whether a holder had the chance to renew: while a server
stands still, or when its clock is set, the leases of living holders run out as well. So each process asks the server
for its time several times in a lease, and learns two things from the answers:

* for how long the server has been answering. A lease is over when it was not renewed for its whole length, and in that
  time the server was answering for at least a third of a lease, all in all. Every living holder can renew in that.
* what time the server has now. A command that is to take over leases says when it is meant to run. If it runs later,
  because it lay in the socket of a server that stood still or the clock was set, leases have to be older by as much.

A clock that was set is noticed by comparing it with the loop's clock. Then all that was known before is forgotten, and
for this process no lease is over until a whole one has passed: by the server's clock, one that was renewed right before
may look long over.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from eventbus.errors import EventBusError
from eventbus.process.safe_logging import get_logger
from eventbus.process.supervision import supervise
from eventbus.redis.link import Link
from eventbus.redis.router import Router

LOOKS = 8  # in a lease
LONGEST_PAUSE, SHORTEST_PAUSE = 1.0, 0.05  # seconds between looks
SILENCE = 1 / 3  # of a lease; between two answers further apart than that the server may have stood still
SHORTEST_SILENCE = 0.25  # seconds; loops of busy machines are late by as much
STEP = 1.0  # seconds; a clock that is off by no more does no harm to a lease
REMEMBERED = 64  # stretches of time in which the server answered

log = get_logger("eventbus.redis")


class Pulse:
    """Of one server, or of one node of a cluster. `watch` begins it; before, and for some time after, nothing is known.

    `steps_back`: how often its clock was seen to be set back. What was delivered before then seems to be of the future.
    """

    def __init__(self, link: Link, server: str, clock: Callable[[], float] | None = None) -> None:
        """`server`: what the log calls it. `clock`: seconds that go on evenly; the loop's, if none is given."""
        self._link = link
        self._server = server
        self._clock = clock or _loop_time
        self._lease = math.inf
        self._looking: asyncio.Task[None] | None = None
        self._answered: deque[list[float]] = deque(maxlen=REMEMBERED)  # begin and end of each stretch
        self._time: tuple[float, float, float] | None = (
            None  # the server's seconds; our clock's when we asked it, and when it had answered
        )
        self.steps_back = 0
        self._set_at = -math.inf  # when its clock was seen to be set

    def watch(self, lease: float) -> None:
        """Look often enough for leases of so many seconds."""
        self._lease = min(self._lease, lease)
        if self._looking is None:
            self._looking = asyncio.create_task(supervise("pulse", self._look_on), name="pulse")

    def stop(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()

    async def close(self) -> None:
        self.stop()
        if self._looking is not None:
            await asyncio.wait([self._looking])

    def age_needed(self, lease: float) -> float | None:
        """Seconds for which an entry must have gone without renewal, as of now, for its lease to be over. None if that
        is not known yet."""
        wanted, now = lease * SILENCE, self._clock()
        if now - self._set_at < lease:
            return None
        for begin, end in reversed(self._answered):
            if end - begin >= wanted:
                return max(lease, now - (end - wanted))
            wanted -= end - begin
        return None

    def server_ms(self) -> int | None:
        """The server's time now, as far as is known: never ahead of it, unless it was set back."""
        if self._time is None:
            return None
        server, _, answered = self._time
        return math.floor((server + self._clock() - answered) * 1000)

    # Looking ----------------------------------------------------------------------------------------------------------

    async def _look_on(self) -> None:
        while True:
            with suppress(EventBusError):  # it is away: the link says so, and others connect again
                asked = self._clock()
                answer = self._link.begin(("TIME",))
                if answer is not None:
                    seconds, microseconds = await answer
                    self.note(int(seconds) + int(microseconds) / 1e6, asked, self._clock())
            await asyncio.sleep(min(LONGEST_PAUSE, max(SHORTEST_PAUSE, self._lease / LOOKS)))

    def note(self, server: float, asked: float, answered: float) -> None:
        """The server has told its time, in seconds, between these two moments."""
        silence = max(SHORTEST_SILENCE, self._lease * SILENCE)
        self._compare(server, asked, answered, min(STEP, silence))
        if answered - asked <= silence or self._time is None:
            self._time = server, asked, answered
        # The server was still answering at `asked`, for an answer came; later it may have stood still.
        if self._answered and answered - self._answered[-1][1] <= silence:
            self._answered[-1][1] = asked
        else:
            self._answered.append([answered, answered])

    def _compare(self, server: float, asked: float, answered: float, most: float) -> None:
        """Forgets what is known if the server's clock has gone further than ours since the last answer, or less far, by
        more than `most` seconds. The time for which questions and answers were under way is allowed for."""
        if self._time is None:
            return
        server_before, asked_before, answered_before = self._time
        went = server - server_before
        ahead, behind = went - (answered - asked_before), (asked - answered_before) - went
        if max(ahead, behind) <= most:
            return
        self._time = None
        self._answered.clear()
        self._set_at = answered
        self.steps_back += behind > ahead
        log.warning(
            "the server's clock was set, or this machine slept: leases run anew, what is delayed moves with the clock",
            server=self._server,
            seconds=round(ahead if ahead > behind else -behind, 1),
        )


class Pulses:
    """One for each server that has something of a subscription."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._lease = math.inf
        self._of: dict[Link, Pulse] = {}

    def watch(self, key: str, lease: float) -> None:
        """Look at all of them, and at the server that has this key, often enough for leases of so many seconds."""
        self._lease = min(self._lease, lease)
        for pulse in (*self._of.values(), self.of(key)):
            pulse.watch(lease)

    def of(self, key: str) -> Pulse:
        """Of the server that has this key. Where that is another one than before, nothing is known yet."""
        link = self._router.at(key)
        pulse = self._of.get(link)
        if pulse is None:
            for gone in [each for each in self._of if each.closed]:
                self._of.pop(gone).stop()
            pulse = self._of[link] = Pulse(link, self._router.where.name)
            if self._lease < math.inf:
                pulse.watch(self._lease)
        return pulse

    async def close(self) -> None:
        await asyncio.gather(*(pulse.close() for pulse in self._of.values()))


def _loop_time() -> float:
    return asyncio.get_running_loop().time()

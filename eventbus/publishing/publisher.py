"""Publishing within a deadline: to the transport if it answers, to the spool if there is one, or an error with reasons.

healthy     one append, under a deadline that costs next to nothing
a reply lost    tried again soon, by one publish at a time; what is stored already is found by its id
away, slow or full    to the spool; without one, waited for until the deadline (a full server is told at once)
"""

import asyncio
from collections.abc import Sequence

from eventbus.contract.outgoing import NotBegun, Outgoing, Outlet
from eventbus.errors import Full, Unavailable
from eventbus.event import Status
from eventbus.process.affinity import Affinity
from eventbus.process.task_deadlines import Deadlines
from eventbus.publishing.breaker import Breaker
from eventbus.publishing.inflight import PublishSlots
from eventbus.publishing.spool import Spool, patience, refused_by_both

MAX_PUBLISH_BYTES = 64 * 2**20


class Publisher:
    """`await publisher.append(outgoing)`, ended within `timeout` seconds, whatever the servers do.

    server  what messages call the transport
    limit   how many calls may wait for the transport at a time; others wait for one of them to end
    most    bytes of events that these may have, and as many again those that wait for them; more are refused
    affinity where the bus is open
    """

    def __init__(
        self,
        transport: Outlet,
        spool: Spool | None,
        breaker: Breaker,
        *,
        server: str,
        timeout: float,
        limit: int,
        most: int = MAX_PUBLISH_BYTES,
        affinity: Affinity | None = None,
    ) -> None:
        self.transport = transport
        self._affinity = affinity or Affinity()
        self._spool = spool
        self._breaker = breaker
        self._server = server
        self._timeout = timeout
        self._limit = limit
        self._patience = patience(timeout, spool)
        self.in_flight = PublishSlots(limit, most)
        self._most = most
        self._in_line = 0  # bytes of those that wait for their turn
        self._deadlines = Deadlines(self._patience)

    async def append(self, outgoing: Sequence[Outgoing]) -> list[Status]:
        """What became of each. Raises Unavailable (stored or not: unknown) or Full (not stored; of several, some may
        be), when the spool, if there is one, cannot take them either; ConfigurationError if the bus is not open, or
        belongs to another event loop or process."""
        loop = asyncio.get_running_loop()
        if loop is not self._affinity.loop:
            self._affinity.check()
        began = loop.time()
        size = len(outgoing[0].envelope.data) if len(outgoing) == 1 else _size(outgoing)
        try:
            if self._breaker.open or not self.in_flight.take(size):
                return await self._wait(outgoing, size, began)
            try:
                try:  # all in one coroutine: this is the hot path
                    call = self.transport.begin(outgoing[0]) if len(outgoing) == 1 else None
                    if call is not None:
                        self._deadlines.begin(call, loop, began)
                        try:
                            reply = await call
                            return [Status.STORED if outgoing[0].once is None else self.transport.begun(reply)]
                        except NotBegun:
                            pass  # nothing was done
                        finally:
                            self._deadlines.end(call)
                    async with asyncio.timeout_at(began + self._patience):
                        return await self.transport.append(outgoing)
                finally:
                    self.in_flight.give_back(size)
            except TimeoutError:
                raise self._out_of_time(began) from None
            except Unavailable as error:
                self._breaker.failed(error, away=False)
                return await self._wait(outgoing, size, began, again=True)
        except (Unavailable, Full) as error:
            if self._spool is None:
                raise
            return await self._spool_instead(self._spool, outgoing, began, error)

    async def _wait(
        self, outgoing: Sequence[Outgoing], size: int, began: float, *, again: bool = False
    ) -> list[Status]:
        """Until there is room and the server answers, or is known not to, or time is up. `again`: after a first try."""
        crowded = not self._breaker.open and not again
        admitted = self._breaker.admits()
        if not admitted:
            self._check_known()
        if self._in_line and self._in_line + size > self._most:
            raise Unavailable(self._server, f"publishes with {self._in_line:,} bytes wait for it already: slow down")
        asked: list[float] = []
        self._in_line += size
        try:
            async with asyncio.timeout_at(began + self._patience):
                return await self._try_in_turn(outgoing, size, admitted, again, asked)
        except TimeoutError:
            if crowded and not asked:
                raise Unavailable(self._server, f"{self._limit} publishes wait for it already: slow down") from None
            raise self._out_of_time(asked[-1] if asked else None) from None
        finally:
            self._in_line -= size

    async def _try_in_turn(
        self, outgoing: Sequence[Outgoing], size: int, admitted: bool, again: bool, asked: list[float]
    ) -> list[Status]:
        """`asked`: gets the loop's time of each try."""
        breaker, loop = self._breaker, asyncio.get_running_loop()
        while True:
            while not (admitted or breaker.admits()):
                self._check_known()
                await breaker.turn()
            await self.in_flight.take_in_turn(size)
            admitted, was_open = False, breaker.open
            asked.append(loop.time())
            try:
                statuses = await self.transport.append(outgoing, again=again)
            except Unavailable as error:
                breaker.failed(error, away=was_open)
                again = True
            else:
                breaker.succeeded()
                return statuses
            finally:
                self.in_flight.give_back(size)

    def _check_known(self) -> None:
        """If there is a spool, nobody waits for a server that is known to be away."""
        if self._spool is not None and self._breaker.away:
            raise self._breaker.refusal()

    def _out_of_time(self, asked_at: float | None) -> Unavailable:
        """Why time is up. A server that was asked long ago and has not answered is away: others need not wait."""
        known = self._breaker.open
        error = self._breaker.refusal() if known else Unavailable(self._server, f"no answer for {self._patience:g} s")
        now = asyncio.get_running_loop().time()
        if asked_at is not None and now - asked_at >= self._patience / 2:
            self._breaker.failed(error, away=True)
        return error

    async def _spool_instead(
        self, spool: Spool, outgoing: Sequence[Outgoing], began: float, error: Unavailable | Full
    ) -> list[Status]:
        try:
            async with asyncio.timeout_at(began + self._timeout):
                await spool.append(outgoing)
        except (Unavailable, Full, TimeoutError) as refused:
            raise refused_by_both(error, refused, spool.name, self._server) from None
        return [Status.SPOOLED] * len(outgoing)


def _size(outgoing: Sequence[Outgoing]) -> int:
    """Bytes of data."""
    return sum(len(item.envelope.data) for item in outgoing)

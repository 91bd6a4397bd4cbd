"""Between having a delivery in hand and starting its handler, where a group has limits.

A limit by key (an organization, a user) that is reached puts its deliveries off, no attempt spent, and the others pass.
A limit over the whole group stops the group: what is in hand waits, and nothing more is read, so that at most one small
batch per process waits in the pending list.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import structlog

from eventbus.codec import decode
from eventbus.errors import CodecError, EventBusError
from eventbus.group import Group
from eventbus.limits import InFlight, RateLimit, key_of
from eventbus.transport import Delivery, Request, Scope, Transport

RATE_AHEAD = 0.1  # seconds; a process takes in hand what its group's rate allows in this time, and at least one


RESTING_LIMIT = 1_000  # deliveries that one process may have put off for a key's sake before it reads no more
RETRY_PAUSE = 0.2  # seconds, while the server is away

log = structlog.get_logger("eventbus.admission")


class Verdict(NamedTuple):
    """May start now; or rests `put_off` seconds; or (None) waits in hand for the whole group's sake."""

    delivery: Delivery
    admitted: bool
    put_off: float | None = None


class Admission:
    """Asks for the deliveries of one group in one process, and holds their places."""

    def __init__(self, transport: Transport, group: Group) -> None:
        self._transport = transport
        self._group = group
        self._places: dict[Delivery, list[Request]] = {}
        self._passed: set[Delivery] = set()  # by the limits with a key; those over the group still have to be asked

    @property
    def needed(self) -> bool:
        return bool(self._group.limits)

    @property
    def appetite(self) -> int:
        """How many deliveries it makes sense to have in hand, waiting."""
        over_group = [limit for limit in self._group.limits if limit.by is None]
        rates = [
            math.ceil(limit.count / limit.per * RATE_AHEAD) for limit in over_group if isinstance(limit, RateLimit)
        ]
        return min([*rates, *(limit.count for limit in over_group if isinstance(limit, InFlight))], default=1_000_000)

    async def ask(self, deliveries: Sequence[Delivery]) -> tuple[list[Verdict], float]:
        """A verdict for each, and the seconds after which to ask again for those that wait. Raises Unavailable."""
        verdicts: list[Verdict] = []
        left = list(deliveries)
        ask_again = 0.0
        for number, limit in enumerate(self._group.limits):
            if not left:
                break
            asking = [d for d in left if limit.by is None or d not in self._passed]
            requests = self._requests(number, asking)
            waits = await self._waits(requests)
            held = {delivery: wait for delivery, wait in waits.items() if wait > 0}
            left = [delivery for delivery in left if delivery not in held]
            if limit.by is None:
                ask_again = max(ask_again, max(held.values(), default=0.0))
                self._passed.update(held)
                verdicts += [Verdict(delivery, False) for delivery in held]
            else:
                await self.leave(list(held))
                verdicts += [Verdict(delivery, False, wait) for delivery, wait in held.items()]
        self._passed.difference_update(left)
        return verdicts + [Verdict(delivery, True) for delivery in left], ask_again

    def _requests(self, number: int, deliveries: Sequence[Delivery]) -> dict[Request, list[Delivery]]:
        limit, keyed = self._group.limits[number], dict[str, list[Delivery]]()
        for delivery in deliveries:
            key = "" if limit.by is None else _key(number, self._group, delivery)
            if key is not None:
                keyed.setdefault(key, []).append(delivery)
        return {
            Request(
                Scope(self._group.name, number, key), limit, self._group.lease, tuple(_member(d) for d in members)
            ): members
            for key, members in keyed.items()
        }

    async def _waits(self, requests: dict[Request, list[Delivery]]) -> dict[Delivery, float]:
        found: dict[Delivery, float] = {}
        if not requests:
            return found
        answers = await self._transport.admit(list(requests))
        for (request, deliveries), waits in zip(requests.items(), answers, strict=True):
            for delivery, wait in zip(deliveries, waits, strict=True):
                found[delivery] = wait
                if wait <= 0 and isinstance(request.limit, InFlight):
                    self._places.setdefault(delivery, []).append(request._replace(members=(_member(delivery),)))
        return found

    async def stay(self) -> None:
        """Keep the places of what runs."""
        if requests := [request for requests in self._places.values() for request in requests]:
            await self._transport.stay(requests)

    async def leave(self, deliveries: Sequence[Delivery]) -> None:
        """These have ended, or will not start now. A place whose leaving is lost is free after a lease."""
        requests = [request for delivery in deliveries for request in self._places.pop(delivery, ())]
        self._passed.difference_update(deliveries)
        if requests:
            await self._transport.leave(requests)


class Gate:
    """Where deliveries wait until they may start. `admit` starts those that may, `put_off` lets one rest."""

    def __init__(
        self, admission: Admission, admit: Callable[[list[Delivery]], None], put_off: Callable[[Delivery, float], None]
    ) -> None:
        self._admission = admission
        self._admit = admit
        self._put_off = put_off
        self._waiting: list[Delivery] = []
        self._resting: list[float] = []  # until when, by the loop's clock
        self._arrived = asyncio.Event()

    def put(self, deliveries: Sequence[Delivery]) -> None:
        self._waiting += deliveries
        self._arrived.set()

    def clear(self) -> list[Delivery]:
        """What waits, to be given back."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def room(self, free: int) -> int:
        """How many more may be taken in hand, of those for which there are free slots."""
        if self._waiting or self._crowded():
            return 0
        return min(free, self._admission.appetite)

    def _crowded(self) -> bool:
        if len(self._resting) < RESTING_LIMIT:
            return False
        now = asyncio.get_running_loop().time()
        self._resting = [until for until in self._resting if until > now]
        return len(self._resting) >= RESTING_LIMIT

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                try:
                    pause = await self._ask(list(self._waiting))
                except EventBusError as error:
                    log.debug("asking again soon", reason=str(error))
                    pause = RETRY_PAUSE
                await asyncio.sleep(pause)

    async def _ask(self, asked: list[Delivery]) -> float:
        verdicts, ask_again = await self._admission.ask(asked)
        still = set(self._waiting)  # a stop or a pause may have given them back meanwhile
        gone = [verdict.delivery for verdict in verdicts if verdict.delivery not in still]
        verdicts = [verdict for verdict in verdicts if verdict.delivery in still]
        decided = {verdict.delivery for verdict in verdicts if verdict.admitted or verdict.put_off is not None}
        self._waiting = [delivery for delivery in self._waiting if delivery not in decided]
        for delivery, _, put_off in verdicts:
            if put_off is not None:
                self._resting.append(asyncio.get_running_loop().time() + put_off)
                self._put_off(delivery, put_off)
        self._admit([delivery for delivery, admitted, _ in verdicts if admitted])
        await self._admission.leave(gone)
        return ask_again


def _key(number: int, group: Group, delivery: Delivery) -> str | None:
    try:
        return key_of(group.limits[number], decode(delivery.fields))
    except CodecError:  # it will be a dead letter in a moment
        return None


def _member(delivery: Delivery) -> str:
    return f"{delivery.subscription.stream}/{delivery.entry_id}"

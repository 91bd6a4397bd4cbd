"""For groups with limits: asks whether a delivery in hand may start its handler, and keeps the places of what runs.

All limits that concern a delivery are asked together: see eventbus.memory.limits.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from eventbus.contract.codec import decode
from eventbus.contract.delivery import Delivery
from eventbus.contract.limiting import Answer, Bound, Limiting, Request, Scope, member_of
from eventbus.contract.limits import InFlight, RateLimit, key_of
from eventbus.errors import CodecError
from eventbus.group import Group

RATE_AHEAD = 0.1  # seconds; a process takes in hand what its group's rate allows in this time, and at least one
ASK_AT_ONCE = 500  # deliveries in one call; the server does nothing else meanwhile


class Verdict(NamedTuple):
    """What the limits say of a delivery. `failure`: finding a limit's key raised this, and no limit was asked."""

    delivery: Delivery
    answer: Answer
    failure: BaseException | None = None


_FREE = Answer(True)


class Admission:
    """Asks for the deliveries of one group in one process, and holds their places."""

    def __init__(self, transport: Limiting, group: Group) -> None:
        self._transport = transport
        self._group = group
        self._requests: dict[Delivery, Request] = {}  # of deliveries that were asked for and wait in hand
        self._places: dict[Delivery, Request] = {}

    @property
    def needed(self) -> bool:
        return bool(self._group.limits)

    @property
    def group_name(self) -> str:
        return self._group.name

    @property
    def in_hand(self) -> int:
        return self._group.in_hand

    @property
    def appetite(self) -> int:
        """How many deliveries it makes sense to have in hand, waiting, under the limits over the whole group."""
        over_group = [limit for limit in self._group.limits if limit.by is None]
        rates = [
            math.ceil(limit.count / limit.per * RATE_AHEAD) for limit in over_group if isinstance(limit, RateLimit)
        ]
        return min([*rates, *(limit.count for limit in over_group if isinstance(limit, InFlight))], default=1_000_000)

    async def ask(self, deliveries: Sequence[Delivery], most: int) -> list[Verdict]:
        """A verdict for each. At most `most` of those under a limit may start; all others may. Raises Unavailable."""
        verdicts: list[Verdict] = []
        asked: list[tuple[Delivery, Request]] = []
        for delivery in deliveries:
            try:
                request = self._request(delivery)
            except (KeyboardInterrupt, GeneratorExit):
                raise
            except BaseException as error:  # noqa: BLE001 - application code: whatever it raises is its event's failure
                verdicts.append(Verdict(delivery, _FREE, error))
                continue
            if request.bounds:
                asked.append((delivery, request))
            else:
                verdicts.append(Verdict(delivery, _FREE))
        for at in range(0, len(asked), ASK_AT_ONCE):
            part = asked[at : at + ASK_AT_ONCE]
            answers = await self._transport.admit([request for _, request in part], most)
            for (delivery, request), answer in zip(part, answers, strict=True):
                most -= answer.admitted
                self._note(delivery, request, answer)
                verdicts.append(Verdict(delivery, answer))
        return verdicts

    def _note(self, delivery: Delivery, request: Request, answer: Answer) -> None:
        if answer.admitted and any(isinstance(bound.limit, InFlight) for bound in request.bounds):
            self._places[delivery] = request
        if answer.admitted or (answer.refused is not None and answer.refused.limit.by is not None):
            self._requests.pop(delivery, None)
        else:
            self._requests[delivery] = request

    def _request(self, delivery: Delivery) -> Request:
        known = self._requests.get(delivery)
        if known is not None:
            return known
        group = self._group
        member = member_of(delivery.subscription.log, delivery.entry_id)
        try:
            envelope = decode(delivery.fields)
        except CodecError:  # it will be a dead letter in a moment
            return Request(member, (), group.lease)
        if envelope.type not in group.handlers or envelope.only not in {None, group.name}:
            return Request(member, (), group.lease)  # not for this group: no handler will start
        keys = [(number, limit, key_of(limit, envelope)) for number, limit in enumerate(group.limits)]
        bounds = [Bound(Scope(group.name, number, key), limit) for number, limit, key in keys if key is not None]
        return Request(member, tuple(bounds), group.lease)

    async def stay(self) -> None:
        """Keep the places of what runs."""
        if self._places:
            await self._transport.stay(list(self._places.values()))

    async def leave(self, deliveries: Sequence[Delivery]) -> None:
        """Give back the places of deliveries that have ended, or will not start now. If the server does not learn of
        it, the places are free after a lease."""
        requests = [self._places.pop(delivery) for delivery in deliveries if delivery in self._places]
        for delivery in deliveries if self._requests else ():
            self._requests.pop(delivery, None)
        if requests:
            await self._transport.leave(requests)

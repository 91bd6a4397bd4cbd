"""Responses that wait for their users, brought to the sockets that these users have open here.

Each is a row before it is pushed (handlers.delivery.web). The push is the quick way, to sockets that are open then. The
row is the sure way, for whatever the push missed: rows are looked up when a socket opens, and for all users with
sockets here when pushes may have been lost. A response is taken when the client of one socket has confirmed it. Until
then it waits, whichever process dies.

A gateway gathers what it has to look up and to write down: one transaction does all that has come up meanwhile.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import timedelta
from itertools import islice
from typing import NamedTuple

from eventbus import Conflict, EventBus, Transaction, Unavailable
from eventbus.contract.transaction import Row
from eventbus.process.safe_logging import get_logger
from gateway.socket import frames
from gateway.socket.sockets import Owner, Sockets

PAGE = 10  # responses of a user at a time; more when some of these have been taken
MISSED_PAGE = 100  # responses of a user at a time, where pushes may have been lost
OWNERS = 500  # users who are looked up at a time
MISSED_KEPT = timedelta(minutes=1)  # for which a taken response stays, for gateways that missed its push
LINGER = 0.1  # seconds that confirmations may wait to be written down: nobody waits for that
RETRY_PAUSE = 1.0  # seconds

# Rows are locked in a fixed order, so that two gateways with the same responses cannot deadlock.
_TAKE = """
UPDATE responses_waiting SET taken_at = now(), expires_at = now() + $4::interval
WHERE (organization, user_id, message_id) IN (
    SELECT organization, user_id, message_id FROM responses_waiting
    JOIN unnest($1::text[], $2::text[], $3::text[]) AS taken (organization, user_id, message_id)
    USING (organization, user_id, message_id)
    WHERE taken_at IS NULL ORDER BY 1, 2, 3 FOR UPDATE OF responses_waiting
)
"""
_WAITING = """
SELECT found.* FROM unnest($1::text[], $2::text[]) AS owner (organization, user_id)
CROSS JOIN LATERAL (
    SELECT organization, user_id, message_id, frame FROM responses_waiting AS response
    WHERE response.organization = owner.organization AND response.user_id = owner.user_id
    AND expires_at > now() AND (taken_at IS NULL OR $3)
    ORDER BY created_at, message_id LIMIT $4
) AS found
"""

Arrived = tuple[Owner, str]  # a confirmed response: its user, and the id of the message that it answers

log = get_logger("gateway")


class _Work(NamedTuple):
    """What one transaction writes down (`taken`) and looks up (`opened`, `missed`)."""

    taken: Sequence[Arrived]
    opened: Sequence[Owner]
    missed: Sequence[Owner]


class Responses:
    """What is to be looked up and written down for the sockets of this process."""

    def __init__(self, bus: EventBus, sockets: Sockets) -> None:
        self._bus = bus
        self._sockets = sockets
        self._opened: set[Owner] = set()  # whose waiting responses are to be looked up
        self._missed: set[Owner] = set()  # the same, with responses that were taken lately, at whichever gateway
        self._taken: set[Arrived] = set()
        self._more: set[Owner] = set()  # who was given a full page: more may wait
        self._awake = asyncio.Event()
        self._lingering: asyncio.TimerHandle | None = None

    def look(self, owner: Owner) -> None:
        """A socket has been opened: bring it what waits."""
        self._opened.add(owner)
        self._awake.set()

    def look_for_missed(self) -> None:
        """Pushes may have been lost until now: look for what waits for everybody who has a socket here."""
        self._missed |= self._sockets.owners()
        self._awake.set()

    def taken(self, owner: Owner, message_ids: Iterable[str]) -> None:
        """The client of one of the owner's sockets has confirmed the responses to these messages."""
        self._taken.update((owner, message_id) for message_id in message_ids)
        if self._taken and self._lingering is None:
            self._lingering = asyncio.get_running_loop().call_later(LINGER, self._awake.set)

    async def run(self) -> None:
        """Look up and write down, for ever."""
        if self._opened or self._missed or self._taken:  # it has failed, and was begun again
            self._awake.set()
        while True:
            await self._awake.wait()
            self._awake.clear()
            work = self._gather()
            try:
                rows = await self._transact(work)
            except Exception as error:  # one row must not silence all sockets
                if not isinstance(error, Unavailable | Conflict):  # the bus tells of these itself
                    log.exception("responses wait")
                self._put_back(work)
                await asyncio.sleep(RETRY_PAUSE)
            else:
                self._deliver(rows)
                self._turn_pages(work, rows)

    def _gather(self) -> _Work:
        """Take the work out of the sets before anything is read: an owner who is added meanwhile is looked up again."""
        work = _Work(sorted(self._taken), _some(self._opened), _some(self._missed))
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        self._taken.clear()
        self._opened -= set(work.opened)
        self._missed -= set(work.missed)
        if self._opened or self._missed:
            self._awake.set()
        return work

    def _put_back(self, work: _Work) -> None:
        """Have the work done again. No harm if it was done after all: sockets leave out what they have had."""
        self._taken.update(work.taken)
        self._opened.update(work.opened)
        self._missed.update(work.missed)
        self._awake.set()

    async def _transact(self, work: _Work) -> list[Row]:
        async with self._bus.transaction() as tx:
            if work.taken:
                await _take(tx, work.taken)
            rows = list(await _waiting(tx, work.opened, PAGE)) if work.opened else []
            if work.missed:
                rows += await _waiting(tx, work.missed, MISSED_PAGE, also_taken=True)
        return rows

    def _deliver(self, rows: Iterable[Row]) -> None:
        for row in rows:
            frame = frames.response(row["frame"])
            for socket in self._sockets.of(_owner(row)):
                socket.deliver(row["message_id"], frame)

    def _turn_pages(self, work: _Work, rows: Iterable[Row]) -> None:
        """Look up more for users who have taken something from a full page."""
        ready = self._more & {owner for owner, _ in work.taken}
        found = Counter(_owner(row) for row in rows)
        self._more -= ready
        self._more |= {owner for owner, count in found.items() if count >= PAGE}
        self._more &= self._sockets.owners()
        for owner in ready:
            self.look(owner)


def _some(owners: set[Owner]) -> list[Owner]:
    return list(islice(owners, OWNERS))


def _owner(row: Row) -> Owner:
    return row["organization"], row["user_id"]


async def _take(tx: Transaction, taken: Sequence[Arrived]) -> None:
    organizations, users = [owner[0] for owner, _ in taken], [owner[1] for owner, _ in taken]
    await tx.connection.execute(_TAKE, organizations, users, [message_id for _, message_id in taken], MISSED_KEPT)


async def _waiting(tx: Transaction, owners: Sequence[Owner], limit: int, *, also_taken: bool = False) -> Sequence[Row]:
    organizations, users = [owner[0] for owner in owners], [owner[1] for owner in owners]
    return await tx.connection.fetch(_WAITING, organizations, users, also_taken, limit)

"""What a user may still ask, counted in Redis for all gateways together.

Requests of a user that come together are counted by one call to Redis. Where a user may send more than a few hundred
requests a second, a call takes a slice of his quota in advance, as much as he has in SLICE, and this process spends the
slice for some milliseconds without asking. What is left of it then is lost, since a slice is counted when it is taken.
So a user never gets more than the limit in any span, through however many gateways, and a few percent less at most.

While Redis is away nobody is refused: the limit protects the servers from a client, and is no reason to refuse what
PostgreSQL, or the spool, would take.
"""

import asyncio
import math
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from aiohttp import web

from eventbus import EventBus, EventBusError, RateLimit
from eventbus.process.safe_logging import get_logger
from gateway.callers.auth import Caller
from gateway.callers.rates import EVERYBODY, Rate, Rates
from gateway.http.problems import Problem
from handlers.common.deadline import within

SLICE = 0.005  # seconds
HOLD = 0.02  # the part of a span, and at most MAX_HOLD seconds, in which a slice may be spent
MAX_HOLD = 0.1
ASK_TIMEOUT = 0.5  # seconds
AWAY_PAUSE = 1.0  # seconds in which Redis is not asked again
REMEMBERED = 10_000  # users

log = get_logger("gateway")


class Standing(NamedTuple):
    """What a user's quota is after a request. `left`: requests that remain; None: not known, since Redis is away.
    `opens`: seconds until he has more; 0.0 while he has all."""

    rate: Rate
    refused: bool
    left: int | None
    opens: float

    def refusal(self) -> Problem:
        seconds = max(1, math.ceil(self.opens))
        told = f"{self.rate.count} requests in {self.rate.seconds} s are used up: again in {seconds} s"
        return Problem(429, told, headers={"Retry-After": str(seconds)})

    def stamp(self, response: web.StreamResponse) -> None:
        response.headers["RateLimit-Policy"] = self.rate.header
        if self.left is not None:
            seconds = max(1, math.ceil(self.opens)) if self.opens else 0
            response.headers["RateLimit"] = f'"{self.rate.name}";r={self.left};t={seconds}'


STANDING = web.RequestKey("standing", Standing)


async def stamp(request: web.Request, response: web.StreamResponse) -> None:
    """For `on_response_prepare`: every answer says what is left of the quota, and so does every refusal."""
    standing = request.get(STANDING)
    if standing is not None:
        standing.stamp(response)


class _Account:
    """What this process knows of one user's quota: the requests that wait for Redis to answer, what is left of his
    slice, until when he is refused. Times are those of the event loop's clock."""

    def __init__(self, rate: Rate, key: str) -> None:
        self.rate = rate
        self.key = key
        self.slice = max(1, int(rate.per_second * SLICE))
        # A slice of one request is spent at once: there is nothing to hold.
        self.hold = min(rate.seconds * HOLD, MAX_HOLD) if self.slice > 1 else 0.0
        self.limit = RateLimit(rate.count, rate.seconds + self.hold)  # a request may be spent `hold` after it was taken
        self.waiting: deque[asyncio.Future[Standing]] = deque()
        self.asking: asyncio.Task[None] | None = None
        self.free, self.until = 0, 0.0
        self.left, self.opens = 0, 0.0
        self.refused_until = 0.0

    def standing(self, now: float) -> Standing | None:
        """Spend one request, or refuse it, where that needs no call to Redis; else None."""
        if self.free and now < self.until:
            self.free -= 1
            return Standing(self.rate, False, self.left + self.free, max(0.0, self.opens - now))
        if now < self.refused_until:
            return Standing(self.rate, True, 0, self.refused_until - now)
        return None


class Quotas:
    """The quotas of all users; one object for a gateway."""

    def __init__(self, bus: EventBus, rates: Rates) -> None:
        self._bus = bus
        self._rates = rates
        self._accounts: dict[tuple[str, str, str], _Account] = {}
        self._away_until = 0.0

    def rate_of(self, caller: Caller) -> Rate | None:
        """The rate of his role, of several roles the most generous; without one, that of EVERYBODY. None: no limit."""
        if len(self._rates) == 1:
            return self._rates[EVERYBODY]
        named = [self._rates[role] for role in caller.roles if role in self._rates and role != EVERYBODY]
        if not named:
            return self._rates[EVERYBODY]
        if None in named:
            return None
        return max((rate for rate in named if rate is not None), key=lambda rate: rate.per_second)

    def at_once(self, rate: Rate, caller: Caller) -> Standing | None:
        """As `spend`, where that need not ask Redis; else None, and nothing is spent."""
        account = self._accounts.get((rate.name, caller.organization, caller.user))
        return None if account is None else account.standing(asyncio.get_running_loop().time())

    async def spend(self, rate: Rate, caller: Caller) -> Standing:
        """Spend one request of the caller's quota."""
        loop = asyncio.get_running_loop()
        account = self._account(rate, caller)
        standing = account.standing(loop.time())
        if standing is not None:
            return standing
        if loop.time() < self._away_until:
            return Standing(rate, False, None, 0.0)
        waiting: asyncio.Future[Standing] = loop.create_future()
        account.waiting.append(waiting)
        if account.asking is None:
            account.asking = loop.create_task(self._ask(account), name=f"quota:{account.key}")
        return await waiting

    def _account(self, rate: Rate, caller: Caller) -> _Account:
        name = (rate.name, caller.organization, caller.user)
        account = self._accounts.get(name)
        if account is None:
            key = "\0".join(("gateway", *name))
            account = self._accounts[name] = _Account(rate, key)
            if len(self._accounts) > REMEMBERED:
                del self._accounts[next(iter(self._accounts))]  # what it holds of a slice is lost, and nothing else
        return account

    async def _ask(self, account: _Account) -> None:
        """Have Redis count the requests that wait, until none does."""
        loop = asyncio.get_running_loop()
        try:
            while account.waiting:
                if (standing := account.standing(loop.time())) is not None:  # one came while others were counted
                    _tell(account.waiting, (standing,))
                    continue
                waiting = account.waiting
                account.waiting = deque()
                try:
                    await self._take(account, waiting)
                except Exception as error:  # whatever it is, those who wait must not wait for ever
                    foreseen = isinstance(error, EventBusError | TimeoutError)
                    reason = str(error) or "Redis does not answer"
                    log.warning("requests are not counted", reason=reason, exc_info=None if foreseen else error)
                    self._away_until = loop.time() + AWAY_PAUSE
                    _tell(waiting, (Standing(account.rate, False, None, 0.0) for _ in range(len(waiting))))
        finally:
            account.asking = None

    async def _take(self, account: _Account, waiting: "deque[asyncio.Future[Standing]]") -> None:
        rate, wanted = account.rate, len(waiting) + account.slice - 1
        spent = await within(ASK_TIMEOUT, self._bus.transport.spend(account.key, account.limit, wanted))
        now = asyncio.get_running_loop().time()
        served = min(spent.granted, len(waiting))
        account.free, account.until = spent.granted - served, now + account.hold
        account.left, account.opens = spent.left, now + spent.opens
        if served < len(waiting):
            account.refused_until = now + spent.opens
        others = account.free + spent.left
        _tell(waiting, (Standing(rate, False, others + served - i - 1, spent.opens) for i in range(served)))
        _tell(waiting, (Standing(rate, True, 0, spent.opens) for _ in range(len(waiting))))


def _tell(waiting: "deque[asyncio.Future[Standing]]", standings: Iterable[Standing]) -> None:
    """Give one to each request, the first to come first. A request that was given up meanwhile is spent as well."""
    for standing in standings:
        future = waiting.popleft()
        if not future.done():
            future.set_result(standing)

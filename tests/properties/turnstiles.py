"""Ways to ask for starts at a time that the test says: the rule in Python, and the script on a real server.

The script's clock, `redis.call('TIME')`, is replaced in its text by a key that the test sets. All else is what runs in
production: the server, its Lua, its refusal of an expiry that is no whole number. Keys do not expire meanwhile, for the
server's own time goes on more slowly than the test's."""

import hashlib
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol
from uuid import uuid4

from eventbus.contract.limiting import Answer, Request
from eventbus.contract.limits import InFlight
from eventbus.memory.gauges import InFlightGauge
from eventbus.memory.limits import Turnstile
from eventbus.redis import limiting, scripts
from eventbus.redis.keys import limit_keys
from eventbus.redis.link import Link
from eventbus.redis.scripts import Script

CLOCK = "test:clock"
_HEAD = f"""
local function pexpire(key, ms)
  redis.call('PEXPIRE', key, ms)
  return redis.call('PERSIST', key)
end
local function virtual_time()
  return redis.call('HMGET', '{CLOCK}', 'seconds', 'micros')
end
"""


class Asked(Protocol):
    """All of one group. Times in ms."""

    async def admit(self, requests: Sequence[Request], most: int, now: int) -> list[Answer]:
        """As Transport.admit."""

    async def leave(self, requests: Iterable[Request]) -> None:
        """As Transport.leave."""


class Rule:
    """eventbus.memory.limits, which MemoryTransport asks."""

    def __init__(self) -> None:
        self.turnstile = Turnstile()

    async def admit(self, requests: Sequence[Request], most: int, now: int) -> list[Answer]:
        return self.turnstile.admit(requests, most, now)

    async def leave(self, requests: Iterable[Request]) -> None:
        for request in requests:
            for bound in request.bounds:
                gauge = self.turnstile.gauge(bound)
                if isinstance(gauge, InFlightGauge):
                    gauge.running.pop(request.member, None)


class OnServer:
    """scripts/admit.lua, at a time of the test's."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._namespace = f"test-{uuid4().hex}"

    async def admit(self, requests: Sequence[Request], most: int, now: int) -> list[Answer]:
        clock = ("HSET", CLOCK, "seconds", now // 1000, "micros", now % 1000 * 1000)
        command = limiting.admission(self._namespace, requests, most)
        again = ("EVALSHA", VIRTUAL.digest, *command[2:])
        _, reply = await scripts.run_all(self._link, [clock, again])
        return limiting.answers(requests, reply)

    async def leave(self, requests: Iterable[Request]) -> None:
        for request in requests:
            for bound in request.bounds:
                if isinstance(bound.limit, InFlight):
                    key = limit_keys(self._namespace, bound.scope, "running")[0]
                    await self._link.execute("ZREM", key, request.member)


@asynccontextmanager
async def on_server(url: str) -> AsyncIterator[OnServer]:
    link = Link(url, timeout=30, name="test")
    try:
        yield OnServer(link)
    finally:
        await link.close()


def _virtual() -> Script:
    script = Script("admit")
    flags, _, rest = script.text.partition("\n")
    assert flags.startswith("#!lua"), "flags stand in the first line"
    assert rest.count("redis.call('TIME')") == 1
    rest = rest.replace("redis.call('TIME')", "virtual_time()").replace("redis.call('PEXPIRE', ", "pexpire(")
    script.text = flags + _HEAD + rest
    script.digest = hashlib.sha1(script.text.encode(), usedforsecurity=False).hexdigest()
    scripts._texts[script.digest] = script.text  # for a server that does not know it yet
    return script


VIRTUAL = _virtual()

"""Redis if it answers, the spool if not: for what is asked of sessions.

Order holds: while anything is in the spool, an operation of a session goes there as well, behind what may be of the
same session. An operation is acknowledged when it is in Redis or in the file; so whoever waits for each answer before
the next request finds them applied in this order, also through several processes that share the file, and restarts.
An operation that reached Redis, whose answer was lost, is in the spool as well, and is applied once: see operations.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from eventbus.errors import Full, Unavailable
from eventbus.publishing.breaker import Breaker
from eventbus.publishing.spool import Operation, Spool, patience, refused_by_both

T = TypeVar("T")


class Contingency:
    """`server`: what messages call Redis. `timeout`: seconds for all of it."""

    def __init__(self, spool: Spool | None, breaker: Breaker, *, server: str, timeout: float) -> None:
        self._spool = spool
        self._breaker = breaker
        self._server = server
        self._timeout = timeout
        self._patience = patience(timeout, spool)

    @property
    def waits(self) -> bool:
        """Whether the spool may hold something that Redis has not heard of."""
        return self._spool is not None and self._spool.waits

    async def do(
        self,
        call: Callable[[], Awaitable[T]],
        operation: Operation,
        check: Callable[[], object],
        *,
        first: bool = False,
    ) -> T | None:
        """What `call` returns, which may be called several times; None if the operation is in the spool instead.

        check  is called before the operation is spooled, and may raise why it is not to be
        first  nothing can be in the spool that it has to follow

        Raises Unavailable (done or not: unknown) or Full (not done), when the spool, if there is one, cannot take it
        either; and what else `call` or `check` raises."""
        began = asyncio.get_running_loop().time()
        if self.waits and not first:
            error: Unavailable | Full = Unavailable(self._server, "what is in the spool goes first")
        else:
            try:
                return await self._ask(call)
            except (Unavailable, Full) as failed:
                error = failed
        if self._spool is None:
            raise error
        check()
        await self._keep(self._spool, operation, began, error)
        return None

    async def _ask(self, call: Callable[[], Awaitable[T]]) -> T:
        """Until it answers, or is known not to, or time is up."""
        breaker = self._breaker
        try:
            async with asyncio.timeout(self._patience):
                while True:
                    while not breaker.admits():
                        if self._spool is not None and breaker.away:
                            raise breaker.refusal()
                        await breaker.turn()
                    was_open = breaker.open
                    try:
                        answer = await call()
                    except Unavailable as error:
                        breaker.failed(error, away=was_open)
                        if self._spool is not None and breaker.away:
                            raise
                    else:
                        breaker.succeeded()
                        return answer
        except TimeoutError:
            # Not told to the breaker: a large commit may take long on a server that answers.
            raise Unavailable(self._server, f"not done within {self._patience:g} s") from None

    async def _keep(self, spool: Spool, operation: Operation, began: float, error: Unavailable | Full) -> None:
        try:
            async with asyncio.timeout_at(began + self._timeout):
                await spool.keep([operation])
        except (Unavailable, Full, TimeoutError) as refused:
            raise refused_by_both(error, refused, spool.name, self._server) from None

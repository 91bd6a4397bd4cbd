"""Which user has which agent, remembered for a few seconds: many messages come each second, and agents hardly change.

A deleted agent counts as present for that long; a message to it then ends as a dead letter that says so. An agent that
was not found is asked for again, since it may have been created by now.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from eventbus import EventBus, Resource, Use
from handlers.agent import store
from handlers.common.lookups import look

LIFETIME = 5.0  # seconds
REMEMBERED = 10_000  # agents

Key = tuple[str, str, UUID]  # organization, user, agent


class Known:
    """The agents that one process has seen."""

    def __init__(self) -> None:
        self._until: dict[Key, float] = {}

    async def has(self, bus: EventBus, organization: str, user: str, agent_id: UUID) -> bool:
        """Whether the user has this agent. Raises Unavailable."""
        key = (organization, user, agent_id)
        if self._until.get(key, 0.0) > time.monotonic():
            return True
        if await look(bus, lambda connection: store.find(connection, organization, user, agent_id)) is None:
            return False
        self._remember(key)
        return True

    def _remember(self, key: Key) -> None:
        self._until.pop(key, None)
        self._until[key] = time.monotonic() + LIFETIME
        if len(self._until) > REMEMBERED:
            del self._until[next(iter(self._until))]


async def _open(_use: Use) -> AsyncIterator[Known]:
    yield Known()


KNOWN_AGENTS = Resource("the agents known", asynccontextmanager(_open))

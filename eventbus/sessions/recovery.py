"""Commits whose process has died are ended by another one, without anybody's help.

Every worker and every gateway looks; of those that look within the same seconds one is told. A look that finds nothing
is one command.
"""

import asyncio
import random

from eventbus.contract.broker import Broker
from eventbus.contract.session_store import NOTE_STANDS, Note, SessionStatus
from eventbus.errors import EventBusError, Unavailable
from eventbus.process.safe_logging import get_logger
from eventbus.sessions.committing import Count, commit

INTERVAL = 5.0  # seconds between looks
GRACE = 5.0  # seconds that a commit is left to who began it; a second one beside it would be harmless

log = get_logger("eventbus.sessions")


class Recovery:
    """A Role: `run()` for ever. `count`: see committing."""

    def __init__(self, transport: Broker, count: Count) -> None:
        self._transport = transport
        self._count = count

    async def run(self) -> None:
        while True:
            try:
                await self.look()
            except Unavailable:  # the log says already which server is away
                pass
            except Exception as error:  # noqa: BLE001 - a role that ends takes its worker along
                log.error("sessions are not recovered", error=str(error))  # noqa: TRY400
            await asyncio.sleep(INTERVAL * random.uniform(1.0, 1.2))  # noqa: S311 - they were all started at once

    async def look(self) -> None:
        """End the commits that nobody has ended."""
        for note in await self._transport.sessions.unfinished(GRACE, INTERVAL / 2):
            try:
                await self._mend(note)
            except Unavailable:
                raise
            except EventBusError as error:
                log.error("a session is not recovered", session=note.session.id, error=str(error))  # noqa: TRY400

    async def _mend(self, note: Note) -> None:
        ledger, session = self._transport.sessions, note.session
        state = await ledger.find(session)
        if state is not None and state.status is SessionStatus.COMMITTING:
            state = await commit(ledger, session, count=self._count)
            log.warning("session recovered", session=session.id, published=state.published, batches=state.batches)
        elif state is not None and state.status is SessionStatus.COMMITTED:
            await ledger.forget(session, state.streams)
        elif note.age > NOTE_STANDS:  # before that, who has made the note may still begin
            await ledger.forget(session, ())

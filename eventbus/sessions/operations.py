"""What is asked of sessions while Redis is away, as the spool keeps it. Each operation is applied once, by an id: that
of the session for its start and its end, that of the addition for events."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, Self

import orjson
from pydantic import JsonValue

from eventbus.contract.broker import Broker
from eventbus.contract.codec import decode, encode
from eventbus.contract.session_store import LIFETIME, SessionId
from eventbus.errors import EventBusError, Full, SessionRefused, Unavailable
from eventbus.event import Envelope
from eventbus.publishing.spool import Refused, spoolable
from eventbus.publishing.spool.record import Parts
from eventbus.sessions.committing import commit

_FIELDS = (b"id", b"type", b"meta", b"data")
SERIES = "sessions"  # all operations of sessions are applied in one run: one that is refused holds up others


class StartSession(NamedTuple):
    session: SessionId
    time: datetime
    metadata: Mapping[str, JsonValue]

    def parts(self) -> dict[str, object]:
        return _parts("session.start", self.session, self.time) | {"metadata": orjson.dumps(self.metadata).decode()}

    @classmethod
    def read(cls, parts: Parts) -> Self:
        return cls(*_read(parts), orjson.loads(parts["metadata"]))

    async def apply(self, transport: Broker) -> None:
        await transport.sessions.start(self.session, self.metadata, LIFETIME)

    @classmethod
    async def replay(cls, run: "Sequence[SessionOperation]", transport: Broker) -> list[Refused]:
        return await _in_order(run, transport)

    @property
    def series(self) -> object:
        return SERIES


class AddEvents(NamedTuple):
    session: SessionId
    time: datetime
    addition: str
    events: Sequence[Envelope]

    def parts(self) -> dict[str, object]:
        packed = [[_text(part) for part in encode(event)[1::2]] for event in self.events]
        return _parts("session.add", self.session, self.time) | {"addition": self.addition, "events": packed}

    @classmethod
    def read(cls, parts: Parts) -> Self:
        events = [
            decode({name: part.encode() for name, part in zip(_FIELDS, packed, strict=True)})
            for packed in parts["events"]
        ]
        return cls(*_read(parts), str(parts["addition"]), events)

    async def apply(self, transport: Broker) -> None:
        await transport.sessions.add(self.session, self.addition, self.events, self.time)

    @classmethod
    async def replay(cls, run: "Sequence[SessionOperation]", transport: Broker) -> list[Refused]:
        return await _in_order(run, transport)

    @property
    def series(self) -> object:
        return SERIES


class CommitSession(NamedTuple):
    session: SessionId
    time: datetime

    def parts(self) -> dict[str, object]:
        return _parts("session.commit", self.session, self.time)

    @classmethod
    def read(cls, parts: Parts) -> Self:
        return cls(*_read(parts))

    async def apply(self, transport: Broker) -> None:
        await commit(transport.sessions, self.session, self.time)

    @classmethod
    async def replay(cls, run: "Sequence[SessionOperation]", transport: Broker) -> list[Refused]:
        return await _in_order(run, transport)

    @property
    def series(self) -> object:
        return SERIES


class RollBackSession(NamedTuple):
    session: SessionId
    time: datetime

    def parts(self) -> dict[str, object]:
        return _parts("session.roll_back", self.session, self.time)

    @classmethod
    def read(cls, parts: Parts) -> Self:
        return cls(*_read(parts))

    async def apply(self, transport: Broker) -> None:
        await transport.sessions.roll_back(self.session, self.time)

    @classmethod
    async def replay(cls, run: "Sequence[SessionOperation]", transport: Broker) -> list[Refused]:
        return await _in_order(run, transport)

    @property
    def series(self) -> object:
        return SERIES


SessionOperation = StartSession | AddEvents | CommitSession | RollBackSession

spoolable("session.start", StartSession.read)
spoolable("session.add", AddEvents.read)
spoolable("session.commit", CommitSession.read)
spoolable("session.roll_back", RollBackSession.read)


async def _in_order(run: Sequence[SessionOperation], transport: Broker) -> list[Refused]:
    """What Redis refuses spoils its session for the rest of the run: without one addition the rest must not follow, and
    least of all the commit."""
    refused, spoiled = list[Refused](), dict[SessionId, str]()
    for operation in run:
        try:
            if reason := spoiled.get(operation.session):
                refused.append(Refused(operation, f"what came before was refused: {reason}"))
            else:
                await operation.apply(transport)
        except SessionRefused as error:
            refused.append(Refused(operation, str(error)))
        except (Unavailable, Full):
            raise
        except EventBusError as error:
            refused.append(Refused(operation, str(error)))
            spoiled[operation.session] = str(error)
    return refused


def _parts(name: str, session: SessionId, time: datetime) -> dict[str, object]:
    return {"operation": name, **session._asdict(), "time": time.isoformat()}


def _read(parts: Parts) -> tuple[SessionId, datetime]:
    time = datetime.fromisoformat(parts["time"]).astimezone(UTC)
    return SessionId(str(parts["organization"]), str(parts["id"])), time


def _text(part: bytes | str) -> str:
    return part if isinstance(part, str) else part.decode()

"""Sessions on the wire: what clients send and are answered, and how JSON becomes what a session keeps."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from pydantic import (
    AfterValidator,
    Field,
    JsonValue,
    RootModel,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import from_json

from eventbus import Origin
from eventbus.contract.codec import envelop
from eventbus.contract.session_store import MAX_EVENTS, SessionId, SessionState, SessionStatus
from eventbus.errors import CodecError
from eventbus.event import Envelope
from eventbus.sessions import Answer as Done
from gateway.callers.auth import Caller
from gateway.events.event_status import OVERSEERS
from gateway.events.typed import Misfit, class_of, event_of, organization_field
from gateway.http.problems import MAX_ERRORS, Location, Problem, faults_of
from handlers.common.fields import Answer, Line, Query, Request
from handlers.common.paging import DEFAULT_LIMIT, Limit, Page, PositionCursor, encode_cursor

MAX_METADATA = 16_384  # bytes of JSON
AT_ONCE = 100  # events that are looked at before others have a turn, and before anybody asks whether it is worth it
_OWNER = "\0userId"  # whose a session is, in its metadata: `_small` refuses such a name to clients


def _small(metadata: dict[str, JsonValue]) -> dict[str, JsonValue]:
    if any("\0" in name for name in metadata):
        raise ValueError("a name has a null character")
    try:
        size = len(orjson.dumps(metadata))
    except TypeError as error:  # numbers of more than 64 bits, which the session could not be kept with
        raise ValueError(f"cannot be kept: {error}") from None
    if size > MAX_METADATA:
        raise ValueError(f"has more than {MAX_METADATA:,} bytes of JSON")
    return metadata


class NewSession(Request):
    """`metadata`: whatever the client wants to find again."""

    metadata: Annotated[dict[str, JsonValue], AfterValidator(_small)] = Field(default_factory=dict)


class NewEvent(Request):
    """`key`: what the event is about, as `subject` of a CloudEvent."""

    type: Line
    data: dict[str, JsonValue]
    key: Line | None = None


_MANY = TypeAdapter(list[NewEvent])


def _one_or_many(content: Any, _handler: ValidatorFunctionWrapHandler) -> NewEvent | list[NewEvent]:
    """Not a union, which would put the names of its members into the locations of the faults."""
    return _many(content) if isinstance(content, list) else NewEvent.model_validate(content)


def _many(content: list[Any]) -> list[NewEvent]:
    """Raises Problem: 413 for more than a session takes, 422 behind as many faults as are told."""
    if len(content) > MAX_EVENTS:
        raise Problem(413, f"{len(content):,} events, and a session takes {MAX_EVENTS:,}")
    events: list[NewEvent] = []
    errors: list[Mapping[str, object]] = []
    for start in range(0, len(content), AT_ONCE):
        try:
            events += _MANY.validate_python(content[start : start + AT_ONCE])
        except ValidationError as error:
            for place, message in faults_of(error):
                which = (start + int(place[0]), *place[1:]) if place else ()
                errors.append({"loc": ["body", *which], "msg": message})
            if len(errors) >= MAX_ERRORS:
                break
    if errors:
        raise Problem(422, "the body is not valid", errors=errors)
    return events


class NewEvents(RootModel[Annotated[NewEvent | list[NewEvent], WrapValidator(_one_or_many)]]):
    """One event, or a list of them: all are added, or none."""


class Contingent(Answer):
    """`contingency`: Redis is away, and what was asked is kept on this machine's disk until it is back."""

    contingency: bool = False


class Started(Contingent):
    session_id: UUID
    status: SessionStatus
    event_count: int
    created_at: datetime
    expires_at: datetime


class Added(Contingent):
    """`event_count`: null where Redis is away and nobody knows it."""

    session_id: UUID
    event_count: int | None


class Committed(Contingent):
    """`status`: COMMITTING where Redis is away, and nothing is published until it is back."""

    session_id: UUID
    status: Literal[SessionStatus.COMMITTED, SessionStatus.COMMITTING]
    published: int
    batches: int


class RolledBack(Contingent):
    session_id: UUID
    status: Literal[SessionStatus.ROLLED_BACK]


class SessionShown(Answer):
    """`published` and `batches`: of one that is COMMITTED."""

    session_id: UUID
    status: SessionStatus
    event_count: int
    created_at: datetime
    expires_at: datetime
    metadata: dict[str, JsonValue]
    published: int | None
    batches: int | None


class EventShown(Answer):
    event_id: UUID
    type: str
    key: str | None
    data: Any


class CollectedQuery(Query):
    limit: Limit = DEFAULT_LIMIT
    cursor: PositionCursor | None = None


def owned(metadata: Mapping[str, JsonValue], caller: Caller) -> dict[str, JsonValue]:
    """The metadata that is kept with a session: the client's, and whose the session is."""
    return {**metadata, _OWNER: caller.user}


def is_owner(state: SessionState, caller: Caller) -> bool:
    """Whether he may use this session of his organization: it is his own, or he has one of the roles OVERSEERS."""
    return bool(caller.roles & OVERSEERS) or state.metadata.get(_OWNER) == caller.user


async def prepare(body: NewEvents, caller: Caller, origin: Origin) -> list[Envelope]:
    """What the session is to keep. Raises Problem(422) if one of the events is not fit, with the faults of all, or with
    as many as are told."""
    sent = body.root if isinstance(body.root, list) else [body.root]
    prepared: list[Envelope] = []
    faults: list[Mapping[str, object]] = []
    for index, event in enumerate(sent):
        if index % AT_ONCE == AT_ONCE - 1:
            await asyncio.sleep(0)
        if len(faults) >= MAX_ERRORS:
            break
        place: Location = ("body", index) if isinstance(body.root, list) else ("body",)
        try:
            prepared.append(_envelope(event, caller, origin))
        except Misfit as misfit:
            faults += [{"loc": [*place, *location], "msg": message} for location, message in misfit.faults]
    if faults:
        raise Problem(422, "the body is not valid", errors=faults)
    return prepared


def _envelope(sent: NewEvent, caller: Caller, origin: Origin) -> Envelope:
    cls, organization = class_of(sent.type), caller.organization
    field, fields = organization_field(cls), sent.data
    if field is not None:
        if fields.get(field) not in {None, organization}:
            raise Misfit((("data", field), "this is not the organization of your token"))
        fields = {**fields, field: organization}
    event = event_of(cls, fields)
    if getattr(event, "user_id", None) not in {None, caller.user} and not caller.roles & OVERSEERS:
        raise Misfit((("data", "userId"), "this is another user: that takes the role admin or system"))
    try:
        return envelop(event, origin, key=sent.key, organization=organization)
    except CodecError as error:
        raise Misfit((("data",), str(error))) from None


def started(done: Done) -> Started:
    assert done.state is not None, "who starts a session knows it"
    return Started(contingency=done.contingency, **_told(done.state))


def added(session: SessionId, done: Done) -> Added:
    count = None if done.state is None else done.state.event_count
    return Added(session_id=UUID(session.id), event_count=count, contingency=done.contingency)


def committed(session: SessionId, done: Done) -> Committed:
    state = done.state
    return Committed(
        session_id=UUID(session.id),
        status=SessionStatus.COMMITTED
        if state and state.status is SessionStatus.COMMITTED
        else SessionStatus.COMMITTING,
        published=state.published if state else 0,
        batches=state.batches if state else 0,
        contingency=done.contingency,
    )


def rolled_back(session: SessionId, done: Done) -> RolledBack:
    return RolledBack(session_id=UUID(session.id), status=SessionStatus.ROLLED_BACK, contingency=done.contingency)


def shown(state: SessionState) -> SessionShown:
    is_committed = state.status is SessionStatus.COMMITTED
    return SessionShown(
        **_told(state),
        metadata={name: value for name, value in state.metadata.items() if name != _OWNER},
        published=state.published if is_committed else None,
        batches=state.batches if is_committed else None,
    )


def page(events: Sequence[Envelope], query: CollectedQuery) -> Page[EventShown]:
    """`events`: one more than fits the page, if there is a next one."""
    start = query.cursor or 0
    items = [
        EventShown(event_id=UUID(event.id), type=event.type, key=event.subject, data=from_json(event.data))
        for event in events[: query.limit]
    ]
    return Page(items=items, next_cursor=encode_cursor(start + query.limit) if len(events) > query.limit else None)


def _told(state: SessionState) -> dict[str, Any]:
    return {
        "session_id": UUID(state.id),
        "status": state.status,
        "event_count": state.event_count,
        "created_at": state.created_at,
        "expires_at": state.expires_at,
    }

"""CloudEvents become ours: the type and its data are checked, the organization is the caller's, and what makes it the
same event again becomes a dedupe key. docs/decisions/0019 says why."""

from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache
from hashlib import blake2b

from pydantic import JsonValue, ValidationError
from pydantic_core import to_json

from eventbus import Event, Origin
from eventbus.codec import envelop
from eventbus.dedupe import Once
from eventbus.errors import CodecError, UnknownEventType
from eventbus.event import NORMAL_PRIORITY, Envelope, event_class, event_types
from eventbus.transport import Outgoing
from gateway.auth import Caller
from gateway.cloudevents import CloudEvent, Location, Parcel, refusal
from gateway.correlation import is_traceparent
from gateway.problems import message_of

WINDOW = 24 * 3_600.0  # seconds in which the same event is known again, as an Idempotency-Key is
MAX_ORGANIZATION = 128  # characters


class _Misfit(Exception):
    """An event that cannot be published; `faults` by attribute."""

    def __init__(self, *faults: tuple[Location, str]) -> None:
        super().__init__()
        self.faults = faults


def prepare(parcel: Parcel, caller: Caller, origin: Origin) -> list[Outgoing]:
    """What is to be published. Raises Problem(422), with the faults of all events, if one of them is not fit for it."""
    prepared: list[Outgoing] = []
    faults: list[tuple[Location, str]] = []
    for index, sent in enumerate(parcel.events):
        try:
            prepared.append(_prepared(sent, caller, origin))
        except _Misfit as misfit:
            faults += [(parcel.place(index, location), message) for location, message in misfit.faults]
    if faults:
        raise refusal(faults)
    return prepared


def _prepared(sent: CloudEvent, caller: Caller, origin: Origin) -> Outgoing:
    cls = _class_of(sent.type)
    fields = _fields(sent)
    organization = _organization(sent, fields, cls, caller)
    event = _event(cls, fields)
    return Outgoing(_envelope(sent, event, organization, origin), once=Once(_identity(sent), WINDOW))


def _class_of(event_type: str) -> type[Event]:
    try:
        return event_class(event_type)
    except UnknownEventType:
        alike = get_close_matches(event_type, event_types(), n=1)
        hint = f": did you mean {alike[0]}?" if alike else ""
        raise _Misfit((("type",), f"no event of this type is registered{hint}")) from None


def _fields(sent: CloudEvent) -> dict[str, JsonValue]:
    if sent.data is None:
        return {}
    if not isinstance(sent.data, dict):
        raise _Misfit((("data",), "must be an object"))
    return sent.data


def _organization(sent: CloudEvent, fields: dict[str, JsonValue], cls: type[Event], caller: Caller) -> str:
    """Whose event it is, and written into its data if there is a place for it. The role `system` may name one."""
    field = _organization_field(cls)
    told: list[tuple[Location, JsonValue]] = [(("organizationid",), sent.organizationid)]
    if field is not None:
        told.append((("data", field), fields.get(field)))
    named = [(place, name) for place, name in told if name is not None]
    free = "system" in caller.roles
    chosen = named[0][1] if named and free else caller.organization
    reason = "there is another one in organizationid" if free else "this is not the organization of your token"
    faults = [(place, reason) for place, name in named if name != chosen]
    if not isinstance(chosen, str) or not 0 < len(chosen) <= MAX_ORGANIZATION:
        faults.append((named[0][0], f"must be text of 1 to {MAX_ORGANIZATION} characters"))
    if faults or not isinstance(chosen, str):
        raise _Misfit(*faults)
    if field is not None:
        fields[field] = chosen
    return chosen


@lru_cache(1024)
def _organization_field(cls: type[Event]) -> str | None:
    """What it is called on the wire; None if these events have none."""
    found = cls.model_fields.get("organization_id")
    return None if found is None else found.alias or "organization_id"


def _event(cls: type[Event], fields: Mapping[str, JsonValue]) -> Event:
    """As JSON, for what JSON has no type for: a UUID is text there. Strict, and by the names on the wire alone."""
    try:
        event: Event = cls.__pydantic_validator__.validate_json(
            to_json(fields), strict=True, by_alias=True, by_name=False
        )
    except ValidationError as error:
        raise _Misfit(*((("data", *fault["loc"]), message_of(fault)) for fault in error.errors())) from None
    return event


def _envelope(sent: CloudEvent, event: Event, organization: str, origin: Origin) -> Envelope:
    traceparent = sent.traceparent if sent.traceparent and is_traceparent(sent.traceparent) else origin.traceparent
    metadata = {**sent.extensions, **origin.metadata, "cloudEventId": sent.id}
    if sent.time is not None:
        metadata["cloudEventTime"] = sent.time
    correlation_id = sent.correlationid or origin.correlation_id
    descent = Origin(correlation_id, sent.causationid, organization, traceparent, metadata)
    try:
        return envelop(
            event,
            descent,
            key=sent.subject,
            priority=sent.priority or NORMAL_PRIORITY,
            organization=organization,
            source=sent.source,
        )
    except CodecError as error:
        raise _Misfit((("data",), str(error))) from None


def _identity(sent: CloudEvent) -> str:
    """CloudEvents: source and id together are unique for each distinct event. Both are of any length."""
    return "ce:" + blake2b(f"{sent.source}\0{sent.id}".encode(), digest_size=16).hexdigest()

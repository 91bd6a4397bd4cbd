"""CloudEvents become events of ours: type and data are checked, the organization is the caller's, and source and id,
by which the same event is known again, become a dedupe key. docs/decisions/0019 says why."""

from hashlib import blake2b

from pydantic import JsonValue

from eventbus import Event, Origin
from eventbus.contract.codec import envelop
from eventbus.contract.dedupe import Once
from eventbus.contract.outgoing import Outgoing
from eventbus.errors import CodecError
from eventbus.event import NORMAL_PRIORITY, Envelope
from gateway.callers.auth import Caller
from gateway.events.cloudevents import CloudEvent, Parcel, refusal
from gateway.events.typed import Misfit, class_of, event_of, organization_field
from gateway.http.correlation import is_traceparent
from gateway.http.problems import Location

WINDOW = 24 * 3_600.0  # seconds in which the same event is known again, as long as an Idempotency-Key
MAX_ORGANIZATION = 128  # characters


def prepare(parcel: Parcel, caller: Caller, origin: Origin) -> list[Outgoing]:
    """What is to be published. Raises Problem(422), with the faults of all events, if one of them is not fit for it."""
    prepared: list[Outgoing] = []
    faults: list[tuple[Location, str]] = []
    for index, sent in enumerate(parcel.events):
        try:
            prepared.append(_prepared(sent, caller, origin))
        except Misfit as misfit:
            faults += [(parcel.place(index, location), message) for location, message in misfit.faults]
    if faults:
        raise refusal(faults)
    return prepared


def _prepared(sent: CloudEvent, caller: Caller, origin: Origin) -> Outgoing:
    cls = class_of(sent.type)
    fields = _fields(sent)
    organization = _organization(sent, fields, cls, caller)
    event = event_of(cls, fields)
    return Outgoing(_envelope(sent, event, organization, origin), once=Once(_identity(sent), WINDOW))


def _fields(sent: CloudEvent) -> dict[str, JsonValue]:
    if sent.data is None:
        return {}
    if not isinstance(sent.data, dict):
        raise Misfit((("data",), "must be an object"))
    return sent.data


def _organization(sent: CloudEvent, fields: dict[str, JsonValue], cls: type[Event], caller: Caller) -> str:
    """The organization of the event: the caller's, or with the role `system` the one that the event names. It is
    written into `fields` if events of this type have a field for it. Raises Misfit."""
    field = organization_field(cls)
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
        raise Misfit(*faults)
    if field is not None:
        fields[field] = chosen
    return chosen


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
        raise Misfit((("data",), str(error))) from None


def _identity(sent: CloudEvent) -> str:
    """A hash, since both may be long. CloudEvents: source and id together are unique for each distinct event."""
    return "ce:" + blake2b(f"{sent.source}\0{sent.id}".encode(), digest_size=16).hexdigest()

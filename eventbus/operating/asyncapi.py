"""AsyncAPI 3.0, generated from the types and groups that are imported: streams are channels, types are messages, and
what a group handles of a stream is an operation.

Messages are described as CloudEvents: the attributes of the envelope are their headers, the event is their payload.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic.json_schema import models_json_schema

from eventbus.contract.upcasting import opens_from
from eventbus.event import NORMAL_PRIORITY, SOURCE, Event, event_class, event_types, stream_of
from eventbus.group import Group

Document = dict[str, Any]

REFS = "#/components/schemas/{model}"
_TEXT: Document = {"type": "string"}
_UNKNOWN: Document = {"type": "object", "description": "Some of its fields have no JSON Schema."}
_ENVELOPE: Document = {
    "type": "object",
    "description": "The attributes of CloudEvents 1.0, and our own.",
    "required": ["id", "type"],
    "properties": {
        "id": {"type": "string", "format": "uuid", "description": "UUIDv7: the time of the event is in it."},
        "type": {"type": "string", "description": "The first segment is the stream."},
        "source": {"type": "string", "default": SOURCE},
        "subject": {"type": "string", "description": "What the event is about, such as the id of a lead."},
        "organization": _TEXT,
        "correlationId": {"type": "string", "description": "That of the chain's first event, unless it is given."},
        "causationId": {"type": "string", "description": "Of the event that caused this one."},
        "traceparent": {"type": "string", "description": "W3C Trace Context."},
        "priority": {"type": "integer", "minimum": 1, "maximum": 10, "default": NORMAL_PRIORITY},
        "metadata": {"type": "object", "additionalProperties": _TEXT},
        "version": {"type": "integer", "minimum": 1, "default": 1, "description": "Of the payload's schema."},
        "replayed": {"type": "boolean", "default": False, "description": "It was published before."},
    },
}


def document(groups: Iterable[Group], *, title: str, release: str, types: Sequence[str] | None = None) -> Document:
    """Describe these groups, and all event types that imported modules define, or only those given. Needs no server."""
    classes = {name: event_class(name) for name in sorted(event_types() if types is None else types)}
    payloads, schemas = _schemas(classes)
    streams: dict[str, list[str]] = {}
    for name in classes:
        streams.setdefault(stream_of(name), []).append(name)
    return {
        "asyncapi": "3.0.0",
        "info": {"title": title, "version": release},
        "defaultContentType": "application/json",
        "channels": {stream: _channel(stream, names) for stream, names in streams.items()},
        "operations": dict(_operation(group, stream, classes) for group in groups for stream in group.streams),
        "components": {
            "messages": {name: _message(cls, payloads[name]) for name, cls in classes.items()},
            "schemas": {"Envelope": _ENVELOPE, **schemas},
        },
    }


def _channel(stream: str, names: Sequence[str]) -> Document:
    return {
        "address": stream,
        "title": f"Stream {stream}",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
    }


def _message(cls: type[Event], payload: Document) -> Document:
    """In `headers`, the `$ref` stands in `allOf`: whatever stands beside a `$ref` would be ignored. `payload` is that
    of `version`; events of older versions are read from `opensFrom` on."""
    attributes = {"type": "object", "properties": {"type": {"const": cls.event_type}}}
    described: Document = {"name": cls.event_type, "title": cls.__name__}
    summary = (cls.__doc__ or "").strip().partition("\n")[0]
    if summary:
        described["summary"] = summary
    return described | {
        "contentType": "application/json",
        "headers": {"allOf": [{"$ref": "#/components/schemas/Envelope"}, attributes]},
        "correlationId": {"location": "$message.header#/correlationId"},
        "payload": payload,
        "x-eventbus": {"version": cls.event_version, "opensFrom": opens_from(cls)},
    }


def _operation(group: Group, stream: str, classes: Iterable[str]) -> tuple[str, Document]:
    handled = [name for name in group.handlers if stream_of(name) == stream and name in classes]
    policy = {
        "group": group.name,
        "attempts": group.retry.attempts,
        "concurrency": group.concurrency,
        "timeoutSeconds": group.timeout,
        "leaseSeconds": group.lease,
    }
    return f"{group.name}.{stream}", {
        "action": "receive",
        "channel": {"$ref": f"#/channels/{stream}"},
        "title": f"{group.name} handles {stream}",
        "messages": [{"$ref": f"#/channels/{stream}/messages/{name}"} for name in handled],
        "x-eventbus": policy,
    }


def _schemas(classes: Mapping[str, type[Event]]) -> tuple[dict[str, Document], Document]:
    """The payload of each type, as a publisher has to write it, and what payloads refer to."""
    clear = {name: cls for name, cls in classes.items() if _is_clear(cls)}
    made, told = models_json_schema([(cls, "validation") for cls in clear.values()], ref_template=REFS)
    payloads = {name: made[clear[name], "validation"] if name in clear else _UNKNOWN for name in classes}
    return payloads, _with_plain_discriminators(told.get("$defs", {}))


def _with_plain_discriminators(told: Any) -> Any:
    """Turn discriminators of OpenAPI into those of AsyncAPI. OpenAPI's is an object with a mapping; AsyncAPI's is the
    name of the property, and the mapping is in `oneOf`."""
    if isinstance(told, list):
        return [_with_plain_discriminators(each) for each in told]
    if not isinstance(told, dict):
        return told
    plain = {name: _with_plain_discriminators(each) for name, each in told.items()}
    discriminator = told.get("discriminator")
    if isinstance(discriminator, dict) and "mapping" in discriminator:  # else it is a field of that name
        plain["discriminator"] = discriminator["propertyName"]
    return plain


def _is_clear(cls: type[Event]) -> bool:
    """Whether JSON Schema can say what its fields are; a type of the program's own may be known to itself alone."""
    try:
        cls.model_json_schema()
    except PydanticInvalidForJsonSchema:
        return False
    return True

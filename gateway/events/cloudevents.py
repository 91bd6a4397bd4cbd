"""CloudEvents 1.0 over HTTP: what a request carries, in structured, batched or binary mode.

All three are turned into the JSON format, so that one model says what an event may hold. docs/events-api.md says what
becomes of each attribute, and docs/decisions/0019 why this is not the `cloudevents` SDK.
"""

import json
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import Enum
from typing import Annotated, Literal, NamedTuple, Self
from urllib.parse import unquote

import orjson
from aiohttp import web
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from gateway.http.bodies import check_json
from gateway.http.problems import Location, Problem, faults_of

MAX_BATCH = 1_000  # events
MAX_EXTENSIONS = 32
STRUCTURED, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"

_PREFIX = "ce-"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_EXTENSION = re.compile(r"[a-z0-9]{1,20}")
_JSON_TYPE = re.compile(r"(application|text)/([\w.!#$&^-]+\+)?json *(;.*)?", re.IGNORECASE)
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_URI_CHARACTERS = r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]*+"
_URI_REFERENCE = re.compile(rf"(?=.){_URI_CHARACTERS}(%[0-9A-Fa-f]{{2}}{_URI_CHARACTERS})*+")
_EVENT_ID = re.compile(r"0[0-9a-f]{7}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


def _no_control(text: str) -> str:
    if not text.isprintable() and _CONTROL.search(text):
        raise ValueError("must hold no control characters")
    return text


def _uri_reference(text: str) -> str:
    if not _URI_REFERENCE.fullmatch(text):
        raise ValueError("is no URI reference")
    return text


def _rfc3339(text: str) -> str:
    if not _RFC3339.fullmatch(text) or not _is_date(text):
        raise ValueError("is no time as RFC 3339 has it, such as 2026-01-31T12:00:00Z")
    return text


def _is_date(text: str) -> bool:
    try:
        datetime.fromisoformat(text.upper())
    except ValueError:
        return False
    return True


def _json_type(text: str) -> str:
    if not _JSON_TYPE.fullmatch(text):
        raise ValueError("data must be JSON")
    return text


def is_event_id(text: str) -> bool:
    return _EVENT_ID.fullmatch(text) is not None


def _event_id(text: str) -> str:
    if not is_event_id(text):
        raise ValueError("is no id of an event here: those are UUIDs of version 7")
    return text


def _number(value: object) -> object:
    """The number that a text stands for: headers have no numbers."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdecimal() else value


Line = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_no_control)]
Priority = Annotated[int, Field(ge=1, le=10), BeforeValidator(_number)]
ExtensionValue = bool | int | Annotated[str, Field(max_length=1024), AfterValidator(_no_control)] | None


class CloudEvent(BaseModel):
    """An event as it was sent. Of the optional attributes, null is the same as none."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)
    __pydantic_extra__: dict[str, ExtensionValue] = Field(init=False)

    specversion: Literal["1.0"]
    id: Line
    source: Annotated[Line, AfterValidator(_uri_reference)]
    type: Line
    subject: Line | None = None
    time: Annotated[str, AfterValidator(_rfc3339)] | None = None
    datacontenttype: Annotated[str, AfterValidator(_json_type)] | None = None
    dataschema: Line | None = None
    organizationid: Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_no_control)] | None = None
    correlationid: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/+=@-]{0,127}$")] | None = None
    causationid: Annotated[str, AfterValidator(_event_id)] | None = None
    traceparent: Line | None = None
    priority: Priority | None = None
    data: JsonValue = None

    @model_validator(mode="after")
    def _check_extensions(self) -> Self:
        names = self.__pydantic_extra__
        if not names:
            return self
        if "data_base64" in names:
            raise ValueError("data_base64 is not taken: data must be JSON, in `data`")
        if wrong := sorted(name for name in names if not _EXTENSION.fullmatch(name)):
            told = ", ".join(name[:64] for name in wrong[:5])
            raise ValueError(f"attributes are named by 1 to 20 of a-z and 0-9, which does not fit: {told}")
        if len(names) > MAX_EXTENSIONS:
            raise ValueError(f"{len(names)} extension attributes, and at most {MAX_EXTENSIONS} are taken")
        return self

    @property
    def extensions(self) -> dict[str, str]:
        """The extension attributes that mean nothing to us, as text."""
        if not self.__pydantic_extra__:
            return {}
        found = self.__pydantic_extra__.items()
        return {name: v if isinstance(v, str) else json.dumps(v) for name, v in found if v is not None}


class Mode(Enum):
    BINARY = "binary"
    STRUCTURED = "structured"
    BATCH = "batch"


class Parcel(NamedTuple):
    """The events of one request. `content`: the whole request as JSON, with the attributes that are in headers."""

    mode: Mode
    events: Sequence[CloudEvent]
    content: bytes

    def place(self, index: int, location: Location) -> Location:
        """Where in the request an attribute of an event stands."""
        return _place(self.mode, (index, *location) if self.mode is Mode.BATCH else location)


_EVENTS = TypeAdapter(Annotated[list[CloudEvent], Field(max_length=MAX_BATCH)])


def mode_of(request: web.Request) -> Mode:
    """By the content type. Raises Problem(415) for any other."""
    content_type = request.content_type
    if content_type == STRUCTURED:
        return Mode.STRUCTURED
    if content_type == BATCH:
        return Mode.BATCH
    if _JSON_TYPE.fullmatch(content_type) and not content_type.startswith("application/cloudevents"):
        return Mode.BINARY
    raise Problem(415, f"send {STRUCTURED}, {BATCH}, or application/json with the attributes in ce- headers")


def parse(request: web.Request, mode: Mode, raw: bytes) -> Parcel:
    """Raises Problem(400) for what is no JSON, Problem(422) for what is no CloudEvent."""
    if raw or mode is not Mode.BINARY:
        check_json(raw)
    content = raw if mode is not Mode.BINARY else _in_one(request, raw)
    try:
        if mode is Mode.BATCH:
            return Parcel(mode, _EVENTS.validate_json(content), content)
        return Parcel(mode, [CloudEvent.__pydantic_validator__.validate_json(content)], content)
    except ValidationError as error:
        raise refusal((_place(mode, place), message) for place, message in faults_of(error)) from None


def _in_one(request: web.Request, raw: bytes) -> bytes:
    """A request in binary mode, as one object of the JSON format. `raw` is JSON, or empty."""
    attributes = orjson.dumps(_attributes(request))
    return attributes[:-1] + (b"," if len(attributes) > 2 else b"") + b'"data":' + (raw or b"null") + b"}"


def _attributes(request: web.Request) -> dict[str, str]:
    attributes: dict[str, str] = {}
    faults: list[tuple[Location, str]] = []
    for name, value in request.headers.items():
        header = name.lower()
        if not header.startswith(_PREFIX):
            continue
        attribute = header.removeprefix(_PREFIX)
        if attribute in attributes:
            faults.append((("header", header), "is there twice"))
        elif attribute in {"data", "datacontenttype"}:
            faults.append((("header", header), "the data is the body, and its type the Content-Type"))
        try:
            attributes[attribute] = _decoded(value)
        except ValueError:
            faults.append((("header", header), "is no percent-encoded UTF-8"))
    if faults:
        raise refusal(faults)
    return attributes


def _decoded(value: str) -> str:
    """HTTP protocol binding, 3.1.3.2: quoted strings are unquoted, then percent-encoding is undone."""
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = re.sub(r"\\(.)", r"\1", value[1:-1])
    text = unquote(value, errors="strict") if "%" in value else value
    text.encode()  # raises for lone surrogates: aiohttp makes them of bytes that are no UTF-8
    return text


def refusal(faults: Iterable[tuple[Location, str]]) -> Problem:
    """422."""
    errors = [{"loc": list(location), "msg": message} for location, message in faults]
    return Problem(422, "this is no CloudEvent that can be published", errors=errors)


def _place(mode: Mode, location: Location) -> Location:
    if mode is not Mode.BINARY:
        return ("body", *location)
    if location[:1] == ("data",):
        return ("body", *location[1:])
    return ("header", *(f"{_PREFIX}{part}" for part in location[:1]))

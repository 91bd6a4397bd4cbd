"""Messages on the wire."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import (
    AfterValidator,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_serializer,
    model_validator,
)

from handlers.common.fields import Answer, Line, Phone, Query, Request, many_lines, one_line
from handlers.common.paging import DEFAULT_LIMIT, Limit, PositionCursor
from handlers.message.events import Channel

MAX_MESSAGE = 32_000  # characters


def _callback_url(text: str) -> str:
    """Checks the URL's shape. handlers.delivery.guard checks where it leads."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("is no URL") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0 or any(c.isspace() for c in text):
        raise ValueError("must be a URL of http or https")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must hold no user and no password")
    return text


# The id that the client gives: it goes into paths, headers and keys.
MessageId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")]
Content = Annotated[str, Field(min_length=1, max_length=MAX_MESSAGE, pattern=r"\S"), AfterValidator(many_lines)]
CallbackUrl = Annotated[str, Field(max_length=2048), AfterValidator(one_line), AfterValidator(_callback_url)]


class ToWeb(Request):
    websocket_id: Line | None = None


class ToWhatsApp(Request):
    to: Phone


class ToTelegram(Request):
    chat_id: int | Line


class ToApi(Request):
    callback_url: CallbackUrl


_PLACES: dict[Channel, type[Request]] = {
    Channel.WEB: ToWeb,
    Channel.WHATSAPP: ToWhatsApp,
    Channel.TELEGRAM: ToTelegram,
    Channel.API: ToApi,
}
_PLACE_SCHEMA = {"anyOf": [place.model_json_schema() for place in _PLACES.values()]}


class NewMessage(Request):
    """`channelMetadata` is where the answer goes, and depends on the channel: web `{websocketId?}`, whatsapp `{to}`,
    telegram `{chatId}`, api `{callbackUrl}`. With an `id`, the same message sent again is the same job."""

    agent_id: UUID
    message: Content
    conversation_id: UUID | None = None
    channel: Channel
    channel_metadata: Annotated[dict[str, JsonValue], WithJsonSchema(_PLACE_SCHEMA)] = Field(default={})
    priority: Annotated[int, Field(ge=1, le=10)] = 5
    id: MessageId | None = None

    @field_validator("channel_metadata")
    @classmethod
    def _check_given(cls, given: dict[str, JsonValue], info: ValidationInfo) -> dict[str, JsonValue]:
        """As the channel wants it."""
        if "channel" not in info.data:  # that is reported as a fault of its own
            return given
        return _check_place(info.data["channel"], given)

    @model_validator(mode="after")
    def _check_there(self) -> Self:
        """A default is not validated, and of one that is pydantic would name the field by another name."""
        if self.channel is not Channel.WEB and "channel_metadata" not in self.model_fields_set:
            try:
                _check_place(self.channel, {})
            except ValueError as error:
                raise ValueError(f"channelMetadata is needed: {error}") from None
        return self


def _check_place(channel: Channel, given: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """The metadata as it is kept. Raises ValueError if it does not fit the channel."""
    try:
        place = _PLACES[channel].model_validate(given)
    except ValidationError as error:
        raise ValueError("; ".join(_told(fault) for fault in error.errors())) from None
    return place.model_dump(mode="json", by_alias=True, exclude_none=True)


def _told(fault: Any) -> str:
    return f"{fault['loc'][0]}: {fault['msg'].removeprefix('Value error, ')}"


class Job(Answer):
    """`estimatedTime`: seconds until there is usually an answer."""

    message_id: str
    conversation_id: Annotated[str, WithJsonSchema({"type": "string", "format": "uuid"})]
    job_id: str
    status: Literal["processing"] = "processing"
    estimated_time: int


class Accepted(Answer):
    success: Literal[True] = True
    message: str
    data: Job


class Said(Answer):
    """One entry of a conversation's history. `messageId` is the same for a message and its response."""

    id: UUID
    message_id: str
    role: Literal["user", "assistant"]
    message: str
    channel: Channel
    agent_id: UUID | None
    metadata: dict[str, Any] | None
    created_at: datetime


class HistoryQuery(Query):
    limit: Limit = DEFAULT_LIMIT
    cursor: PositionCursor | None = None


State = Literal["waiting", "active", "completed", "failed", "delayed"]


class Standing(Answer):
    """How a job stands. `finishedOn`: ms since the epoch. What does not apply is left out."""

    message_id: str
    state: State
    progress: Annotated[int, Field(ge=0, le=100)]
    attempts: int
    error: str | None = None
    finished_on: int | None = None

    @model_serializer(mode="wrap")
    def _leave_out(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in serialize(self).items() if value is not None}


class Status(Answer):
    success: Literal[True] = True
    data: Standing


class QueueStats(Answer):
    waiting: int = 0
    active: int = 0
    completed: int = 0
    failed: int = 0
    delayed: int = 0
    paused: int = 0
    total: int = 0


class Stats(Answer):
    success: Literal[True] = True
    data: QueueStats


class QueueHealth(Answer):
    healthy: bool
    stats: QueueStats


class Health(Answer):
    success: bool
    data: QueueHealth

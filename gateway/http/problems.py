"""Whatever goes wrong is answered as RFC 9457 says: `application/problem+json`.

A problem tells the client what he can change. It says nothing of what he cannot change: that is in our log, under the
correlation id that the answer carries.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus

import orjson
from aiohttp import web
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from eventbus import Conflict, Full, NoSuchSession, SessionFull, SessionRefused, Unavailable
from eventbus.process.safe_logging import get_logger
from gateway.http.correlation import correlation_id
from handlers.common.errors import Invalid, NotFound, Refused

CONTENT_TYPE = "application/problem+json"
MAX_ERRORS = 100  # told in one answer
LONGEST_NAME = 128  # characters of one that is told
TOO_MANY = 2_000  # errors that are counted, and not told one by one: to make them out takes longer than all the rest
RETRY_AFTER = 2  # seconds; a server that restarts is back about then

Location = tuple[int | str, ...]

log = get_logger("gateway")


class Problem(Exception):
    """Ends a request. `errors`: [{"loc": ["body", "email"], "msg": "…"}], for 422."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Sequence[Mapping[str, object]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = list(errors[:MAX_ERRORS])
        self.omitted = len(errors) - len(self.errors)
        self.headers = dict(headers or {})

    def response(self, request: web.Request) -> web.Response:
        content: dict[str, object] = {
            "type": "about:blank",  # RFC 9457, 4.2.1: no more is to be known than the status says
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "instance": request.path,
            "correlationId": correlation_id(request),
        }
        if self.errors:
            content["errors"] = self.errors
        if self.omitted:
            content["errorsOmitted"] = self.omitted
        return web.Response(
            status=self.status, body=orjson.dumps(content), content_type=CONTENT_TYPE, headers=self.headers
        )


def invalid(where: str, error: ValidationError) -> Problem:
    """422 for a body or a query that is not as it must be. Values are not repeated: they may be secrets."""
    errors = [{"loc": [where, *place], "msg": message} for place, message in faults_of(error)]
    return Problem(422, f"the {where} is not valid", errors=errors)


def faults_of(error: ValidationError) -> list[tuple[Location, str]]:
    """Where and what, without values; names that we do not know may be as long as a body, and are cut. Of more than
    TOO_MANY, one for all."""
    if error.error_count() > TOO_MANY:
        return [((), f"{error.error_count():,} values are not valid")]
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    return [
        (tuple(part if isinstance(part, int) else part[:LONGEST_NAME] for part in fault["loc"]), _message_of(fault))
        for fault in faults
    ]


def _message_of(fault: ErrorDetails) -> str:
    return fault["msg"].removeprefix("Value error, ")


def answer(error: Exception, request: web.Request) -> web.Response:
    """The response to an exception, whichever it is."""
    return _explain(error, request).response(request)


def _explain(error: Exception, request: web.Request) -> Problem:
    match error:
        case Problem():
            return error
        case Refused() | SessionRefused():
            return _of_service(error)
        case Unavailable() | Full() | TimeoutError():
            log.warning("request refused", path=request.path, reason=str(error) or "the deadline has passed")
            return Problem(503, "a server is away, try again", headers={"Retry-After": str(RETRY_AFTER)})
        case Conflict():
            log.warning("request failed: another one changed the same rows", path=request.path, reason=str(error))
            return Problem(503, "another request was in the way, try again", headers={"Retry-After": "1"})
        case web.HTTPException() if error.status >= 400:
            return _of_aiohttp(error)
        case _:
            log.error("request failed", path=request.path, exc_info=error)
            return Problem(500, "an unexpected error; its traceback is in the log under this correlation id")


def _of_service(error: Refused | SessionRefused) -> Problem:
    match error:
        case NotFound() | NoSuchSession():
            return Problem(404, str(error))
        case SessionFull():
            return Problem(413, str(error))
        case Invalid():
            loc = ["body", *([error.field] if error.field else [])]
            return Problem(422, "the body is not valid", errors=[{"loc": loc, "msg": str(error)}])
        case _:
            return Problem(409, str(error))


def _of_aiohttp(error: web.HTTPException) -> Problem:
    """What aiohttp's router and body reader raise."""
    match error:
        case web.HTTPMethodNotAllowed():
            allow = ", ".join(sorted(error.allowed_methods))
            return Problem(405, f"this path takes {allow}", headers={"Allow": allow})
        case web.HTTPNotFound():
            return Problem(404, "there is nothing at this path")
        case web.HTTPRequestEntityTooLarge():
            return Problem(413, "the body is too large")
        case _:
            return Problem(error.status, error.reason)

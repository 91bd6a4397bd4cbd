"""Bodies of requests: read to their end, and JSON or not."""

import re

import orjson
from aiohttp import web

from gateway.http.problems import Problem

MAX_PARTS = 50_000
IDENTITY = "identity"

_TEXT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)  # also without its end: then it is no JSON


async def read(request: web.Request) -> bytes:
    """The body. Raises Problem(415) for one that is compressed, Problem(400), or aiohttp's own 413 for one that is too
    large."""
    coding = request.headers.get("Content-Encoding", IDENTITY)
    if coding.strip().lower() != IDENTITY:
        raise Problem(
            415, "send the body as it is: no Content-Encoding is taken", headers={"Accept-Encoding": IDENTITY}
        )
    try:
        return await request.read()
    except (web.RequestPayloadError, ConnectionError):
        raise Problem(400, "the body cannot be read to its end") from None


def is_json(content_type: str) -> bool:
    return content_type == "application/json" or (
        content_type.startswith("application/") and content_type.endswith("+json")
    )


def check_json(raw: bytes, max_parts: int = MAX_PARTS) -> None:
    """orjson refuses what pydantic lets pass: NaN and lone surrogates. Both bound how deep a body may be nested.
    `max_parts`: how many values may stand in lists and objects; to look at half a million holds up everybody.

    Raises Problem(400) for what is no JSON, Problem(422) for JSON that is nested too deep or has too many parts."""
    if raw.count(b",") >= max_parts and _TEXT.sub(b"", raw).count(b",") >= max_parts:
        raise Problem(
            422, "the body is not valid", errors=[{"loc": ["body"], "msg": f"has more than {max_parts:,} parts"}]
        )
    try:
        orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if "depth" in error.msg:
            raise Problem(
                422, "the body is not valid", errors=[{"loc": ["body"], "msg": "is nested too deep"}]
            ) from None
        raise Problem(400, f"the body is no JSON: {error}") from None

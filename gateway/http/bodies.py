"""Bodies of requests: read to their end, and JSON or not."""

import orjson
from aiohttp import web

from gateway.http.problems import Problem


async def read(request: web.Request) -> bytes:
    """The body. Raises Problem(400), or aiohttp's own 413 for one that is too large."""
    try:
        return await request.read()
    except (web.RequestPayloadError, ConnectionError):
        raise Problem(400, "the body cannot be read to its end, or not decoded") from None


def is_json(content_type: str) -> bool:
    return content_type == "application/json" or (
        content_type.startswith("application/") and content_type.endswith("+json")
    )


def check_json(raw: bytes) -> None:
    """orjson refuses what pydantic lets pass: NaN and lone surrogates. Both bound how deep a body may be nested.

    Raises Problem(400) for what is no JSON, Problem(422) for JSON that is nested too deep."""
    try:
        orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if "depth" in error.msg:
            raise Problem(
                422, "the body is not valid", errors=[{"loc": ["body"], "msg": "is nested too deep"}]
            ) from None
        raise Problem(400, f"the body is no JSON: {error}") from None

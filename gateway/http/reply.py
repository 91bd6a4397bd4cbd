"""What an endpoint answers, before it becomes a response: plain enough to be stored and given again."""

from collections.abc import Mapping
from typing import NamedTuple

from aiohttp import web


class Reply(NamedTuple):
    """`body` is JSON, or empty."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def response(self) -> web.Response:
        content_type = "application/json" if self.body else None
        return web.Response(status=self.status, headers=self.headers, body=self.body, content_type=content_type)

"""Errors that aiohttp's server reports outside of our middlewares go to our log, without what the client sent.

aiohttp's error quotes a request that cannot be parsed, query string included: tokens would reach the log.
"""

import logging

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from eventbus.process.safe_logging import get_logger

log = get_logger("gateway.http")


class _Complaints(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError | web.RequestPayloadError):
            log.info("invalid HTTP request", reason=type(error).__name__)
        else:
            log.error("server error", detail=record.getMessage(), exc_info=error)


def server_logger() -> logging.Logger:
    """For web.AppRunner(…, logger=…). It has no parent: nothing is passed on to other handlers."""
    logger = logging.Logger("gateway.http", logging.INFO)  # noqa: LOG001 - not in the tree of loggers, on purpose
    logger.addHandler(_Complaints())
    return logger


def keep_handshakes_out_of_logs() -> None:
    """aiohttp warns of subprotocols that we do not know, and quotes all that the client has sent. Some clients send
    their token as one, since a page can set no other header."""
    logging.getLogger("aiohttp.websocket").disabled = True

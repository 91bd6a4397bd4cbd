"""What aiohttp's server has to say outside of our middlewares, in our log, and without what the client sent.

A request that cannot even be parsed is quoted in the error, query string included: tokens would reach the log.
"""

import logging

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from eventbus.process.telling import get_logger

log = get_logger("gateway.http")


class _Complaints(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError | web.RequestPayloadError):
            log.info("not HTTP", reason=type(error).__name__)
        else:
            log.error("server error", detail=record.getMessage(), exc_info=error)


def server_logger() -> logging.Logger:
    """For web.AppRunner(…, logger=…). It is nobody's child: nothing is passed on to other handlers."""
    logger = logging.Logger("gateway.http", logging.INFO)  # noqa: LOG001 - not in the tree of loggers, on purpose
    logger.addHandler(_Complaints())
    return logger


def keep_handshakes_out_of_logs() -> None:
    """aiohttp's warning of a subprotocol that we do not know quotes all of them, and some clients send their token so:
    a page can set no other header."""
    logging.getLogger("aiohttp.websocket").disabled = True

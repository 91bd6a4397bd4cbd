"""How programs of this project log: structlog to stderr, for people or as JSON lines."""

import logging
import sys
from typing import Literal

import structlog


def configure(log_format: Literal["console", "json"], level: int = logging.INFO) -> None:
    """Set up logging for a whole process; libraries that import the bus are left to do it their own way."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if log_format == "json":
        # JSON escapes control characters: one event stays one line, whatever a field holds.
        end: list[structlog.typing.Processor] = [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(ensure_ascii=True),
        ]
    else:
        # The default shows the locals of every frame: tokens, passwords, payloads.
        plain = structlog.dev.plain_traceback
        end = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    structlog.configure(
        processors=[*shared, *end],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )

"""Asking several servers the same, where the answers of most are enough."""

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from redis.asyncio import Redis

from eventbus.redis.address import Address
from eventbus.redis.clients import client_of

ANSWER_TIMEOUT = 1.0  # seconds for each answer, and for the connection
SHORTLY = 0.2  # seconds for which the others are waited for, once most have answered

T = TypeVar("T")


async def ask(questions: Sequence[Coroutine[Any, Any, T]]) -> tuple[list[T], list[BaseException]]:
    """What has been answered, and what went wrong, when all are done, or SHORTLY after most have answered."""
    asked = [asyncio.create_task(question) for question in questions]
    try:
        left: float | None = None
        while left is None and not all(task.done() for task in asked):
            if 2 * len(_answers(asked)) > len(asked):
                left = SHORTLY
            waiting = [task for task in asked if not task.done()]
            until = asyncio.FIRST_COMPLETED if left is None else asyncio.ALL_COMPLETED
            await asyncio.wait(waiting, timeout=left, return_when=until)
        return _answers(asked), _errors(asked)
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)  # they close connections, and the loop may be about to end


def briefly(address: Address) -> AbstractAsyncContextManager[Redis]:
    """A connection for a question. What is asked raises RedisError or OSError; nobody is told in the log."""
    return client_of(address.url, retries=0, socket_timeout=ANSWER_TIMEOUT, socket_connect_timeout=ANSWER_TIMEOUT)


def _answers(asked: Sequence[asyncio.Task[T]]) -> list[T]:
    return [task.result() for task in asked if _over(task) and task.exception() is None]


def _errors(asked: Sequence[asyncio.Task[T]]) -> list[BaseException]:
    return [error for task in asked if _over(task) and (error := task.exception()) is not None]


def _over(task: asyncio.Task[T]) -> bool:
    return task.done() and not task.cancelled()

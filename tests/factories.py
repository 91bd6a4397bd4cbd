"""Task factories that a program may have set on its loop: those that know no context, and those whose tasks begin at
once."""

import asyncio
from asyncio import tasks
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

Factory = Callable[..., "asyncio.Future[Any]"]


def of_two_arguments(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
    return asyncio.Task(coroutine, loop=loop)


class _Catching:
    """A loop that a task asks for its first step, which is not given to it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.steps: list[Callable[[], object]] = []

    def call_soon(self, step: Callable[[], object], *, context: Context) -> None:
        self.steps.append(step)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


class _EagerTask(tasks._PyTask):  # type: ignore[name-defined, misc]  # what Python 3.12 has, for 3.11
    def __init__(self, coroutine: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop, **options: Any) -> None:
        catching = _Catching(loop)
        super().__init__(coroutine, loop=catching, **options)
        self._loop = loop
        caller = asyncio.current_task(loop)
        if caller is not None:
            tasks._leave_task(loop, caller)
        try:
            self._context.run(*catching.steps)
        finally:
            if caller is not None:
                tasks._enter_task(loop, caller)


def _begin_at_once(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any) -> Any:
    return _EagerTask(coroutine, loop, **options)


eager: Factory = getattr(asyncio, "eager_task_factory", _begin_at_once)  # Python 3.12 has one


def eager_of_two_arguments(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any]) -> Any:
    return eager(loop, coroutine)


ALL: dict[str, Factory] = {
    "of two arguments": of_two_arguments,
    "eager": eager,
    "eager, of two arguments": eager_of_two_arguments,
}

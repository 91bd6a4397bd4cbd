"""The command itself: set the stage, tell the story, stay or leave."""

import asyncio
from typing import Annotated

import typer

from eventbus.process import logs, loop
from gateway.demo.board import Board
from gateway.demo.stage import Stage, stage
from gateway.demo.story import tell
from gateway.settings import GatewaySettings

WARNING = 30


def demo(
    once: Annotated[bool, typer.Option("--once", help="End when every step was seen; 1 if one was not.")] = False,
    port: Annotated[
        int | None, typer.Option(help="Port of the gateway; else EVENTBUS_PORT, or any that is free.")
    ] = None,
) -> None:
    """Start everything, drive one lead through, and show each step as it happens."""
    settings = GatewaySettings.read(port=port)
    # Errors are not logged: those that are part of the story would only be in its way.
    logs.configure(settings.log_format, level=WARNING + 20)
    missing = loop.run(_demo(settings, once))
    if missing:
        raise typer.Exit(1)


async def _demo(settings: GatewaySettings, once: bool) -> list[str]:
    """The steps that were not seen."""
    board = Board()
    async with stage(settings, board) as built:
        await tell(built, board)
        board.summary()
        if not once and not built.worker_task.done():
            _farewell(built, board)
            await asyncio.wait([built.worker_task])  # until a signal: the worker has installed the handlers
    return board.missing


def _farewell(built: Stage, board: Board) -> None:
    board.say(f"""
Still running, until Ctrl-C:
  leads          {built.url}/api/leads
  health         {built.url}/readyz
  notifications  {built.url.replace("http", "ws", 1)}/ws/chat?token=…
  token          {built.token}

In another terminal:
  . {built.environment}
  curl -H "Authorization: Bearer $TOKEN" {built.url}/api/leads
  eventbus dead list
""")

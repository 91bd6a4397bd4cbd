"""Everything that the story needs, in one process: servers, migrations, gateway, worker."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from consumers.bus import open_bus
from eventbus import Backoff, ConfigurationError, Context, Group, RetryPolicy, Worker
from eventbus.checks.addresses import show_url
from eventbus.embedded import EmbeddedPostgres, EmbeddedRedis, EmbeddedServer
from eventbus.postgres import Database, apply, installed
from gateway.app import create_app
from gateway.callers.auth import make_token
from gateway.demo.board import Board
from gateway.demo.outside import Outside, outside
from gateway.serve import make_runner
from gateway.settings import GatewaySettings
from handlers import GROUPS
from handlers.lead.events import EnrichLead, LeadCreated
from handlers.partners.services import SERVICES, Services

ORGANIZATION, USER = "demo", "ada"
RETRY_AFTER = 1.0  # seconds
RATE_LIMIT = "6000/1m"  # the story's one user asks several times a second whether a step is done


@dataclass
class Witness:
    """A group of the demo's own. It fails once on purpose, and notes what reaches it, and when."""

    attempts: asyncio.Queue[tuple[str, int]] = field(default_factory=asyncio.Queue)
    enrichments: asyncio.Queue[tuple[str, float]] = field(default_factory=asyncio.Queue)

    def group(self) -> Group:
        group = Group("demo-witness", retry=RetryPolicy(attempts=3, backoff=Backoff.fixed(RETRY_AFTER)))

        @group.on(LeadCreated)
        async def stumble(event: LeadCreated, ctx: Context) -> None:
            self.attempts.put_nowait((event.lead_id, ctx.attempt))
            if ctx.attempt == 1:
                raise RuntimeError("on purpose: the first attempt of the demo always fails")

        @group.on(EnrichLead)
        async def arrive(event: EnrichLead, ctx: Context) -> None:
            made = ctx.envelope.time.timestamp()
            self.enrichments.put_nowait((event.lead_id, made))

        return group


@dataclass
class Stage:
    """What the story plays on."""

    url: str
    token: str
    environment: Path
    witness: Witness
    outside: Outside
    worker_task: "asyncio.Task[None]"


@asynccontextmanager
async def stage(settings: GatewaySettings, board: Board) -> AsyncIterator[Stage]:
    """Up in this order, down in the reverse. Raises ConfigurationError or Unavailable if something cannot come up."""
    async with AsyncExitStack() as stack:
        settings = await _servers(settings, stack, board)
        await _migrate(settings, board)
        bus = await stack.enter_async_context(open_bus(settings))
        around, services = await stack.enter_async_context(outside(Services()))
        bus.resources.provide(SERVICES, services)
        board.seen("outside", _stand_ins(Services(), services))
        runner = make_runner(create_app(bus, settings), shutdown_timeout=2.0)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        url = await _listen(runner, settings)
        board.seen("gateway", url)
        witness = Witness()
        worker = Worker(bus, [*GROUPS, witness.group()])
        task = asyncio.create_task(worker.run())
        stack.push_async_callback(_drain, worker, task)
        board.seen("worker", ", ".join(group.name for group in GROUPS))
        token = make_token(
            settings.require_secret(), user=USER, organization=ORGANIZATION, roles=frozenset({"user", "admin"})
        )
        yield Stage(url, token, _write_environment(settings, url, token), witness, around, task)


async def _servers(settings: GatewaySettings, stack: AsyncExitStack, board: Board) -> GatewaySettings:
    """The settings, with an embedded server for each that is not configured, and a secret for tokens likewise."""
    redis, postgres = settings.find_redis_url(), settings.database_url
    found = {
        "redis_url": redis or await _embedded(EmbeddedRedis(settings.data_dir / "redis"), stack),
        "database_url": postgres or await _embedded(EmbeddedPostgres(settings.data_dir / "postgres"), stack),
        "jwt_secret": settings.jwt_secret or secrets.token_hex(32),
    }
    for step, configured in (("redis", redis), ("postgres", postgres)):
        url = found["redis_url" if step == "redis" else "database_url"]
        board.seen(step, f"{'configured' if configured else 'embedded'}: {show_url(url)}")
    if "rate_limit" not in settings.model_fields_set:
        found["rate_limit"] = RATE_LIMIT
    return settings.model_copy(update={**found, "spool_path": _spool_path(settings)})


def _stand_ins(configured: Services, used: Services) -> str:
    """The services that stand-ins take the place of, by name."""
    names = {"n8n_base_url": "workflow", "smtp_url": "mail", "enrichment_url": "enrichment", "crm_sync_url": "CRM"}
    stand_ins = [told for name, told in names.items() if getattr(configured, name) != getattr(used, name)]
    return ", ".join(stand_ins) or "all configured"


def _spool_path(settings: GatewaySettings) -> Path | None:
    """The demo's own, if none is configured: a gateway in the same folder has a spool too, for another Redis."""
    if "spool_path" in settings.model_fields_set:
        return settings.spool_path
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    return settings.data_dir / "contingency-log.jsonl"


async def _embedded(server: EmbeddedServer, stack: AsyncExitStack) -> str:
    await asyncio.to_thread(server.start)
    stack.push_async_callback(asyncio.to_thread, server.stop)
    return server.url


async def _migrate(settings: GatewaySettings, board: Board) -> None:
    database = Database(settings.require_database_url(), command_timeout=None)
    await database.connect()
    try:
        await database.provide_schema()
        async with database.connection() as connection:
            found = installed()
            applied = await apply(connection, found)
    finally:
        await database.close()
    board.seen("migrations", f"{len(applied)} applied, {len(found) - len(applied)} there before")


async def _listen(runner: web.AppRunner, settings: GatewaySettings) -> str:
    """The configured port; if it is taken and nobody asked for it by name, any other."""
    asked = "port" in settings.model_fields_set
    try:
        await web.TCPSite(runner, settings.host, settings.port).start()
    except OSError as error:
        if asked:
            raise ConfigurationError(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}") from None
        await web.TCPSite(runner, settings.host, 0).start()
    host, port = runner.addresses[0][:2]
    return f"http://{host}:{port}"


async def _drain(worker: Worker, task: "asyncio.Task[None]") -> None:
    await worker.stop()
    await task


def _write_environment(settings: GatewaySettings, url: str, token: str) -> Path:
    """For a second terminal: secrets go into a file that only its owner can read, not on the screen."""
    path = settings.data_dir / "env"
    path.parent.mkdir(parents=True, exist_ok=True)
    values = {
        "EVENTBUS_REDIS_URL": settings.require_redis_url(),
        "EVENTBUS_DATABASE_URL": settings.require_database_url(),
        "EVENTBUS_JWT_SECRET": settings.require_secret(),
        "EVENTBUS_URL": url,
        "TOKEN": token,
    }
    with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.writelines(f"export {name}='{value}'\n" for name, value in values.items())
    return path
